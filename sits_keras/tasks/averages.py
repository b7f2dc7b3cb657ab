"""Averages over the dates of a series: layers of an encoder, and reflectance, in bounded memory.

A series is a folder of dated rasters, products of one tile or of several, or STAC items. Dates are
read one after the other and added to running means, so memory does not depend on their number.

    series = open_series("series/lake", encoder.bands)
    for average in iterate_averages(LayerEncoder(encoder), series, series.windows()):
        average.tile          # a `LayerTile`, as of one raster
        average.num_dates     # clear dates of each pixel

The cells of a date count by the fraction of the pixels they see that are clear, to the fourth
power: a cell beside a cloud, or beside the edge of a scene, gives way to dates on which it sees
neither.
"""

import contextlib
import datetime
import functools
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from sits_keras.config import PrepareConfig
from sits_keras.data.execution import read_ahead
from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.preparation.survey import fingerprint
from sits_keras.data.radiometry import NODATA, QUANTIFICATION
from sits_keras.data.rasters.read import Grid, same_crs, same_grid, same_transform
from sits_keras.data.rasters.rows import ArrayStrips, Strips, open_strips
from sits_keras.data.sources.folders import parse_name
from sits_keras.data.sources.granules import Granule, Series
from sits_keras.data.sources.locations import redact
from sits_keras.data.sources.series import holds_series, read_sources
from sits_keras.data.tiling import Window, reflect
from sits_keras.errors import ConfigError, DataError
from sits_keras.hub.layers import LayerEncoder, LayerGrid
from sits_keras.tasks.layers import BORDER, LayerTile

Source = Path | str | npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Project = Callable[[LayerTile, Floats], Floats]

_POWER = 4
_WINDOW_SIDE = 1024  # px, a multiple of every stride


class _Reader(Protocol):
    """Scene that is open for reading, see `GranuleReader`."""

    def read(self, window: Window) -> npt.NDArray[np.uint16]: ...

    def cloudy(self, window: Window) -> npt.NDArray[np.bool_] | None: ...


class Scene(NamedTuple):
    """Part of an acquisition: a raster or a product, and its place.

    Attributes:
        name: Name for messages.
        open: Opens the scene, a context manager.
        window: Pixels of the series' grid that it covers.
        source: Checksum that changes with its pixels.
    """

    name: str
    open: Callable[[], contextlib.AbstractContextManager[_Reader]]
    window: Window
    source: str


class Acquisition(NamedTuple):
    """All scenes of one date.

    Attributes:
        date: Acquisition date; None for a raster without a date in its name.
        scenes: The scenes. Where they overlap, the first with data counts.
    """

    date: datetime.date | None
    scenes: tuple[Scene, ...]


class SeriesImage:
    """An area at several dates, which is read window by window. It can be pickled.

    Args:
        name: Name for messages.
        grid: Grid of the pixels, the smallest that contains all scenes.
        bands: Band names.
        acquisitions: Dates, ascending.

    Attributes:
        name: See above.
        grid: See above.
        bands: See above.
        acquisitions: See above.
    """

    def __init__(
        self,
        name: str,
        grid: Grid,
        bands: tuple[str, ...],
        acquisitions: tuple[Acquisition, ...],
    ):
        self.name, self.grid, self.bands = name, grid, bands
        self.acquisitions = acquisitions

    @property
    def dates(self) -> tuple[datetime.date | None, ...]:
        """Acquisition date of each acquisition."""
        return tuple(one.date for one in self.acquisitions)

    def windows(self, area: Window | None = None, side: int = _WINDOW_SIDE) -> list[Window]:
        """Return windows that cover an area, row by row.

        Args:
            area: Pixels to cover, which may reach beyond the grid; the grid by default.
            side: Side of a window in pixels.
        """
        area = area or Window(0, 0, *self.grid[:2])
        stop_row, stop_col = area.row + area.height, area.col + area.width
        return [
            Window(row, col, min(side, stop_row - row), min(side, stop_col - col))
            for row in range(area.row, stop_row, side)
            for col in range(area.col, stop_col, side)
        ]

    def covers(self, window: Window) -> bool:
        """Return whether a scene has pixels in a window."""
        return any(
            _intersection(window, scene.window) for one in self.acquisitions for scene in one.scenes
        )

    def read(
        self, index: int, window: Window, margin: int = 0
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
        """Read a window of an acquisition with a margin, reflected beyond the edges of the grid.

        Args:
            index: Index of the acquisition.
            window: Pixels, which may reach beyond the grid.
            margin: Pixels to read around it.

        Returns:
            `(height + 2 * margin, width + 2 * margin, bands)` uint16 stored values, 0 without data,
            and where they are clear: with data, and no cloud. Clouds keep their values: encoders
            see them as they are, because the edges of holes would be sharper.
        """
        lines = [
            reflect(np.arange(start - margin, start + size + margin), length)
            for start, size, length in zip(window[:2], window[2:], self.grid[:2], strict=True)
        ]
        (top, bottom), (left, right) = ((int(one.min()), int(one.max()) + 1) for one in lines)
        stored, clear = self._read(index, Window(top, left, bottom - top, right - left))
        places = np.ix_(lines[0] - top, lines[1] - left)
        return stored[places], clear[places]

    def _read(
        self, index: int, window: Window
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
        stored = np.zeros((window.height, window.width, len(self.bands)), np.uint16)
        clear = np.zeros(stored.shape[:2], bool)
        for scene in self.acquisitions[index].scenes:
            inside = _intersection(window, scene.window)
            if inside is None:
                continue
            own = Window(inside.row - scene.window.row, inside.col - scene.window.col, *inside[2:])
            with scene.open() as reader:
                values, cloudy = reader.read(own), reader.cloudy(own)
            row, col = inside.row - window.row, inside.col - window.col
            part = np.s_[row : row + inside.height, col : col + inside.width]
            has_data = values[..., 0] != NODATA
            is_new = has_data & (stored[part][..., 0] == NODATA)
            stored[part][is_new] = values[is_new]
            clear[part] |= is_new if cloudy is None else is_new & ~cloudy
        return stored, clear


def _intersection(one: Window, other: Window) -> Window | None:
    top, left = max(one.row, other.row), max(one.col, other.col)
    height = min(one.row + one.height, other.row + other.height) - top
    width = min(one.col + one.width, other.col + other.width) - left
    return Window(top, left, height, width) if height > 0 and width > 0 else None


def open_series(
    sources: Source | Sequence[Path | str],
    bands: Sequence[str],
    *,
    period: tuple[datetime.date | None, datetime.date | None] = (None, None),
    newest: bool = False,
) -> SeriesImage:
    """Open rasters, products, items or folders as one area at several dates.

    Scenes of one date make up one image, such as the products of neighbouring tiles. All scenes are
    in one CRS, and their pixels lie on one grid.

    Args:
        sources: A raster, a folder of dated rasters, Sentinel-2 products, files of STAC items, or
            several of these; or a `(height, width, bands)` array of uint16 stored values or float
            reflectance.
        bands: Band names, in the order wanted.
        period: First and last date to use, None for no limit. Rasters without a date are used.
        newest: Use the newest of several products of one tile and date; else they are an error.

    Raises:
        ConfigError: If no source is given, or an array has another shape or dtype.
        MissingError: If a source or a file of it does not exist.
        DataError: If a source contains no series or is damaged, a band is missing, scenes are in
            different CRS or not on one grid, or no date is in the period.
    """
    if isinstance(sources, np.ndarray):
        reader = _ArrayReader(ArrayStrips(sources, bands))
        height, width = sources.shape[:2]
        checksum = hashlib.sha256(np.ascontiguousarray(sources).tobytes()).hexdigest()
        opener: Any = functools.partial(_opened, reader)
        scene = Scene("the image", opener, Window(0, 0, height, width), checksum)
        grid = Grid(height, width, None, None)
        return SeriesImage("the image", grid, tuple(bands), (Acquisition(None, (scene,)),))
    paths = [Path(one) for one in ([sources] if isinstance(sources, Path | str) else sources)]
    granules = _find_granules(paths, newest)
    name = str(paths[0]) + (f" and {len(paths) - 1} more" if paths[1:] else "")
    first, last = period
    kept = [
        (date, granule)
        for date, granule in granules
        if date is None or ((first is None or first <= date) and (last is None or date <= last))
    ]
    if not kept:
        dates = sorted(date for date, _ in granules if date is not None)
        raise DataError(
            f"{name} has no date from {first or 'the first'} to {last or 'the last'}. Its dates "
            f"are {dates[0]} to {dates[-1]}. Name another period (--from, --to)."
        )
    grids, without_mask = [], 0
    for _, granule in kept:
        with GranuleReader(granule, bands) as opened:
            opened.check_mask()
            grids.append(opened.grid)
            without_mask += not opened.has_mask
    grid, windows = _place([granule for _, granule in kept], grids)
    found: dict[Any, list[Scene]] = {}
    for number, ((date, granule), window) in enumerate(zip(kept, windows, strict=True)):
        opener = functools.partial(GranuleReader, granule, tuple(bands))
        checksum = fingerprint([Series("", (granule,))], PrepareConfig())
        found.setdefault(date or number, []).append(Scene(granule.name, opener, window, checksum))
    acquisitions = [
        Acquisition(key if isinstance(key, datetime.date) else None, tuple(scenes))
        for key, scenes in found.items()
    ]
    acquisitions.sort(key=lambda one: one.date or datetime.date.min)
    if len(acquisitions) > 1 and without_mask:
        warnings.warn(
            f"{without_mask} of {len(kept)} scenes of {name} have no cloud mask, and count as "
            "clear. Put a mask beside each (<YYYY-MM-DD>_cloud.tif), or leave out cloudy dates.",
            stacklevel=2,
        )
    return SeriesImage(name, grid, tuple(bands), tuple(acquisitions))


class SeriesStrips:
    """Mean reflectance of the clear dates of a series, read by rows as `rows.Strips` are.

    Args:
        series: The series.

    Attributes:
        series: The series. What knows of it averages layers instead of pixels.
    """

    def __init__(self, series: SeriesImage):
        self.series = series
        self.name, self.grid, self.bands = series.name, series.grid, series.bands
        self.is_raster = True

    def read(self, row: int, num_rows: int) -> npt.NDArray[np.uint16]:
        """Read some rows; see `rows.Strips`."""
        window = Window(row, 0, num_rows, self.grid.width)
        total = _Total((), window, len(self.bands))
        for index in range(len(self.series.acquisitions)):
            stored, clear = self.series.read(index, window)
            total.add_pixels(np.divide(stored, np.float32(QUANTIFICATION)), clear)
        return total.stored


def is_series(source: Source | Sequence[Path | str]) -> bool:
    """Return whether a source is one for `open_series`, and not a raster or an array."""
    if isinstance(source, np.ndarray):
        return False
    return not isinstance(source, Path | str) or holds_series(Path(source))


def open_image(source: Source | Sequence[Path | str], bands: Sequence[str] | None) -> Strips:
    """Open a raster or an array for reading by rows, or a series as `SeriesStrips`.

    Args:
        source: Raster or array as `rows.open_strips` takes it, or sources of `open_series`.
        bands: Band names; for a series they must be given.

    Raises:
        MissingError: If a file does not exist.
        DataError: If a file cannot be read, or lacks a band.
        ConfigError: If an array has another shape or dtype, or bands are not given.
    """
    if isinstance(source, Path | str) and not Path(source).exists():
        return open_strips(source, bands)  # which explains it
    if isinstance(source, np.ndarray) or not is_series(source):
        return open_strips(source, bands)  # type: ignore[arg-type]
    if bands is None:
        raise ConfigError("A series is read with the bands of an encoder. Pass their names: bands.")
    return SeriesStrips(open_series(source, bands))


class _ArrayReader:
    """An array, read as a granule is."""

    def __init__(self, strips: ArrayStrips):
        self._strips = strips

    def read(self, window: Window) -> npt.NDArray[np.uint16]:
        rows = self._strips.read(window.row, window.height)
        return rows[:, window.col : window.col + window.width]

    def cloudy(self, window: Window) -> None:
        return None


def _opened(reader: _ArrayReader) -> contextlib.AbstractContextManager[_Reader]:
    return contextlib.nullcontext(reader)


def _find_granules(
    paths: Sequence[Path], newest: bool
) -> list[tuple[datetime.date | None, Granule]]:
    """Return the granules of some sources, with their dates."""
    rasters = [path for path in paths if not holds_series(path)]
    found: list[tuple[datetime.date | None, Granule]] = []
    for path in rasters:
        try:
            date, part, _ = parse_name(path.stem)
        except DataError:  # any raster may be named
            date, part = None, ""
        if part:
            date = None
        stated = date or datetime.date.min
        image = str(path.absolute())  # for processes in other folders
        found.append((date, Granule(stated, str(path), {}, image, files=(path,))))
    others = [path for path in paths if path not in rasters]
    if others or not paths:
        for series in read_sources(others, newest=newest, absolute=True):
            found += [(granule.date, granule) for granule in series.granules]
    return found


def _place(granules: Sequence[Granule], grids: Sequence[Grid]) -> tuple[Grid, list[Window]]:
    """Return the grid that contains some others, and the window of each in it."""
    first = grids[0]
    if all(same_grid(first, one) for one in grids):
        return first, [Window(0, 0, *first[:2])] * len(grids)
    offsets = []
    for granule, grid in zip(granules, grids, strict=True):
        offset = _offset(first, grid)
        if offset is None:
            raise DataError(
                f"{redact(granules[0].name)} and {redact(granule.name)} are not on one grid: "
                f"{_words(first)}; {_words(grid)}. Expected scenes of one CRS, with the same "
                "pixels. Warp one to the grid of the other first (gdalwarp), or process each UTM "
                "zone by itself."
            )
        offsets.append(offset)
    top, left = (min(one[axis] for one in offsets) for axis in (0, 1))
    windows = [
        Window(row - top, col - left, grid.height, grid.width)
        for (row, col), grid in zip(offsets, grids, strict=True)
    ]
    height = max(one.row + one.height for one in windows)
    width = max(one.col + one.width for one in windows)
    return shifted_grid(first, Window(top, left, height, width)), windows


def _offset(first: Grid, other: Grid) -> tuple[int, int] | None:
    """Return the first row and column of a grid in another one; None if they do not fit."""
    if first.transform is None or other.transform is None or not same_crs(first.crs, other.crs):
        return None
    a, b, c, d, e, f = first.transform
    if b or d:
        return None
    row = round((other.transform[5] - f) / e)
    col = round((other.transform[2] - c) / a)
    expected = shifted_grid(first, Window(row, col, *other[:2]))
    return (row, col) if same_transform(expected, other) else None


def shifted_grid(grid: Grid, window: Window) -> Grid:
    """Return the grid of a window of another grid, which may reach beyond it."""
    if grid.transform is None:
        return Grid(window.height, window.width, grid.crs, None)
    a, b, c, d, e, f = grid.transform
    moved = (c + a * window.col + b * window.row, f + d * window.col + e * window.row)
    return Grid(window.height, window.width, grid.crs, (a, b, moved[0], d, e, moved[1]))


def _words(grid: Grid) -> str:
    return f"CRS {grid.crs or 'none'}, transform {grid.transform or 'none'}"


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
        total = _Total(layers.grids, window, len(series.bands))
        moments = None if project is None else _Moments()
        for _ in range(num_dates):
            stored, clear = next(parts)
            inner = np.s_[margin : margin + window.height, margin : margin + window.width]
            if clear.any():
                reflectance = np.divide(stored, np.float32(QUANTIFICATION))
                cells = layers(reflectance, margin, BORDER)
                valid = clear[inner] & _inside(window, series.grid)
                total.add_cells(cells, clear, margin)
                total.add_pixels(reflectance[inner], valid)
                if moments is not None and project is not None:
                    tile = LayerTile(window, valid, layers.grids, tuple(cells))
                    weights = _whole_blocks(valid, spread_side)
                    moments.add(project(tile, reflectance[inner]), weights)
            on_date(window.height * window.width)
        shape = tuple(-(-side // spread_side) for side in window[2:])
        spread = None if moments is None else moments.spread(shape)
        tile = LayerTile(window, total.num_dates > 0, layers.grids, tuple(total.cells))
        yield Average(tile, total.reflectance, total.num_dates, spread)


def job_bar(total: int, title: str | None) -> "tqdm[Any]":
    """Return a progress bar of pixels, of a series in pixels times dates; hidden without title."""
    return tqdm(total=total, desc=title, unit="px", unit_scale=True, disable=title is None)


def stored_values(reflectance: Floats, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint16]:
    """Return reflectance as `(height, width, bands)` uint16 stored values, 0 where not valid."""
    values = np.clip(np.rint(reflectance * np.float32(QUANTIFICATION)), 1, np.iinfo(np.uint16).max)
    return np.where(valid[..., None], values, NODATA).astype(np.uint16)


class _Total:
    """Running means of one window."""

    def __init__(self, grids: Sequence[LayerGrid], window: Window, num_bands: int):
        self._grids = grids
        shapes = [[-(-side // grid.stride) + 2 * BORDER for side in window[2:]] for grid in grids]
        self.cells: list[Floats] = [
            np.zeros((*shape, grid.num_channels), np.float32)
            for shape, grid in zip(shapes, grids, strict=True)
        ]
        self._weights: list[Floats] = [np.zeros(shape, np.float32) for shape in shapes]
        self.reflectance: Floats = np.zeros((*window[2:], num_bands), np.float32)
        self.num_dates: npt.NDArray[np.uint16] = np.zeros(window[2:], np.uint16)

    def add_cells(self, cells: Sequence[Floats], clear: npt.NDArray[np.bool_], margin: int) -> None:
        sums = np.zeros((clear.shape[0] + 1, clear.shape[1] + 1), np.int64)
        sums[1:, 1:] = clear.cumsum(axis=0).cumsum(axis=1)
        for grid, mean, total, one in zip(
            self._grids, self.cells, self._weights, cells, strict=True
        ):
            weight = _clear_fraction(grid, sums, margin, mean.shape[:2]) ** _POWER
            total += weight
            factor = np.divide(weight, total, out=np.zeros_like(total), where=total > 0)
            mean += factor[..., None] * (one - mean)

    @property
    def stored(self) -> npt.NDArray[np.uint16]:
        """Averages as stored values, 0 without data."""
        return stored_values(self.reflectance, self.num_dates > 0)

    def add_pixels(self, reflectance: Floats, valid: npt.NDArray[np.bool_]) -> None:
        self.num_dates += valid
        factor = valid / np.maximum(self.num_dates, np.float32(1))
        self.reflectance += factor[..., None].astype(np.float32) * (reflectance - self.reflectance)


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
