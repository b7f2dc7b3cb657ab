"""Finding a place again at another date (section 4.3, Table 2)."""
