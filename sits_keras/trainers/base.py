"""Training on pairs, independent of the backend."""

import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from sits_keras.errors import ArgumentError, original_errors

Tensor = Any
Pullback = Callable[[Sequence[Tensor]], list[Tensor]]


class PairTrainer:
    """Mixin for a `keras.Model` that defines `update(x, y)` and `evaluate_batch(x, y)`.

    Both methods take a batch of pairs and sample weights, if there are any, update the metrics and
    return nothing.
    """

    config: Any
    objective: Any
    context_margin: tuple[int, int]
    update: Callable[..., None]
    evaluate_batch: Callable[..., None]
    get_metrics_result: Callable[[], dict[str, Tensor]]

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train the model as `keras.Model.fit` does, after checks of its arguments.

        Args:
            x: Pairs: a dataset of `(x, y)`, or the array of the first dates,
                `(batch, 64, 64, bands)` in [-1, 1].
            y: Array of the second dates; `None` with a dataset.
            *args: Further arguments of `keras.Model.fit`.
            **kwargs: Further arguments of `keras.Model.fit`. A dataset without an end needs
                `steps_per_epoch`, as validation data `validation_steps`.

        Returns:
            The `keras.callbacks.History` of the run.

        Raises:
            ArgumentError: Images have the wrong shape or are arrays with values outside [-1, 1];
                a dataset has no end and no number of steps; or an argument has no meaning here.
        """
        given = inspect.signature(keras.Model.fit).bind(self, x, y, *args, **kwargs).arguments
        if given.get("class_weight") is not None:
            raise ArgumentError("fit() does not support class_weight: pairs have no classes.")
        self._check_pairs(x, y)
        check_steps(x, "steps_per_epoch", given.get("steps_per_epoch"))
        validation = given.get("validation_data")
        if validation is not None:
            self._check_pairs(*(validation if isinstance(validation, tuple) else (validation,)))
            check_steps(validation, "validation_steps", given.get("validation_steps"))
        with original_errors(x, validation):
            return super().fit(x, y, *args, **kwargs)  # type: ignore[misc]

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the objective as `keras.Model.evaluate` does, after checks of its arguments.

        Args:
            x: Pairs, as in `fit`.
            y: Array of the second dates; `None` with a dataset.
            *args: Further arguments of `keras.Model.evaluate`.
            **kwargs: Further arguments of `keras.Model.evaluate`. A dataset without an end needs
                `steps`.

        Returns:
            The terms of the objective.

        Raises:
            ArgumentError: As in `fit`.
        """
        given = inspect.signature(keras.Model.evaluate).bind(self, x, y, *args, **kwargs).arguments
        self._check_pairs(x, y)
        check_steps(x, "steps", given.get("steps"))
        with original_errors(x):
            return super().evaluate(x, y, *args, **kwargs)  # type: ignore[misc]

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Translate pairs as `keras.Model.predict` does, after checks of its arguments.

        Args:
            x: Pairs of arrays, `(x, y)`.
            *args: Further arguments of `keras.Model.predict`.
            **kwargs: Further arguments of `keras.Model.predict`. A dataset without an end needs
                `steps`.

        Returns:
            Arrays `(x_hat, y_hat)`.

        Raises:
            ArgumentError: As in `fit`.
        """
        given = inspect.signature(keras.Model.predict).bind(self, x, *args, **kwargs).arguments
        check_steps(x, "steps", given.get("steps"))
        return super().predict(x, *args, **kwargs)  # type: ignore[misc]

    def _check_pairs(self, x: Any, y: Any = None, *_: Any) -> None:
        spec = getattr(x, "element_spec", None)
        if not isinstance(spec, tuple):
            self._check_images(x)
            self._check_images(y)
            return
        for images in spec[:2]:
            self._check_images(images)
        # Pairs of this package are in range. Of others, the first batch shows a wrong unit.
        if callable(getattr(x, "take", None)) and not hasattr(x, "kept_errors"):
            for batch in x.take(1):
                for images in batch[:2]:
                    check_range(images)

    def _check_images(self, images: Any) -> None:
        shape = tuple(getattr(images, "shape", None) or ())
        side, _, bands = self.config.image_shape
        sides = sorted({side, side + sum(self.context_margin)})
        expected = [(one, one, bands) for one in sides]
        known = len(shape) == 4 and None not in shape[1:]
        if known and shape[1:] not in expected and not self._is_crop_of_windows(shape):
            shapes = " or ".join(f"(batch, {', '.join(map(str, one))})" for one in expected)
            raise ArgumentError(
                f"Images have the wrong shape. Expected {shapes}, bands "
                f"{', '.join(self.config.bands)}. Received: {shape}."
            )
        check_range(images)

    def _is_crop_of_windows(self, shape: tuple[int, ...]) -> bool:
        """Return whether the shared encoder can be trained alone on crops of this shape."""
        height, width, bands = shape[1:]
        size = height - sum(self.context_margin)
        side = self.config.image_shape[0]
        return (
            self.objective.encoder_only
            and height == width
            and size > side
            and size % side == 0
            and bands == len(self.config.bands)
        )

    def vjp(
        self,
        function: Callable[..., tuple[Sequence[Tensor], Any]],
        variables: Sequence[keras.Variable] = (),
        inputs: Sequence[Tensor] = (),
    ) -> tuple[list[Tensor], Any, Pullback]:
        """Call `function(*inputs)` and return its vector-Jacobian product.

        Args:
            function: Function that returns a sequence of tensors to differentiate, and any
                structure of other tensors. It may assign variables that are not trained, such as
                moving statistics and seeds.
            variables: Variables that `function` reads and is differentiated for.
            inputs: Tensors that are passed to `function` and that it is differentiated for.

        Returns:
            The tensors, the other tensors, and a pullback that can be called once. Given the
            gradient of a scalar for each of the tensors, it returns the gradient for each
            variable, then for each input.
        """
        raise NotImplementedError

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Build nothing, because the networks are built when they are created.

        This overrides a private method of Keras' TensorFlow trainer, the only private name of
        Keras that this package uses. The original takes a batch of the dataset, whose parts on
        several hosts it cannot concatenate.
        """


def check_range(images: Any) -> None:
    """Check that the values of an array are in the range of the networks.

    Args:
        images: Array or eager tensor of images. Anything else is not checked.

    Raises:
        ArgumentError: A value is not finite or outside [-1, 1].
    """
    if callable(getattr(images, "numpy", None)):
        images = images.numpy()
    if not isinstance(images, np.ndarray) or not images.size:
        return
    low, high = images.min(), images.max()
    if not (low >= -1.01 and high <= 1.01):  # NaN compares as false
        raise ArgumentError(
            "Images have the wrong range. Expected values in [-1, 1], as `pair_dataset` and "
            "`array_pairs` return them, or `data.radiometry.to_network` of stored values "
            f"(reflectance x 10,000). Received: values from {low:g} to {high:g}."
        )


def check_steps(data: Any, name: str, steps: int | None) -> None:
    """Check that a dataset has an end or that a number of steps is given.

    Args:
        data: Dataset, or anything else that `keras.Model.fit` takes.
        name: Name of the argument for the number of steps.
        steps: Its value.

    Raises:
        ArgumentError: `steps` is `None`, and the dataset has no end or is a generator, which does
            not state whether it ends; or `steps` is not positive.
    """
    if steps is not None and (isinstance(steps, bool) or steps < 1):
        raise ArgumentError(f"{name} must be at least 1. Received: {name}={steps}.")
    if steps is None and _is_endless(data):
        raise ArgumentError(
            f"The pairs have no end. Expected {name}, the number of batches to use, or a dataset "
            f"with an end (num_steps of pair_dataset and array_pairs). Received: {name}=None."
        )
    if steps is None and isinstance(data, types.GeneratorType):
        raise ArgumentError(
            f"A generator of pairs may have no end. Expected {name}, the number of batches to use. "
            f"Received: {name}=None."
        )


def _is_endless(data: Any) -> bool:
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    cardinality = getattr(data, "cardinality", None)  # of a tf.data.Dataset; -1 is infinite
    return callable(cardinality) and int(cardinality()) == -1


def unpack_pair(data: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the pair of a batch that `fit` or `evaluate` passes to a step, with its weights.

    Args:
        data: Batch from the dataset.

    Returns:
        `(x, y)`, the batches of first and of second dates, or `(x, y, weights)`.

    Raises:
        ArgumentError: The batch is not a pair.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if y is None:
        raise ArgumentError(
            "The dataset does not return pairs. Expected batches of pairs (x, y), two dates of the "
            "same places. Received: no y."
        )
    return (x, y) if sample_weight is None else (x, y, sample_weight)
