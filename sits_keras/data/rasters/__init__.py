"""Reading and writing rasters; the one place that imports rasterio."""
