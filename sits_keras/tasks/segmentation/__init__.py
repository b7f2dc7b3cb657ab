"""Segments: clusters of windows' features (section 4.5)."""
