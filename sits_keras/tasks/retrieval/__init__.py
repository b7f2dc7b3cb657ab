"""Retrieval of places in images and embedding rasters (section 4.3), and the paper's Table 2."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["distances", "embeddings", "search", "table_2"],
    submod_attrs={
        "embeddings": ["query"],
        "search": ["find_windows", "retrieve", "sample_queries"],
        "table_2": ["measure_recall"],
    },
)
