"""Computations and exports of the page, without Bokeh: any thread may call them.

`sources` opens rasters, `cache` keeps their vectors, `analysis` compares them, `explorer` joins
these for all pages, and `calls` describes what an export calls.
"""
