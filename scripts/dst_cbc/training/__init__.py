"""Training: the loop, which knows no method, and the objectives that say what a step minimises."""
