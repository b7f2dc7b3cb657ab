"""Blocks that the four networks are built of (section 3.2).

Every convolution of the paper has a 4x4 kernel; all but those that give the generated image and
the probability are followed by batch normalisation and leaky ReLU.
"""

import contextlib
import zlib
from collections.abc import Iterator
from typing import Any, Literal

import keras
from keras import layers, ops

from sits_keras.errors import ConfigError

Tensor = Any
KERNEL_SIZE = 4


@contextlib.contextmanager
def default_dtype_policy(policy: keras.dtype_policies.DTypePolicy) -> Iterator[None]:
    """Within it, layers are made with `policy` unless they are given a dtype of their own."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def seeded_initializer(seed: int, name: str) -> keras.initializers.Initializer:
    """Glorot-uniform initializer whose draw depends on nothing but `seed` and a layer's name."""
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
    """Convolution, batch normalisation and leaky ReLU.

    Args:
        x: `(batch, height, width, channels)`.
        filters: channels of the output.
        strides: 2 halves the sides, 1 keeps them.
        slope: slope of leaky ReLU below zero.
        seed: seed of the initial weights.
        name: prefix of the names of the block's layers.
        padding: `"same"` pads with zeros, `"valid"` does not pad.
    Returns:
        `(batch, height / strides, width / strides, filters)`, less under `"valid"`.
    """
    x = _convolve_and_normalise(
        x, filters, KERNEL_SIZE, strides=strides, padding=padding, seed=seed, name=name
    )
    return layers.LeakyReLU(slope, name=f"{name}_activation")(x)


def transposed_conv_block(x: Tensor, filters: int, *, slope: float, seed: int, name: str) -> Tensor:
    """Transposed convolution of stride 2, batch normalisation and leaky ReLU.

    Args:
        x: `(batch, height, width, channels)`.
        filters: channels of the output.
        slope: slope of leaky ReLU below zero.
        seed: seed of the initial weights.
        name: prefix of the names of the block's layers.
    Returns:
        `(batch, 2 * height, 2 * width, filters)`.
    """
    x = layers.Conv2DTranspose(
        filters,
        KERNEL_SIZE,
        strides=2,
        padding="same",
        use_bias=False,
        kernel_initializer=seeded_initializer(seed, f"{name}_conv"),
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return layers.LeakyReLU(slope, name=f"{name}_activation")(x)


def residual_block(
    x: Tensor,
    filters: int,
    *,
    slope: float,
    seed: int,
    name: str,
    lost: tuple[int, int] | None = None,
) -> Tensor:
    """Residual block of two convolutions that halves the sides (He et al., 2016).

    The first convolution has the stride, the second none: half the work of the other order. The
    shortcut averages 2x2 pixels and maps them with a 1x1 convolution, so that it sees every pixel.

    Args:
        x: `(batch, height, width, channels)`.
        filters: channels of the output.
        slope: slope of leaky ReLU below zero.
        seed: seed of the initial weights.
        name: prefix of the names of the block's layers.
        lost: without it, convolutions pad with zeros. With it none pads, and the second one, whose
            kernel is then of `1 + sum(lost)`, loses so many cells before and after.
    Returns:
        `(batch, height / 2, width / 2, filters)`, with `lost` less `1 + sum(lost)` cells a side.
    """
    padding: Literal["same", "valid"] = "same" if lost is None else "valid"
    residual = conv_block(
        x, filters, strides=2, padding=padding, slope=slope, seed=seed, name=f"{name}_a"
    )
    kernel_size = KERNEL_SIZE if lost is None else 1 + sum(lost)
    residual = _convolve_and_normalise(
        residual, filters, kernel_size, strides=1, padding=padding, seed=seed, name=f"{name}_b"
    )
    if lost is not None:  # the first convolution loses a pixel on each side, the second two a cell
        sides = tuple(1 + 2 * cells for cells in lost)
        x = layers.Cropping2D((sides, sides), name=f"{name}_shortcut_crop")(x)
    shortcut = layers.AveragePooling2D(2, name=f"{name}_shortcut_pool")(x)
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
        use_bias=False,  # batch normalisation takes the mean away
        kernel_initializer=seeded_initializer(seed, f"{name}_conv"),
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(name=f"{name}_norm")(x)


@keras.saving.register_keras_serializable(package="sits_keras")
class RepeatOverGrid(layers.Layer):
    """Repeats a vector over a square grid, so that it can be concatenated with feature maps.

    Args:
        size: side of the grid.

    Input shape `(batch, channels)`, output shape `(batch, size, size, channels)`.
    """

    def __init__(self, size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs: Tensor) -> Tensor:
        return ops.tile(inputs[:, None, None, :], (1, self.size, self.size, 1))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.size, self.size, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="sits_keras")
class Surround(layers.Layer):
    """Gives images the surroundings that convolutions without padding ask for.

    Args:
        size: side of an image without surroundings.
        offered: pixels before (above, left) and after (below, right) that images come with.
        wanted: pixels before and after to give; not more than are offered.

    Input shape `(batch, side, side, channels)`, side being `size`, and surroundings are then
    made by reflection, or `size + sum(offered)`, and are then cut from what is there. Output shape
    `(batch, size + sum(wanted), size + sum(wanted), channels)`.
    """

    def __init__(self, size: int, offered: tuple[int, int], wanted: tuple[int, int], **kwargs: Any):
        super().__init__(**kwargs)
        self.size = size
        self.offered = tuple(offered)
        self.wanted = tuple(wanted)

    def call(self, inputs: Tensor) -> Tensor:
        sides = tuple(inputs.shape[1:3])
        whole = self.size + sum(self.offered)
        if sides == (whole, whole):
            return self.trim(inputs)
        if sides == (self.size, self.size):
            return ops.pad(inputs, ((0, 0), self.wanted, self.wanted, (0, 0)), mode="reflect")
        raise ConfigError(
            f"Expected images of {self.size} x {self.size} px, or of {whole} x {whole} px with "
            f"their surroundings. Received: {sides[0]} x {sides[1]}."
        )

    def trim(self, images: Tensor) -> Tensor:
        """Takes off what is offered and not wanted, of images of any size."""
        before, after = (o - w for o, w in zip(self.offered, self.wanted, strict=True))
        rows, cols = (slice(before, -after or None) for _ in range(2))
        return images[:, rows, cols]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        # Sides are left open, so that what follows can also be applied to whole rasters.
        return (input_shape[0], None, None, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        sides = {"size": self.size, "offered": self.offered, "wanted": self.wanted}
        return {**super().get_config(), **sides}
