"""Annotation files of programs for labeling, as shapes, whatever program wrote them."""
