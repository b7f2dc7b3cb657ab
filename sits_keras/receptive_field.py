"""What encoders of `padding="context"` see beyond a window: how far they reach, and why.

None of their convolutions pads. Each loses some cells before (above, left) and after (below,
right) instead, those that `padding="zeros"` makes up as zeros, and these add up to the pixels of
surroundings that a window is to come with.
"""

from collections.abc import Sequence
from typing import Any

from keras import ops

from sits_keras.config import IMAGE_SIZE, ModelConfig

Tensor = Any
Loss = tuple[int, tuple[int, int]]
"""The stride of a convolution, and the cells of its input that it loses before and after."""

SECOND_LOSSES = ((1, 0), (1, 0), (0, 1))
"""Cells lost by the second convolution of each residual block, which is 2x2 for that: of 4x4, at
strides of 4, 8 and 16 px, they would reach 71 px beyond the window, and a training step would take
2.7 times as long as with zeros, not 1.7. Turned about, so that the reach is even."""

SHARED_LOSSES: Sequence[Loss] = (*[(2, (1, 1))] * 4, (1, (1, 2)))
"""Of the shared encoder."""

EXCLUSIVE_LOSSES: Sequence[Loss] = (
    (2, (1, 1)),
    *(loss for second in SECOND_LOSSES for loss in ((2, (1, 1)), (1, second))),
)
"""Of the exclusive encoder, by the longer way through its blocks."""


def reach(losses: Sequence[Loss]) -> tuple[int, int]:
    """Pixels before and after a window that convolutions one after the other see."""
    before = after = 0
    scale = 1
    for stride, lost in losses:
        before += scale * lost[0]
        after += scale * lost[1]
        scale *= stride
    return before, after


def halo(config: ModelConfig) -> tuple[int, int]:
    """Pixels beyond a window that its representations depend on, before and after.

    One for both encoders, the most that either sees; `(0, 0)` under `padding="zeros"`.
    """
    if config.padding == "zeros":
        return (0, 0)
    before, after = zip(reach(SHARED_LOSSES), reach(EXCLUSIVE_LOSSES), strict=True)
    return (max(before), max(after))


def centre(images: Tensor, config: ModelConfig) -> Tensor:
    """Images without their surroundings, `(batch, 64, 64, bands)`; those without, as they are."""
    side = images.shape[1]
    if config.padding == "zeros" or side == IMAGE_SIZE:
        return images
    before, _ = halo(config)
    if side is None:  # Keras lets go of shapes once it has seen two
        before = ops.where(ops.shape(images)[1] == IMAGE_SIZE, 0, before)
    inside = slice(before, before + IMAGE_SIZE)
    return ops.reshape(images[:, inside, inside], (-1, *config.image_shape))
