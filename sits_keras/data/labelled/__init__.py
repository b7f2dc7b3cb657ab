"""Labelled chips: EuroSAT and folders like it, and splits of them."""
