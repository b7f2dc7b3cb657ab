"""Receptive field of encoders with `padding="context"`.

None of their convolutions pads. Each trims cells before (above, left) and after (below, right) its
input, those that `padding="zeros"` replaces with zeros. The trimmed cells add up to the margin of
context pixels that a window needs.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from sits_keras.config import CELL_SIZE, IMAGE_SIZE, ModelConfig

Tensor = Any


class ConvStep(NamedTuple):
    """One convolution without padding.

    Attributes:
        stride: Stride of the convolution.
        trim: Cells of its input that it trims before and after.
    """

    stride: int
    trim: tuple[int, int]


SECOND_TRIMS = ((1, 0), (1, 0), (0, 1))
"""Cells trimmed by the second convolution of each residual block.

Its kernel is 2x2. At strides of 4, 8 and 16 px, 4x4 kernels would see 71 px beyond the window, and
a training step would take 2.7 times as long as with zeros instead of 1.7 times. The third trim is
mirrored to keep the margins before and after similar.
"""

SHARED_STEPS: Sequence[ConvStep] = (*[ConvStep(2, (1, 1))] * 4, ConvStep(1, (1, 2)))
"""Convolutions of the shared encoder."""

EXCLUSIVE_STEPS: Sequence[ConvStep] = (
    ConvStep(2, (1, 1)),
    *(step for trim in SECOND_TRIMS for step in (ConvStep(2, (1, 1)), ConvStep(1, trim))),
)
"""Convolutions of the exclusive encoder, along the longer branch of each residual block."""


def cell_distance(stride: int) -> int:
    """Return the pixels between the cells that the windows at a stride have together.

    Args:
        stride: Distance between windows in pixels.
    """
    return math.gcd(stride, CELL_SIZE)


def receptive_margin(steps: Sequence[ConvStep]) -> tuple[int, int]:
    """Return the pixels before and after a window that consecutive convolutions see."""
    before = after = 0
    scale = 1
    for stride, trim in steps:
        before += scale * trim[0]
        after += scale * trim[1]
        scale *= stride
    return before, after


def context_margin(config: ModelConfig) -> tuple[int, int]:
    """Return the pixels before and after a window that its representations depend on.

    Both encoders share one margin, the larger of the two. It is `(0, 0)` with `padding="zeros"`.
    """
    if config.padding == "zeros":
        return (0, 0)
    before, after = zip(
        receptive_margin(SHARED_STEPS), receptive_margin(EXCLUSIVE_STEPS), strict=True
    )
    return (max(before), max(after))


def crop_context(images: Tensor, config: ModelConfig) -> Tensor:
    """Return images without their context margin, `(batch, 64, 64, bands)`.

    Images that have no margin are returned unchanged.
    """
    from keras import ops  # here, because maps use this module without Keras

    side = images.shape[1]
    if config.padding == "zeros" or side == IMAGE_SIZE:
        return images
    before, _ = context_margin(config)
    if side is None:  # Keras drops static shapes after two different ones
        before = ops.where(ops.shape(images)[1] == IMAGE_SIZE, 0, before)
    window = slice(before, before + IMAGE_SIZE)
    return ops.reshape(images[:, window, window], (-1, *config.image_shape))
