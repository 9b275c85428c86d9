"""Hybrids of the paradigms."""
