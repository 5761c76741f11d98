"""Algorithm 1 of the paper: predictions, thresholds, pseudo labels."""
