"""Blocks of windows through an encoder: in batches, or as tiles that share what overlaps."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import NODATA, QUANTIFICATION, aligned_empty
from sits_keras.data.rasters.rows import Strips
from sits_keras.data.tiling import reflect, split_evenly

T = TypeVar("T")


class WindowBlock(NamedTuple):
    """The pixels of windows that begin in some rows of an image, or of several.

    Attributes:
        rows, cols: where windows begin in `pixels`, surroundings included.
        pixels: of each image, `(height, width, bands)` uint16 stored values.
        num_valid: `(rows, cols)` int, pixels of each window that hold data in the first image.
        brightness: `(rows, cols)` float32, their mean reflectance, 0 where there are none.
    """

    rows: np.ndarray
    cols: np.ndarray
    pixels: list[np.ndarray]
    num_valid: np.ndarray
    brightness: np.ndarray


def even_spans(
    offsets: Sequence[int] | np.ndarray, stride: int | None, most: int
) -> list[tuple[int, int]]:
    """Cuts ascending offsets where they leave the stride, and into parts of at most `most`.

    Args:
        offsets: at least one.
        stride: between two that may be in one part; `None` for any.
        most: at least 1.
    Returns:
        Index of the first offset of each part, and of the one after its last.
    """
    leaps = [
        index
        for index, (one, other) in enumerate(itertools.pairwise(offsets), start=1)
        if stride is not None and other - one != stride
    ]
    return [
        (start + first, start + first + length)
        for start, stop in itertools.pairwise([0, *leaps, len(offsets)])
        for first, length in split_evenly(stop - start, most)
    ]


def read_block(
    images: Sequence[Strips],
    rows: Sequence[int],
    cols: Sequence[int],
    context_margin: tuple[int, int],
) -> WindowBlock:
    """Reads the windows that begin in some rows, with their surroundings.

    Args:
        images: of the same size.
        rows, cols: where windows begin, both in ascending order.
        context_margin: pixels before and after each window; reflected beyond the image's edges.
    """
    before, after = context_margin
    top, bottom = rows[0] - before, rows[-1] + IMAGE_SIZE + after
    left, right = cols[0] - before, cols[-1] + IMAGE_SIZE + after
    height, width = images[0].grid[:2]
    shown, columns = reflect(np.arange(top, bottom), height), reflect(np.arange(left, right), width)
    first = shown.min()
    pixels = []
    for image in images:
        stored = image.read(int(first), int(shown.max() + 1 - first))
        if top < 0 or bottom > height:
            stored = stored[shown - first]
        parts = [
            stored[:, columns[:-left]] if left < 0 else None,
            stored[:, max(0, left) : right],
            stored[:, columns[width - left :]] if right > width else None,
        ]
        kept = [part for part in parts if part is not None]
        pixels.append(np.concatenate(kept, axis=1) if len(kept) > 1 else kept[0])
    rows_here, cols_here = np.array(rows) - rows[0], np.array(cols) - cols[0]
    inside = pixels[0][before : bottom - top - after, before : right - left - after]
    num_valid = _window_sums(inside[..., 0] != NODATA, rows_here, cols_here)
    bands = np.moveaxis(inside, -1, 0)
    total = sum(bands[1:], start=bands[0].astype(np.uint32))  # three times as fast as .sum(axis=-1)
    sums = _window_sums(total, rows_here, cols_here)
    brightness = sums / (np.maximum(num_valid, 1) * (len(bands) * QUANTIFICATION))
    return WindowBlock(rows_here, cols_here, pixels, num_valid, brightness.astype(np.float32))


def read_ahead(parts: Iterator[T]) -> Iterator[T]:
    """Yields what `parts` yields; a thread gets the next part while the last one is worked on."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, parts, end)
        while (part := coming.result()) is not end:
            coming = thread.submit(next, parts, end)
            yield part  # type: ignore[misc]


def _window_sums(values: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Sums over windows that begin in some rows and columns, `(rows, cols)` int64.

    Args:
        values: `(height, width)` bool or unsigned; the first window begins with it, the last one
            ends with it.
        rows, cols: ascending.
    """
    for axis, starts in enumerate((rows, cols)):
        edges = np.unique(np.concatenate([starts, starts + IMAGE_SIZE]))
        cells = np.add.reduceat(values, edges[:-1], axis=axis, dtype=np.int64)
        running = np.insert(cells.cumsum(axis=axis), 0, 0, axis=axis)
        ends, begins = (np.searchsorted(edges, starts + size) for size in (IMAGE_SIZE, 0))
        values = running.take(ends, axis=axis) - running.take(begins, axis=axis)
    return values


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
    block: WindowBlock,
    tick: Callable[[int], Any] = lambda count: None,
) -> BlockValues:
    """Values, valid_fraction and brightness of a block's windows."""
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


def _encode_batches(encoder: Any, layout: Layout, block: WindowBlock) -> _Encoded:
    """Windows with data, each alone: `(batch, num_features)`."""
    filled = np.argwhere(block.num_valid)
    starts = range(0, len(filled), layout.batch_size)
    places = [filled[first : first + layout.batch_size] for first in starts]
    batches = read_ahead(_copy_windows(block, places, IMAGE_SIZE + sum(halo_of(encoder))))
    for where, images in zip(places, batches, strict=True):
        # A copy, for an encoder may give a view of the batch, which is used again.
        yield tuple(where.T), [np.array(encoder(batch), np.float32) for batch in images]


def _copy_windows(
    block: WindowBlock, places: Sequence[np.ndarray], side: int
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


def _encode_tiles(encoder: Any, layout: Layout, block: WindowBlock) -> _Encoded:
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
    return getattr(encoder, "context_margin", (0, 0))
