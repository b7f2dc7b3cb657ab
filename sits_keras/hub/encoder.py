"""Encoders that take reflectance, with descriptions that need no TensorFlow.

The bands, sizes, projection and file of layers of an encoder are known before TensorFlow is
imported. Its functions import it.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sits_keras import tensorflow_import
from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import MAX_REFLECTANCE, is_aligned
from sits_keras.errors import ArgumentError, ConfigError, DataError
from sits_keras.hub.projection import Projection

Tensor = Any

DENSE_STRIDES = (4, 8, 16, 32)
"""Strides in pixels at which a module of `padding="context"` encodes whole rasters."""

NOT_DENSE_REASON = (
    "its convolutions pad each window with zeros, so that windows encoded together would differ "
    'from windows encoded alone. Train a model with padding="context" (--padding context)'
)
"""Reason why an encoder of `padding="zeros"` has no dense function, as the end of a sentence."""

EXPECTED_REFLECTANCE = "Expected finite reflectance, about 0 to 1"
"""Beginning of the error of a module that refuses its input, also in older modules."""


class HubEncoder:
    """Encoder that takes reflectance: of a hub module, a preset, or a model in memory.

    It can be pickled: as the path of its module or preset, which is loaded again, or as its model.

    Args:
        open_parts: Function that returns `module` and `network`. It is called when one of them is
            used first.
        metadata: See the attributes.
        made_by: Function that makes the same encoder, and its arguments.
        projection: See the attributes.
        layers_file: See the attributes.

    Attributes:
        metadata: Content of `module.json`: bands, input range, number of features, and more.
        bands: Names of the bands, in the order of the last axis.
        num_features: Length of a feature vector.
        num_flattened: Length of the flattened grid; for the exclusive encoder, `num_features`.
        context_margin: Pixels of context that the features of a window depend on, before (above,
            left) and after (below, right); `(0, 0)` for an encoder that pads with zeros.
        dense_strides: Strides that `dense` supports, with their multiples; empty if none.
        not_dense_reason: Reason why there are none, as the end of a sentence; else empty.
        projection: Projection of its layers to few numbers; None if it has none.
        layers_file: ONNX file of its layers, written with its preset; None if it has none.
        layer_functions: Functions of layers that were made: of `sits_keras.hub.layers`, by numbers
            of layers; of `sits_keras.tasks.retrieval.distances`, "locations"; and of `cells`, by
            stride. They are not pickled.
    """

    def __init__(
        self,
        open_parts: Callable[[], tuple[Any, Any]],
        metadata: dict[str, Any],
        made_by: tuple[Any, ...],
        projection: Projection | None = None,
        layers_file: Path | None = None,
    ):
        self._open_parts = open_parts
        self._made_by = made_by
        self.projection = projection
        self.layers_file = layers_file
        self.layer_functions: dict[tuple[int, ...] | str, Any] = {}
        self.metadata = metadata
        self.bands: tuple[str, ...] = tuple(metadata["bands"])
        self.num_features: int = metadata.get("num_pooled") or metadata["num_features"]
        # In modules of earlier versions, the flattened grid is the default function.
        self._is_flattened_by_default = not metadata.get("num_flattened")
        self.num_flattened: int = metadata.get("num_flattened") or metadata["num_features"]
        before, after = metadata.get("context_margin", (0, 0))  # older modules pad with zeros
        self.context_margin: tuple[int, int] = (before, after)
        self.dense_strides: tuple[int, ...] = tuple(metadata.get("dense_strides", ()))
        self.not_dense_reason = "" if self.dense_strides else NOT_DENSE_REASON

    @property
    def module(self) -> Any:
        """Result of `tf.saved_model.load`, or an `EncoderModule`."""
        return self._parts[0]

    @property
    def network(self) -> Any:
        """Network of a model in memory, whose weights it shares; None for a loaded module."""
        return self._parts[1]

    @property
    def is_open(self) -> bool:
        """True if the module and the network, which need TensorFlow, are in memory."""
        return "_parts" in vars(self)

    @functools.cached_property
    def _parts(self) -> tuple[Any, Any]:
        return self._open_parts()

    def __reduce__(self) -> tuple[Any, ...]:
        function, *arguments = self._made_by
        return function, tuple(arguments)

    def __call__(self, images: Tensor) -> Tensor:
        """Return a feature vector for each image.

        The shared encoder returns statistics of its layers: mean, standard deviation and texture of
        each channel (`sits_keras.hub.pooling`), the best features for classifiers. The exclusive
        encoder returns the mean of the posterior.

        Args:
            images: Reflectance, `(batch, 64, 64, bands)`, or with the context of `context_margin`
                around each window. Without it, an encoder that uses context reflects the image.

        Returns:
            `(batch, num_features)` float32.

        Raises:
            ArgumentError: Images have another shape.
            DataError: Values are not reflectance: above 10, -1 or less, or NaN.
        """
        if self._is_flattened_by_default and self.metadata.get("num_pooled"):
            return self.pooled(images)
        return self._call_either(images, "__call__", "with_context")

    def flattened(self, images: Tensor) -> Tensor:
        """Return the shared representation as a vector, as in section 4.4.

        Retrieval, segmentation and embedding use it.

        Args:
            images: Reflectance, as in `__call__`.

        Returns:
            `(batch, num_flattened)` float32; for the exclusive encoder, the same as `__call__`.

        Raises:
            ArgumentError: Images have another shape.
            DataError: Values are not reflectance.
        """
        if self._is_flattened_by_default:
            return self._call_either(images, "__call__", "with_context")
        return self._call_either(images, "flattened", "flattened_with_context")

    def spatial(self, images: Tensor) -> Tensor:
        """Return the shared representation on its grid.

        Args:
            images: Reflectance, as in `__call__`.

        Returns:
            `(batch, 4, 4, channels)` float32.

        Raises:
            ConfigError: This is the exclusive encoder, whose representation has no grid.
            ArgumentError: Images have another shape.
            DataError: Values are not reflectance.
        """
        if self.metadata["encoder"] != "shared":
            raise ConfigError(
                "The exclusive representation has no grid. Expected the shared encoder. Received: "
                "the exclusive encoder. Call the encoder itself instead."
            )
        return tensorflow_import.tf.reshape(self.flattened(images), (-1, *self.metadata["grid"]))

    def pooled(self, images: Tensor) -> Tensor:
        """Return the same as a call of the shared encoder, without context.

        It is the only function for the pooled vector in modules of earlier versions.

        Args:
            images: Reflectance, `(batch, 64, 64, bands)`.

        Returns:
            `(batch, num_pooled)` float32; `num_pooled` is in `metadata`.

        Raises:
            ConfigError: The module has no such function, because it contains the exclusive encoder
                or was exported by an earlier version.
            ArgumentError: Images have another shape.
            DataError: Values are not reflectance.
        """
        if not self.metadata.get("num_pooled"):
            raise ConfigError(
                "The module has no pooled features: it contains the exclusive encoder, or was "
                "exported by an earlier version. Export the shared encoder again."
            )
        return apply(self._function("pooled"), self._check(images, {IMAGE_SIZE}))

    def dense(self, images: Tensor, stride: int) -> Tensor:
        """Return the flattened grids of all windows of images (`sits_keras.hub.dense`).

        Layers are computed once where windows overlap.

        Args:
            images: Reflectance, `(batch, height, width, bands)`. The outermost `context_margin`
                pixels are context only: the first window begins at pixel `context_margin[0]` of
                both axes.
            stride: Pixels from one window to the next, a multiple of one of `dense_strides`.

        Returns:
            `(batch, rows, cols, num_flattened)` float32, the output of `flattened` for each window
            with its context; rows is `(height - sum(context_margin) - 64) // stride + 1`.

        Raises:
            ConfigError: The encoder has no dense function.
            ArgumentError: The stride is not supported, or images have another shape.
            DataError: Values are not reflectance.
        """
        images, finest = self._check_dense(images, stride)
        step = stride // finest
        return apply(self._function(f"dense_{finest}"), images)[:, ::step, ::step]

    @property
    def has_cells(self) -> bool:
        """True if `cells` can be called: for the shared encoder of a model in memory."""
        is_shared = self.metadata["encoder"] == "shared"
        return is_shared and bool(self.dense_strides) and self.network is not None

    def cells(self, images: Tensor, stride: int) -> Tensor:
        """Return the cells of the grids of all windows of images, each once.

        Args:
            images: See `dense`.
            stride: See `dense`.

        Returns:
            `(batch, height, width, channels)` float32, see `sits_keras.hub.dense.cells_densely`.

        Raises:
            ConfigError: The encoder has no dense function.
            ArgumentError: The stride is not supported, or images have another shape.
            DataError: Values are not reflectance.
        """
        images, finest = self._check_dense(images, stride)
        check_reflectance(np.asarray(images))
        if (key := f"cells_{finest}") not in self.layer_functions:
            self.layer_functions[key] = self.module.make_cells(self.network, finest)
        return self.layer_functions[key](images)

    def _check_dense(self, images: Tensor, stride: int) -> tuple[Tensor, int]:
        """Return images as float32, and the largest of `dense_strides` that divides a stride."""
        if not self.dense_strides:
            raise ConfigError(f"The encoder cannot encode densely: {self.not_dense_reason}.")
        finer = [s for s in self.dense_strides if stride > 0 and stride % s == 0]
        if not finer:
            raise ArgumentError(
                "Dense encoding takes strides that are multiples of "
                f"{min(self.dense_strides)} px. Received: {stride}."
            )
        images = _as_float32(images)
        smallest = IMAGE_SIZE + sum(self.context_margin)
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[3] != len(self.bands) or min(shape[1:3]) < smallest:
            raise ArgumentError(
                f"Expected images of shape (batch, height, width, {len(self.bands)}), of at least "
                f"{smallest} x {smallest} px, bands {', '.join(self.bands)}. Received: {shape}."
            )
        return images, max(finer)

    def _call_either(self, images: Tensor, alone: str, with_context: str) -> Tensor:
        """Call the function of the module for windows alone or the one for windows with context."""
        images = self._check(images, {IMAGE_SIZE, IMAGE_SIZE + sum(self.context_margin)})
        name = alone if images.shape[1] == IMAGE_SIZE else with_context
        return apply(self._function(name), images)

    def _function(self, name: str) -> Any:
        """Return a function of the module. That of a model in memory is traced at its first use."""
        if self.network is None:
            return getattr(self.module, name)
        return self.module.trace(name, (tensorflow_import.tf.float32,))

    def _check(self, images: Tensor, sizes: set[int]) -> Tensor:
        images = _as_float32(images)
        expected = [(size, size, len(self.bands)) for size in sorted(sizes)]
        if tuple(images.shape[1:]) not in expected:
            shapes = " or ".join(f"(batch, {', '.join(map(str, shape))})" for shape in expected)
            raise ArgumentError(
                f"Expected images of shape {shapes}, bands {', '.join(self.bands)}. "
                f"Received: {tuple(images.shape)}."
            )
        return images


def apply(function: Any, images: Tensor) -> Tensor:
    """Call a function of a module, and report input that it refuses in one line.

    Args:
        function: Function of an `EncoderModule`, or of a loaded hub module.
        images: `(batch, height, width, bands)` float32 reflectance.

    Returns:
        What the function returns.

    Raises:
        DataError: A value is NaN, above 10, or -1 or less.
    """
    try:
        return function(images)
    except tensorflow_import.tf.errors.InvalidArgumentError as error:
        if EXPECTED_REFLECTANCE in error.message:
            check_reflectance(np.asarray(images))
        raise


def check_reflectance(images: npt.NDArray[np.float32]) -> None:
    """Check that values can be reflectance.

    Args:
        images: Values; the array may be empty.

    Raises:
        DataError: A value is NaN, above 10, or -1 or less.
    """
    if not images.size:
        return
    lowest, highest = images.min(), images.max()  # NaN if a value is
    if lowest > -1 and highest <= MAX_REFLECTANCE:
        return
    if np.isnan(lowest):
        received = "NaN"
    elif highest > MAX_REFLECTANCE:
        received = f"values up to {highest:g}"
    else:
        received = f"values down to {lowest:g}"
    raise DataError(
        f"{EXPECTED_REFLECTANCE}. Received: {received}. Divide digital numbers by 10,000, after "
        "adding the product's offset; set pixels without data to 0. The 0 to 255 of a picture are "
        "not reflectance."
    )


def _as_float32(images: Tensor) -> Tensor:
    tf = tensorflow_import.tf
    if isinstance(images, np.ndarray) and is_aligned(images):
        # `convert_to_tensor` copies it, which takes a tenth of the time of a small network.
        return tf.experimental.dlpack.from_dlpack(images.__dlpack__())
    return tf.cast(tf.convert_to_tensor(images), tf.float32)


def weights_sha256(encoder: HubEncoder) -> str:
    """Return a checksum of all that the grid and the layers of a `HubEncoder` depend on.

    It covers the weights, bands and geometry in memory, not a whitening of pooled features, so that
    a preset and a module that was exported from it have the same checksum. Of a preset whose
    weights are not in memory yet, it is the checksum that was written with them.
    """
    written: str | None = encoder.metadata.get("weights")
    if written and encoder.layers_file and not encoder.is_open:
        return written
    return checksum(encoder.metadata, encoder.module.variables)


def checksum(metadata: Mapping[str, Any], variables: Iterable[Any]) -> str:
    """Return the checksum of `weights_sha256`.

    Args:
        metadata: Content of `module.json`.
        variables: Variables of the module, or of the network that it is made of.
    """
    facts = {
        name: value
        for name, value in metadata.items()
        if name in ("encoder", "bands", "input", "padding", "dense_strides", "num_features")
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for variable in variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()
