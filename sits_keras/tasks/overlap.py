"""From windows that overlap to pixels: each gets what the windows that cover it say together."""

from collections.abc import Iterable, Iterator

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.errors import ConfigError


def sum_over_windows(
    rows: Iterable[tuple[int, np.ndarray, np.ndarray]], height: int, width: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Sums of what the windows that cover a pixel hold, from the top, some rows at a time.

    Args:
        rows: windows by the row that they begin in, in ascending order: that row, `(windows,)`
            columns that they begin in, `(windows, values)` finite float.
        height, width: of the image.
    Yields:
        The first row and `(rows, width, values)` float64 sums, 0 where there is no window.
    """
    top = 0
    sums = np.zeros((0, width, 0))  # of the rows from `top` on
    for row, cols, values in rows:
        if row > top and len(sums):
            yield top, sums[: row - top]
            sums = sums[row - top :]
        top = row
        line = np.zeros((width, values.shape[1]))
        for col, value in zip(cols, values, strict=True):
            line[col : col + IMAGE_SIZE] += value
        below = np.zeros((IMAGE_SIZE - len(sums), *line.shape))
        sums = np.concatenate([sums, below]) if len(sums) else below
        sums += line
    if len(sums):
        yield top, sums[: height - top]


def check_stride(stride: int) -> None:
    """Raises ConfigError where a stride is below 1 or leaves pixels that no window covers."""
    if not 1 <= stride <= IMAGE_SIZE:
        raise ConfigError(
            f"The stride must be 1 to {IMAGE_SIZE} px, so that windows cover every pixel. "
            f"Received: {stride}."
        )
