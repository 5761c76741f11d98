"""Networks, their initial weights, and the model file."""
