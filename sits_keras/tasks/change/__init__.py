"""Change detection between two dates of a place (section 4.6)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["detection", "maps", "scores"],
    submod_attrs={
        "detection": ["detect_change"],
        "maps": ["map_change", "plot_change"],
        "scores": ["score_change", "score_pairs"],
    },
)
