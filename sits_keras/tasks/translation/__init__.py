"""Images of one place at the date of another (section 4.2, Table 1)."""
