"""Pretrained models.

A preset is a folder with a whole model, both hub modules, scores and a card. It is found by name,
path or URL, verified by checksums, loaded, and written from a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["card", "download", "folders", "handles", "loading", "registry"],
    submod_attrs={
        "folders": ["find_preset", "list_presets"],
        "loading": [
            "from_preset",
            "save_preset",
            "store_projection",
            "store_whitening",
            "upload_preset",
        ],
    },
)
