"""Encode blocks of windows: in batches, or densely as tiles that share what overlaps."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import NODATA, QUANTIFICATION, aligned_empty
from sits_keras.data.rasters.rows import Strips
from sits_keras.data.tiling import reflect, split_evenly

T = TypeVar("T")


class WindowBlock(NamedTuple):
    """Pixels of the windows that begin in some rows of one or several images.

    Attributes:
        rows: `(rows,)` int, first pixel row of each window in `pixels`, context included.
        cols: `(cols,)` int, first pixel column of each window in `pixels`, context included.
        pixels: `(height, width, bands)` uint16 stored values of each image.
        num_valid: `(rows, cols)` int, pixels with data of each window in the first image.
        brightness: `(rows, cols)` float32, their mean reflectance, 0 where there are none.
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    pixels: list[npt.NDArray[np.uint16]]
    num_valid: npt.NDArray[np.int64]
    brightness: npt.NDArray[np.float32]


def even_spans(
    offsets: Sequence[int] | npt.NDArray[np.int64], stride: int | None, most: int
) -> list[tuple[int, int]]:
    """Split ascending offsets where their spacing differs from the stride, and into limited parts.

    Args:
        offsets: Ascending offsets, at least one.
        stride: Required spacing within a part, or None for any.
        most: Maximum number of offsets of a part, at least 1.

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
    """Read the windows that begin in some rows, with their context.

    Args:
        images: Images of the same size.
        rows: First rows of the windows, ascending.
        cols: First columns of the windows, ascending.
        context_margin: Pixels of context before and after each window, reflected beyond the
            image's edges.

    Returns:
        The block.
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
    """Yield the items of `parts`; a thread computes the next item while the last one is in use.

    Args:
        parts: Items to compute ahead.

    Yields:
        The items, in order.
    """
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, parts, end)
        while (part := coming.result()) is not end:
            coming = thread.submit(next, parts, end)
            yield part  # type: ignore[misc]


def _window_sums(
    values: npt.NDArray[Any], rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return sums over the windows that begin in some rows and columns, `(rows, cols)` int64.

    Args:
        values: `(height, width)` bool or unsigned. The first window begins at its first pixel, the
            last window ends at its last.
        rows: First rows, ascending.
        cols: First columns, ascending.
    """
    for axis, starts in enumerate((rows, cols)):
        edges = np.unique(np.concatenate([starts, starts + IMAGE_SIZE]))
        cells = np.add.reduceat(values, edges[:-1], axis=axis, dtype=np.int64)
        running = np.insert(cells.cumsum(axis=axis), 0, 0, axis=axis)
        ends, begins = (np.searchsorted(edges, starts + size) for size in (IMAGE_SIZE, 0))
        values = running.take(ends, axis=axis) - running.take(begins, axis=axis)
    return values


TILE_SIDE = 512
"""Side of the square in which the windows of one tile begin, in pixels, in dense mode."""

Reduce = Callable[..., npt.NDArray[Any]]
"""From `(windows, num_features)` of each image to the values to keep, `(windows, ...)`."""


class WindowLayout(NamedTuple):
    """Columns that windows begin in, and how they are encoded.

    Attributes:
        cols: First columns of the windows.
        stride: Distance between windows, in pixels.
        is_dense: Whether tiles are encoded as a whole.
        batch_size: Windows encoded at a time if not.
    """

    cols: tuple[int, ...]
    stride: int
    is_dense: bool
    batch_size: int


BlockValues = tuple[
    npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.float32]
]  # each (rows, cols, ...)


def read_and_encode(
    encoder: Any,
    layout: WindowLayout,
    reduce: Reduce | None,
    images: Sequence[Strips],
    rows: Sequence[int],
) -> BlockValues:
    """Read and encode one block of windows; this runs in a worker.

    Args:
        encoder: Encoder to apply.
        layout: Columns of the windows, and how they are encoded.
        reduce: See `encode_block`.
        images: Images to read.
        rows: First rows of the windows.

    Returns:
        See `encode_block`.
    """
    block = read_block(images, rows, layout.cols, margin_of(encoder))
    return encode_block(encoder, layout, reduce, block)


def encode_block(
    encoder: Any,
    layout: WindowLayout,
    reduce: Reduce | None,
    block: WindowBlock,
    on_windows: Callable[[int], Any] = lambda count: None,
) -> BlockValues:
    """Encode a block of windows.

    Args:
        encoder: Encoder to apply.
        layout: Columns of the windows, and how they are encoded.
        reduce: Function of the features to keep for each window, or None for the features.
        block: Pixels of the windows.
        on_windows: Called with the number of windows done.

    Returns:
        Values, `(rows, cols, ...)`, NaN or 0 for a window without data; valid-data fraction and
        brightness, each `(rows, cols)` float32.
    """
    reduced = reduce or _identity
    empty = block.num_valid == 0
    num_left = block.num_valid.size
    values: npt.NDArray[Any] | None = None
    parts = _encode_tiles if layout.is_dense else _encode_batches
    for where, features in parts(encoder, layout, block):
        new = reduced(*(one.reshape(-1, one.shape[-1]) for one in features))
        if values is None:
            values = np.zeros((*block.num_valid.shape, *new.shape[1:]), new.dtype)
        values[where] = new.reshape(*features[0].shape[:-1], *new.shape[1:])
        on_windows(features[0][..., 0].size)
        num_left -= features[0][..., 0].size
    if values is None:
        side = IMAGE_SIZE + sum(margin_of(encoder))
        blank = np.zeros((1, side, side, block.pixels[0].shape[2]), np.float32)
        new = reduced(*[np.asarray(encoder(blank), np.float32)] * len(block.pixels))
        values = np.zeros((*block.num_valid.shape, *new.shape[1:]), new.dtype)
    values[empty] = np.nan if values.dtype.kind == "f" else 0
    on_windows(num_left)
    valid_fraction = (block.num_valid / IMAGE_SIZE**2).astype(np.float32)
    return values, valid_fraction, block.brightness


# Index into (rows, cols), and the features of each image.
_Encoded = Iterator[tuple[Any, list[npt.NDArray[np.float32]]]]


def _encode_batches(encoder: Any, layout: WindowLayout, block: WindowBlock) -> _Encoded:
    """Yield features of windows with data, each encoded alone: `(batch, num_features)`."""
    filled = np.argwhere(block.num_valid)
    starts = range(0, len(filled), layout.batch_size)
    places = [filled[first : first + layout.batch_size] for first in starts]
    batches = read_ahead(_copy_windows(block, places, IMAGE_SIZE + sum(margin_of(encoder))))
    for where, images in zip(places, batches, strict=True):
        # Copy: an encoder may return a view of the batch, whose memory is reused.
        yield tuple(where.T), [np.array(encoder(batch), np.float32) for batch in images]


def _copy_windows(
    block: WindowBlock, places: Sequence[npt.NDArray[np.int64]], side: int
) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Yield the reflectance of windows, a batch of each image for each item of `places`.

    A batch is overwritten two items later.
    """
    if not places:
        return
    shape = (len(block.pixels), len(places[0]), side, side, block.pixels[0].shape[2])
    buffers = [aligned_empty(shape), aligned_empty(shape)]
    # Divide each pixel once, not in each window that holds it.
    reflectance = [np.divide(pixels, np.float32(QUANTIFICATION)) for pixels in block.pixels]
    for buffer, where in zip(itertools.cycle(buffers), places, strict=False):
        rows, cols = block.rows[where[:, 0]], block.cols[where[:, 1]]
        for batch, pixels in zip(buffer, reflectance, strict=True):
            for target, row, col in zip(batch, rows, cols, strict=False):
                target[...] = pixels[row : row + side, col : col + side]
        yield list(buffer[:, : len(where)])


def _encode_tiles(encoder: Any, layout: WindowLayout, block: WindowBlock) -> _Encoded:
    """Yield features of tiles with data, each encoded as a whole: `(rows, cols, num_features)`."""
    side = IMAGE_SIZE + sum(margin_of(encoder))
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


def _identity(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return features


def margin_of(encoder: Any) -> tuple[int, int]:
    """Return the pixels of context before and after a window that an encoder sees.

    Args:
        encoder: Encoder, with or without an attribute `context_margin`.
    """
    return getattr(encoder, "context_margin", (0, 0))
