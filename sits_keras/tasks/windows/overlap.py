"""From windows that overlap to pixels: each gets what the windows that cover it say together."""

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.errors import ConfigError


class EqualRows(NamedTuple):
    """Rows of an image that the same windows cover.

    Attributes:
        row: the first one.
        num_rows: how many.
        edges: `(cells + 1,)` columns between which pixels are covered by the same windows.
        sums: `(cells, values)` float64, of what these windows hold; 0 where there is none.
    """

    row: int
    num_rows: int
    edges: np.ndarray
    sums: np.ndarray

    def spread(self, values: np.ndarray) -> np.ndarray:
        """What is known of each cell, for each pixel: `(cells, ...)` as `(num_rows, width, ...)`.

        The rows share their memory and are not to be written to.
        """
        line = np.repeat(values, np.diff(self.edges), axis=0)
        return np.broadcast_to(line, (self.num_rows, *line.shape))


def sum_over_windows(
    rows: Iterable[tuple[int, np.ndarray, np.ndarray]], height: int, width: int
) -> Iterator[EqualRows]:
    """Sums of what the windows that cover a pixel hold, from the top, some rows at a time.

    Between two rows that windows begin in, all pixels of a column have the same sum, and between
    two such columns all pixels of a row: no sum is worked out more than once.

    Args:
        rows: windows by the row that they begin in, in ascending order and at most 64 px apart:
            that row, `(windows,)` columns that they begin in, the same in each row,
            `(windows, values)` finite float.
        height, width: of the image.
    """
    over: deque[tuple[int, np.ndarray]] = deque()  # rows of windows that cover the row at hand
    edges = np.zeros(0, int)
    top = 0
    for row, cols, values in rows:
        if over:
            yield from _down_to(row, top, edges, over)
        else:
            edges = np.unique(np.concatenate([[0], cols, cols + IMAGE_SIZE, [width]]))
        over.append((row, _sum_by_cell(edges, cols, values)))
        top = row
    if over:
        yield from _down_to(height, top, edges, over)


def check_stride(stride: int) -> None:
    """Raises ConfigError where a stride is below 1 or leaves pixels that no window covers."""
    if not 1 <= stride <= IMAGE_SIZE:
        raise ConfigError(
            f"The stride must be 1 to {IMAGE_SIZE} px, so that windows cover every pixel. "
            f"Received: {stride}."
        )


def _down_to(
    row: int, top: int, edges: np.ndarray, over: deque[tuple[int, np.ndarray]]
) -> Iterator[EqualRows]:
    """The rows from `top` to `row`, between which windows may end and none begins."""
    while top < row:
        while over[0][0] + IMAGE_SIZE <= top:
            over.popleft()
        stop = min(row, over[0][0] + IMAGE_SIZE)
        yield EqualRows(
            top, stop - top, edges, functools.reduce(np.add, [line for _, line in over])
        )
        top = stop


def _sum_by_cell(edges: np.ndarray, cols: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums of the windows of one row over each cell, added from left to right."""
    # Not as differences of running sums: what is the same must leave nothing behind.
    first = np.searchsorted(cols, edges[:-1] - IMAGE_SIZE, side="right")
    stop = np.searchsorted(cols, edges[:-1], side="right")
    sums = np.zeros((len(first), values.shape[1]))
    for step in range(int((stop - first).max())):
        covered = first + step < stop
        sums[covered] += values[(first + step)[covered]]
    return sums
