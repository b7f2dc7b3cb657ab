"""Land-cover classification with few labels (section 4.4): classifiers, and Table 3."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["classifier", "finetuning", "peers", "predict", "probes", "table_3"],
    submod_attrs={
        "classifier": ["Classifier", "load_classifier", "save_classifier", "train_classifier"],
        "predict": ["classify_chips", "classify_raster"],
        "table_3": ["fill_table"],
    },
)
