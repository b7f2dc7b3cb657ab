"""Layers and blocks of the four networks (section 3.2).

Every convolution of the paper has a 4x4 kernel. Batch normalisation and leaky ReLU follow each one
except the outputs of the decoder and of the discriminator.
"""

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from sits_keras.errors import ArgumentError
from sits_keras.trainers import fused_batch_norm

Tensor = Any
KERNEL_SIZE = 4


@contextlib.contextmanager
def default_dtype_policy(policy: keras.dtype_policies.DTypePolicy) -> Iterator[None]:
    """Set the dtype policy of layers that are created inside the context."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def seeded_initializer(seed: int, name: str) -> keras.initializers.Initializer:
    """Return a Glorot-uniform initializer that depends only on `seed` and the layer name."""
    return keras.initializers.GlorotUniform(seed=zlib.crc32(f"{seed}/{name}".encode()))


def conv_block(
    x: Tensor,
    filters: int,
    *,
    strides: int,
    slope: float,
    seed: int,
    name: str,
    padding: Literal["same", "valid"] = "same",
) -> Tensor:
    """Apply a convolution, batch normalisation and leaky ReLU.

    Args:
        x: Tensor of shape `(batch, height, width, channels)`.
        filters: Channels of the output.
        strides: Stride: 2 halves the sides, 1 keeps them.
        slope: Negative slope of the leaky ReLU.
        seed: Seed of the initial weights.
        name: Prefix of the layer names.
        padding: `"same"` pads with zeros, `"valid"` does not pad.

    Returns:
        Tensor of shape `(batch, height / strides, width / strides, filters)`, smaller with
        `"valid"`.
    """
    x = _convolve_and_normalise(
        x, filters, KERNEL_SIZE, strides=strides, padding=padding, seed=seed, name=name
    )
    return layers.LeakyReLU(slope, name=f"{name}_activation")(x)


def modulated_block(
    x: Tensor, vector: Tensor, filters: int, *, slope: float, seed: int, name: str
) -> Tensor:
    """Apply a 3x3 convolution, adaptive instance normalisation (AdaIN), and leaky ReLU.

    Each channel of each image has mean 0 and variance 1 before the vector scales and shifts it
    (Huang and Belongie, 2017). So the vector determines contrast and brightness.

    Args:
        x: Tensor of shape `(batch, height, width, channels)`.
        vector: Vector of each image, `(batch, length)`.
        filters: Channels of the output.
        slope: Negative slope of the leaky ReLU.
        seed: Seed of the initial weights.
        name: Prefix of the layer names.

    Returns:
        Tensor of shape `(batch, height, width, filters)`.
    """
    x = layers.Conv2D(
        filters,
        3,
        padding="same",
        data_format="channels_last",
        use_bias=False,  # the normalisation subtracts the mean
        kernel_initializer=seeded_initializer(seed, f"{name}_conv"),
        name=f"{name}_conv",
    )(x)
    x = layers.GroupNormalization(
        groups=-1, axis=-1, center=False, scale=False, name=f"{name}_norm"
    )(x)
    scale_and_shift = layers.Dense(
        2 * filters,
        kernel_initializer=seeded_initializer(seed, f"{name}_modulation"),
        name=f"{name}_modulation",
    )(vector)
    x = Modulation(name=f"{name}_modulated")([x, scale_and_shift])
    return layers.LeakyReLU(slope, name=f"{name}_activation")(x)


def transposed_conv_block(x: Tensor, filters: int, *, slope: float, seed: int, name: str) -> Tensor:
    """Apply a transposed convolution of stride 2, batch normalisation and leaky ReLU.

    Args:
        x: Tensor of shape `(batch, height, width, channels)`.
        filters: Channels of the output.
        slope: Negative slope of the leaky ReLU.
        seed: Seed of the initial weights.
        name: Prefix of the layer names.

    Returns:
        Tensor of shape `(batch, 2 * height, 2 * width, filters)`.
    """
    x = layers.Conv2DTranspose(
        filters,
        KERNEL_SIZE,
        strides=2,
        padding="same",
        data_format="channels_last",
        use_bias=False,
        kernel_initializer=seeded_initializer(seed, f"{name}_conv"),
        name=f"{name}_conv",
    )(x)
    x = BatchNormalization(name=f"{name}_norm")(x)
    return layers.LeakyReLU(slope, name=f"{name}_activation")(x)


def residual_block(
    x: Tensor,
    filters: int,
    *,
    slope: float,
    seed: int,
    name: str,
    trim: tuple[int, int] | None = None,
) -> Tensor:
    """Apply a residual block of two convolutions that halves the sides (He et al., 2016).

    The first convolution has stride 2 and the second stride 1, which is half the work of the
    opposite order. The shortcut averages 2x2 pixels before its 1x1 convolution, so that every
    pixel contributes to it.

    Args:
        x: Tensor of shape `(batch, height, width, channels)`.
        filters: Channels of the output.
        slope: Negative slope of the leaky ReLU.
        seed: Seed of the initial weights.
        name: Prefix of the layer names.
        trim: `None` to pad convolutions with zeros. Otherwise no convolution pads, and the second
            one has a kernel of side `1 + sum(trim)`, which trims these cells before and after.

    Returns:
        Tensor of shape `(batch, height / 2, width / 2, filters)`; with `trim`, smaller by
        `1 + sum(trim)` cells a side.
    """
    padding: Literal["same", "valid"] = "same" if trim is None else "valid"
    residual = conv_block(
        x, filters, strides=2, padding=padding, slope=slope, seed=seed, name=f"{name}_a"
    )
    kernel_size = KERNEL_SIZE if trim is None else 1 + sum(trim)
    residual = _convolve_and_normalise(
        residual, filters, kernel_size, strides=1, padding=padding, seed=seed, name=f"{name}_b"
    )
    if trim is not None:  # a pixel for the first convolution, two for each cell of the second
        sides = tuple(1 + 2 * cells for cells in trim)
        x = layers.Cropping2D(
            (sides, sides), data_format="channels_last", name=f"{name}_shortcut_crop"
        )(x)
    shortcut = layers.AveragePooling2D(
        2, data_format="channels_last", name=f"{name}_shortcut_pool"
    )(x)
    shortcut = _convolve_and_normalise(
        shortcut, filters, 1, strides=1, padding=padding, seed=seed, name=f"{name}_shortcut"
    )
    x = layers.Add(name=f"{name}_add")([residual, shortcut])
    return layers.LeakyReLU(slope, name=f"{name}_activation")(x)


def _convolve_and_normalise(
    x: Tensor,
    filters: int,
    kernel_size: int,
    *,
    strides: int,
    padding: Literal["same", "valid"],
    seed: int,
    name: str,
) -> Tensor:
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        data_format="channels_last",
        use_bias=False,  # batch normalisation subtracts the mean
        kernel_initializer=seeded_initializer(seed, f"{name}_conv"),
        name=f"{name}_conv",
    )(x)
    return BatchNormalization(name=f"{name}_norm")(x)


@keras.saving.register_keras_serializable(package="sits_keras")
class BatchNormalization(layers.BatchNormalization):
    """Batch normalisation that trains with one fused operation where the backend has one.

    Keras' own layer takes ten operations over the whole tensor, and ten more for the gradient.
    Arguments, variables, results and the name of the saved weights are those of Keras.
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        """Normalise `inputs`, `(..., channels)`."""
        by_batch = training and self.trainable and not (self.renorm or self.synchronized)
        fits = mask is None and len(inputs.shape) == 4 and self.variable_dtype == "float32"
        if fused_batch_norm is None or not by_batch or not fits:
            return super().call(inputs, training=training, mask=mask)
        # In float32 or bfloat16 alike, statistics are summed up in float32.
        outputs, mean, variance = fused_batch_norm(inputs, self.gamma, self.beta, self.epsilon)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable(package="sits_keras")
class Modulation(layers.Layer):
    """Scale and shift the channels of each image.

    Input shapes `(batch, height, width, channels)` and `(batch, 2 * channels)`: the scales minus
    1, then the shifts. Output shape `(batch, height, width, channels)`.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        """Scale and shift feature maps by vectors."""
        x, vector = inputs
        scale, shift = ops.split(vector[:, None, None, :], 2, axis=-1)
        return x * (1.0 + scale) + shift

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Any:
        """Return the output shape, that of the feature maps."""
        return input_shape[0]


@keras.saving.register_keras_serializable(package="sits_keras")
class RepeatOverGrid(layers.Layer):
    """Repeat a vector over a square grid, to concatenate it with feature maps.

    Input shape `(batch, channels)`, output shape `(batch, size, size, channels)`.

    Args:
        size: Side of the grid in cells.
    """

    def __init__(self, size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs: Tensor) -> Tensor:
        """Repeat vectors `(batch, channels)`."""
        return ops.tile(inputs[:, None, None, :], (1, self.size, self.size, 1))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the output shape."""
        return (input_shape[0], self.size, self.size, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="sits_keras")
class ContextPadding(layers.Layer):
    """Give images the context pixels that convolutions without padding need.

    Input shape `(batch, side, side, channels)`. Images of side `size + sum(available)` bring their
    context, which is cropped to what is required. Images of side `size` are padded by reflection.
    Output shape `(batch, size + sum(required), size + sum(required), channels)`.

    Args:
        size: Side in pixels of an image without context.
        available: Pixels of context before (above, left) and after (below, right) that images can
            bring.
        required: Pixels of context of the output before and after, at most those available.
    """

    def __init__(
        self, size: int, available: tuple[int, int], required: tuple[int, int], **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.size = size
        self.available = tuple(available)
        self.required = tuple(required)

    def call(self, inputs: Tensor) -> Tensor:
        """Crop or pad images `(batch, side, side, channels)`."""
        sides = tuple(inputs.shape[1:3])
        whole = self.size + sum(self.available)
        if sides == (whole, whole):
            return self.crop(inputs)
        if sides == (self.size, self.size):
            return ops.pad(inputs, ((0, 0), self.required, self.required, (0, 0)), mode="reflect")
        if sides == (None, None):  # Keras drops static shapes after two different ones
            return self._gather(inputs)
        raise ArgumentError(
            f"Images have the wrong size. Expected {self.size} x {self.size} px, or {whole} x "
            f"{whole} px with context. Received: {sides[0]} x {sides[1]} px."
        )

    def _gather(self, inputs: Tensor) -> Tensor:
        """Do the same for sides that are known only at run time; other sides are an error."""
        before, after = self.required
        reflected = np.pad(np.arange(self.size), (before, after), mode="reflect")
        cropped = self.available[0] - before + np.arange(len(reflected))
        for axis in (1, 2):
            side = ops.shape(inputs)[axis]
            # Any other side is itself an index out of range.
            pixels = ops.where(side == self.size + sum(self.available), cropped, side)
            pixels = ops.where(side == self.size, reflected, pixels)
            inputs = ops.take(inputs, pixels, axis=axis)
        return inputs

    def crop(self, images: Tensor) -> Tensor:
        """Crop images of any size from the available to the required context."""
        before, after = (a - r for a, r in zip(self.available, self.required, strict=True))
        rows, cols = (slice(before, -after or None) for _ in range(2))
        return images[:, rows, cols]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the output shape, whose sides stay open."""
        # Sides stay open, so that the following layers also accept whole rasters.
        return (input_shape[0], None, None, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        sides = {"size": self.size, "available": self.available, "required": self.required}
        return {**super().get_config(), **sides}
