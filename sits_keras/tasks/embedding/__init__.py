"""Embedding rasters: numbers of every pixel, or features of windows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["pixels", "projection", "rasters", "tiles", "windows"],
    submod_attrs={
        "rasters": ["embed_raster"],
        "pixels": ["WrittenPixels"],
        "projection": ["fit_projection"],
        "windows": ["Embedding", "FeaturePreview", "centred_offsets"],
    },
)
