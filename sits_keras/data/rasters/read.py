"""Open and read rasters: headers, stored values, masks, and parts on another grid."""

import contextlib
import errno
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors
import rasterio.warp
import rasterio.windows
from rasterio.enums import ColorInterp, MaskFlags, Resampling

from sits_keras.bands import RasterBands, band_indices, name_bands, warn_of_colours
from sits_keras.data.plausibility import Radiometry
from sits_keras.data.radiometry import (
    NODATA,
    QUANTIFICATION,
    FillFinder,
    has_data,
    is_missing,
    may_hold,
    picture_error,
    values_to_stored,
)
from sits_keras.data.sources.paths import is_remote, redact
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError, MissingError
from sits_keras.files import written_aside

Source = Any
"""A raster that is open for reading."""

Shape = tuple[int, int]

PROJ_REMEDY = "PROJ_LIB or PROJ_DATA may name the files of another installation: unset them."
"""Remedy where PROJ does not know a CRS, the end of an error message."""

TAGGED = "the raster's own tags"
"""Origin of a conversion that a raster states itself."""

_DRIVERS = {".jp2": "JP2OpenJPEG", ".tif": "GTiff", ".tiff": "GTiff"}
"""Driver that may open a file of a given suffix. By its content alone, GDAL would take a text file
named `B02.jp2` for a recipe (VRT) that draws pixels from other files, or from the network."""

# A profile that is tuned for remote files would hide the masks (.msk) and statements (.aux.xml)
# beside local ones; without it, whole buckets are listed.
_LOCAL = {"GDAL_DISABLE_READDIR_ON_OPEN": "FALSE", "GDAL_PAM_ENABLED": "YES"}
_REMOTE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}

_BAND_DIMENSIONS = {"band", "bands", "channel", "channels", "wavelength", "variable"}  # of netCDF
_SAME_PIXEL = 1e-3  # of a pixel: rasters that differ by less over their whole size are one grid


class Grid(NamedTuple):
    """Position of a raster's pixels.

    Attributes:
        height: Rows, in pixels.
        width: Columns, in pixels.
        crs: CRS as WKT or an authority code, `None` if the raster has none.
        transform: Affine coefficients a, b, c, d, e, f, `None` if the raster has none.
    """

    height: int
    width: int
    crs: str | None
    transform: tuple[float, ...] | None

    def part(self, window: Window) -> "Grid":
        """Return the grid of a window, which may reach beyond this one."""
        if self.transform is None:
            return Grid(window.height, window.width, self.crs, None)
        a, b, c, d, e, f = self.transform
        moved = (c + a * window.col + b * window.row, f + d * window.col + e * window.row)
        return Grid(window.height, window.width, self.crs, (a, b, moved[0], d, e, moved[1]))


class CrsFacts(NamedTuple):
    """Description of the CRS of a grid and of the size of its pixels.

    Attributes:
        name: Code or name, "none" without a CRS.
        code: Authority code such as `EPSG:32631`, `None` if it has none.
        wkt: The CRS as WKT, `None` without a CRS.
        cell: Size of a pixel in units of the CRS.
        metres: Side of a pixel in metres, `None` if the CRS is not in metres.
    """

    name: str
    code: str | None
    wkt: str | None
    cell: str
    metres: float | None


def find_longitudes(grids: Sequence[Grid]) -> npt.NDArray[np.float64]:
    """Return the longitudes of the centres of georeferenced rasters.

    Args:
        grids: Grids with a CRS and a transform.

    Returns:
        `(grids,)` degrees, -180 to 180.

    Raises:
        DataError: A CRS cannot be converted to longitude and latitude.
    """
    found = np.empty(len(grids))
    by_crs: dict[str, list[int]] = {}
    for index, grid in enumerate(grids):
        by_crs.setdefault(str(grid.crs), []).append(index)
    for crs, indices in by_crs.items():
        xs, ys = [], []
        for grid in map(grids.__getitem__, indices):
            a, b, c, d, e, f = grid.transform or ()
            xs.append(c + a * grid.width / 2 + b * grid.height / 2)
            ys.append(f + d * grid.width / 2 + e * grid.height / 2)
        try:
            found[indices] = rasterio.warp.transform(crs, "OGC:CRS84", xs, ys)[0]
        except (rasterio.errors.RasterioError, ValueError) as error:
            raise DataError(
                f"Coordinates in {crs} cannot be converted to longitude and latitude: {error}. "
                f"{PROJ_REMEDY}"
            ) from error
    return found


class RasterInfo(NamedTuple):
    """Header of a raster.

    Attributes:
        grid: Position of its pixels.
        bands: Name of each band in file order, `None` if the raster does not give it (see
            `bands.name_bands`).
        dtypes: Data type of each band's pixels.
        by_colour: Whether the names come from colours, because the raster has no others.
    """

    grid: Grid
    bands: tuple[str | None, ...]
    dtypes: tuple[str, ...]
    by_colour: bool = False

    def indices(self, bands: Sequence[str], path: Path | str) -> list[int]:
        """Return one-based indices of some bands.

        Args:
            bands: Band names, in the order wanted.
            path: Path of the raster, for messages.

        Returns:
            Indices of the bands in the raster (see `bands.band_indices`).

        Raises:
            DataError: A band is missing, or one of those wanted is of 8 bits.
        """
        if all(dtype in ("uint8", "int8") for dtype in self.dtypes):
            raise picture_error(path)
        indices = band_indices(self._names, bands, path)
        if any(self.dtypes[index - 1] in ("uint8", "int8") for index in indices):
            raise picture_error(path)
        return indices

    def warn_of_colours(self, bands: Sequence[str], path: Path | str) -> None:
        """Warn if colours give another order of bands than the one expected."""
        warn_of_colours(self._names, bands, path)

    @property
    def _names(self) -> RasterBands:
        return RasterBands(self.bands, self.by_colour)


def same_crs(first: str | None, second: str | None) -> bool:
    """Return whether two CRS are the same, however they are written.

    Args:
        first: Authority code, WKT or PROJ string, or `None` for no CRS.
        second: The same of the other.

    Returns:
        Whether both are one CRS, or both are `None`.
    """
    if first == second:
        return True
    if first is None or second is None:
        return False
    try:
        return bool(rasterio.CRS.from_user_input(first) == rasterio.CRS.from_user_input(second))
    except (rasterio.errors.CRSError, ValueError):
        return False  # "EPSG:None", of a catalogue


def describe_crs(grid: Grid) -> CrsFacts:
    """Describe the CRS of a grid and the size of its pixels.

    Args:
        grid: Grid of a raster.

    Raises:
        DataError: If PROJ does not know the CRS.
    """
    side = None if grid.transform is None else math.hypot(grid.transform[0], grid.transform[3])
    if grid.crs is None:
        return CrsFacts("none", None, None, "unknown" if side is None else f"{side:g}", None)
    try:
        crs = rasterio.CRS.from_user_input(grid.crs)
        authority = crs.to_authority()
        code = None if authority is None else ":".join(authority)
        wkt = crs.to_wkt()
    except (rasterio.errors.CRSError, ValueError) as error:
        raise DataError(f"The CRS {grid.crs} is not known: {error}. {PROJ_REMEDY}") from error
    if side is None:
        return CrsFacts(code or "without a code", code, wkt, "unknown", None)
    unit, factor = crs.linear_units_factor if crs.is_projected else ("degrees", 0.0)
    metres = round(side * factor, 6) if factor else None
    return CrsFacts(code or "without a code", code, wkt, f"{side:g} {unit}", metres)


def same_transform(first: Grid, second: Grid) -> bool:
    """Return whether the pixels of two grids of one size coincide.

    Args:
        first: A grid.
        second: Another one.

    Returns:
        Whether no corner of the raster moves by more than a thousandth of a pixel, which is what
        rounding does, or neither has a transform.
    """
    if first.transform is None or second.transform is None:
        return first.transform is second.transform
    a, b, _, d, e, _ = first.transform
    pixel = max(abs(value) for value in (a, b, d, e))
    # A difference of scale or rotation adds up over the image.
    reach = (first.width, first.height, 1, first.width, first.height, 1)
    return all(
        abs(x - y) * length <= pixel * _SAME_PIXEL
        for x, y, length in zip(first.transform, second.transform, reach, strict=True)
    )


def same_grid(first: Grid, second: Grid) -> bool:
    """Return whether two rasters have the same pixels: size, CRS and, but for rounding, transform.

    Args:
        first: Grid of a raster.
        second: Grid of another one.

    Returns:
        Whether they are one grid (see `same_crs` and `same_transform`).
    """
    return (
        first[:2] == second[:2]
        and same_crs(first.crs, second.crs)
        and same_transform(first, second)
    )


def read_info(path: Path | str) -> RasterInfo:
    """Read a raster's header.

    Args:
        path: Path of a file, or a name for GDAL that begins with `/vsi`.

    Returns:
        Its grid, bands and data types.

    Raises:
        MissingError: The file does not exist.
        DataError: The file is not a raster that can be read.
    """
    with open_raster(path) as source:
        return describe(source)


def read_stored(
    path: Path | str, bands: Sequence[str], window: Window | None = None, shape: Shape | None = None
) -> npt.NDArray[np.uint16]:
    """Read some bands as stored values (see `sits_keras.data.radiometry`).

    Integers are digital numbers: reflectance x 10,000, or by the scale and offset in the raster's
    metadata if it has them. Floats are reflectance. A pixel has no data if any of its bands has
    none (see `read_pixels` and `radiometry.is_missing`), or if all of its bands hold the same fill
    value (`radiometry.FillFinder`).

    Args:
        path: Path of the raster.
        bands: Band names, in the order wanted.
        window: Part to read; all of it by default.
        shape: Rows and columns to return, taken from the nearest pixels; all by default.

    Returns:
        `(height, width, bands)` uint16 array, 0 in all bands of a pixel without data.

    Raises:
        MissingError: The file does not exist.
        DataError: The raster cannot be read, lacks a band, is of 8 bits, or holds floats far
            above 1.
    """
    with open_raster(path) as source:
        indices = describe(source).indices(bands, path)
        values, valid = read_pixels(source, indices, window, shape)
        fill = FillFinder(*valid.shape)
        for band in values:
            fill.add(band)
        valid &= ~fill.missing
        stored = np.stack(
            [
                values_to_stored(values[position], valid, path, *radiometry_of(source, index)[:2])
                for position, index in enumerate(indices)
            ],
            axis=-1,
        )
    stored[~has_data(stored)] = NODATA
    return stored


def radiometry_of(source: Source, index: int) -> Radiometry:
    """Return a band's scale and offset from its metadata: `reflectance = number * scale + offset`.

    Args:
        source: Open raster.
        index: Index of the band, from 1.

    Returns:
        The conversion, whose origin is `TAGGED` if the raster states it. Integers without scale and
        offset are reflectance x 10,000.
    """
    scale, offset = source.scales[index - 1], source.offsets[index - 1]
    if (scale, offset) != (1, 0):
        return Radiometry(scale, offset, TAGGED)
    if np.issubdtype(source.dtypes[index - 1], np.floating):
        return Radiometry(1.0, 0.0, "the default, for none are stated")
    return Radiometry(1 / QUANTIFICATION, 0.0, "the default, for none are stated")


def read_pixels(
    source: Source, indices: Sequence[int], window: Window | None = None, shape: Shape | None = None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Read some bands of an open raster, and where all of them have data.

    A pixel has no data where a band holds its declared nodata value, NaN or infinity, where the
    raster's mask, an alpha band or a band named `dataMask` excludes it, and where an integer band
    is 0, as in products.

    Args:
        source: Open raster, or the result of `resampled`.
        indices: Indices of the bands, from 1.
        window: Part to read; all of it by default.
        shape: Rows and columns to return, taken from the nearest pixels; all by default.

    Returns:
        `(bands, height, width)` values as the raster holds them, and `(height, width)` bool.

    Raises:
        DataError: The raster cannot be read, or has too few bands.
    """
    if source.count < max(indices):
        raise DataError(f"{redact(source.name)} has {source.count} bands, expected {max(indices)}.")
    if isinstance(source, ResampledRaster):
        return source.read_pixels(indices, window)
    where = _rasterio_window(window)
    with _read_errors(source.name):
        values = source.read(list(indices), window=where, out_shape=shape)
        valid = np.ones(values.shape[1:], bool)
        for position, index in enumerate(indices):
            flags = source.mask_flag_enums[index - 1]
            if MaskFlags.per_dataset in flags or MaskFlags.alpha in flags:
                valid &= source.read_masks(index, window=where, out_shape=shape) > 0
            for nodata in _declared_nodata(source, index):
                if nodata or np.issubdtype(values.dtype, np.floating):
                    valid &= values[position] != nodata
        for index in _validity_bands(source):
            if index not in indices:
                valid &= source.read(index, window=where, out_shape=shape) > 0
    if np.issubdtype(values.dtype, np.floating):
        valid &= np.isfinite(values).all(axis=0)
    elif may_hold(values, NODATA):
        for band in values:
            valid &= band != NODATA  # products leave it undeclared
    return values, valid


def read_values(
    source: Source,
    indices: Sequence[int],
    window: Window | None = None,
    shape: Shape | None = None,
    *,
    masked: bool = False,
) -> npt.NDArray[Any]:
    """Read some bands of an open raster as it holds them.

    Args:
        source: Open raster.
        indices: Indices of the bands, from 1.
        window: Part to read; all of it by default.
        shape: Rows and columns to return, taken from the nearest pixels; all by default.
        masked: Whether pixels that the raster excludes are masked.

    Returns:
        `(bands, height, width)` array, a masked one if `masked`.

    Raises:
        DataError: The raster cannot be read.
    """
    with _read_errors(source.name):
        values: npt.NDArray[Any] = source.read(
            list(indices), window=_rasterio_window(window), out_shape=shape, masked=masked
        )
    return values


def read_mask(path: Path | str, window: Window | None = None) -> npt.NDArray[np.bool_]:
    """Read where a raster's first band is not zero.

    Args:
        path: Path of the raster.
        window: Part to read; all of it by default.

    Returns:
        `(height, width)` bool array.

    Raises:
        MissingError: The file does not exist.
        DataError: The file is not a raster that can be read.
    """
    with open_raster(path) as source, _read_errors(path):
        return np.asarray(source.read(1, window=_rasterio_window(window)) != 0)


def check_readable(source: Source, indices: Sequence[int]) -> None:
    """Check that a file is complete by reading the last tile of some bands.

    Args:
        source: Open raster.
        indices: Indices of the bands, from 1.

    Raises:
        DataError: A tile cannot be read.
    """
    for index in indices:
        tile_height, tile_width = source.block_shapes[index - 1]
        height, width = (source.height - 1) % tile_height + 1, (source.width - 1) % tile_width + 1
        last = Window(source.height - height, source.width - width, height, width)
        with _read_errors(source.name):
            source.read(index, window=_rasterio_window(last))


class ResampledRaster:
    """An open raster as if its pixels lay on another grid of the same CRS; see `resampled`.

    Attributes:
        name: Name of the raster.
        count: Number of its bands.
        height: Rows of the other grid.
        width: Columns of the other grid.
    """

    def __init__(self, source: Source, grid: Grid, method: str):
        self.name, self.count = source.name, source.count
        self.height, self.width = grid.height, grid.width
        self._source, self._grid = source, grid
        self._resampling = Resampling[method]

    def __enter__(self) -> "ResampledRaster":
        """Return the raster itself; the one it is made from is closed by its own block."""
        return self

    def __exit__(self, *details: object) -> None:
        """Do nothing."""

    def read_pixels(
        self, indices: Sequence[int], window: Window | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Read some bands, resampled from pixels with data alone; see the function `read_pixels`.

        Args:
            indices: Indices of the bands, from 1.
            window: Part of the grid to read; all of it by default.

        Returns:
            `(bands, height, width)` values, 0 without data, and `(height, width)` bool.
        """
        window = window or Window(0, 0, self.height, self.width)
        shape = (len(indices), window.height, window.width)
        around = self._source_window(window)
        if around is None:
            dtype = self._source.dtypes[indices[0] - 1]
            return np.zeros(shape, dtype), np.zeros(shape[1:], bool)
        values, valid = read_pixels(self._source, indices, around)
        valid &= (values != NODATA).any(axis=0)
        wide = np.float32 if values.dtype.itemsize <= 2 else np.float64
        if self._resampling == Resampling.nearest:
            # Nothing is blended, and of a mask, 0 is a value.
            moved = self._reproject(np.stack([*values, valid]).astype(wide), around, window)
            moved, has_data = moved[:-1], moved[-1] == 1
        else:
            valid &= ~self._fill_values(values, indices)
            moved = self._reproject(np.where(valid, values, np.nan).astype(wide), around, window)
            has_data = np.isfinite(moved).all(axis=0)
            moved[:, ~has_data] = np.nan
        moved = np.nan_to_num(moved)
        if np.issubdtype(values.dtype, np.integer):
            moved = np.rint(moved)
        return moved.astype(values.dtype), has_data

    def covers(self, window: Window) -> npt.NDArray[np.bool_]:
        """Return which pixels of a part of the grid lie inside of the raster.

        Args:
            window: Part of the grid.
        """
        around = self._source_window(window)
        if around is None:
            return np.zeros((window.height, window.width), bool)
        ones = np.ones((1, around.height, around.width), np.float32)
        return np.asarray(self._reproject(ones, around, window)[0] == 1)

    def _fill_values(
        self, values: npt.NDArray[Any], indices: Sequence[int]
    ) -> npt.NDArray[np.bool_]:
        """Return where bands hold fill values that the raster does not declare."""
        missing = np.zeros(values.shape[1:], bool)
        if len(values) > 1:  # a single band may be 0, or saturated
            fill = FillFinder(*values.shape[1:])
            for band in values:
                fill.add(band)
            missing |= fill.missing
        for band, index in zip(values, indices, strict=True):
            missing |= is_missing(band, *radiometry_of(self._source, index)[:2])
        return missing

    def _reproject(
        self, values: npt.NDArray[np.floating], around: Window, window: Window
    ) -> npt.NDArray[np.floating]:
        """Resample a part of the source, NaN without data, to a part of the grid."""
        moved = np.full((len(values), window.height, window.width), np.nan, values.dtype)
        with _read_errors(self.name):
            rasterio.warp.reproject(
                values,
                moved,
                src_transform=self._moved(self._source.transform, around),
                dst_transform=self._moved(self._grid.transform, window),
                src_crs=self._source.crs,
                dst_crs=self._source.crs,
                src_nodata=np.nan,
                dst_nodata=np.nan,
                resampling=self._resampling,
            )
        return moved

    @staticmethod
    def _moved(transform: Sequence[float] | None, window: Window) -> rasterio.Affine:
        """Return the transform of a part of a raster."""
        a, b, c, d, e, f = (transform or rasterio.Affine.identity())[:6]
        moved = (c + a * window.col + b * window.row, f + d * window.col + e * window.row)
        return rasterio.Affine(a, b, moved[0], d, e, moved[1])

    def _source_window(self, window: Window) -> Window | None:
        """Return the source's pixels that a window of the grid is made from, if there are any."""
        moved, back = self._moved(self._grid.transform, window), ~self._source.transform
        a, b, _, d, e, _ = moved[:6]
        corners = [
            (moved[2] + a * x + b * y, moved[5] + d * x + e * y)
            for x in (0, window.width)
            for y in (0, window.height)
        ]
        cols = [back.a * x + back.b * y + back.c for x, y in corners]
        rows = [back.d * x + back.e * y + back.f for x, y in corners]
        # The kernel is as wide as two pixels of the coarser of both grids.
        ratio = max(math.hypot(a, d), math.hypot(b, e)) * max(
            math.hypot(back.a, back.d), math.hypot(back.b, back.e)
        )
        margin = 2 * math.ceil(max(1.0, ratio)) + 2
        top, bottom = max(0, math.floor(min(rows)) - margin), math.ceil(max(rows)) + margin
        left, right = max(0, math.floor(min(cols)) - margin), math.ceil(max(cols)) + margin
        height = min(bottom, self._source.height) - top
        width = min(right, self._source.width) - left
        return Window(top, left, height, width) if height > 0 and width > 0 else None


def resampled(source: Source, grid: Grid, method: str) -> ResampledRaster:
    """Return an open raster as if its pixels lay on another grid of the same CRS.

    Pixels without data are found before they are resampled, so that no fill value is blended into
    its neighbours.

    Args:
        source: Open raster, which must stay open.
        grid: Grid to resample to, with a CRS and a transform.
        method: Name of a resampling method, such as `"bilinear"` or `"nearest"`.
    """
    return ResampledRaster(source, grid, method)


def write_raster(path: Path, values: npt.NDArray[Any], bands: Sequence[str], grid: Grid) -> None:
    """Write a compressed, tiled GeoTIFF; a failed write leaves nothing.

    Args:
        path: Output file.
        values: `(height, width, bands)` array; 0 is declared nodata if it is uint16.
        bands: Band names.
        grid: Position of its pixels; a grid without georeferencing writes none.
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
    """Suppress warnings about rasters without georeferencing, which are welcome."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


# Two threads of GDAL decode a GeoTIFF in 2.3 times the processor time of one.
_ONE_THREAD = {"GDAL_NUM_THREADS": 1}


def one_thread() -> contextlib.AbstractContextManager[object]:
    """Return a context in which GDAL decodes what this thread reads in this thread.

    That of `open_raster` counts for the thread that opened a file, and by default JPEG 2000 is
    decoded by a thread for each core.
    """
    return rasterio.Env(**_ONE_THREAD)  # type: ignore[no-any-return]


@contextlib.contextmanager
def open_raster(path: Path | str, cache_bytes: int = 128 * 2**20) -> Iterator[Source]:
    """Open a raster for reading, in a GDAL environment of bounded memory.

    Args:
        path: Path of a file, or a name for GDAL that begins with `/vsi`.
        cache_bytes: Size of GDAL's cache of decoded blocks. GDAL's own default is a twentieth of
            the machine's memory.

    Yields:
        The open raster.

    Raises:
        MissingError: The file does not exist.
        DataError: The file is not a raster that can be read, has no bands, has time steps for
            bands, or is georeferenced by control points or a sensor model alone.
    """
    name = str(path)
    if not name.startswith("/vsi"):
        with _read_errors(path):
            _check_exists(Path(path))
    options = {
        "GDAL_CACHEMAX": cache_bytes,  # rasterio hands it on as it is
        **_ONE_THREAD,
        **(_REMOTE if is_remote(name) else _LOCAL),
    }
    with quiet(), rasterio.Env(**options):
        with _read_errors(path):
            if not name.startswith("/vsi") and not Path(path).stat().st_size:
                raise rasterio.errors.RasterioIOError("it is empty")
            source = _open(name)
        with source:
            _check_content(source)
            yield source


def describe(source: Source) -> RasterInfo:
    """Return the header of an open raster."""
    crs = source.crs.to_string() if source.crs else None
    transform = None if source.transform.is_identity else tuple(source.transform)[:6]
    grid = Grid(source.height, source.width, crs, transform)
    known = name_bands(source.descriptions, [colour.name for colour in source.colorinterp])
    return RasterInfo(grid, known.names, tuple(source.dtypes), known.are_colours)


def _open(name: str) -> Source:
    suffix = Path(urlsplit(name).path if is_remote(name) else name).suffix.lower()
    if suffix in _DRIVERS:
        return rasterio.open(name, driver=_DRIVERS[suffix])
    if not name.startswith("/vsi"):
        return rasterio.open(name)
    # A file of others, named in any way: it may be an image, and nothing that names other files.
    try:
        return rasterio.open(name, driver="GTiff")
    except rasterio.errors.RasterioIOError as error:
        if "not recognized" not in str(error):
            raise
        return rasterio.open(name, driver="JP2OpenJPEG")


def _check_exists(path: Path) -> None:
    if path.is_file():
        return
    if path.is_dir():
        raise MissingError(f"{path} is a folder. Expected a raster: name a file.")
    if path.is_symlink():
        raise MissingError(
            f"{path} is a link to a file that does not exist. Expected a raster: mount its disk, "
            "or get the file (git annex get)."
        )
    raise MissingError(f"No file at {path}. Expected a raster.")


def _check_content(source: Source) -> None:
    """Raise DataError if a raster is one that cannot be used as an image."""
    name = redact(source.name)
    if not source.count:
        raise _no_bands(source)
    first, last = source.tags(1), source.tags(source.count)
    steps = {
        tag.removeprefix("NETCDF_DIM_").lower()
        for tag, value in first.items()
        if tag.startswith("NETCDF_DIM_") and value != last.get(tag)
    }
    if steps - _BAND_DIMENSIONS:
        raise DataError(
            f"{name} holds {source.count} steps of one variable as bands, along "
            f"{', '.join(sorted(steps))}. Expected the bands of one date. Write "
            "each date to a raster of its own (gdal_translate -b)."
        )
    if source.transform.is_identity:
        points, method = len(source.gcps[0]), "-tps"
        what = f"{points} ground control points"
        if not points:
            what, method = "a sensor model (RPC)", "-rpc"
        if points or source.rpcs:
            raise DataError(
                f"{name} is georeferenced by {what} alone. Expected a raster with a CRS and a "
                f"transform. Warp it first: gdalwarp {method} -t_srs EPSG:32631 IN OUT, with the "
                "CRS of your place."
            )


def _no_bands(source: Source) -> DataError:
    name, inside = redact(source.name), source.subdatasets
    if source.driver.startswith("SENTINEL2"):
        return DataError(
            f"{name} is the metadata of a product and has no bands itself. Expected a raster. "
            "Products are taken by prepare and inspect: name the folder (.SAFE) or its zip."
        )
    parts = ""
    if inside:
        shown = ", ".join(inside[:3]) + (f" and {len(inside) - 3} more" if inside[3:] else "")
        parts = f", but subdatasets ({redact(shown)})"
    return DataError(
        f"{name} has no bands itself{parts}. Expected a raster with bands. Write the bands to one "
        "GeoTIFF first (gdalbuildvrt -separate, then gdal_translate)."
    )


def _declared_nodata(source: Source, index: int) -> list[Any]:
    """Return the values that a band declares to be no data, in its dtype if that is a float.

    A tag of netCDF (`_FillValue`, `missing_value`), which converters copy, counts as well.
    """
    tags = {**source.tags(), **source.tags(index)}
    declared = [source.nodatavals[index - 1]]
    for key in ("_FillValue", "missing_value"):
        with contextlib.suppress(KeyError, ValueError):
            declared.append(float(tags[key]))
    dtype = np.dtype(source.dtypes[index - 1])
    if dtype.kind in "iu":
        # As integers of the dtype, so that pixels are compared as they are.
        limits = np.iinfo(dtype)
        return [
            dtype.type(value)
            for value in declared
            if value is not None and limits.min <= value <= limits.max and value == int(value)
        ]
    if dtype.kind == "f":
        # A float32 is not equal to the double that its tag holds.
        with np.errstate(over="ignore"):
            declared += [dtype.type(value) for value in declared if value is not None]
    return [value for value in declared if value is not None and not np.isnan(value)]


def _validity_bands(source: Source) -> list[int]:
    """Return the bands that mark where the others have data: alpha, and Sentinel Hub's dataMask.

    GDAL makes a mask of an alpha band only if a raster has two or four bands.
    """
    return [
        index
        for index, (colour, name) in enumerate(
            zip(source.colorinterp, source.descriptions, strict=True), start=1
        )
        if colour == ColorInterp.alpha or (name or "").casefold() == "datamask"
    ]


@contextlib.contextmanager
def _read_errors(path: Path | str) -> Iterator[None]:
    """Turn errors of GDAL and of the system into a DataError with the remedy of its cause."""
    try:
        yield
    except (rasterio.errors.RasterioError, rasterio.errors.CRSError, OSError) as error:
        if isinstance(error, MissingError):
            raise
        cause = str(error.__cause__ or error).rstrip(".")
        if isinstance(error, OSError) and error.strerror:
            cause = error.strerror
        raise DataError(
            f"{redact(path)} cannot be read: {redact(cause)}. {_remedy(str(path), error)}"
        ) from error


_DAMAGED = "It may be truncated or damaged: fetch it again."
_SIGN_AGAIN = (
    "The server refuses access, and the URL may have expired: sign the items again, and repeat "
    "the command."
)
_CREDENTIALS = (
    "Set AWS_NO_SIGN_REQUEST=YES for a public bucket. For others set your credentials, "
    "AWS_REQUEST_PAYER=requester if the reader pays, and AWS_S3_ENDPOINT if the bucket is not at "
    "AWS (eodata.dataspace.copernicus.eu)."
)
_STATUS = r"(?:HTTP|code)\D{0,15}\b"  # and not an offset in the file
_REFUSED = rf"{_STATUS}40[13]\b|Authenti|Authori[sz]ation|Expired|Access ?Denied|Forbidden"
# Of remote files: patterns in GDAL's text, and what to do.
_REMOTE_REMEDIES = (
    (r"ACCESS_KEY|InvalidCredentials|credentials|_NO_SIGN_REQUEST|InvalidAccessKey", _CREDENTIALS),
    (
        rf"{_STATUS}(404|410)\b|NoSuch(Key|Bucket)|BlobNotFound|does not exist|No such file",
        "The file is not there any more: search the catalogue again, or leave the item out.",
    ),
    (
        rf"{_STATUS}(429|5\d\d)\b|SlowDown|throttl|timed? ?out|resolve host|connect|SSL|certificate"
        "|Empty reply",
        "The server or the network fails: try again later, with fewer --workers. Behind a proxy, "
        "set HTTPS_PROXY and CURL_CA_BUNDLE.",
    ),
)
_REMEDIES = (
    (
        r"codec|Unsupported compression|compression scheme|ZSTD|LERC|JXL|WEBP",
        "This GDAL cannot unpack its compression: write it with another "
        "(gdal_translate -co COMPRESS=DEFLATE IN OUT).",
    ),
    (
        r"proj\.db|PROJ_(LIB|DATA)|PROJ:|DATABASE\.LAYOUT",
        "PROJ_LIB or PROJ_DATA may name the files of another installation: unset them.",
    ),
)
_ERRNO_REMEDIES = {
    errno.EACCES: "Change the permissions of the file or its folder (chmod).",
    errno.EPERM: "Change the permissions of the file or its folder (chmod).",
    errno.EMFILE: "Too many files are open: raise the limit (ulimit -n), or use fewer --workers.",
    errno.ENFILE: "Too many files are open: raise the limit (ulimit -n), or use fewer --workers.",
    errno.ENOMEM: "The memory is used up: use fewer --workers.",
}
_HEADS = (
    (rb"version https://git-lfs", "It is a pointer of Git LFS in place of the file: git lfs pull."),
    (
        rb"\s*(<!doctype|<html|<\?xml|<error|[{\[]\s*\")",
        "It is a page or a message of a server, saved under this name: log in where you fetch "
        "from, and fetch it again.",
    ),
    (
        rb"PK\x03\x04|\x1f\x8b",
        "It is an archive: unpack it first.",
    ),
)


def _remedy(name: str, error: BaseException) -> str:
    """Return what to do about an error of reading, by its cause."""
    texts = []
    one: BaseException | None = error
    while one is not None:
        texts.append(str(one))
        one = one.__cause__
    # The name itself may contain the words that are searched.
    text = "\n".join(texts).replace(name, "").replace(Path(name).name, "")
    if is_remote(name):
        if re.search(_REFUSED, text, re.IGNORECASE):
            return _SIGN_AGAIN if "://" in name else _CREDENTIALS
        for pattern, remedy in _REMOTE_REMEDIES:
            if re.search(pattern, text, re.IGNORECASE):
                return remedy
    number = getattr(error, "errno", None)
    for code, remedy in _ERRNO_REMEDIES.items():
        if number == code or os.strerror(code) in text:
            return remedy
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, text, re.IGNORECASE):
            return remedy
    if "not recognized" in text:
        return _not_an_image(name)
    if is_remote(name):
        return "The connection may have been cut, or the URL may have expired: try again."
    return _DAMAGED


def _not_an_image(name: str) -> str:
    suffix = Path(urlsplit(name).path if is_remote(name) else name).suffix.lower()
    driver = _DRIVERS.get(suffix)
    with rasterio.Env() as env:
        if driver and driver not in env.drivers():
            return (
                f"This GDAL has no driver {driver}, which reads {suffix} files: unset GDAL_SKIP, "
                "or install rasterio from its wheels (pip install rasterio)."
            )
    head = b""
    if not name.startswith("/vsi"):
        with contextlib.suppress(OSError), Path(name).open("rb") as file:
            head = file.read(256)
    for pattern, remedy in _HEADS:
        if re.match(pattern, head, re.IGNORECASE):
            return remedy
    return (
        "It is not an image that GDAL knows by that name: check which program wrote it, or fetch "
        "it again."
    )


def _affine(transform: tuple[float, ...] | None) -> rasterio.Affine:
    return rasterio.Affine(*transform) if transform else rasterio.Affine.identity()


def _rasterio_window(window: Window | None) -> rasterio.windows.Window | None:
    if window is None:
        return None
    return rasterio.windows.Window(window.col, window.row, window.width, window.height)
