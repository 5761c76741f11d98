"""How any stage runs: whole files, resuming, signals, devices, locks of GPUs."""
