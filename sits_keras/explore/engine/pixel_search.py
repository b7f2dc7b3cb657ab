"""Windows found again by their raw pixels: exactly, without comparing them all.

The L1 distance of two windows is at least that of the sums of their blocks of 8 x 8 pixels, which
are 64 times fewer. So windows are compared in the order of that bound, until what was found is
nearer than the bound of all that are left (successive elimination; Li and Salari, 1995).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.rows import Strips
from sits_keras.tasks.retrieval.search import Match, select_matches

_BLOCK = 8
_INSIDE = _BLOCK * np.arange(IMAGE_SIZE // _BLOCK)
_FIRST = 64  # windows that are compared at once, at first
_NUM_THREADS = 2


def block_sums(strips: Strips, rows: Sequence[int], cols: Sequence[int]) -> np.ndarray:
    """Sums of the blocks of 8 x 8 pixels that windows are made of.

    Args:
        strips: the image.
        rows, cols: where windows begin, in ascending order.
    Returns:
        `(block rows, block columns, bands)` float32, exact; for each row and column that a block of
        some window begins in, in ascending order.
    """
    tops, lefts = (_block_starts(np.array(starts)) for starts in (rows, cols))
    table = np.empty((len(tops), len(lefts), len(strips.bands)), np.float32)
    for index, top in enumerate(tops):
        line = strips.read(int(top), _BLOCK).sum(axis=0, dtype=np.int64).cumsum(axis=0)
        line = np.insert(line, 0, 0, axis=0)
        table[index] = line[lefts + _BLOCK] - line[lefts]
    return table


def find_pixels(
    query: np.ndarray,
    rows: np.ndarray,
    cols: np.ndarray,
    valid_fraction: np.ndarray,
    blocks: np.ndarray,
    read: Callable[[int, int], np.ndarray],
    *,
    num_matches: int,
    min_distance: int,
    most: int | None = None,
) -> tuple[list[Match], int]:
    """The windows whose pixels are nearest to a query's, as `lookup.find_windows` finds them with
    `raw_pixels`; of windows as near as each other, the upper left one first.

    Args:
        query: `(64, 64, bands)` uint16 stored values.
        rows, cols: where windows begin.
        valid_fraction: `(rows, cols)`, share of their pixels that hold data.
        blocks: what `block_sums` gave.
        read: the stored values of the window that begins in a row and column.
        num_matches, min_distance: see `lookup.find_windows`.
        most: windows to compare, at most: those of the least bounds. The matches are then the
            nearest of these.
    Returns:
        The matches, the nearest first, with distances in reflectance, summed over pixels and bands;
        and how many windows were compared.
    """
    bounds = _bounds(query, rows, cols, blocks)
    where = np.argwhere(valid_fraction > 0)
    bounds = bounds[valid_fraction > 0]
    order = np.argsort(bounds, kind="stable")
    where, bounds = where[order][:most], bounds[order][:most]
    compared = np.empty((0, 4))
    matches: list[Match] = []
    step = _FIRST
    while len(compared) < len(where):
        batch = where[len(compared) : len(compared) + step]
        new = np.zeros((len(batch), 4))  # distance, nothing, row, column
        new[:, 2], new[:, 3] = rows[batch[:, 0]], cols[batch[:, 1]]
        new[:, 0] = _compare(query, new[:, 2:].astype(int), read)
        compared = np.concatenate([compared, new])
        best = compared[np.lexsort((compared[:, 3], compared[:, 2], compared[:, 0]))]
        matches = select_matches(0, best, num_matches, min_distance)
        left = bounds[len(compared)] if len(compared) < len(where) else np.inf
        if len(matches) == num_matches and matches[-1].distance <= left:
            break
        step *= 2
    scaled = [one._replace(distance=one.distance / QUANTIFICATION) for one in matches]
    return scaled, len(compared)


def _compare(
    query: np.ndarray, places: np.ndarray, read: Callable[[int, int], np.ndarray]
) -> np.ndarray:
    """L1 distances of windows from a query, `(windows,)` float64, exact."""

    def measure(part: np.ndarray) -> list[int]:
        one, other = np.empty_like(query), np.empty_like(query)
        sums = []
        for row, col in part:
            window = read(int(row), int(col))
            # The difference of unsigned numbers, without a copy of another type.
            np.maximum(query, window, out=one)
            np.minimum(query, window, out=other)
            sums.append(int(np.subtract(one, other, out=one).sum(dtype=np.int64)))
        return sums

    parts = np.array_split(places, _NUM_THREADS)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return np.concatenate(list(pool.map(measure, parts))).astype(np.float64)


def _bounds(
    query: np.ndarray, rows: np.ndarray, cols: np.ndarray, blocks: np.ndarray
) -> np.ndarray:
    """`(rows, cols)` float64, what the distance of each window from the query is at least."""
    count = IMAGE_SIZE // _BLOCK
    bands = query.shape[-1]
    wanted = query.reshape(count, _BLOCK, count, _BLOCK, bands).sum(axis=(1, 3), dtype=np.int64)
    down = np.searchsorted(_block_starts(rows), rows[:, None] + _INSIDE)
    along = np.searchsorted(_block_starts(cols), cols[:, None] + _INSIDE)
    bounds = np.zeros((len(rows), len(cols)))
    for i in range(count):
        for j in range(count):
            sums = blocks[np.ix_(down[:, i], along[:, j])]
            bounds += np.abs(sums - wanted[i, j].astype(np.float32)).sum(axis=-1)
    return bounds


def _block_starts(starts: np.ndarray) -> np.ndarray:
    return np.unique(starts[:, None] + _INSIDE)
