"""Writes experiment files for the user's own folders of images, and suggests what to label next."""
