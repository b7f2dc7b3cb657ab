"""Sources of images: Sentinel-2 products, STAC items and folders of dated rasters.

`series.find_series` finds the series in any of them; `safe`, `stac` and `folders` read one kind
each, and `granules` holds what all of them return.
"""
