"""Hub modules: encoders as TF-Hub Reusable SavedModels (section 4.4).

`export` writes a module, `load` reads it, `wrap` makes the same encoder from a model in memory. A
module takes reflectance, scales it to the network's range, and runs without this package. Names are
imported on first use, because all but `HubEncoder` import TensorFlow.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from sits_keras.hub.encoder import HubEncoder as HubEncoder
    from sits_keras.hub.exporting import export as export
    from sits_keras.hub.exporting import load as load
    from sits_keras.hub.exporting import read_metadata as read_metadata
    from sits_keras.hub.exporting import wrap as wrap
    from sits_keras.hub.exporting import write_card as write_card

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "conversion",
        "dense",
        "encoder",
        "exporting",
        "layers",
        "metadata",
        "module",
        "pooling",
        "projection",
    ],
    submod_attrs={
        "encoder": ["HubEncoder"],
        "exporting": ["export", "load", "read_metadata", "wrap", "write_card"],
    },
)
