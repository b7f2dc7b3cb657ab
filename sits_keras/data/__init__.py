"""From satellite products to batches of pairs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["synthetic"],
    submod_attrs={
        "arrays": ["array_pairs"],
        "pairs": ["pair_dataset"],
        "preparation.pipeline": ["inspect", "prepare"],
        "records": ["read_blocks", "read_manifest"],
    },
)
