"""Model-based methods."""
