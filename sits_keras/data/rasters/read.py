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
from rasterio.enums import MaskFlags, Resampling
from rasterio.vrt import WarpedVRT

from sits_keras.bands import RasterBands, band_indices, name_bands, warn_of_colours
from sits_keras.data.radiometry import NODATA, QUANTIFICATION, picture_error, values_to_stored
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError, MissingError
from sits_keras.files import written_aside

Source = Any
"""A raster that is open for reading."""

Shape = tuple[int, int]

_DRIVERS = {".jp2": "JP2OpenJPEG", ".tif": "GTiff", ".tiff": "GTiff"}
"""What may open a file of a given suffix: by its content alone, GDAL would take a text file named
`B02.jp2` for a recipe (VRT) that draws pixels from other files, or from the network."""

_ENVIRONMENT = {
    # In bytes, for rasterio hands it on as it is; by default a twentieth of the machine's memory.
    "GDAL_CACHEMAX": 128 * 2**20,
    "GDAL_NUM_THREADS": 1,  # the processes that prepare are as many as there are cores
}
_REMOTE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}  # else whole buckets are listed


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
        bands: the band's name where the raster tells it, else `None`, in file order
            (see `bands`).
        dtype: of the pixels.
        by_colour: the names are those of colours, for the raster has no others.
    """

    grid: Grid
    bands: tuple[str | None, ...]
    dtype: str
    by_colour: bool = False

    def indices(self, bands: Sequence[str], path: Path | str) -> list[int]:
        """Find some bands (see `bands.band_indices`); rasters of 8 bits are refused."""
        if self.dtype in ("uint8", "int8"):
            raise picture_error(path)
        return band_indices(self._names, bands, path)

    def warn_of_colours(self, bands: Sequence[str], path: Path | str) -> None:
        """Warns where colours tell another order of bands than the one expected."""
        warn_of_colours(self._names, bands, path)

    @property
    def _names(self) -> RasterBands:
        return RasterBands(self.bands, self.by_colour)


def read_info(path: Path | str) -> RasterInfo:
    """Reads a raster's header.

    Raises:
        MissingError: no such file.
        DataError: not a raster that GDAL reads.
    """
    with open_raster(path) as source:
        return describe(source)


def read_stored(
    path: Path | str, bands: Sequence[str], window: Window | None = None, shape: Shape | None = None
) -> np.ndarray:
    """Reads some bands as stored values (see `sits_keras.data.radiometry`).

    Integers are digital numbers: reflectance x 10,000, or by the scale and offset in the raster's
    metadata where it has them. Floats are reflectance. A pixel is without data where any of its
    bands is: nodata, masked, NaN or infinite.

    Args:
        path: of the raster.
        bands: band names, in the order wanted.
        window: the part to read; all of it by default.
        shape: rows and columns to give, of the nearest pixels; all by default.
    Returns:
        `(height, width, bands)` uint16.
    Raises:
        MissingError: no such file.
        DataError: cannot be read, has not those bands, is 8-bit, or holds floats far above 1.
    """
    with open_raster(path) as source:
        indices = describe(source).indices(bands, path)
        values, valid = read_pixels(source, indices, window, shape)
        stored = [
            values_to_stored(values[position], valid, path, *radiometry_of(source, index))
            for position, index in enumerate(indices)
        ]
    return np.stack(stored, axis=-1)


def radiometry_of(source: Source, index: int) -> tuple[float, float]:
    """Scale and offset of a band, `reflectance = number * scale + offset`, as the raster has it."""
    scale, offset = source.scales[index - 1], source.offsets[index - 1]
    if (scale, offset) != (1, 0) or np.issubdtype(source.dtypes[index - 1], np.floating):
        return scale, offset
    return 1 / QUANTIFICATION, 0.0


def read_pixels(
    source: Source, indices: Sequence[int], window: Window | None = None, shape: Shape | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Reads some bands of an open raster, and where all of them hold data (see `read_stored`).

    Returns:
        `(bands, height, width)` as the raster holds them, and `(height, width)` bool.
    Raises:
        DataError: cannot be read, or has not so many bands.
    """
    if source.count < max(indices):
        raise DataError(f"{source.name} has {source.count} bands, expected {max(indices)}.")
    where = _rasterio_window(window)
    with _read_errors(source.name):
        values = source.read(list(indices), window=where, out_shape=shape)
        valid = np.ones(values.shape[1:], bool)
        for position, index in enumerate(indices):
            flags, nodata = source.mask_flag_enums[index - 1], source.nodatavals[index - 1]
            if MaskFlags.per_dataset in flags or MaskFlags.alpha in flags:
                valid &= source.read_masks(index, window=where, out_shape=shape) > 0
            if nodata is not None and not np.isnan(nodata):
                valid &= values[position] != nodata
    if np.issubdtype(values.dtype, np.floating):
        valid &= np.isfinite(values).all(axis=0)
    else:
        valid &= (values != NODATA).all(axis=0)  # products leave it undeclared
    return values, valid


def read_mask(path: Path | str, window: Window | None = None) -> np.ndarray:
    """Where a raster's first band is not zero, `(height, width)` bool; errors as `read_info`."""
    with open_raster(path) as source, _read_errors(path):
        return source.read(1, window=_rasterio_window(window)) != 0


def check_whole(source: Source, indices: Sequence[int]) -> None:
    """Reads the last tile of some bands: where a file was cut off, it is the first to miss.

    Raises:
        DataError: cannot be read.
    """
    for index in indices:
        tile_height, tile_width = source.block_shapes[index - 1]
        height, width = (source.height - 1) % tile_height + 1, (source.width - 1) % tile_width + 1
        last = Window(source.height - height, source.width - width, height, width)
        with _read_errors(source.name):
            source.read(index, window=_rasterio_window(last))


def resampled(source: Source, grid: Grid, method: str) -> Source:
    """An open raster as if it lay on another grid; to be closed like one.

    Args:
        source: the raster; 0 counts as nodata where it declares none.
        grid: where its pixels shall lie; it has a CRS and a transform.
        method: name of a resampling method, such as `"bilinear"` or `"nearest"`.
    """
    nodata = source.nodata if source.nodata is not None else NODATA
    return WarpedVRT(
        source,
        crs=grid.crs,
        transform=_affine(grid.transform),
        height=grid.height,
        width=grid.width,
        resampling=Resampling[method],
        src_nodata=nodata,
        nodata=nodata,
    )


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
        profile["transform"] = _affine(grid.transform)
    with written_aside(path) as aside, quiet(), rasterio.open(aside, "w", **profile) as target:
        target.write(np.moveaxis(values, -1, 0))
        for index, band in enumerate(bands, start=1):
            target.set_band_description(index, band)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings of rasters without georeferencing."""
    # They are welcome, and worth no line a file.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


@contextlib.contextmanager
def _read_errors(path: Path | str) -> Iterator[None]:
    try:
        yield
    except rasterio.errors.RasterioError as error:
        cause = str(error.__cause__ or error).rstrip(".")
        raise DataError(
            f"{path} cannot be read: {cause}. It may be cut off or damaged; fetch it again."
        ) from error


@contextlib.contextmanager
def open_raster(path: Path | str) -> Iterator[Source]:
    """Opens a raster for reading, in a GDAL environment of bounded memory.

    Args:
        path: of a file, or a name for GDAL that begins with `/vsi`.
    Raises:
        MissingError: no such file.
        DataError: not a raster that GDAL reads.
    """
    name = str(path)
    if not name.startswith("/vsi") and not Path(path).is_file():
        if Path(path).is_dir():
            raise MissingError(f"{path} is a folder. Expected a raster: name a file.")
        raise MissingError(f"No file at {path}. Expected a raster.")
    is_remote = name.startswith("/vsi") and not name.startswith("/vsizip")
    with quiet(), rasterio.Env(**_ENVIRONMENT, **(_REMOTE if is_remote else {})):
        with _read_errors(path):
            if not name.startswith("/vsi") and not Path(path).stat().st_size:
                raise rasterio.errors.RasterioIOError("it is empty")
            source = rasterio.open(name, driver=_DRIVERS.get(Path(name).suffix.lower()))
        with source:
            yield source


def describe(source: Source) -> RasterInfo:
    """What the header of an open raster says."""
    crs = source.crs.to_string() if source.crs else None
    transform = None if source.transform.is_identity else tuple(source.transform)[:6]
    grid = Grid(source.height, source.width, crs, transform)
    known = name_bands(source.descriptions, [colour.name for colour in source.colorinterp])
    return RasterInfo(grid, known.names, source.dtypes[0], known.are_colours)


def _affine(transform: tuple[float, ...] | None) -> rasterio.Affine:
    return rasterio.Affine(*transform) if transform else rasterio.Affine.identity()


def _rasterio_window(window: Window | None) -> rasterio.windows.Window | None:
    if window is None:
        return None
    return rasterio.windows.Window(window.col, window.row, window.width, window.height)
