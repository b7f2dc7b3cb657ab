"""What training on pairs is, whatever the backend."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from sits_keras.errors import ConfigError

Tensor = Any


class PairTrainer:
    """Mixin for a `keras.Model` that brings `update(x, y)` and `assess(x, y)`.

    Both take a batch of pairs, feed the metrics, and return nothing.
    """

    update: Callable[[Tensor, Tensor], None]
    assess: Callable[[Tensor, Tensor], None]
    get_metrics_result: Callable[[], dict[str, Tensor]]

    def record(
        self,
        function: Callable[..., tuple[Sequence[Tensor], Any]],
        variables: Sequence[keras.Variable] = (),
        inputs: Sequence[Tensor] = (),
    ) -> tuple[list[Tensor], Any, Callable[[Sequence[Tensor]], list[Tensor]]]:
        """Calls `function(*inputs)` and keeps what its derivatives need.

        Args:
            function: returns a sequence of tensors to differentiate, and any structure of others.
                It may assign variables that are not trained: moving statistics and seeds.
            variables: what `function` reads and is to be differentiated for.
            inputs: tensors that are passed on and are to be differentiated for.
        Returns:
            The tensors, the others, and a pullback to be called once: given the gradient of a
            scalar for each of the tensors, it returns the gradient for each variable, then for
            each input.
        """
        raise NotImplementedError


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
