"""Every setting, typed once: what a person writes, and what each stage depends on."""
