"""The dense function of an encoder: all windows of a raster at once, overlaps computed once.

An encoder halves four times, so that windows 16 px apart share every layer. To put them closer,
maps are split before the last halvings into the four phases of even and odd rows and columns, each
of which goes on as an image of its own: windows 8 px apart share all but what follows the third
halving, windows 4 px apart all but what follows the second. It is the window function exactly,
but for rounding, because no convolution of such an encoder pads; one that pads with zeros at each
window's edges has no dense function.
"""

import math
from typing import Any

import keras
from keras import ops

from sits_keras.config import GRID_SIZE, IMAGE_SIZE
from sits_keras.errors import ConfigError
from sits_keras.layers import Surround

Tensor = Any

WHY_NOT = (
    "its convolutions pad with zeros at the edges of each window, so that windows encoded together "
    'would not be what they are alone. Train a model with padding="context" (--padding context)'
)
"""Why an encoder of `padding="zeros"` has no dense function."""

_NUM_HALVINGS = 4


def encode_densely(network: keras.Model, images: Tensor, stride: int) -> Tensor:
    """Features of the windows of images, as `network` gives them of each with its surroundings.

    Any stride is served; the cost is that of the largest of 1, 2, 4, 8 and 16 that divides it.

    Args:
        network: an encoder under `padding="context"`; its weights are read when this is called.
        images: `(batch, height, width, bands)` in [-1, 1], of which the halo (`surroundings.halo`)
            belongs to no window: the first one begins `before` pixels from the upper left.
        stride: pixels from a window to the next.
    Returns:
        `(batch, rows, cols, num_features)` float32, rows being
        `(height - before - after - 64) // stride + 1`: the flattened grid of the shared encoder,
        the mean of the exclusive posterior.
    Raises:
        ConfigError: the encoder pads with zeros, the stride is no positive number, or the images
            are smaller than a window with its surroundings.
    """
    name = network.name.removesuffix("_encoder")
    surround = next((layer for layer in network.layers if isinstance(layer, Surround)), None)
    if surround is None:
        raise ConfigError(f"The {name} encoder cannot encode densely: {WHY_NOT}.")
    if not isinstance(stride, int) or stride < 1:
        raise ConfigError(f"stride must be a whole number of at least 1. Received: {stride!r}.")
    rows, cols = (
        _num_windows(side, sum(surround.offered), stride) for side in ops.shape(images)[1:3]
    )
    spacing = math.gcd(stride, 2**_NUM_HALVINGS)
    num_splits = _NUM_HALVINGS - spacing.bit_length() + 1

    x = surround.trim(images)
    before = surround.output
    for index in range(1, _NUM_HALVINGS + 1):
        if index > _NUM_HALVINGS - num_splits:
            x = _split(x)
        after = network.get_layer(f"{name}_{index}_activation").output
        x = keras.Function(before, after)(x)
        before = after
    if name == "shared":
        x = keras.Function(before, network.output)(x)
        for _ in range(num_splits):
            x = _merge(x)
        cells = [index * 2**num_splits for index in range(GRID_SIZE)]
        return ops.cast(
            ops.concatenate(
                [_windows(x, rows, cols, stride // spacing, a, b) for a in cells for b in cells],
                axis=-1,
            ),
            "float32",
        )
    dense = network.get_layer("exclusive_mean")
    kernel = ops.reshape(dense.kernel, (GRID_SIZE, GRID_SIZE, -1, dense.units))
    x = ops.conv(ops.cast(x, dense.compute_dtype), kernel) + dense.bias
    for _ in range(num_splits):
        x = _merge(x)
    return _windows(x, rows, cols, stride // spacing)


def _num_windows(side: Any, halo: int, stride: int) -> Any:
    if isinstance(side, int) and side < IMAGE_SIZE + halo:
        raise ConfigError(
            f"Expected images of at least {IMAGE_SIZE + halo} px a side, a window of "
            f"{IMAGE_SIZE} px with its surroundings. Received: {side} px."
        )
    return (side - halo - IMAGE_SIZE) // stride + 1


def _split(x: Tensor) -> Tensor:
    """Four phases of a map, one after the other along the batch: from rows and columns 0 or 1."""
    x = ops.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    phases = (slice(None, -1), slice(1, None))
    return ops.concatenate([x[:, rows, cols] for rows in phases for cols in phases], axis=0)


def _merge(x: Tensor) -> Tensor:
    """Puts four phases, each of one cell for every two, together again."""
    batch, height, width, channels = ops.shape(x)
    x = ops.reshape(x, (2, 2, batch // 4, height, width, channels))
    x = ops.transpose(x, (2, 3, 0, 4, 1, 5))
    return ops.reshape(x, (batch // 4, 2 * height, 2 * width, channels))


def _windows(x: Tensor, rows: Any, cols: Any, step: int, row: int = 0, col: int = 0) -> Tensor:
    """Of each window, `step` cells from the next, its cell `(row, col)`."""
    last_row, last_col = row + (rows - 1) * step + 1, col + (cols - 1) * step + 1
    return x[:, row:last_row:step, col:last_col:step]
