"""Retrieval of places in other images (section 4.3): the search, and Table 2 of the paper."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["search", "table_2"],
    submod_attrs={
        "search": ["find_windows", "retrieve", "sample_queries"],
        "table_2": ["measure_recall"],
    },
)
