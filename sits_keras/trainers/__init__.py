"""Trainers for the Keras backends TensorFlow and JAX.

`base` is independent of the backend. This module is the only one that asks for the backend, and
exports its `Trainer`.
"""

import keras

from sits_keras.errors import ConfigError
from sits_keras.tensorflow_import import unsupported_backend

BACKEND: str = keras.backend.backend()

if BACKEND == "tensorflow":
    from sits_keras.trainers.tensorflow import Trainer, fused_batch_norm, sampled_batches
elif BACKEND == "jax":
    from sits_keras.trainers.jax import (  # type: ignore[assignment]
        Trainer,
        fused_batch_norm,
        sampled_batches,
    )
else:
    raise ConfigError(unsupported_backend(BACKEND))

__all__ = ["BACKEND", "Trainer", "fused_batch_norm", "sampled_batches"]
