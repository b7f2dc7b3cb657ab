"""Read series of images: dated rasters, products or STAC items as one area at several dates.

    series = open_series("series/lake", encoder.bands)
    for index, date in enumerate(series.dates):
        stored, clear = series.read(index, window)

Features of the dates are averaged in `tasks.averages` (layers of an encoder) and in
`tasks.windows` (features of windows).
"""

import contextlib
import datetime
import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sits_keras.config import PrepareConfig
from sits_keras.data.plausibility import (
    Problem,
    ValueCounts,
    warn_of_offset,
    warn_of_problems,
)
from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.preparation.screening import find_masks
from sits_keras.data.preparation.survey import fingerprint
from sits_keras.data.radiometry import NODATA, QUANTIFICATION
from sits_keras.data.rasters.read import Grid, read_info, same_crs, same_grid, same_transform
from sits_keras.data.rasters.rows import ArrayStrips, ImageSource, RowBuffer, Strips, open_strips
from sits_keras.data.sources.folders import find_mask, parse_name
from sits_keras.data.sources.granules import Granule, Series
from sits_keras.data.sources.paths import redact
from sits_keras.data.sources.series import holds_series, read_sources
from sits_keras.data.tiling import Window, reflect
from sits_keras.errors import ConfigError, DataError

Period = tuple[datetime.date | None, datetime.date | None]
Floats = npt.NDArray[np.float32]

CLEAR_POWER = 4
"""Power of the fraction of clear pixels by which features of a date count in an average."""

_WINDOW_SIDE = 1024  # px, a multiple of every stride


class _Reader(Protocol):
    """Scene that is open for reading, see `GranuleReader`."""

    def read(self, window: Window) -> npt.NDArray[np.uint16]: ...

    def cloudy(self, window: Window) -> npt.NDArray[np.bool_] | None: ...


class Scene(NamedTuple):
    """Part of an acquisition: a raster or a product, and its window.

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
        name: Name for messages.
        grid: Grid of the pixels.
        bands: Band names.
        acquisitions: Dates, ascending.
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
        shown = np.ix_(lines[0] - top, lines[1] - left)
        return stored[shown], clear[shown]

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
    sources: ImageSource | Sequence[Path | str],
    bands: Sequence[str],
    *,
    period: Period = (None, None),
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
    problems: list[Problem] = []
    values: list[tuple[datetime.date | str, str, ValueCounts]] = []
    for date, granule in kept:
        with GranuleReader(granule, bands) as opened:
            opened.check_mask()
            grids.append(opened.grid)
            without_mask += not opened.has_mask
            counts = opened.sample_values()
            problems += opened.find_problems(counts)
            values.append((date or granule.name, granule.name, counts))
    warn_of_problems(problems)
    warn_of_offset(name, values)
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


class ClearMean:
    """Running mean over dates of the features of windows or cells.

    The weight of a date is the clear fraction of the pixels that a window or cell sees, to the
    power of `CLEAR_POWER`.

    Args:
        shape: Rows and columns of the windows or cells, or their number.
        num_features: Number of features; that of the first date by default.

    Attributes:
        values: `(*shape, num_features)` float32, 0 where no date was added; None before the first
            date if the number of features is not given.
    """

    def __init__(self, shape: tuple[int, ...], num_features: int | None = None):
        self._weights = np.zeros(shape, np.float32)
        self.values: Floats | None = None
        if num_features is not None:
            self.values = np.zeros((*shape, num_features), np.float32)

    def add(
        self, features: Floats, clear_fraction: npt.NDArray[np.floating], where: Any = ...
    ) -> None:
        """Add one date of some windows or cells.

        Args:
            features: `(..., num_features)`.
            clear_fraction: `(...)`, in [0, 1].
            where: Index of the windows or cells, each once; all by default.
        """
        if self.values is None:
            self.values = np.zeros((*self._weights.shape, features.shape[-1]), np.float32)
        weight = (clear_fraction**CLEAR_POWER).astype(np.float32)
        self._weights[where] += weight
        total = self._weights[where]
        factor = np.divide(weight, total, out=np.zeros_like(total), where=total > 0)
        change = features - self.values[where]
        change *= factor[..., None]
        self.values[where] += change


class PixelMean:
    """Running mean of the reflectance of the clear dates of some pixels.

    Args:
        shape: Rows and columns.
        num_bands: Number of bands.

    Attributes:
        reflectance: `(height, width, bands)` float32, 0 without data.
        num_dates: `(height, width)` uint16, clear dates.
    """

    def __init__(self, shape: tuple[int, int], num_bands: int):
        self.reflectance: Floats = np.zeros((*shape, num_bands), np.float32)
        self.num_dates: npt.NDArray[np.uint16] = np.zeros(shape, np.uint16)

    def add(self, reflectance: Floats, clear: npt.NDArray[np.bool_]) -> None:
        """Add a date.

        Args:
            reflectance: `(height, width, bands)`.
            clear: `(height, width)`, pixels to use.
        """
        self.num_dates += clear
        factor = clear / np.maximum(self.num_dates, np.float32(1))
        self.reflectance += factor[..., None].astype(np.float32) * (reflectance - self.reflectance)


def stored_values(reflectance: Floats, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint16]:
    """Return reflectance as `(height, width, bands)` uint16 stored values, 0 where not valid."""
    values = np.clip(np.rint(reflectance * np.float32(QUANTIFICATION)), 1, np.iinfo(np.uint16).max)
    return np.where(valid[..., None], values, NODATA).astype(np.uint16)


def read_mean(series: SeriesImage, window: Window) -> npt.NDArray[np.uint16]:
    """Read the mean reflectance of the clear dates of a window.

    Args:
        series: The series.
        window: Pixels of its grid.

    Returns:
        `(height, width, bands)` uint16 stored values, 0 where no date is clear.
    """
    mean = PixelMean(window[2:], len(series.bands))
    for index in range(len(series.acquisitions)):
        stored, clear = series.read(index, window)
        mean.add(np.divide(stored, np.float32(QUANTIFICATION)), clear)
    return stored_values(mean.reflectance, mean.num_dates > 0)


class SeriesStrips:
    """Mean reflectance of the clear dates of a series, read by rows as `rows.Strips` are.

    Args:
        series: The series.

    Attributes:
        series: The series. What knows of it averages features instead of pixels.
    """

    def __init__(self, series: SeriesImage):
        self.series = series
        self.name, self.grid, self.bands = series.name, series.grid, series.bands
        self.is_raster = True
        self.values: ValueCounts | None = None  # its dates are checked one by one
        self._buffer = RowBuffer(series.grid.height)

    def read(self, row: int, num_rows: int) -> npt.NDArray[np.uint16]:
        """Read some rows; see `rows.Strips`."""
        return self._buffer.read(row, num_rows, self._average)

    def _average(self, row: int, num_rows: int) -> npt.NDArray[np.uint16]:
        return read_mean(self.series, Window(row, 0, num_rows, self.grid.width))


def paths_of(source: ImageSource | Sequence[Path | str]) -> list[Path | str]:
    """Return the paths of sources, none of an array."""
    if isinstance(source, Path | str):
        return [source]
    return [] if isinstance(source, np.ndarray) else list(source)


def is_series(source: ImageSource | Sequence[Path | str]) -> bool:
    """Return whether sources are for `open_series`, and not one raster or an array."""
    paths = paths_of(source)
    return len(paths) > 1 or any(holds_series(Path(path)) for path in paths)


def check_period(
    sources: Sequence[ImageSource | Sequence[Path | str]], period: Period, newest: bool
) -> None:
    """Check that options that select scenes of a series have a series to select from.

    Args:
        sources: Sources, each as `open_image` takes it.
        period: First and last date to use, None for no limit.
        newest: As in `open_series`.

    Raises:
        ConfigError: If an option is given, and none of the sources is a series.
    """
    if any(is_series(one) for one in sources):
        return
    given = {"first (--from)": period[0], "last (--to)": period[1], "newest (--newest)": newest}
    names = [name for name, value in given.items() if value]
    if names:
        raise ConfigError(
            f"Only a series takes {', '.join(names)}. Expected a folder of dated rasters, "
            "Sentinel-2 products, STAC items, or several sources. Received: one raster. Leave the "
            "option out, or name a series."
        )


def open_image(
    source: ImageSource | Sequence[Path | str],
    bands: Sequence[str] | None,
    *,
    period: Period = (None, None),
    newest: bool = False,
    use_mask: bool = True,
) -> Strips:
    """Open a raster or an array for reading by rows, or a series as `SeriesStrips`.

    A raster with a cloud mask, beside it or among its bands, is a series of one date: what is
    cloudy in it has no data in a map, and encoders see it as in a series.

    Args:
        source: Raster or array as `rows.open_strips` takes it, or sources of `open_series`.
        bands: Band names; for a series they must be given.
        period: As in `open_series`. It does not apply to a raster or an array, see `check_period`.
        newest: As in `open_series`.
        use_mask: Whether to use the cloud mask of one raster.

    Raises:
        MissingError: If a file does not exist.
        DataError: If a file cannot be read, or lacks a band, or no date is in the period.
        ConfigError: If an array has another shape or dtype, or bands are not given.
    """
    if isinstance(source, np.ndarray):
        return open_strips(source, bands)
    paths = paths_of(source)
    if len(paths) == 1 and not (Path(paths[0]).exists() and is_series(paths)):
        path = Path(paths[0])
        if not (use_mask and path.exists() and _has_mask(path)):
            return open_strips(path, bands)  # which explains what is missing
        bands = bands or open_strips(path).bands
    if bands is None:
        raise ConfigError("A series is read with the bands of an encoder. Pass their names: bands.")
    return SeriesStrips(open_series(source, bands, period=period, newest=newest))


def _has_mask(path: Path) -> bool:
    return find_mask(path) is not None or bool(find_masks(read_info(path).bands)[0])


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
    """Return the granules of some sources, with their dates.

    A mask beside a raster is its cloud mask, whether it is named as well (`lake/*.tif`) or not.
    """
    rasters = [path for path in paths if not holds_series(path)]
    masks = {path: find_mask(path.absolute()) for path in rasters}
    are_masks = {mask.path for mask in masks.values() if mask is not None}
    found: list[tuple[datetime.date | None, Granule]] = []
    for path, mask in masks.items():
        image = str(path.absolute())  # for processes in other folders
        if image in are_masks:
            continue
        try:
            date, part, _ = parse_name(path.stem)
        except DataError:  # any raster may be named
            date, part = None, ""
        if part:
            date = None
        stated = date or datetime.date.min
        files = (path,) if mask is None else (path, Path(mask.path))
        found.append((date, Granule(stated, str(path), {}, image, mask, files=files)))
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
    return first.part(Window(top, left, height, width)), windows


def _offset(first: Grid, other: Grid) -> tuple[int, int] | None:
    """Return the first row and column of a grid in another one; None if they do not fit."""
    if first.transform is None or other.transform is None or not same_crs(first.crs, other.crs):
        return None
    a, b, c, d, e, f = first.transform
    if b or d:
        return None
    row = round((other.transform[5] - f) / e)
    col = round((other.transform[2] - c) / a)
    expected = first.part(Window(row, col, *other[:2]))
    return (row, col) if same_transform(expected, other) else None


def _words(grid: Grid) -> str:
    return f"CRS {grid.crs or 'none'}, transform {grid.transform or 'none'}"
