"""Training: a loop that is independent of the method, and objectives that define the losses."""
