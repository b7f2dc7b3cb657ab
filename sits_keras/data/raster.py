"""Reads and writes rasters: the only module that opens one."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import rasterio.errors
import rasterio.windows

from sits_keras.data.radiometry import MAX_STORED, NODATA, to_stored
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError, MissingError
from sits_keras.files import written_aside

MAX_REFLECTANCE = 10.0
"""Above this, floats are taken to be digital numbers, not reflectance (snow and glint reach 2)."""


class Grid(NamedTuple):
    """Where a raster's pixels lie.

    Attributes:
        height, width: in pixels.
        crs: as WKT or an authority code, `None` where the raster has none.
        transform: affine coefficients a, b, c, d, e, f, `None` where the raster has none.
    """

    height: int
    width: int
    crs: str | None
    transform: tuple[float, ...] | None


class RasterInfo(NamedTuple):
    """What a raster's header says.

    Attributes:
        grid: where its pixels lie.
        bands: the band's name where the raster gives one, else `None`, in file order.
        dtype: of the pixels.
    """

    grid: Grid
    bands: tuple[str | None, ...]
    dtype: str


def read_info(path: Path) -> RasterInfo:
    """Reads a raster's header.

    Raises:
        MissingError: no such file.
        DataError: not a raster that GDAL reads.
    """
    with _open(path) as source:
        return _info(source)


def band_indices(info: RasterInfo, bands: Sequence[str], path: Path) -> list[int]:
    """One-based indices of some bands in a raster.

    They are found by name. A raster that names none of its bands must hold as many as are asked
    for, and is taken to hold them in that order.

    Raises:
        DataError: a band is not there, or the number of unnamed bands is another.
    """
    if not any(info.bands):
        if len(info.bands) != len(bands):
            raise DataError(
                f"{path} has {len(info.bands)} bands without names, expected {len(bands)}: "
                f"{', '.join(bands)}. Name them (band descriptions) or give it those alone."
            )
        return list(range(1, len(bands) + 1))
    missing = [band for band in bands if band not in info.bands]
    if missing:
        names = ", ".join(name or "(unnamed)" for name in info.bands)
        raise DataError(f"{path} has no band {', '.join(missing)}. It has: {names}.")
    return [info.bands.index(band) + 1 for band in bands]


def read_stored(path: Path, bands: Sequence[str], window: Window | None = None) -> np.ndarray:
    """Reads some bands as stored values (see `sits_keras.data.radiometry`).

    Integers are digital numbers: reflectance x 10,000, or by the scale and offset in the raster's
    metadata where it has them. Floats are reflectance. A pixel is without data where any of its
    bands is: nodata, masked, NaN or infinite.

    Args:
        path: of the raster.
        bands: band names, in the order wanted.
        window: the part to read; all of it by default.
    Returns:
        `(height, width, bands)` uint16.
    Raises:
        MissingError: no such file.
        DataError: cannot be read, has not those bands, is 8-bit, or holds floats far above 1.
    """
    with _open(path) as source:
        info = _info(source)
        indices = band_indices(info, bands, path)
        if info.dtype in ("uint8", "int8"):
            raise DataError(
                f"{path} holds 8-bit values, which are display values, not reflectance. "
                "Expected uint16 digital numbers (reflectance x 10,000) or float reflectance."
            )
        with _read_errors(path):
            values = source.read(indices, window=_rasterio_window(window))
            valid = source.read_masks(indices, window=_rasterio_window(window)) > 0
        scales = np.array([source.scales[i - 1] for i in indices], np.float64)
        offsets = np.array([source.offsets[i - 1] for i in indices], np.float64)
    is_float = np.issubdtype(values.dtype, np.floating)
    if is_float:
        valid &= np.isfinite(values)
    else:
        valid &= values != NODATA  # products leave it undeclared
    valid = np.broadcast_to(valid.all(axis=0), values.shape)
    scaled = (scales != 1).any() or (offsets != 0).any()
    if not is_float and not scaled:
        stored = np.where(valid, np.clip(values, 1, MAX_STORED), NODATA).astype(np.uint16)
    else:
        with np.errstate(invalid="ignore"):
            reflectance = values * scales[:, None, None] + offsets[:, None, None]
        highest = reflectance.max(initial=0.0, where=valid)
        if highest > MAX_REFLECTANCE:
            raise DataError(
                f"{path} holds reflectance up to {highest:g}, expected about 0 to 1. Digital "
                "numbers belong in an integer raster, or need a scale in the band metadata."
            )
        stored = to_stored(reflectance, valid)
    return np.moveaxis(stored, 0, -1)


def read_mask(path: Path, window: Window | None = None) -> np.ndarray:
    """Reads the first band of a raster as a mask.

    Returns:
        `(height, width)` bool, true where not zero.
    Raises:
        MissingError: no such file.
        DataError: cannot be read.
    """
    with _open(path) as source, _read_errors(path):
        return source.read(1, window=_rasterio_window(window)) != 0


def write_raster(path: Path, values: np.ndarray, bands: Sequence[str], grid: Grid) -> None:
    """Writes a compressed, tiled GeoTIFF, whole or not at all.

    Args:
        path: of the raster.
        values: `(height, width, bands)` array; 0 is declared nodata where it is uint16.
        bands: band names.
        grid: where its pixels lie; a grid without georeferencing writes none.
    """
    height, width, count = values.shape
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": count,
        "dtype": values.dtype,
        "compress": "deflate",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
    }
    if values.dtype == np.uint16:
        profile["nodata"] = NODATA
    if grid.crs:
        profile["crs"] = grid.crs
    if grid.transform:
        profile["transform"] = rasterio.Affine(*grid.transform)
    with (
        written_aside(path) as aside,
        _quiet(),
        rasterio.open(aside, "w", **profile) as target,
    ):
        target.write(np.moveaxis(values, -1, 0))
        for index, band in enumerate(bands, start=1):
            target.set_band_description(index, band)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # Rasters without georeferencing are welcome, and worth no warning a file.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


@contextlib.contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except rasterio.errors.RasterioError as error:
        cause = str(error.__cause__ or error).rstrip(".")
        raise DataError(
            f"{path} cannot be read: {cause}. It may be cut off or damaged; fetch it again."
        ) from error


@contextlib.contextmanager
def _open(path: Path) -> Iterator[rasterio.DatasetReader]:
    if not Path(path).is_file():
        raise MissingError(f"No file at {path}. Expected a raster.")
    with _quiet():
        with _read_errors(path):
            source = rasterio.open(path)
        with source:
            yield source


def _info(source: rasterio.DatasetReader) -> RasterInfo:
    crs = source.crs.to_string() if source.crs else None
    transform = None if source.transform.is_identity else tuple(source.transform)[:6]
    grid = Grid(source.height, source.width, crs, transform)
    return RasterInfo(grid, tuple(source.descriptions), source.dtypes[0])


def _rasterio_window(window: Window | None) -> rasterio.windows.Window | None:
    if window is None:
        return None
    return rasterio.windows.Window(window.col, window.row, window.width, window.height)
