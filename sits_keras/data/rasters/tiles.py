"""Write coloured maps as web map tiles: PNG files of 256 px in web mercator (XYZ)."""

import contextlib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image
import rasterio
import rasterio.errors
import rasterio.vrt
import rasterio.warp
import rasterio.windows
from rasterio.enums import ColorInterp, Resampling
from tqdm import tqdm

from sits_keras.data.radiometry import DISPLAY_MAX, NODATA, QUANTIFICATION
from sits_keras.data.rasters.read import (
    Grid,
    Source,
    open_raster,
    quiet,
    read_info,
    read_stored,
    read_values,
)
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError

TILE_SIZE = 256

_WEB_MERCATOR = "EPSG:3857"
_HALF = math.pi * 6_378_137.0  # metres from the middle of the web mercator square to its edge
_LARGEST_ZOOM = 22
_SAMPLED_SIDE = 1024  # pixels a side that percentiles are computed on
_CACHE = 128 * 2**20  # bytes of GDAL's cache


class Pyramid(NamedTuple):
    """Tiles of a map.

    Attributes:
        min_zoom: Zoom level at which the map fits into a tile's side.
        max_zoom: Zoom level whose pixels are at most as large as those of the map.
        bounds: West, south, east and north in degrees.
        num_tiles: Number of files; tiles without data are not written.
    """

    min_zoom: int
    max_zoom: int
    bounds: tuple[float, float, float, float]
    num_tiles: int


class MapReader:
    """Raster of any kind that is shown as a map.

    Args:
        path: Raster.

    Raises:
        MissingError: The file does not exist.
        DataError: The raster cannot be read.

    Attributes:
        grid: Position of its pixels.
        band: Name of the first band.
        colour_table: `(256, 4)` uint8 colours of the values of a uint8 band, 0 in the fourth for
            values without data; None if there is none.
        shows_colours: Whether there are bands B04, B03 and B02.
    """

    def __init__(self, path: Path):
        self._path = path
        info = read_info(path)
        self.grid = info.grid
        self.shows_colours = {"B04", "B03", "B02"} <= set(info.bands)
        self.colour_table: npt.NDArray[np.uint8] | None = None
        with open_raster(path) as source:
            self.band = source.descriptions[0] or "band 1"
            with contextlib.suppress(ValueError):
                colours = source.colormap(1)
                table = np.array([colours.get(value, (0, 0, 0, 0)) for value in range(256)])
                if source.nodata is not None:
                    table[int(source.nodata)] = 0
                self.colour_table = table.astype(np.uint8)

    @property
    def range(self) -> tuple[float, float]:
        """The 2nd and 98th percentile of the first band, of some of its pixels."""
        height, width = self.grid[:2]
        shape = (min(height, _SAMPLED_SIDE), min(width, _SAMPLED_SIDE))
        with open_raster(self._path) as source:
            values = self._filled(source, None, shape)
        values = values[np.isfinite(values)]
        if not values.size:
            raise DataError(f"{self._path} has no data: every pixel is nodata.")
        low, high = np.percentile(values, (2, 98))
        return float(low), float(high)

    def read_band(self, row: int, num_rows: int) -> npt.NDArray[Any]:
        """Read some rows of the first band.

        Args:
            row: First row.
            num_rows: Number of rows.

        Returns:
            `(num_rows, width)` uint8 if there is a colour table, else float32 with NaN where there
            is no data.
        """
        window = Window(row, 0, num_rows, self.grid.width)
        with open_raster(self._path) as source:
            if self.colour_table is not None:
                values: npt.NDArray[Any] = read_values(source, [1], window)[0]
                return values
            return self._filled(source, window)

    def read_colours(
        self, row: int, num_rows: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Read some rows in true colour.

        Args:
            row: First row.
            num_rows: Number of rows.

        Returns:
            `(num_rows, width, 3)` float in [0, 1], and `(num_rows, width)` where there is data.
        """
        window = Window(row, 0, num_rows, self.grid.width)
        stored = read_stored(self._path, ("B04", "B03", "B02"), window)
        colours = np.clip(stored / (QUANTIFICATION * DISPLAY_MAX), 0, 1)
        return colours, stored[..., 0] != NODATA

    @staticmethod
    def _filled(
        source: Source, window: Window | None, shape: tuple[int, int] | None = None
    ) -> npt.NDArray[np.float32]:
        values: Any = read_values(source, [1], window, shape, masked=True)[0]
        return np.asarray(values.astype(np.float32).filled(np.nan))


class ColourWriter:
    """Open coloured raster (see `open_colours`)."""

    def __init__(self, target: Any):
        self._target = target

    def write(self, row: int, colours: npt.NDArray[np.uint8]) -> None:
        """Write some complete rows.

        Args:
            row: First row.
            colours: `(rows, width, 4)` uint8: red, green, blue, and 255 where there is data.
        """
        window = rasterio.windows.Window(0, row, self._target.width, len(colours))
        self._target.write(np.moveaxis(colours, -1, 0), window=window)


@contextlib.contextmanager
def open_colours(path: Path, grid: Grid) -> Iterator[ColourWriter]:
    """Write a raster of colours, some rows at a time: a temporary file for `write_tiles`.

    Args:
        path: Output GeoTIFF.
        grid: Position of its pixels.

    Yields:
        Writer of rows.

    Raises:
        DataError: The grid has no CRS or no transform.
    """
    if grid.crs is None or grid.transform is None:
        raise DataError(
            "A raster without georeferencing has no place on a map. Expected a raster with a CRS "
            "and a transform: georeference it first (gdal_edit.py -a_srs -a_ullr)."
        )
    with (
        quiet(),
        rasterio.Env(GDAL_CACHEMAX=_CACHE),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=grid.height,
            width=grid.width,
            count=4,
            dtype="uint8",
            crs=grid.crs,
            transform=rasterio.Affine(*grid.transform),
            tiled=True,
            blockxsize=TILE_SIZE,
            blockysize=TILE_SIZE,
            interleave="pixel",
            compress="deflate",
            zlevel=1,
            bigtiff="if_safer",
        ) as target,
    ):
        target.colorinterp = [
            ColorInterp.red,
            ColorInterp.green,
            ColorInterp.blue,
            ColorInterp.alpha,
        ]
        yield ColourWriter(target)


def write_tiles(
    colours: Path, folder: Path, *, is_categorical: bool, progress: bool = False
) -> Pyramid:
    """Write the tiles `<zoom>/<x>/<y>.png` of a coloured raster, in bounded memory.

    Tiles of the largest zoom level are resampled from the raster; those of the others from the
    four tiles below them.

    Args:
        colours: Raster that `open_colours` wrote.
        folder: Folder to write to.
        is_categorical: Whether colours are of classes, which are not averaged.
        progress: Show a progress bar.

    Returns:
        Zoom levels, bounds and number of tiles.

    Raises:
        DataError: The raster cannot be transformed to web mercator.
    """
    with quiet(), rasterio.Env(GDAL_CACHEMAX=_CACHE), rasterio.open(colours) as source:
        try:
            bounds = rasterio.warp.transform_bounds(source.crs, "OGC:CRS84", *source.bounds)
            edges = _mercator_bounds(bounds)
            zoom = _zoom_of(source)
        except rasterio.errors.RasterioError as error:
            raise DataError(
                f"A map in {source.crs} cannot be shown in web mercator: {error}. Warp it to a "
                "CRS of its place first (gdalwarp)."
            ) from error
        smallest = min(_smallest_zoom(edges), zoom)
        tiles = _tiles_in(edges, zoom)
        side = TILE_SIZE << zoom
        pixel = 2 * _HALF / side
        options = {
            "crs": _WEB_MERCATOR,
            "transform": rasterio.Affine(pixel, 0.0, -_HALF, 0.0, -pixel, _HALF),
            "width": side,
            "height": side,
            "resampling": Resampling.nearest if is_categorical else Resampling.bilinear,
        }
        count = 0
        with rasterio.vrt.WarpedVRT(source, **options) as warped:
            for x, y in tqdm(tiles, "tiles", unit="tile", disable=not progress, leave=False):
                window = rasterio.windows.Window(x * TILE_SIZE, y * TILE_SIZE, TILE_SIZE, TILE_SIZE)
                tile = np.moveaxis(warped.read(window=window), 0, -1)
                count += _save(tile, folder, zoom, x, y)
    for level in range(zoom - 1, smallest - 1, -1):
        for x, y in _tiles_in(edges, level):
            tile = _merge(folder, level, x, y, is_categorical)
            count += _save(tile, folder, level, x, y)
    return Pyramid(smallest, zoom, bounds, count)


def _zoom_of(source: Any) -> int:
    """Return the zoom level whose pixels are at most as large as those of a raster."""
    a, b, c, d, e, f = source.transform[:6]
    middle = source.width / 2, source.height / 2
    steps = [middle, (middle[0] + 1, middle[1]), (middle[0], middle[1] + 1)]
    xs, ys = rasterio.warp.transform(
        source.crs,
        _WEB_MERCATOR,
        [a * col + b * row + c for col, row in steps],
        [d * col + e * row + f for col, row in steps],
    )
    side = min(math.hypot(xs[i] - xs[0], ys[i] - ys[0]) for i in (1, 2))
    zoom = math.ceil(math.log2(2 * _HALF / TILE_SIZE / side) - 0.05)
    return min(max(zoom, 0), _LARGEST_ZOOM)


def _mercator_bounds(bounds: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom as fractions of the web mercator square."""
    west, south, east, north = bounds
    ys = [
        0.5 - math.asinh(math.tan(math.radians(min(max(lat, -85.05), 85.05)))) / (2 * math.pi)
        for lat in (north, south)
    ]
    east = east if east > west else 180.0  # across the date line, its eastern part is shown
    return (west + 180) / 360, ys[0], (east + 180) / 360, ys[1]


def _smallest_zoom(edges: tuple[float, float, float, float]) -> int:
    extent = max(edges[2] - edges[0], edges[3] - edges[1], 2.0**-_LARGEST_ZOOM)
    return max(math.floor(-math.log2(extent)), 0)


def _tiles_in(edges: tuple[float, float, float, float], zoom: int) -> list[tuple[int, int]]:
    """Return x and y of the tiles of a zoom level that a map touches."""
    last = 2**zoom - 1
    left, top, right, bottom = (min(math.floor(edge * 2**zoom), last) for edge in edges)
    return list(itertools.product(range(left, right + 1), range(top, bottom + 1)))


def _save(tile: npt.NDArray[np.uint8], folder: Path, zoom: int, x: int, y: int) -> int:
    """Write a tile unless it has no data; return the number of files written."""
    if not tile[..., 3].any():
        return 0
    path = folder / str(zoom) / str(x) / f"{y}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(tile).save(path, "PNG")
    return 1


def _merge(folder: Path, zoom: int, x: int, y: int, is_categorical: bool) -> npt.NDArray[np.uint8]:
    """Make a tile from the four below it."""
    whole = np.zeros((2 * TILE_SIZE, 2 * TILE_SIZE, 4), np.uint8)
    for row, col in itertools.product((0, 1), (0, 1)):
        path = folder / str(zoom + 1) / str(2 * x + col) / f"{2 * y + row}.png"
        if path.is_file():
            with PIL.Image.open(path) as image:
                part = (slice(row * TILE_SIZE, None), slice(col * TILE_SIZE, None))
                whole[part][:TILE_SIZE, :TILE_SIZE] = np.asarray(image)
    if is_categorical:
        return whole[::2, ::2]
    blocks = whole.reshape(TILE_SIZE, 2, TILE_SIZE, 2, 4).astype(np.float32)
    alpha = blocks[..., 3:]
    total = alpha.sum(axis=(1, 3))
    colour = (blocks[..., :3] * alpha).sum(axis=(1, 3)) / np.maximum(total, 1)
    merged: npt.NDArray[np.uint8] = np.rint(np.concatenate([colour, total / 4], axis=-1)).astype(
        np.uint8
    )
    return merged
