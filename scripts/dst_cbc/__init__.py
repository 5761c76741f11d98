"""DST-CBC: dynamic self-training with a class-balanced curriculum (arXiv 2004.08514)."""
