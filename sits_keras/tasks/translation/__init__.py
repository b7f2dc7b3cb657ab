"""Translation of a place to another date (section 4.2): rasters, and Table 1 of the paper."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["rasters", "table_1"],
    submod_attrs={
        "rasters": ["plot_crops", "read_crops", "translate_raster"],
        "table_1": ["measure_translation", "sample_crops"],
    },
)
