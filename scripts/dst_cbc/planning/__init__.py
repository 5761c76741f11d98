"""From an experiment file to planned models, what an edit replaces, and what it costs."""
