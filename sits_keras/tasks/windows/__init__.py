"""Features of the windows that slide over an image."""
