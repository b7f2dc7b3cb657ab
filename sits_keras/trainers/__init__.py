"""The one place that asks which backend Keras runs on."""

import keras

from sits_keras.errors import ConfigError

BACKEND: str = keras.backend.backend()

if BACKEND == "tensorflow":
    from sits_keras.trainers.tensorflow import Trainer, drawn_batches, fused_batch_norm
elif BACKEND == "jax":
    from sits_keras.trainers.jax import (  # type: ignore[assignment]
        Trainer,
        drawn_batches,
        fused_batch_norm,
    )
else:
    raise ConfigError(
        "sits_keras trains on Keras' TensorFlow and JAX backends. "
        f"Received: backend {BACKEND!r}. "
        "Set KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax before keras is imported."
    )

__all__ = ["BACKEND", "Trainer", "drawn_batches", "fused_batch_norm"]
