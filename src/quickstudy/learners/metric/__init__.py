"""Metric-based methods."""
