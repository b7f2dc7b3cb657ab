"""Maps of change between two dates (section 4.6)."""
