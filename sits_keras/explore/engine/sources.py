"""What `sits-keras explore` is given: rasters, folders of dated rasters, folders of a change."""

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import NODATA, QUANTIFICATION, show_reflectance
from sits_keras.data.rasters.read import Grid, read_info, read_stored, same_crs, same_grid
from sits_keras.data.rasters.rows import check_same_grid, open_strips
from sits_keras.data.sources.series import find_series
from sits_keras.data.tiling import Window, reflect
from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.tasks.windows.sliding import check_size

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

    def window(self, row: int, col: int, context_margin: tuple[int, int] = (0, 0)) -> np.ndarray:
        """The stored values of 64 x 64 px, with so many pixels around them, `(side, side, bands)`.

        Beyond the edges they are the raster's reflection, as in `tasks.blocks.read_block`.
        """
        before, after = context_margin
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


_PAIR = ("before.tif", "after.tif")
_MASK = "mask.tif"


class Image(NamedTuple):
    """A raster that is explored: its label, its path as it was given, and its place's name."""

    label: str
    path: Path
    place: str


class Place(NamedTuple):
    """Rasters of the same pixels.

    Attributes:
        name: of the folder, or of the first raster.
        images: its dates, in order.
        grid: where the pixels lie.
        mask: raster that is not zero where there was a change, `None` where there is none.
    """

    name: str
    images: tuple[Image, ...]
    grid: Grid
    mask: Path | None


def find_places(
    paths: Sequence[Path], bands: Sequence[str], mask: Path | None = None
) -> list[Place]:
    """The places that some rasters and folders show, each raster's header checked.

    Rasters that are given as files are dates of one place where they have the same grid, and of
    several where not; they must be of one CRS. Folders are places of their own: of dated rasters as
    `sits-keras prepare` takes them, folders of these, or a `before.tif` and an `after.tif` with, if
    there is one, a `mask.tif`.

    Args:
        paths: at least one.
        bands: that the model takes.
        mask: reference of changes, for the place whose grid it has.
    Raises:
        MissingError: nothing is there.
        DataError: no raster, or one that lacks a band; a folder without series; files of several
            CRS; dates of one folder on several grids; a mask of another grid.
        ConfigError: a raster is smaller than a window; a series has a file for each band.
    """
    places: list[Place] = []
    for path in paths:
        if not path.exists():
            raise MissingError(f"Nothing at {path}. Expected a raster, or a folder of rasters.")
        if path.is_dir():
            places += _read_folder(path, bands)
    places = _group([path for path in paths if not path.is_dir()], bands) + places
    if mask is not None:
        grid = read_info(mask).grid
        fitting = [place for place in places if same_grid(place.grid, grid)]
        if not fitting:
            raise DataError(
                f"{mask} is on the grid of none of the rasters: {grid.height} x {grid.width} px, "
                f"CRS {grid.crs or 'none'}. Expected that of the two dates it is a reference for."
            )
        places = [one._replace(mask=mask) if one in fitting else one for one in places]
    return places


def _read_folder(folder: Path, bands: Sequence[str]) -> list[Place]:
    if all((folder / name).is_file() for name in _PAIR):
        dates = [(name.removesuffix(".tif"), folder / name) for name in _PAIR]
        mask = folder / _MASK
        return [_place(folder.resolve().name, dates, bands, mask if mask.is_file() else None)]
    places = []
    for series in find_series([folder]):
        for granule in series.granules:
            if granule.image is None:
                raise ConfigError(
                    f"{granule.name} has a file for each band. Expected a raster of all bands: "
                    "stack them first (gdalbuildvrt -separate, then gdal_translate)."
                )
        dates = [(str(one.date), Path(str(one.image))) for one in series.granules]
        places.append(_place(series.id, dates, bands, None))
    return places


def _group(files: Iterable[Path], bands: Sequence[str]) -> list[Place]:
    """Rasters by their grids, in the order that these come up."""
    by_grid: dict[Grid, list[Path]] = {}
    first: Path | None = None
    for file in files:
        grid = read_info(file).grid
        first = first or file
        known = next(iter(by_grid), grid)
        if not same_crs(grid.crs, known.crs):
            raise DataError(
                f"{first} and {file} are of different CRS: {known.crs or 'none'} and "
                f"{grid.crs or 'none'}. Give places of different CRS as folders, or warp one "
                "(gdalwarp)."
            )
        same = next((one for one in by_grid if same_grid(one, grid)), grid)
        by_grid.setdefault(same, []).append(file)
    places = []
    for found in by_grid.values():
        stems = [one.stem for one in found]
        labels = stems if len(set(stems)) == len(stems) else [str(one) for one in found]
        name = found[0].stem if len(found) == 1 else f"{found[0].stem} and {len(found) - 1} more"
        places.append(_place(name, sorted(zip(labels, found, strict=True)), bands, None))
    return places


def _place(
    name: str, dates: Sequence[tuple[str, Path]], bands: Sequence[str], mask: Path | None
) -> Place:
    opened = [open_strips(path, bands) for _, path in dates]
    for one in opened:
        check_size(one)
        check_same_grid(opened[0], one)
    images = tuple(Image(label, path, name) for label, path in dates)
    return Place(name, images, opened[0].grid, mask)
