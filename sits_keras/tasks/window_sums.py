"""Sums over the overlapping windows that cover each pixel, computed once for equal pixels."""

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.config import IMAGE_SIZE
from sits_keras.errors import ConfigError


class EqualRows(NamedTuple):
    """Rows of an image that the same windows cover.

    Attributes:
        row: First row.
        num_rows: Number of rows.
        edges: `(cells + 1,)` columns between which pixels are covered by the same windows.
        sums: `(cells, values)` float64, sums over the windows of each cell, 0 where there are none.
    """

    row: int
    num_rows: int
    edges: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]

    def spread(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return values of cells as values of pixels.

        Args:
            values: `(cells, ...)`.

        Returns:
            `(num_rows, width, ...)`, read-only: the rows share their memory.
        """
        line = np.repeat(values, np.diff(self.edges), axis=0)
        return np.broadcast_to(line, (self.num_rows, *line.shape))


def check_stride(stride: int) -> None:
    """Check that windows at a stride cover every pixel.

    Args:
        stride: Distance between windows, in pixels.

    Raises:
        ConfigError: If the stride is not in [1, 64].
    """
    if not 1 <= stride <= IMAGE_SIZE:
        raise ConfigError(
            f"The stride must be 1 to {IMAGE_SIZE} px, so that windows cover every pixel. "
            f"Received: {stride}."
        )


def sum_over_windows(
    rows: Iterable[tuple[int, npt.NDArray[Any], npt.NDArray[Any]]], height: int, width: int
) -> Iterator[EqualRows]:
    """Sum the values of the windows that cover each pixel, from the top, some rows at a time.

    Between two rows in which windows begin or end, all pixels of a column have the same sum, and
    likewise between two such columns, so no sum is computed more than once.

    Args:
        rows: For each row of windows, ascending and at most 64 px apart: the first row,
            `(windows,)` first columns, the same in each row, and `(windows, values)` finite float.
        height: Height of the image.
        width: Width of the image.

    Yields:
        Rows that the same windows cover.
    """
    over: deque[tuple[int, npt.NDArray[Any]]] = deque()  # window rows over the current row
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


def _down_to(
    row: int, top: int, edges: npt.NDArray[np.int64], over: deque[tuple[int, npt.NDArray[Any]]]
) -> Iterator[EqualRows]:
    """Yield the rows from `top` to `row`, between which windows may end and none begins."""
    while top < row:
        while over[0][0] + IMAGE_SIZE <= top:
            over.popleft()
        stop = min(row, over[0][0] + IMAGE_SIZE)
        yield EqualRows(
            top, stop - top, edges, functools.reduce(np.add, [line for _, line in over])
        )
        top = stop


def _sum_by_cell(
    edges: npt.NDArray[np.int64], cols: npt.NDArray[np.int64], values: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Return sums of the windows of one row over each cell, added from left to right."""
    # Not as differences of cumulative sums: equal values must give exactly equal sums.
    first = np.searchsorted(cols, edges[:-1] - IMAGE_SIZE, side="right")
    stop = np.searchsorted(cols, edges[:-1], side="right")
    sums = np.zeros((len(first), values.shape[1]))
    for step in range(int((stop - first).max())):
        covered = first + step < stop
        sums[covered] += values[(first + step)[covered]]
    return sums
