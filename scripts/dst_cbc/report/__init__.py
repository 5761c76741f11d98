"""Outputs for people: tables, figures, contact sheets, gallery pages, the model card."""
