"""Typed classes for all settings: those in experiment files, and those that each stage gets."""
