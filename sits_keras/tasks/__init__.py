"""What the representations are good for: one task of the paper a folder (section 4)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "change",
        "classification",
        "embedding",
        "evaluation",
        "pictures",
        "retrieval",
        "segmentation",
        "translation",
        "windows",
    ],
)
