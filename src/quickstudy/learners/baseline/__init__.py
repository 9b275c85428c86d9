"""Plain baselines, as ordinary learners: what meta-learning has to beat."""
