"""The one place that asks which backend Keras runs on."""

import keras

from sits_keras.errors import ConfigError

if keras.backend.backend() == "tensorflow":
    from sits_keras.trainers.tensorflow import Trainer, fused_batch_norm
else:
    raise ConfigError(
        "sits_keras trains on Keras' TensorFlow backend. "
        f"Received: backend {keras.backend.backend()!r}. "
        "Set KERAS_BACKEND=tensorflow before keras is imported."
    )

__all__ = ["Trainer", "fused_batch_norm"]
