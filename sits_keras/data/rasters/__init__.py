"""Read and write rasters, by windows or by rows.

No other part of the package imports rasterio.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "read": ["Grid", "RasterInfo", "read_info", "read_mask", "read_stored", "write_raster"],
        "rows": ["open_strips"],
        "write": ["open_map", "write_boxes", "write_png"],
    },
)
