"""Classifiers on the shared representation (section 4.4, Table 3)."""
