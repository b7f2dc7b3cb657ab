"""Write maps for other programs: cloud-optimised GeoTIFF, GeoJSON and PNG.

Maps of rasters without georeferencing have none either.
"""

import contextlib
import itertools
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors
import rasterio.shutil
import rasterio.warp
import rasterio.windows

from sits_keras.data.rasters.read import PROJ_REMEDY, Grid, check_readable, open_raster, quiet
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError, OutputError
from sits_keras.files import written_aside


@contextlib.contextmanager
def whole_raster(path: Path) -> Iterator[Path]:
    """Write a raster as `files.written_aside` does, and check it before it gets its real name.

    Args:
        path: Output file.

    Yields:
        Path to write to.

    Raises:
        OutputError: GDAL could not write it, or not all of it.
    """
    with written_aside(path) as aside:
        try:
            yield aside
            with open_raster(aside) as written:
                check_readable(written, [written.count])
        except Exception as error:
            is_of_gdal = type(error).__module__.startswith("rasterio")
            if is_of_gdal or (isinstance(error, DataError) and str(aside) in str(error)):
                raise _error(path, error) from error
            raise


def _error(path: Path, cause: BaseException) -> OutputError:
    while cause.__cause__:
        cause = cause.__cause__
    free = shutil.disk_usage(path.parent).free
    why = str(cause).rstrip(".").replace(".partial-", "")
    return OutputError(
        f"{path} could not be written whole: {why}. Its disk may be full: {free / 1e6:,.1f} MB are "
        "free without it. Free some space or choose another output, then try again."
    )


_TILE_BYTES = 32 * 2**20  # of one tile with all its bands; a reader holds a few
# GDAL's own cache would grow to a fraction of the machine's memory. Rows are written through.
_CACHE_OF_ROWS = 64 * 2**20  # bytes
_CACHE_OF_COPY = 384 * 2**20  # a row of tiles of 1,024 bands fits
_MOST_BANDS_OF_OVERVIEWS = 64  # of 1,024 bands, GDAL takes gigabytes and most of the time
# Bands of a tile one after the other: some bands are read without the others.
_HAS_TILE_INTERLEAVE = tuple(map(int, rasterio.__gdal_version__.split(".")[:2])) >= (3, 11)
_LONGEST_EDGE = 512  # px; a straight line of 5 km in UTM bends by less than a metre in WGS84


class MapClass(NamedTuple):
    """Class of a value of a map: its name, and its colour as three integers in [0, 255]."""

    name: str
    colour: tuple[int, int, int]


def scaled_grid(
    grid: Grid, stride: int, height: int, width: int, offset: tuple[float, float] = (0.0, 0.0)
) -> Grid:
    """Return the grid of a map with a pixel for each `stride` x `stride` pixels of a raster.

    Pixel (r, c) covers the raster's rows `offset[0] + r * stride` to `offset[0] + (r + 1) * stride`
    and likewise its columns. If pixel (r, c) describes the window of `size` px whose upper left
    corner is at `(r * stride, c * stride)`, an offset of `(size - stride) / 2` puts its centre on
    the window's.

    Args:
        grid: Grid of the raster.
        stride: Pixels of the raster for a pixel of the map.
        height: Rows of the map.
        width: Columns of the map.
        offset: First (row, column) of the map in pixels of the raster.

    Returns:
        The map's grid, with the same CRS, and without a transform if the raster has none.
    """
    if grid.transform is None:
        return Grid(height, width, grid.crs, None)
    a, b, c, d, e, f = grid.transform
    row, col = offset
    moved = (c + a * col + b * row, f + d * col + e * row)
    transform = (a * stride, b * stride, moved[0], d * stride, e * stride, moved[1])
    return Grid(height, width, grid.crs, transform)


class MapWriter:
    """Open map, written some rows at a time (see `open_map`)."""

    def __init__(self, target: Any, count: int):
        self._target = target
        self._count = count
        self._num_missing = np.full(target.height, target.width)

    def write(self, row: int, values: npt.NDArray[Any]) -> None:
        """Write some complete rows.

        Args:
            row: First row.
            values: `(rows, width, bands)` array, or `(rows, width)` for a map of one band.

        Raises:
            ConfigError: The values have another width or number of bands, or too many rows.
        """
        values = values[..., None] if values.ndim == 2 else values
        expected = (self._target.width, self._count)
        if values.shape[1:] != expected or not 0 <= row <= self._target.height - len(values):
            raise ConfigError(
                f"Expected rows of shape (rows, {expected[0]}, {expected[1]}) of a map "
                f"{self._target.height} px high. Received: {values.shape} at row {row}."
            )
        self.write_block(row, 0, values)

    def write_block(self, row: int, col: int, values: npt.NDArray[Any]) -> None:
        """Write a part of a map that was opened with the side of its blocks, each part once.

        Args:
            row: First row.
            col: First column.
            values: `(rows, columns, bands)` array.
        """
        height, width = values.shape[:2]
        window = rasterio.windows.Window(col, row, width, height)
        self._target.write(
            np.moveaxis(values, -1, 0).astype(self._target.dtypes[0], copy=False), window=window
        )
        self._num_missing[row : row + height] -= width

    def check_complete(self) -> None:
        """Check that every row was written.

        Raises:
            ConfigError: A row was never written.
        """
        is_missing = self._num_missing > 0
        if is_missing.any():
            row = int(is_missing.argmax())
            raise ConfigError(
                f"{int(is_missing.sum())} rows of the map were never written, from row {row}."
            )


@contextlib.contextmanager
def open_map(
    path: Path,
    grid: Grid,
    bands: Sequence[str],
    dtype: Any,
    nodata: float | None,
    *,
    resampling: Literal["nearest", "average", "mode"] = "nearest",
    classes: Mapping[int, MapClass] | None = None,
    scales: Sequence[float] | None = None,
    tags: Mapping[str, str] | None = None,
    block_side: int | None = None,
) -> Iterator[MapWriter]:
    """Write a cloud-optimised GeoTIFF, some rows at a time; a failed write leaves nothing.

    It has overviews unless it has more than 64 bands. Rows go to a file beside it first, so that
    the memory needed does not grow with the map's height. Statistics of the former map
    (`.aux.xml`) are removed.

    Args:
        path: Output file. An existing file is overwritten.
        grid: Position of its pixels.
        bands: Band names.
        dtype: Data type of the pixels.
        nodata: Value of pixels without data, `None` for none.
        resampling: Resampling of overviews: "average" for quantities, "mode" for classes,
            "nearest" if there are bands of both kinds.
        classes: Class of each value of a uint8 map of one band, written as a colour table and as
            category names, which QGIS shows, in `<path>.aux.xml`.
        scales: Factor of each band's values.
        tags: Other metadata.
        block_side: Side of the square blocks that are written, a multiple of 16; None for rows.

    Yields:
        Writer of rows or blocks. All of them must be written, in any order.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype(dtype)
    nbits = {}
    if dtype == np.float16:  # which GDAL holds as float32, and stores in 16 bits
        dtype, nbits = np.dtype(np.float32), {"nbits": 16}
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": len(bands),
        "dtype": dtype,
        "nodata": nodata,
        "crs": grid.crs,
        # By band, because overviews are made band by band; a row a strip, so that none is
        # compressed twice.
        "interleave": "band",
        "blockysize": 1,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
        **nbits,
    }
    if block_side:
        profile |= {"tiled": True, "blockxsize": block_side, "blockysize": block_side}
    if grid.transform:
        profile["transform"] = rasterio.Affine(*grid.transform)
    with whole_raster(path) as aside, _removed_after(aside.with_suffix(".rows.tif")) as rows:
        with (
            quiet(),
            rasterio.Env(GDAL_CACHEMAX=_CACHE_OF_ROWS),
            rasterio.open(rows, "w", **profile) as target,
        ):
            writer = MapWriter(target, len(bands))
            yield writer
            writer.check_complete()
            target.descriptions = tuple(bands)
            target.update_tags(**(tags or {}))
            if scales is not None:
                target.scales = tuple(scales)
            if classes:
                target.write_colormap(1, {v: one.colour for v, one in classes.items()})
        with quiet(), rasterio.Env(GDAL_CACHEMAX=_CACHE_OF_COPY):
            rasterio.shutil.copy(
                rows,
                aside,
                driver="COG",
                compress="deflate",
                predictor="yes",
                blocksize=_block_size(len(bands) * dtype.itemsize),
                overviews="AUTO" if len(bands) <= _MOST_BANDS_OF_OVERVIEWS else "NONE",
                overview_resampling=resampling,
                bigtiff="if_safer",
                num_threads="all_cpus",
                **nbits,
                **({"interleave": "tile"} if block_side and _HAS_TILE_INTERLEAVE else {}),
            )
        beside = path.with_name(path.name + ".aux.xml")
        beside.unlink(missing_ok=True)
        if classes:
            _write_categories(beside, classes)


def write_png(path: Path, image: npt.NDArray[Any]) -> None:
    """Write a picture, a pixel for a pixel; a failed write leaves nothing.

    Args:
        path: Output file.
        image: `(height, width, 3)` array, float in [0, 1] or uint8.
    """
    if image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    height, width, count = image.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_raster(path) as aside,
        quiet(),
        rasterio.open(
            aside, "w", driver="PNG", height=height, width=width, count=count, dtype="uint8"
        ) as target,
    ):
        target.write(np.moveaxis(image, -1, 0))


def write_boxes(path: Path, boxes: Sequence[tuple[Window, Mapping[str, Any]]], grid: Grid) -> None:
    """Write windows of a raster as GeoJSON polygons; a failed write leaves nothing.

    Coordinates are WGS84 longitude and latitude (RFC 7946). If the raster has no CRS they are
    pixels, and the file's member `coordinate_system` states it.

    Args:
        path: Output file.
        boxes: Windows, each with its properties as JSON values.
        grid: Grid of the raster.
    """
    collection: dict[str, Any] = {"type": "FeatureCollection", "features": []}
    if grid.crs is None or grid.transform is None:
        collection["coordinate_system"] = (
            "pixels: column, row from the upper left corner; the raster has no CRS"
        )
    for window, properties in boxes:
        collection["features"].append(
            {
                "type": "Feature",
                "geometry": outline(window, grid),
                "properties": {**window._asdict(), **properties},
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.write_text(json.dumps(collection, ensure_ascii=False) + "\n", encoding="utf-8")


def outline(window: Window, grid: Grid) -> dict[str, Any]:
    """Return a window's outline as a GeoJSON geometry, in two parts across 180 degrees.

    Args:
        window: Window of a raster.
        grid: Grid of the raster.

    Returns:
        Polygon or MultiPolygon in the coordinates of `write_boxes`.

    Raises:
        DataError: PROJ does not know the CRS.
    """
    top, left = window.row, window.col
    bottom, right = top + window.height, left + window.width
    corners = [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]
    ring = [(float(left), float(top))]
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        num_parts = math.ceil(max(abs(x1 - x0), abs(y1 - y0)) / _LONGEST_EDGE)
        steps = [part / num_parts for part in range(1, num_parts + 1)]
        ring += [(x0 + (x1 - x0) * step, y0 + (y1 - y0) * step) for step in steps]
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": [ring]}
    if grid.crs is not None and grid.transform is not None:
        a, b, c, d, e, f = grid.transform
        ring = [(a * x + b * y + c, d * x + e * y + f) for x, y in ring]
        geometry["coordinates"] = [ring]
        try:
            geometry = rasterio.warp.transform_geom(grid.crs, "OGC:CRS84", geometry, precision=8)
        except rasterio.errors.CRSError as error:
            raise DataError(
                f"Coordinates in {grid.crs} cannot be converted to longitude and latitude: "
                f"{error}. {PROJ_REMEDY}"
            ) from error
    is_one = geometry["type"] == "Polygon"
    for part in [geometry["coordinates"]] if is_one else geometry["coordinates"]:
        part[:] = [_counter_clockwise(one) for one in part]
    return geometry


def _counter_clockwise(ring: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    x, y = np.array(ring, np.float64).T
    x, y = x - x[0], y - y[0]  # longitudes are long and boxes are small: keep the difference
    twice_the_area = np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])
    return list(ring) if twice_the_area > 0 else list(ring)[::-1]


def _block_size(pixel_bytes: int) -> int:
    """Return the side of a tile: 512, and less for many bands."""
    return next((n for n in (512, 256, 128) if n * n * pixel_bytes <= _TILE_BYTES), 64)


def _write_categories(path: Path, classes: Mapping[int, MapClass]) -> None:
    names = [classes[v].name if v in classes else "" for v in range(max(classes) + 1)]
    categories = "".join(f"<Category>{escape(name)}</Category>" for name in names)
    path.write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames>'
        "</PAMRasterBand></PAMDataset>\n",
        encoding="utf-8",
    )


@contextlib.contextmanager
def _removed_after(path: Path) -> Iterator[Path]:
    path.unlink(missing_ok=True)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
