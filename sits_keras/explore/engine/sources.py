"""Rasters, series, and folders of a change, opened for the page."""

import functools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.plausibility import warn_of_pair
from sits_keras.data.radiometry import (
    NODATA,
    QUANTIFICATION,
    show_reflectance,
    with_opacity,
)
from sits_keras.data.rasters.read import Grid, read_info, read_stored, same_crs, same_grid
from sits_keras.data.rasters.rows import Strips, check_same_grid, open_strips
from sits_keras.data.sources.safe import is_safe
from sits_keras.data.sources.series import find_series, holds_series
from sits_keras.data.tiling import Window, reflect
from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.explore.engine.cache import raster_facts
from sits_keras.hub import HubEncoder
from sits_keras.tasks.series import SeriesImage, SeriesStrips, open_image, open_series, read_mean
from sits_keras.tasks.windows import check_size, encode_at, window_function

MAX_SHOWN = 1024
"""Maximum number of rows or columns of a picture: more than a screen shows of one of several."""

_SMALL = 16 * 2**20  # bytes
_NUM_KEPT = 24  # small rasters in memory
_NUM_PICTURES = 4  # of the mean of a series

_SHOWN = ("B04", "B03", "B02")


class Pictured(Protocol):
    """Raster that is shown as a picture.

    Attributes:
        grid: Grid of the pixels.
        is_slow: Even a small picture takes seconds, so it is read in the background.
    """

    grid: Grid
    is_slow: bool

    def picture(self, window: Window | None = None) -> npt.NDArray[np.uint8]:
        """Return a part as `(rows, columns, 4)` uint8, see `RasterReader.picture`."""
        ...


class RasterReader:
    """Windows and pictures of a raster.

    Args:
        path: Path of the raster.
        bands: Names of the bands to read, in order.

    Attributes:
        grid: Grid of the pixels.
        is_small: The raster is kept in memory once it was read.

    Raises:
        DataError: The raster cannot be read.
    """

    is_slow = False

    def __init__(self, path: Path, bands: Sequence[str]):
        self.path, self.bands = path, tuple(bands)
        self.grid: Grid = read_info(path).grid
        self.is_small = 2 * self.grid.height * self.grid.width * len(bands) <= _SMALL

    def strips(self) -> Strips:
        """Open the raster for reading by rows."""
        return open_strips(self.path, self.bands)

    def clear_strips(self) -> Strips:
        """Open the raster without what its own cloud mask marks, as `segment` does."""
        return open_image(self.path, self.bands)

    def facts(self) -> dict[str, Any]:
        """Return what identifies the content of the raster, for the cache."""
        return raster_facts(self.path)

    def encode(self, encoder: HubEncoder, row: int, col: int) -> npt.NDArray[np.float32]:
        """Return the features of a window, `(1, num_features)`.

        Args:
            encoder: Encoder to apply.
            row: First row of the window.
            col: First column of the window.
        """
        window = self.window(row, col, encoder.context_margin)[None]
        return np.asarray(window_function(encoder)(window / np.float32(QUANTIFICATION)))

    def window(
        self, row: int, col: int, context_margin: tuple[int, int] = (0, 0)
    ) -> npt.NDArray[np.uint16]:
        """Return the stored values of a window of 64 x 64 px, `(side, side, bands)`.

        Beyond the edges of the raster they are its reflection, as in `tasks.windows`.

        Args:
            row: First row of the window.
            col: First column of the window.
            context_margin: Pixels to add before and after it, along rows and columns.
        """
        before, after = context_margin
        rows = reflect(np.arange(row - before, row + IMAGE_SIZE + after), self.grid.height)
        cols = reflect(np.arange(col - before, col + IMAGE_SIZE + after), self.grid.width)
        top, left = int(rows.min()), int(cols.min())
        height, width = int(rows.max()) + 1 - top, int(cols.max()) + 1 - left
        stored = self.reader()(Window(top, left, height, width))
        window: npt.NDArray[np.uint16] = stored[np.ix_(rows - top, cols - left)]
        return window

    def reader(self) -> Callable[[Window], npt.NDArray[np.uint16]]:
        """Return a function that reads the stored values of a window, `(height, width, bands)`."""
        if not self.is_small:
            return functools.partial(read_stored, self.path, self.bands)
        whole = _read_whole(self.path, self.bands, self.path.stat().st_mtime_ns)
        return lambda part: whole[
            part.row : part.row + part.height, part.col : part.col + part.width
        ]

    def picture(
        self, window: Window | None = None, max_side: int = MAX_SHOWN
    ) -> npt.NDArray[np.uint8]:
        """Read a part of the raster as a picture, decimated while it is read.

        Args:
            window: Part to read. By default the whole raster.
            max_side: Maximum number of rows or columns of the picture.

        Returns:
            `(rows, columns, 4)` uint8: red, green, blue and opacity, which is 0 for no data.
        """
        part = window or Window(0, 0, self.grid.height, self.grid.width)
        bands = _shown_bands(self.bands)
        return _picture_of(
            read_stored(self.path, bands, part, picture_shape(part, max_side)), bands
        )


def _shown_bands(bands: Sequence[str]) -> Sequence[str]:
    """Return red, green and blue, or the first band if one of them is missing."""
    return _SHOWN if set(_SHOWN) <= set(bands) else bands[:1]


def _picture_of(stored: npt.NDArray[np.uint16], bands: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return red, green, blue and opacity of stored values of one or three bands."""
    shown = show_reflectance(stored / np.float32(QUANTIFICATION), bands)
    return with_opacity(shown, stored[..., 0] != NODATA)


class MeanReader:
    """Windows and pictures of the mean of the clear dates of a series.

    The series is opened when it is used first. Any thread may call the methods.

    Args:
        path: Folder of dated rasters or products, a product, or a file of STAC items.
        bands: Names of the bands to read, in order.
        grid: Grid of the series.

    Attributes:
        grid: Grid of the pixels.
        is_small: The mean is kept in memory once it was read.
    """

    is_slow = True

    def __init__(self, path: Path, bands: Sequence[str], grid: Grid):
        self.path, self.bands, self.grid = path, tuple(bands), grid
        self.is_small = 2 * grid.height * grid.width * len(bands) <= _SMALL
        self._lock = threading.Lock()
        self._series: SeriesImage | None = None
        self._whole: npt.NDArray[np.uint16] | None = None
        self.picture = functools.lru_cache(_NUM_PICTURES)(self._picture)

    def series(self) -> SeriesImage:
        """Return the opened series.

        Raises:
            SitsKerasError: As `open_series` raises it.
        """
        with self._lock:
            if self._series is None:
                self._series = open_series(self.path, self.bands)
            return self._series

    def strips(self) -> Strips:
        """Open the series for reading by rows; its features are averaged over the dates."""
        return SeriesStrips(self.series())

    def clear_strips(self) -> Strips:
        """Return the same: clouds of a series are always left out."""
        return self.strips()

    def facts(self) -> dict[str, Any]:
        """Return what identifies the content of the series, for the cache."""
        scenes = [scene for one in self.series().acquisitions for scene in one.scenes]
        return {"path": str(self.path.resolve()), "scenes": [scene.source for scene in scenes]}

    def encode(self, encoder: HubEncoder, row: int, col: int) -> npt.NDArray[np.float32]:
        """Return the mean features of a window, see `RasterReader.encode`."""
        return encode_at(encoder, self.strips(), [Window(row, col, IMAGE_SIZE, IMAGE_SIZE)])

    def window(self, row: int, col: int) -> npt.NDArray[np.uint16]:
        """Return the stored values of a window of 64 x 64 px inside the grid."""
        return self.reader()(Window(row, col, IMAGE_SIZE, IMAGE_SIZE))

    def reader(self) -> Callable[[Window], npt.NDArray[np.uint16]]:
        """Return a function that reads the stored values of a window, `(height, width, bands)`."""
        series = self.series()
        if not self.is_small:
            return functools.partial(read_mean, series)
        with self._lock:
            if self._whole is None:
                self._whole = read_mean(series, Window(0, 0, *self.grid[:2]))
            whole = self._whole
        return lambda part: whole[
            part.row : part.row + part.height, part.col : part.col + part.width
        ]

    def _picture(
        self, window: Window | None = None, max_side: int = MAX_SHOWN
    ) -> npt.NDArray[np.uint8]:
        """Return a part as a picture, see `RasterReader.picture`; kept for some parts."""
        part = window or Window(0, 0, *self.grid[:2])
        bands = _shown_bands(self.bands)
        indices = [self.bands.index(band) for band in bands]
        rows, cols = (
            start + np.arange(count) * size // count
            for start, size, count in zip(
                part[:2], part[2:], picture_shape(part, max_side), strict=True
            )
        )
        read = self.reader()
        shown = np.empty((len(rows), len(cols), len(bands)), np.uint16)
        for one in self.series().windows(part):
            down = slice(*np.searchsorted(rows, [one.row, one.row + one.height]))
            along = slice(*np.searchsorted(cols, [one.col, one.col + one.width]))
            values = read(one)[np.ix_(rows[down] - one.row, cols[along] - one.col)]
            shown[down, along] = values[..., indices]
        return _picture_of(shown, bands)


def picture_shape(window: Window, max_side: int = MAX_SHOWN) -> tuple[int, int]:
    """Return the rows and columns of the picture of a window."""
    step = max(window.height, window.width) / max_side
    if step <= 1:
        return window.height, window.width
    return max(1, round(window.height / step)), max(1, round(window.width / step))


@functools.lru_cache(_NUM_KEPT)
def _read_whole(path: Path, bands: tuple[str, ...], changed: int) -> npt.NDArray[np.uint16]:
    return read_stored(path, bands)


_PAIR = ("before.tif", "after.tif")
_MASK = "mask.tif"
_MEAN = "mean of the clear dates"


class DatedRaster(NamedTuple):
    """A raster of an explored place.

    Attributes:
        label: Date or name that the page shows.
        path: Path as it was given.
        place: Name of the place.
    """

    label: str
    path: Path
    place: str


class SeriesMean(NamedTuple):
    """The mean of the clear dates of an explored place.

    Attributes:
        label: Words that the page shows.
        path: Folder of dated rasters or products, a product, or a file of STAC items.
        place: Name of the place.
        grid: Grid of the pixels.
    """

    label: str
    path: Path
    place: str
    grid: Grid


ExploredImage = DatedRaster | SeriesMean


class ExploredPlace(NamedTuple):
    """Rasters on one grid.

    Attributes:
        name: Name of the folder, or of the first raster.
        images: Dates that are single rasters, in order; none of products and STAC items.
        grid: Grid of the pixels.
        mask: Raster that is not zero where there was a change, or `None`.
        mean: Mean of the dates of a series, or `None`.
    """

    name: str
    images: tuple[DatedRaster, ...]
    grid: Grid
    mask: Path | None
    mean: SeriesMean | None = None

    @property
    def shown(self) -> tuple[ExploredImage, ...]:
        """The dates, and the mean if there is one."""
        return self.images if self.mean is None else (*self.images, self.mean)


def find_places(
    paths: Sequence[Path], bands: Sequence[str], mask: Path | None = None
) -> list[ExploredPlace]:
    """Find the places in rasters and folders, and check the header of each raster.

    Rasters that are given as files are dates of one place if they have the same grid, and of
    several places otherwise; they must have one CRS. Each folder is a place of its own: a folder of
    dated rasters as `sits-keras prepare` takes it, a folder of such folders, or a folder with
    `before.tif`, `after.tif` and, if there is a reference, `mask.tif`. A folder of two dates or
    more also has a mean. A product, a folder of products of one UTM zone, and a file of STAC items
    are places that have only a mean.

    Args:
        paths: At least one raster, folder, product or file of STAC items.
        bands: Names of the bands that the model takes.
        mask: Reference of a change, for the place on the same grid.

    Returns:
        The places of files, then those of folders.

    Raises:
        MissingError: A path does not exist.
        DataError: A file is not a raster or lacks a band, a folder contains no series, files have
            several CRS, the dates of a folder are on several grids, or the mask is on another one.
        ConfigError: A raster is smaller than a window, or a folder contains dated rasters and
            products.
    """
    places: list[ExploredPlace] = []
    for path in paths:
        if not path.exists():
            raise MissingError(
                f"{path} does not exist. Expected a raster, a folder of rasters, Sentinel-2 "
                "products, or STAC items."
            )
        if path.is_dir() and not is_safe(path):
            places += _read_folder(path, bands)
        elif holds_series(path):
            places.append(_average(path, bands))
    places = _group([path for path in paths if not holds_series(path)], bands) + places
    if mask is not None:
        grid = read_info(mask).grid
        fitting = [place for place in places if same_grid(place.grid, grid)]
        if not fitting:
            raise DataError(
                f"The mask {mask} is not on the grid of any raster. Expected the grid of the two "
                f"dates that it is a reference for. Received: {grid.height} x {grid.width} px, CRS "
                f"{grid.crs or 'none'}."
            )
        places = [place._replace(mask=mask) if place in fitting else place for place in places]
    return places


def _read_folder(folder: Path, bands: Sequence[str]) -> list[ExploredPlace]:
    if all((folder / name).is_file() for name in _PAIR):
        dates = [(name.removesuffix(".tif"), folder / name) for name in _PAIR]
        mask = folder / _MASK
        name = Path(os.path.abspath(folder)).name  # noqa: PTH100, which would follow a link
        return [_place(name, dates, bands, mask if mask.is_file() else None)]
    found = find_series([folder])
    are_rasters = [all(granule.image for granule in series.granules) for series in found]
    if not any(are_rasters):
        return [_average(folder, bands)]
    if not all(are_rasters):
        raise ConfigError(
            f"{folder} contains dated rasters, and products or rasters of one band each. Expected "
            "one kind. Name each folder and product by itself."
        )
    places = []
    for series in found:
        dates = [(str(granule.date), Path(str(granule.image))) for granule in series.granules]
        place = _place(series.id, dates, bands, None)
        if len(dates) > 1:
            mean = SeriesMean(_MEAN, dates[0][1].parent, place.name, place.grid)
            place = place._replace(mean=mean)
        places.append(place)
    return places


def _average(path: Path, bands: Sequence[str]) -> ExploredPlace:
    """Return the place of products or items, which has only a mean."""
    series = open_series(path, bands)
    check_size(SeriesStrips(series))
    label = _MEAN if len(series.dates) > 1 else f"{series.dates[0]}, clear pixels"
    return ExploredPlace(
        path.stem, (), series.grid, None, SeriesMean(label, path, path.stem, series.grid)
    )


def _group(files: Iterable[Path], bands: Sequence[str]) -> list[ExploredPlace]:
    """Group rasters by grid, in the order of their first rasters."""
    by_grid: dict[Grid, list[Path]] = {}
    first: Path | None = None
    for file in files:
        grid = read_info(file).grid
        first = first or file
        known = next(iter(by_grid), grid)
        if not same_crs(grid.crs, known.crs):
            raise DataError(
                f"{first} and {file} have different CRS: {known.crs or 'none'} and "
                f"{grid.crs or 'none'}. Pass places of different CRS as folders, or reproject one "
                "with gdalwarp."
            )
        same = next((one for one in by_grid if same_grid(one, grid)), grid)
        by_grid.setdefault(same, []).append(file)
    places = []
    for found in by_grid.values():
        stems = [file.stem for file in found]
        labels = stems if len(set(stems)) == len(stems) else [str(file) for file in found]
        name = found[0].stem if len(found) == 1 else f"{found[0].stem} and {len(found) - 1} more"
        places.append(_place(name, sorted(zip(labels, found, strict=True)), bands, None))
    return places


def _place(
    name: str, dates: Sequence[tuple[str, Path]], bands: Sequence[str], mask: Path | None
) -> ExploredPlace:
    opened = [open_strips(path, bands) for _, path in dates]
    for strips in opened:
        check_size(strips)
        check_same_grid(opened[0], strips)
    warn_of_pair([(strips.name, strips.values) for strips in opened])
    images = tuple(DatedRaster(label, path, name) for label, path in dates)
    return ExploredPlace(name, images, opened[0].grid, mask)
