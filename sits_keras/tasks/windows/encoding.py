"""Blocks of windows through an encoder: in batches, or as tiles that share what overlaps."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.aligned import aligned_empty
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.rows import Strips
from sits_keras.tasks.windows.blocks import Block, even_spans, read_ahead, read_block

TILE_SIDE = 512
"""Pixels that windows begin in, of what dense mode encodes at a time."""

Reduce = Callable[..., np.ndarray]
"""From `(windows, num_features)` of each image to what is kept of each window, `(windows, ...)`."""


class Layout(NamedTuple):
    """Where windows begin in every row, and how they are encoded."""

    cols: tuple[int, ...]
    stride: int
    is_dense: bool
    batch_size: int


BlockValues = tuple[np.ndarray, np.ndarray, np.ndarray]  # each (rows, cols, ...)


def read_and_encode(
    encoder: Any,
    layout: Layout,
    reduce: Reduce | None,
    images: Sequence[Strips],
    rows: Sequence[int],
) -> BlockValues:
    """What a worker does."""
    block = read_block(images, rows, layout.cols, halo_of(encoder))
    return encode_block(encoder, layout, reduce, block)


def encode_block(
    encoder: Any,
    layout: Layout,
    reduce: Reduce | None,
    block: Block,
    tick: Callable[[int], Any] = lambda count: None,
) -> BlockValues:
    """Values, data_share and brightness of a block's windows."""
    reduced = reduce or _only
    empty = block.num_valid == 0
    num_left = block.num_valid.size
    values: np.ndarray | None = None
    parts = _encode_tiles if layout.is_dense else _encode_batches
    for where, features in parts(encoder, layout, block):
        new = reduced(*(one.reshape(-1, one.shape[-1]) for one in features))
        if values is None:
            values = np.zeros((*block.num_valid.shape, *new.shape[1:]), new.dtype)
        values[where] = new.reshape(*features[0].shape[:-1], *new.shape[1:])
        tick(features[0][..., 0].size)
        num_left -= features[0][..., 0].size
    if values is None:
        side = IMAGE_SIZE + sum(halo_of(encoder))
        blank = np.zeros((1, side, side, block.pixels[0].shape[2]), np.float32)
        new = reduced(*[np.asarray(encoder(blank), np.float32)] * len(block.pixels))
        values = np.zeros((*block.num_valid.shape, *new.shape[1:]), new.dtype)
    values[empty] = np.nan if values.dtype.kind == "f" else 0
    tick(num_left)
    share = (block.num_valid / IMAGE_SIZE**2).astype(np.float32)
    return values, share, block.brightness


_Encoded = Iterator[tuple[Any, list[np.ndarray]]]  # an index into (rows, cols); features of each


def _encode_batches(encoder: Any, layout: Layout, block: Block) -> _Encoded:
    """Windows with data, each alone: `(batch, num_features)`."""
    filled = np.argwhere(block.num_valid)
    starts = range(0, len(filled), layout.batch_size)
    places = [filled[first : first + layout.batch_size] for first in starts]
    batches = read_ahead(_copy_windows(block, places, IMAGE_SIZE + sum(halo_of(encoder))))
    for where, images in zip(places, batches, strict=True):
        # A copy, for an encoder may give a view of the batch, which is used again.
        yield tuple(where.T), [np.array(encoder(batch), np.float32) for batch in images]


def _copy_windows(
    block: Block, places: Sequence[np.ndarray], side: int
) -> Iterator[list[np.ndarray]]:
    """Reflectance of windows, a batch of each image for each of `places`.

    A batch stays as it is while the next one is copied, and no longer.
    """
    if not places:
        return
    shape = (len(block.pixels), len(places[0]), side, side, block.pixels[0].shape[2])
    buffers = [aligned_empty(shape), aligned_empty(shape)]
    # Once for each pixel: it is in many windows.
    reflectance = [np.divide(pixels, np.float32(QUANTIFICATION)) for pixels in block.pixels]
    for buffer, where in zip(itertools.cycle(buffers), places, strict=False):
        rows, cols = block.rows[where[:, 0]], block.cols[where[:, 1]]
        for batch, pixels in zip(buffer, reflectance, strict=True):
            for target, row, col in zip(batch, rows, cols, strict=False):
                target[...] = pixels[row : row + side, col : col + side]
        yield list(buffer[:, : len(where)])


def _encode_tiles(encoder: Any, layout: Layout, block: Block) -> _Encoded:
    """Tiles that hold data, each at once: `(rows, cols, num_features)`."""
    side = IMAGE_SIZE + sum(halo_of(encoder))
    most = max(1, TILE_SIDE // layout.stride)
    for row, last_row in even_spans(block.rows, layout.stride, most):
        for col, last_col in even_spans(block.cols, layout.stride, most):
            where = slice(row, last_row), slice(col, last_col)
            if not block.num_valid[where].any():
                continue
            down = slice(block.rows[row], block.rows[last_row - 1] + side)
            along = slice(block.cols[col], block.cols[last_col - 1] + side)
            features = []
            for pixels in block.pixels:
                tile = np.divide(pixels[down, along], np.float32(QUANTIFICATION))
                features.append(np.asarray(encoder.dense(tile[None], layout.stride))[0])
            yield where, features


def _only(features: np.ndarray) -> np.ndarray:
    return features


def halo_of(encoder: Any) -> tuple[int, int]:
    """Pixels that an encoder sees before and after a window; none where it does not say."""
    return getattr(encoder, "halo", (0, 0))
