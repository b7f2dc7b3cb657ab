"""Rasters as they are looked at: overviews, and windows with their surroundings, never the whole.

A raster of up to 16 MB of pixels is kept in memory, for it is looked up again and again.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import NODATA, QUANTIFICATION, show_reflectance
from sits_keras.data.rasters.read import Grid, read_info, read_stored
from sits_keras.data.tiling import Window, reflect

MOST_SHOWN = 1024
"""Rows or columns of a picture, at most: more than a screen shows beside another."""

_SMALL = 16 * 2**20  # bytes
_NUM_KEPT = 24  # small rasters in memory

_SHOWN = ("B04", "B03", "B02")


class Raster:
    """A raster of some bands.

    Attributes:
        path: where it lies.
        bands: what is read of it.
        grid: where its pixels lie.
        is_small: it is kept in memory once it is read.
    """

    def __init__(self, path: Path, bands: Sequence[str]):
        self.path, self.bands = path, tuple(bands)
        self.grid: Grid = read_info(path).grid
        self.is_small = 2 * self.grid.height * self.grid.width * len(bands) <= _SMALL

    def window(self, row: int, col: int, halo: tuple[int, int] = (0, 0)) -> np.ndarray:
        """The stored values of 64 x 64 px, with so many pixels around them, `(side, side, bands)`.

        Beyond the edges they are the raster's reflection, as in `tasks.blocks.read_block`.
        """
        before, after = halo
        rows = reflect(np.arange(row - before, row + IMAGE_SIZE + after), self.grid.height)
        cols = reflect(np.arange(col - before, col + IMAGE_SIZE + after), self.grid.width)
        top, left = int(rows.min()), int(cols.min())
        height, width = int(rows.max()) + 1 - top, int(cols.max()) + 1 - left
        stored = self.reader()(Window(top, left, height, width))
        return stored[np.ix_(rows - top, cols - left)]

    def reader(self) -> Callable[[Window], np.ndarray]:
        """What reads the stored values of many windows: `(height, width, bands)` uint16."""
        if not self.is_small:
            return functools.partial(read_stored, self.path, self.bands)
        whole = _read_whole(self.path, self.bands, self.path.stat().st_mtime_ns)
        return lambda part: whole[
            part.row : part.row + part.height, part.col : part.col + part.width
        ]

    def picture(self, window: Window | None = None, most: int = MOST_SHOWN) -> np.ndarray:
        """A part of it as it is looked at, decimated while it is read.

        Args:
            window: the part; all of it by default.
            most: rows or columns of the picture, at most.
        Returns:
            `(rows, columns, 4)` uint8, red, green, blue and opacity: 0 where there is no data.
        """
        part = window or Window(0, 0, self.grid.height, self.grid.width)
        bands = [band for band in _SHOWN if band in self.bands]
        if len(bands) < len(_SHOWN):
            bands = [self.bands[0]]
        stored = read_stored(self.path, bands, part, shown_shape(part, most))
        shown = show_reflectance(stored / np.float32(QUANTIFICATION), bands)
        picture = np.empty((*stored.shape[:2], 4), np.uint8)
        picture[..., :3] = np.rint(shown * 255)
        picture[..., 3] = np.where(stored[..., 0] != NODATA, 255, 0)
        return picture


def shown_shape(window: Window, most: int = MOST_SHOWN) -> tuple[int, int]:
    """Rows and columns of a picture of a window."""
    step = max(window.height, window.width) / most
    if step <= 1:
        return window.height, window.width
    return max(1, round(window.height / step)), max(1, round(window.width / step))


@functools.lru_cache(_NUM_KEPT)
def _read_whole(path: Path, bands: tuple[str, ...], changed: int) -> np.ndarray:
    return read_stored(path, bands)
