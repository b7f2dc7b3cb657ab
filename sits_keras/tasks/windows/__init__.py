"""Encode the windows that slide over an image.

`sliding` iterates over windows and sums over those that cover a pixel; `encoding` applies an
encoder to a block of windows.
"""
