"""Change between two dates of a place (section 4.6), and breaks in a series."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["clicks", "detection", "maps", "pixels", "scores", "series"],
    submod_attrs={
        "detection": ["detect_change"],
        "maps": ["map_change", "plot_change"],
        "series": ["map_breaks"],
        "scores": ["score_change", "score_pairs"],
    },
)
