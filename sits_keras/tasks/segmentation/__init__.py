"""Unsupervised land-cover maps from clusters of window features (section 4.5)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["clusters", "maps"],
    submod_attrs={"clusters": ["Clusters", "fit_clusters"], "maps": ["segment", "segment_raster"]},
)
