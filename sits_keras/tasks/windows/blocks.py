"""Blocks of windows: which windows are read at a time, their pixels, and what these hold."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import NODATA, QUANTIFICATION
from sits_keras.data.rasters.rows import Strips
from sits_keras.data.tiling import reflect, split_evenly

T = TypeVar("T")


class Block(NamedTuple):
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
    images: Sequence[Strips], rows: Sequence[int], cols: Sequence[int], halo: tuple[int, int]
) -> Block:
    """Reads the windows that begin in some rows, with their surroundings.

    Args:
        images: of the same size.
        rows, cols: where windows begin, both in ascending order.
        halo: pixels before and after each window; beyond the image's edges they are its reflection.
    """
    before, after = halo
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
    return Block(rows_here, cols_here, pixels, num_valid, brightness.astype(np.float32))


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
