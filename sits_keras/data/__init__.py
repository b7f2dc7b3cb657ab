"""Data: from satellite products to batches of pairs.

`prepare` converts products and dated rasters to records, `inspect` shows what it would keep.
`pair_dataset` samples training pairs from records, `array_pairs` from arrays in memory.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["synthetic"],
    submod_attrs={
        "arrays": ["array_pairs"],
        "eurosat": ["read_labelled"],
        "pairs": ["pair_dataset"],
        "preparation.pipeline": ["inspect", "prepare"],
        "records": ["read_blocks", "read_manifest"],
    },
)
