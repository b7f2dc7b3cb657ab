"""What the representations are good for: one experiment of the paper a module (section 4)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "change",
        "change_scores",
        "class_map",
        "classification",
        "classifier",
        "classifier_training",
        "clusters",
        "embedding",
        "evaluation",
        "figures",
        "lookup",
        "mosaics",
        "overlap",
        "quicklooks",
        "retrieval",
        "segmentation",
        "snapshots",
        "translation",
        "windows",
    ],
)
