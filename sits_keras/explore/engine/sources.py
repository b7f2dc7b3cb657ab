"""What `sits-keras explore` is given: rasters, folders of dated rasters, folders of a change."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sits_keras.data.rasters.read import Grid, read_info
from sits_keras.data.rasters.rows import check_same_grid, open_strips
from sits_keras.data.sources.series import find_series
from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.tasks.windows.sliding import check_size

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
        fitting = [place for place in places if place.grid == grid]
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
        if grid.crs != known.crs:
            raise DataError(
                f"{first} and {file} are of different CRS: {known.crs or 'none'} and "
                f"{grid.crs or 'none'}. Give places of different CRS as folders, or warp one "
                "(gdalwarp)."
            )
        by_grid.setdefault(grid, []).append(file)
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
