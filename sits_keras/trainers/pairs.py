"""What a batch must be, whatever the backend."""

from typing import Any

import keras

from sits_keras.errors import ConfigError

Tensor = Any


def unpack_pair(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A batch of pairs as `fit` and `evaluate` hand it to a step.

    Raises:
        ConfigError: it is no pair, or comes with weights.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if y is None or sample_weight is not None:
        raise ConfigError(
            "Expected batches of pairs (x, y), two dates of the same places. "
            f"Received: {'no y' if y is None else 'sample weights'}."
        )
    return x, y
