"""Sources of images: Sentinel-2 products, STAC items and folders of dated rasters.

`find_series` finds the series in any of them; `safe`, `stac` and `folders` read one kind each.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "granules": ["CloudMask", "Granule", "Layer", "Series"],
        "series": ["find_series", "read_sources", "select_series"],
    },
)
