"""From a person's folders to an experiment file, and to the next one."""
