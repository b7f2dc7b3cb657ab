"""Shared and exclusive representations of satellite image time series, learned without labels.

After Sanchez, Serrurier and Ortner, "Learning Disentangled Representations of Satellite Image Time
Series" (2019). Names are imported when they are first used, so that the command line answers
before TensorFlow is loaded.
"""

import sys

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["callbacks", "data", "hub", "losses", "networks", "tasks"],
    submod_attrs={
        "config": [
            "ModelConfig",
            "ObjectiveConfig",
            "OptimizerConfig",
            "PrepareConfig",
            "RunConfig",
            "TrainConfig",
        ],
        "errors": ["SitsKerasError"],
        "formats": ["identify"],
        "model": ["DisentangledSITS"],
        "presets.loading": ["from_preset"],
        "saving": ["load_model"],
        "training": ["train"],
        "version": ["__version__"],
    },
)

if "keras" in sys.modules:
    # Keras is loaded, so it costs little to make the package's classes known to it here:
    # keras.saving.load_model() finds them by name.
    from sits_keras.model import DisentangledSITS as DisentangledSITS
