"""Averages over the dates of a series: layers of an encoder, and reflectance, in bounded memory.

Dates are read one after the other and added to running means, so memory does not depend on their
number.

    series = open_series("series/lake", encoder.bands)
    for average in iterate_averages(LayerEncoder(encoder), series, series.windows()):
        average.tile          # a `LayerTile`, as of one raster
        average.num_dates     # clear dates of each pixel

The weight of a cell at a date is the clear fraction of the pixels that it sees, to the fourth
power. A cell beside a cloud or beside the edge of a scene thus counts less than at other dates.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from sits_keras.data.execution import read_ahead
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.read import Grid
from sits_keras.data.tiling import Window
from sits_keras.hub.layers import LayerEncoder, LayerGrid
from sits_keras.tasks.layers import BORDER, LayerTile
from sits_keras.tasks.series import ClearMean, Floats, PixelMean, SeriesImage

Project = Callable[[LayerTile, Floats], Floats]


class Average(NamedTuple):
    """Averages of a window over its clear dates.

    Attributes:
        tile: Averaged layers. Valid are pixels with at least one clear date.
        reflectance: `(height, width, bands)` float32, 0 without data.
        num_dates: `(height, width)` uint16, clear dates.
        spread: `(ceil(height / side), ceil(width / side))` float32, mean over the projected numbers
            of their standard deviation over the dates on which all pixels of a block are clear; NaN
            with fewer than two. None if no projection was given.
    """

    tile: LayerTile
    reflectance: Floats
    num_dates: npt.NDArray[np.uint16]
    spread: Floats | None


def iterate_averages(
    layers: LayerEncoder,
    series: SeriesImage,
    windows: Iterable[Window],
    project: Project | None = None,
    spread_side: int = 4,
    on_date: Callable[[int], object] = lambda pixels: None,
) -> Iterator[Average]:
    """Average layers and reflectance over the clear dates of windows.

    Args:
        layers: Layers of an encoder.
        series: Series of the encoder's bands.
        windows: Windows that begin at multiples of 16 px from each other, so that cells of
            neighbouring windows are the same.
        project: Function from the layers and the reflectance of one date to `(rows, cols,
            numbers)`, means of blocks of `spread_side` px; for the spread.
        spread_side: Side of a block in pixels.
        on_date: Called with the number of pixels as each date of a window is done.

    Yields:
        Averages of each window, in order.
    """
    margin = layers.margin(BORDER)
    windows = list(windows)
    num_dates = len(series.acquisitions)
    parts = read_ahead(
        series.read(index, window, margin) for window in windows for index in range(num_dates)
    )
    for window in windows:
        pixels = PixelMean(window[2:], len(series.bands))
        means = [
            ClearMean(
                tuple(-(-side // grid.stride) + 2 * BORDER for side in window[2:]),
                grid.num_channels,
            )
            for grid in layers.grids
        ]
        moments = None if project is None else _Moments()
        for _ in range(num_dates):
            stored, clear = next(parts)
            inner = np.s_[margin : margin + window.height, margin : margin + window.width]
            if clear.any():
                reflectance = np.divide(stored, np.float32(QUANTIFICATION))
                cells = layers(reflectance, margin, BORDER)
                valid = clear[inner] & _inside(window, series.grid)
                _add_cells(means, layers.grids, cells, clear, margin)
                pixels.add(reflectance[inner], valid)
                if moments is not None and project is not None:
                    tile = LayerTile(window, valid, layers.grids, tuple(cells))
                    weights = _whole_blocks(valid, spread_side)
                    moments.add(project(tile, reflectance[inner]), weights)
            on_date(window.height * window.width)
        shape = tuple(-(-side // spread_side) for side in window[2:])
        spread = None if moments is None else moments.spread(shape)
        averaged = tuple(mean.values for mean in means if mean.values is not None)
        tile = LayerTile(window, pixels.num_dates > 0, layers.grids, averaged)
        yield Average(tile, pixels.reflectance, pixels.num_dates, spread)


def job_bar(total: int, title: str | None) -> "tqdm[Any]":
    """Return a progress bar of pixels, of a series in pixels times dates; hidden without title."""
    return tqdm(total=total, desc=title, unit="px", unit_scale=True, disable=title is None)


def _add_cells(
    means: Sequence[ClearMean],
    grids: Sequence[LayerGrid],
    cells: Sequence[Floats],
    clear: npt.NDArray[np.bool_],
    margin: int,
) -> None:
    """Add the cells of each layer at one date to their means."""
    sums = np.zeros((clear.shape[0] + 1, clear.shape[1] + 1), np.int64)
    sums[1:, 1:] = clear.cumsum(axis=0).cumsum(axis=1)
    for mean, grid, one in zip(means, grids, cells, strict=True):
        mean.add(one, _clear_fraction(grid, sums, margin, one.shape[:2]))


def _clear_fraction(
    grid: LayerGrid, sums: npt.NDArray[np.int64], margin: int, shape: tuple[int, ...]
) -> Floats:
    """Return the fraction of the pixels that each cell sees that are clear.

    Args:
        grid: Cells of a layer.
        sums: Numbers of clear pixels above and left of each corner of the pixels.
        margin: Pixels around the window.
        shape: Rows and columns of the cells, with their border.
    """
    corners = []
    for axis, count in enumerate(shape):
        first = margin + (np.arange(count) - BORDER) * grid.stride - grid.before
        stop = first + grid.before + grid.stride + grid.after
        # Beyond a window of a side that the stride does not divide, cells see repeated pixels.
        corners.append([np.clip(one, 0, sums.shape[axis] - 1) for one in (first, stop)])
    (top, bottom), (left, right) = corners
    counts = (
        sums[np.ix_(bottom, right)]
        - sums[np.ix_(top, right)]
        - sums[np.ix_(bottom, left)]
        + sums[np.ix_(top, left)]
    )
    seen = np.maximum((bottom - top)[:, None] * (right - left), 1)
    return (counts / seen).astype(np.float32)


class _Moments:
    """Running mean and variance of projected numbers, by blocks."""

    def __init__(self) -> None:
        self._count: npt.NDArray[np.int64] | None = None
        self._mean: Any = 0.0
        self._squares: Any = 0.0

    def add(self, values: Floats, is_clear: npt.NDArray[np.bool_]) -> None:
        if self._count is None:
            self._count = np.zeros(is_clear.shape, np.int64)
            self._mean, self._squares = np.zeros_like(values), np.zeros_like(values)
        self._count += is_clear
        factor = (is_clear / np.maximum(self._count, 1)).astype(np.float32)[..., None]
        change = values - self._mean
        self._mean += factor * change
        self._squares += is_clear[..., None] * change * (values - self._mean)

    def spread(self, shape: tuple[int, ...]) -> Floats:
        if self._count is None:
            return np.full(shape, np.nan, np.float32)
        variance = self._squares / np.maximum(self._count, 1)[..., None]
        spread = np.sqrt(np.maximum(variance, 0)).mean(axis=-1)
        return np.where(self._count >= 2, spread, np.nan).astype(np.float32)


def _whole_blocks(clear: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.bool_]:
    """Return which blocks have only clear pixels; pixels beyond the window do not count."""
    rows, cols = (-(-length // side) for length in clear.shape)
    padded = np.ones((rows * side, cols * side), bool)
    padded[: clear.shape[0], : clear.shape[1]] = clear
    return np.asarray(padded.reshape(rows, side, cols, side).all(axis=(1, 3)))


def _inside(window: Window, grid: Grid) -> npt.NDArray[np.bool_]:
    """Return which pixels of a window lie in a grid."""
    is_inside = np.zeros((window.height, window.width), bool)
    rows, cols = (
        slice(max(0, -start), max(0, length - start))
        for start, length in zip(window[:2], grid[:2], strict=True)
    )
    is_inside[rows, cols] = True
    return is_inside
