"""Shared by all stages: atomic file writes, resuming, signals, devices, GPU locks."""
