"""Dense encoding: all windows of a raster at once, with overlaps computed once.

An encoder downsamples four times by 2, so windows 16 px apart share every layer. For smaller
strides, feature maps are split into the four phases of even and odd rows and columns before the
last downsamplings, and each phase is processed as an image of its own. Windows 8 px apart share
all layers up to the third downsampling, windows 4 px apart those up to the second.

The result equals that of single windows, up to rounding, because no convolution of an encoder of
`padding="context"` pads. Encoders that pad each window with zeros cannot encode densely.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from sits_keras.config import CELL_SIZE, GRID_SIZE, IMAGE_SIZE
from sits_keras.errors import ConfigError
from sits_keras.hub.encoder import NOT_DENSE_REASON
from sits_keras.layers import ContextPadding
from sits_keras.receptive_field import SHARED_STEPS, cell_distance, receptive_margin

Tensor = Any

_NUM_DOWNSAMPLINGS = 4


def encode_densely(
    network: keras.Model, images: Tensor, stride: int, is_valid: Tensor | None = None
) -> Tensor:
    """Encode all windows of images, as `network` encodes each window with its context.

    Any stride is supported. The cost is that of the largest of 1, 2, 4, 8 and 16 that divides it.

    Args:
        network: Encoder of `padding="context"`. Its weights are read at each call.
        images: `(batch, height, width, bands)` in [-1, 1]. The context margin
            (`receptive_field`) belongs to no window: the first window begins `before` pixels
            from the upper left.
        stride: Distance between windows in pixels.
        is_valid: `(batch,)` bool. The features of images that are not valid are NaN.

    Returns:
        `(batch, rows, cols, num_features)` float32, with
        `rows = (height - before - after - 64) // stride + 1`: the flattened grid of the shared
        encoder, or the mean of the exclusive posterior.

    Raises:
        ConfigError: The encoder pads with zeros, the stride is not a positive integer, or the
            images are smaller than a window with its context.
    """
    pad = _context_padding(network)
    if not isinstance(stride, int) or stride < 1:
        raise ConfigError(f"stride must be an integer of at least 1. Received: {stride!r}.")
    rows, cols = (_num_windows(side, sum(pad.available), stride) for side in ops.shape(images)[1:3])
    distance = cell_distance(stride)
    if network.name == "shared_encoder":
        x = cells_densely(network, images, stride, is_valid)
        return _gather_grids(x, rows, cols, stride // distance, CELL_SIZE // distance)
    x = pad.crop(images)
    before = pad.output
    num_splits = (CELL_SIZE // distance).bit_length() - 1
    for index in range(1, _NUM_DOWNSAMPLINGS + 1):
        if index > _NUM_DOWNSAMPLINGS - num_splits:
            x = _split(x)
        after = network.get_layer(f"exclusive_{index}_activation").output
        x = keras.Function(before, after)(x)
        before = after
    dense = network.get_layer("exclusive_mean")
    kernel = ops.reshape(dense.kernel, (GRID_SIZE, GRID_SIZE, -1, dense.units))
    x = ops.conv(ops.cast(x, dense.compute_dtype), kernel, data_format="channels_last")
    x = _finish(x + dense.bias, num_splits, is_valid)
    return _windows(x, rows, cols, stride // distance)


def cells_densely(
    network: keras.Model, images: Tensor, stride: int, is_valid: Tensor | None = None
) -> Tensor:
    """Return the cells of the grids of all windows of images, each once.

    Up to 16 windows share a cell, so their grids take up to 16 times the memory.

    Args:
        network: Shared encoder of `padding="context"`.
        images: See `encode_densely`.
        stride: Distance between windows in pixels.
        is_valid: `(batch,)` bool. The cells of images that are not valid are NaN.

    Returns:
        `(batch, height, width, channels)` float32, cells that are `cell_distance(stride)` px apart.
        Cell (i, j) of the window that begins at pixel (row, col) is that of pixel
        `(row + 16 * i, col + 16 * j)`.
    """
    num_splits = (CELL_SIZE // cell_distance(stride)).bit_length() - 1
    x = _context_padding(network).crop(images)
    for index in range(1, _NUM_DOWNSAMPLINGS + 1):
        if index > _NUM_DOWNSAMPLINGS - num_splits:
            x = _split(x)
        x = _convolve(network, f"shared_{index}", x)
    x = _convolve(network, "shared_5", x)
    x = keras.Function(network.get_layer("shared_5_activation").output, network.output)(x)
    return _finish(x, num_splits, is_valid)


LAYER_SPACING = 4
"""Pixels between the cells that `layers_densely` returns."""


def layers_densely(network: keras.Model, images: Tensor) -> Tensor:
    """Return layers 2 and 3 of the shared encoder at every 4th pixel of images.

    Cells of layer 3 are 8 px apart, so it is computed in four phases.

    Args:
        network: Shared encoder of `padding="context"`.
        images: See `encode_densely`.

    Returns:
        `(batch, rows, cols, channels)` float32, the channels of both layers. Layer 3 of the window
        that begins at pixel `(4 * row, 4 * col)` is every other cell from `(row, col)`, eight along
        each side; these cells of layer 2 are every other one of its 16.
    """
    pad = _context_padding(network)
    rows, cols = (
        (side - sum(pad.available) - IMAGE_SIZE) // LAYER_SPACING + IMAGE_SIZE // LAYER_SPACING
        for side in ops.shape(images)[1:3]
    )
    x = _convolve(network, "shared_1", pad.crop(images))
    x = _convolve(network, "shared_2", x)
    cells = []
    for y, after, scale in (
        (x, SHARED_STEPS[2:], 1),
        (_merge(_convolve(network, "shared_3", _split(x))), SHARED_STEPS[3:], 2),
    ):
        first = scale * receptive_margin(after)[0]
        cells.append(ops.cast(y[:, first : first + rows, first : first + cols], "float32"))
    return ops.concatenate(cells, axis=-1)


def _convolve(network: keras.Model, name: str, x: Tensor) -> Tensor:
    """Apply a convolution, its batch normalisation and its activation (`layers.conv_block`).

    The normalisation is folded into the kernel: two passes less over the feature map, which take
    longer than the arithmetic where it is wide and has few channels.
    """
    conv, norm, activation = (
        network.get_layer(f"{name}_{part}") for part in ("conv", "norm", "activation")
    )
    gain = norm.gamma * ops.rsqrt(norm.moving_variance + norm.epsilon)
    bias = norm.beta - norm.moving_mean * gain
    kernel = ops.cast(conv.kernel * gain, conv.compute_dtype)
    x = ops.conv(
        ops.cast(x, conv.compute_dtype),
        kernel,
        conv.strides,
        conv.padding,
        data_format="channels_last",
    )
    return activation(x + ops.cast(bias, conv.compute_dtype))


def _context_padding(network: keras.Model) -> ContextPadding:
    for layer in network.layers:
        if isinstance(layer, ContextPadding):
            return layer
    name = network.name.removesuffix("_encoder")
    raise ConfigError(f"The {name} encoder cannot encode densely: {NOT_DENSE_REASON}.")


def _num_windows(side: Any, context_margin: int, stride: int) -> Any:
    if isinstance(side, int) and side < IMAGE_SIZE + context_margin:
        raise ConfigError(
            f"Expected images of at least {IMAGE_SIZE + context_margin} px a side: a window of "
            f"{IMAGE_SIZE} px with its context. Received: {side} px."
        )
    return (side - context_margin - IMAGE_SIZE) // stride + 1


def _split(x: Tensor) -> Tensor:
    """Concatenate the four phases of a feature map along the batch, from row and column 0 or 1."""
    x = ops.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    phases = (slice(None, -1), slice(1, None))
    return ops.concatenate([x[:, rows, cols] for rows in phases for cols in phases], axis=0)


def _merge(x: Tensor) -> Tensor:
    """Interleave four phases again: the inverse of `_split`."""
    batch, height, width, channels = ops.shape(x)
    x = ops.reshape(x, (2, 2, batch // 4, height, width, channels))
    x = ops.transpose(x, (2, 3, 0, 4, 1, 5))
    return ops.reshape(x, (batch // 4, 2 * height, 2 * width, channels))


def _finish(x: Tensor, num_splits: int, is_valid: Tensor | None) -> Tensor:
    """Return the cells of whole images in float32, NaN in images that are not valid."""
    x = ops.cast(x, "float32")
    for _ in range(num_splits):
        x = _merge(x)
    return x if is_valid is None else ops.where(is_valid[:, None, None, None], x, np.float32("nan"))


def _windows(x: Tensor, rows: Any, cols: Any, step: int) -> Tensor:
    """Return the first cell of every window, windows being `step` cells apart."""
    return x[:, : (rows - 1) * step + 1 : step, : (cols - 1) * step + 1 : step]


def _gather_grids(x: Tensor, rows: Any, cols: Any, step: int, spacing: int) -> Tensor:
    """Return the flattened grid of every window, `(batch, rows, cols, num_features)`.

    One gather takes half the time of a slice for each cell and their concatenation.

    Args:
        x: `(batch, height, width, channels)` cells.
        rows: Number of windows along the height.
        cols: Number of windows along the width.
        step: Cells from a window to the next.
        spacing: Cells from a cell of a window to its next.
    """
    batch, height, width, channels = ops.shape(x)
    inside = ops.arange(GRID_SIZE) * spacing
    down = ops.arange(rows)[:, None] * step + inside
    along = ops.arange(cols)[:, None] * step + inside
    indices = down[:, None, :, None] * width + along[None, :, None, :]
    grids = ops.take(ops.reshape(x, (batch, height * width, channels)), indices, axis=1)
    return ops.reshape(grids, (batch, rows, cols, GRID_SIZE**2 * channels))
