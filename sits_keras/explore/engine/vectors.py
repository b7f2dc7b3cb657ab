"""The features of all windows of a raster, computed once and kept."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.rows import Strips
from sits_keras.data.tiling import sliding_offsets
from sits_keras.explore.engine.pixel_search import block_sums
from sits_keras.tasks.windows.sliding import Encoder, WindowRow, iterate_windows

STRIDES = (4, 8, 16, 32, 64)
"""Pixels from a window to the next that a raster may be explored at."""

MOST_WINDOWS = 20_000
"""Of a raster, where it is encoded densely: what a click compares in a tenth of a second."""

_MOST_EXACT = 4_000  # where each window is encoded alone, some thousand a second


class Vectors(NamedTuple):
    """What is kept of a raster's windows.

    Attributes:
        stride: pixels from a window to the next.
        rows, cols: where windows begin.
        features: `(rows, cols, num_features)` float32, NaN of windows without data; mapped into
            memory.
        data_share, brightness: `(rows, cols)` float32, as in `tasks.windows.WindowRow`.
        blocks: sums of blocks of pixels (`raw.block_sums`).
    """

    stride: int
    rows: np.ndarray
    cols: np.ndarray
    features: np.ndarray
    data_share: np.ndarray
    brightness: np.ndarray
    blocks: np.ndarray

    def window_rows(self, stride: int) -> Iterator[WindowRow]:
        """The windows at a multiple of their own stride, as `iterate_windows` has them."""
        grid = (int(self.rows[-1]) + IMAGE_SIZE, int(self.cols[-1]) + IMAGE_SIZE)
        rows, cols = (sliding_offsets(length, IMAGE_SIZE, stride) for length in grid)
        along = np.searchsorted(self.cols, cols)
        for row, index in zip(rows, np.searchsorted(self.rows, rows), strict=True):
            yield WindowRow(
                row,
                np.array(cols),
                self.features[index, along],
                self.data_share[index, along],
                self.brightness[index, along],
            )


def choose_stride(grid: Grid, is_dense: bool) -> int:
    """The smallest stride at which a raster has no more windows than a click can compare."""
    most = MOST_WINDOWS if is_dense else _MOST_EXACT
    for stride in STRIDES:
        rows, cols = (len(sliding_offsets(length, IMAGE_SIZE, stride)) for length in grid[:2])
        if rows * cols <= most:
            return stride
    return STRIDES[-1]


def write_vectors(
    folder: Path,
    strips: Strips,
    encoder: Encoder,
    stride: int,
    advance: Callable[[float], None],
) -> None:
    """Encodes a raster's windows and writes what `Vectors` holds, but for the stride, as arrays.

    Args:
        folder: where to.
        strips: the raster.
        encoder: what to apply to each window.
        stride: pixels from a window to the next.
        advance: told which share is done, from time to time; what it raises ends the work.
    Raises:
        ConfigError: the raster is smaller than a window.
    """
    rows, cols = (sliding_offsets(length, IMAGE_SIZE, stride) for length in strips.grid[:2])
    share = np.zeros((len(rows), len(cols)), np.float32)
    brightness = np.zeros_like(share)
    features: np.memmap | None = None
    for index, row in enumerate(iterate_windows(encoder, strips, stride)):
        if features is None:
            features = np.lib.format.open_memmap(
                folder / "features.npy",
                mode="w+",
                dtype=np.float32,
                shape=(*share.shape, row.features.shape[1]),
            )
        features[index], share[index] = row.features, row.data_share
        brightness[index] = row.brightness
        advance((index + 1) / len(rows))
    assert features is not None
    features.flush()
    arrays = {
        "rows": np.array(rows),
        "cols": np.array(cols),
        "data_share": share,
        "brightness": brightness,
        "blocks": block_sums(strips, rows, cols),
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
