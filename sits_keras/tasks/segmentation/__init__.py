"""Segmentation of a raster into clusters, without labels (section 4.5)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["clusters", "maps", "pixels", "windows"],
    submod_attrs={
        "clusters": ["Clusters", "class_colours", "read_clusters", "write_clusters"],
        "maps": ["compute_segments", "segment", "segment_raster"],
    },
)
