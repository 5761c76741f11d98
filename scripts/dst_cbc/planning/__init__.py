"""From an experiment to its planned models, their cost, and the trainings that an edit replaces."""
