"""What training on pairs is, whatever the backend."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from sits_keras.errors import ArgumentError

Tensor = Any


class PairTrainer:
    """Mixin for a `keras.Model` that brings `update(x, y)` and `evaluate_batch(x, y)`.

    Both take a batch of pairs, feed the metrics, and return nothing.
    """

    config: Any
    context_margin: tuple[int, int]
    update: Callable[[Tensor, Tensor], None]
    evaluate_batch: Callable[[Tensor, Tensor], None]
    get_metrics_result: Callable[[], dict[str, Tensor]]

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.fit`, after a look at what it is given.

        Raises:
            ArgumentError: The images have the wrong shape, or are arrays with values outside
                [-1, 1].
        """
        spec = getattr(x, "element_spec", None)
        for one in spec[:2] if isinstance(spec, tuple) else (x, y):
            self._check_images(one)
        return super().fit(x, y, *args, **kwargs)  # type: ignore[misc]

    def _check_images(self, images: Any) -> None:
        shape = tuple(getattr(images, "shape", None) or ())
        side, _, bands = self.config.image_shape
        sides = sorted({side, side + sum(self.context_margin)})
        expected = [(one, one, bands) for one in sides]
        if len(shape) == 4 and None not in shape[1:] and shape[1:] not in expected:
            shapes = " or ".join(f"(batch, {', '.join(map(str, one))})" for one in expected)
            raise ArgumentError(
                f"Expected images of shape {shapes}, bands {', '.join(self.config.bands)}. "
                f"Received: {shape}."
            )
        check_range(images)

    def vjp(
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


def check_range(images: Any) -> None:
    """Raises ArgumentError where an array holds values that are none of the networks'."""
    if not isinstance(images, np.ndarray) or not images.size:
        return
    low, high = images.min(), images.max()
    if low < -1.01 or high > 1.01:
        raise ArgumentError(
            "Expected images in [-1, 1], as `pair_dataset` and `array_pairs` give them, or "
            "`data.radiometry.to_network` of stored values (reflectance x 10,000). Received: "
            f"values from {low:g} to {high:g}."
        )


def unpack_pair(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A batch of pairs as `fit` and `evaluate` hand it to a step.

    Raises:
        ArgumentError: it is no pair, or comes with weights.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if y is None or sample_weight is not None:
        raise ArgumentError(
            "Expected batches of pairs (x, y), two dates of the same places. "
            f"Received: {'no y' if y is None else 'sample weights'}."
        )
    return x, y
