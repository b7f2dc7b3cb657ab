"""Self-supervised learning of two representations of satellite image time series.

The *shared* representation describes the location, the *exclusive* one the acquisition date, after
Sanchez, Serrurier and Ortner, "Learning Disentangled Representations of Satellite Image Time
Series" (2019). Names are imported on first use, so that the command line starts without TensorFlow.
"""

import sys
from typing import Any

import lazy_loader

from sits_keras.tensorflow_import import check_settings

__version__ = "0.1.0"

_attach, __dir__, __all__ = lazy_loader.attach(
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
    },
)


def __getattr__(name: str) -> Any:
    if name in ("DisentangledSITS", "from_preset", "load_model", "train", "losses", "networks"):
        check_settings()  # in place of the traceback of Keras' import
    return _attach(name)


if "keras" in sys.modules:
    # Keras is imported, so registering the package's classes is cheap, and
    # keras.saving.load_model() finds them by name.
    from sits_keras.model import DisentangledSITS as DisentangledSITS
