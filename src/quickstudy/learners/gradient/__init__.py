"""Gradient-based methods."""
