"""Read and write rasters, by windows or by rows.

`read` and `write` are the only modules of the package that import rasterio. Nothing is exported
here: import from the modules, for they load GDAL.
"""
