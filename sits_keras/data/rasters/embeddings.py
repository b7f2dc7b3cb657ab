"""Read embedding rasters: one file, a mosaic of tiles or a Zarr store, by rows or whole."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sits_keras.data.rasters.points import place_of, position_of
from sits_keras.data.rasters.read import Grid, Source, open_raster, read_values, same_crs
from sits_keras.data.tiling import Window, row_blocks
from sits_keras.errors import ConfigError, DataError, MissingError, MissingLibraryError

INT8_NODATA = -128
"""Number of a vector without data in int8; a float is NaN."""

ROWS_AT_A_TIME = 512
"""Rows of an embedding raster that are read at once: a row of its tiles."""

EXTRA_BANDS = ("spread", "dates")
"""Bands of an embedding raster that are not numbers of its vectors."""

MOSAIC_NAME = "mosaic.vrt"
"""Raster of all tiles in the folder that `sits-keras embed` writes."""

ZARR_NAME = "zarr.json"
"""File that describes a Zarr store, version 3."""

ZARR_ARRAY = "embeddings"
"""Array of the vectors in a Zarr store."""

_QUALITY = ".quality"  # end of the stem of rasters of the spread and number of dates
_FEATURE = re.compile(r"(A|feature )\d+")
_SAME_PIXEL = 1e-2  # of a pixel: tiles that differ by less lie on one grid
_SUFFIXES = (".tif", ".tiff")
_DTYPES = ("int8", "float16", "float32", "float64")


class NotEmbeddingError(DataError):
    """A raster that can be read is not an embedding raster."""


class Header(NamedTuple):
    """Description of an embedding raster.

    Attributes:
        grid: Position of its cells.
        bands: Names of the numbers of a vector, in order.
        extra: Names of the other bands, such as `spread`.
        dtype: Data type of the stored numbers.
        scales: `(num_features,)` float32; a number is `stored * scale + offset`.
        offsets: `(num_features,)` float32.
        tags: Metadata of the file, such as the name of the encoder.
    """

    grid: Grid
    bands: tuple[str, ...]
    extra: tuple[str, ...]
    dtype: str
    scales: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.float32]
    tags: dict[str, str]


class EmbeddingPart(Protocol):
    """Embedding raster that is one file or store."""

    header: Header
    name: str

    def read(self, window: Window) -> npt.NDArray[Any]:
        """Read the stored vectors of a window, `(num_features, height, width)`."""
        ...


class Embeddings:
    """Embedding raster or mosaic; see `open_embeddings`.

    Args:
        name: Path, for messages.
        header: Description of the whole.
        parts: Files of a mosaic, each with the row and column of its upper left cell. Where they
            overlap, the first with data is read.

    Attributes:
        name: Path, for messages.
        header: Description of the whole.
        grid: Position of its cells.
    """

    def __init__(self, name: str, header: Header, parts: Sequence[tuple[int, int, EmbeddingPart]]):
        self.name, self.header, self.grid = name, header, header.grid
        self._parts = parts
        self._loaded: npt.NDArray[Any] | None = None

    @property
    def num_features(self) -> int:
        """Length of a vector."""
        return len(self.header.bands)

    @property
    def is_loaded(self) -> bool:
        """Return whether all vectors are in memory."""
        return self._loaded is not None

    def load(self) -> "Embeddings":
        """Read all vectors into memory, as they are stored, for repeated questions.

        Returns:
            The same embeddings. `read` then returns views.
        """
        if self._loaded is None:
            height, width = self.grid[:2]
            loaded = np.empty((self.num_features, height, width), self.header.dtype)
            for row, num_rows in row_blocks(height, ROWS_AT_A_TIME):
                loaded[:, row : row + num_rows] = self.read(row, num_rows)
            self._loaded = loaded
        return self

    def read(self, row: int, num_rows: int) -> npt.NDArray[Any]:
        """Read the stored vectors of some rows.

        Args:
            row: First row.
            num_rows: Number of rows.

        Returns:
            `(num_features, num_rows, width)` array of the stored data type; -128 in int8 and NaN
            in floats where there is no data (see `has_vector`).

        Raises:
            DataError: If a file cannot be read.
        """
        if self._loaded is not None:
            return self._loaded[:, row : row + num_rows]
        return self.read_window(Window(row, 0, num_rows, self.grid.width))

    def thinned(self, side: int, window: Window | None = None) -> npt.NDArray[np.float32]:
        """Return the numbers of every n-th cell.

        Args:
            side: Maximum rows and columns.
            window: Part of the raster; the whole by default.

        Returns:
            `(rows, columns, num_features)`, NaN where there is no data.
        """
        top, left, height, width = window or Window(0, 0, *self.grid[:2])
        step = -(-max(height, width) // side)
        parts = [
            self.read_window(Window(top + row, left, num_rows, width))[
                :, -row % step :: step, ::step
            ].copy()
            for row, num_rows in row_blocks(height, ROWS_AT_A_TIME)  # each is decoded once
        ]
        stored = np.concatenate(parts, axis=1)
        values = dequantize(stored, self.header.scales, self.header.offsets)
        return np.moveaxis(values, 0, -1)

    def vector(self, row: int, col: int) -> npt.NDArray[Any]:
        """Read the stored vector of a cell.

        Args:
            row: Row of the cell.
            col: Column of the cell.

        Returns:
            `(num_features,)` array of the stored data type.

        Raises:
            ConfigError: If the cell is outside.
            DataError: If it has no data, or cannot be read.
        """
        height, width = self.grid[:2]
        if not (0 <= row < height and 0 <= col < width):
            raise ConfigError(
                f"Row {row}, column {col} is outside {self.name}. Expected rows 0 to "
                f"{height - 1} and columns 0 to {width - 1}."
            )
        values = self.read_window(Window(row, col, 1, 1))
        if not has_vector(values).all():
            raise DataError(
                f"{self.name} has no data at row {row}, column {col}. Choose a cell with data."
            )
        return np.array(values[:, 0, 0])

    def cell_at(self, lon: float, lat: float) -> tuple[int, int]:
        """Return the row and column of the cell at a place.

        Args:
            lon: WGS84 longitude in degrees; column in pixels if there is no CRS.
            lat: WGS84 latitude in degrees; row in pixels if there is no CRS.

        Raises:
            ConfigError: If the place is outside.
        """
        rows, cols = position_of([lon], [lat], self.grid)
        row, col = int(np.floor(rows[0])), int(np.floor(cols[0]))
        if not (0 <= row < self.grid.height and 0 <= col < self.grid.width):
            lons, lats = place_of([0, self.grid.height], [0, self.grid.width], self.grid)
            raise ConfigError(
                f"The place {lon:g},{lat:g} is outside {self.name}. Expected about "
                f"{min(lons):.4f} to {max(lons):.4f} and {min(lats):.4f} to {max(lats):.4f} "
                "(longitude and latitude; column and row without a CRS)."
            )
        return row, col

    def read_window(self, window: Window) -> npt.NDArray[Any]:
        """Read the stored vectors of a window.

        Args:
            window: Part of the raster.

        Returns:
            `(num_features, height, width)` array; see `read`.

        Raises:
            DataError: If a file cannot be read.
        """
        if self._loaded is not None:
            loaded = self._loaded[:, window.row : window.row + window.height]
            return loaded[:, :, window.col : window.col + window.width]
        first = self._parts[0][2]
        if len(self._parts) == 1 and first.header.grid[:2] == self.grid[:2]:
            return first.read(window)
        dtype = np.dtype(self.header.dtype)
        values = np.full(
            (self.num_features, window.height, window.width),
            INT8_NODATA if dtype == np.int8 else np.nan,
            dtype,
        )
        for top, left, part in self._parts:
            height, width = part.header.grid[:2]
            rows = max(window.row, top), min(window.row + window.height, top + height)
            cols = max(window.col, left), min(window.col + window.width, left + width)
            if rows[0] >= rows[1] or cols[0] >= cols[1]:
                continue
            read = part.read(
                Window(rows[0] - top, cols[0] - left, rows[1] - rows[0], cols[1] - cols[0])
            )
            inside = values[
                :,
                rows[0] - window.row : rows[1] - window.row,
                cols[0] - window.col : cols[1] - window.col,
            ]
            is_new = ~has_vector(inside)
            np.copyto(inside, read, where=is_new)
        return values


def has_vector(stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which cells have a vector; a vector has all its numbers or none.

    Args:
        stored: `(num_features, ...)` int8 or float.
    """
    first = stored[0]
    known: npt.NDArray[np.bool_] = (
        first != INT8_NODATA if first.dtype == np.int8 else np.isfinite(first)
    )
    return known


def dequantize(
    stored: npt.NDArray[Any], scales: npt.NDArray[np.float32], offsets: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return vectors as numbers: `stored * scale + offset`.

    Args:
        stored: `(num_features, ...)` int8 or float.
        scales: `(num_features,)`.
        offsets: `(num_features,)`.

    Returns:
        Array of the same shape, NaN where there is no data.
    """
    shape = (-1, *[1] * (stored.ndim - 1))
    values = stored.astype(np.float32) * scales.reshape(shape) + offsets.reshape(shape)
    values[:, ~has_vector(stored)] = np.nan
    return values


def open_embeddings(path: Path | str) -> Embeddings:
    """Open embeddings for reading.

    Args:
        path: GeoTIFF or VRT with bands `A00`, `A01`, ... (or `feature 0`, ...); a folder with the
            raster `mosaic.vrt` of its tiles; a folder of such GeoTIFFs on one grid, which are
            read as one mosaic, without rasters of quality; or a Zarr store.

    Returns:
        The embeddings. Pixels are not read yet.

    Raises:
        MissingError: If nothing is there, or a folder has no GeoTIFF.
        NotEmbeddingError: If it is another raster.
        DataError: If it cannot be read, or the files of a folder differ in CRS, size of cells,
            alignment, bands, data type, scales or offsets.
        MissingLibraryError: If it is a Zarr store and zarr is not installed.
    """
    path = Path(path)
    if (path / ZARR_NAME).is_file():
        return _whole(_ZarrPart(path))
    if not path.is_dir():
        return _whole(_RasterPart(path))
    if (path / MOSAIC_NAME).is_file():
        return _whole(_RasterPart(path / MOSAIC_NAME))
    files = sorted(
        one
        for one in path.iterdir()
        if one.suffix.lower() in _SUFFIXES and not one.stem.endswith(_QUALITY)
    )
    if not files:
        raise MissingError(
            f"{path} has no GeoTIFF. Expected embedding rasters (.tif), as `sits-keras embed` "
            "writes them."
        )
    return _mosaic(path, [_RasterPart(one) for one in files])


def _whole(part: EmbeddingPart) -> Embeddings:
    return Embeddings(part.name, part.header, [(0, 0, part)])


def _mosaic(folder: Path, parts: Sequence[EmbeddingPart]) -> Embeddings:
    first = parts[0].header
    corners = [_offset(parts[0], one) for one in parts]
    top, left = (min(corner[axis] for corner in corners) for axis in (0, 1))
    height = max(p[0] + one.header.grid.height for p, one in zip(corners, parts, strict=True)) - top
    width = max(p[1] + one.header.grid.width for p, one in zip(corners, parts, strict=True)) - left
    grid = first.grid.part(Window(top, left, height, width))
    placed = [(row - top, col - left, one) for (row, col), one in zip(corners, parts, strict=True)]
    return Embeddings(str(folder), first._replace(grid=grid), placed)


def _offset(first: EmbeddingPart, other: EmbeddingPart) -> tuple[int, int]:
    """Return the row and column of a tile's upper left cell on the grid of the first tile."""
    if other is first:
        return 0, 0
    one, two = first.header, other.header
    differing = [
        name
        for name, is_equal in (
            ("CRS", same_crs(one.grid.crs, two.grid.crs)),
            ("bands", one.bands == two.bands),
            ("data type", one.dtype == two.dtype),
            ("scales", np.array_equal(one.scales, two.scales)),
            ("offsets", np.array_equal(one.offsets, two.offsets)),
        )
        if not is_equal
    ]
    row = col = 0
    if one.grid.transform is None or two.grid.transform is None:
        differing.append("georeferencing (none)")
    else:
        own, others = (
            np.array([*header.grid.transform, 0, 0, 1], np.float64).reshape(3, 3)
            for header in (one, two)
            if header.grid.transform is not None
        )
        relative = np.linalg.solve(own, others)  # from cells of the other to cells of the first
        col, row = (round(float(value)) for value in relative[:2, 2])
        shift = np.abs(relative[:2, 2] - (col, row)).max()
        size = np.abs(relative[:2, :2] - np.eye(2)).max()
        if shift > _SAME_PIXEL or size * max(two.grid[:2]) > _SAME_PIXEL:
            differing.append("grid of cells")
    if differing:
        raise DataError(
            f"{other.name} does not fit {first.name}: another {', '.join(differing)}. Expected "
            "tiles of one grid and one encoder, quantized alike. Embed them with one command, or "
            "give each folder separately."
        )
    return row, col


class _RasterPart:
    def __init__(self, path: Path):
        self.name = str(path)
        self._path = path
        with open_raster(path) as source:
            self.header, self._indices = _read_header(source, self.name)

    def read(self, window: Window) -> npt.NDArray[Any]:
        with open_raster(self._path) as source:
            return read_values(source, self._indices, window)


def _read_header(source: Source, name: str) -> tuple[Header, list[int]]:
    names = [text or "" for text in source.descriptions]
    indices = [index for index, text in enumerate(names, start=1) if _FEATURE.fullmatch(text)]
    dtypes = {source.dtypes[index - 1] for index in indices}
    if len(indices) < 2 or len(dtypes) > 1 or not dtypes <= set(_DTYPES):
        raise NotEmbeddingError(
            f"{name} is not an embedding raster. Expected at least two bands named A00, A01, ... "
            "of int8 or floats, as `sits-keras embed` writes them. Received: "
            f"{source.count} bands, {', '.join(repr(text) for text in names[:4])}"
            f"{', ...' if names[4:] else ''}, {', '.join(sorted(set(source.dtypes)))}."
        )
    crs = source.crs.to_string() if source.crs else None
    transform = None if source.transform.is_identity else tuple(source.transform)[:6]
    header = Header(
        Grid(source.height, source.width, crs, transform),
        tuple(names[index - 1] for index in indices),
        tuple(text for text in names if text in EXTRA_BANDS),
        str(dtypes.pop()),
        np.array([source.scales[index - 1] for index in indices], np.float32),
        np.array([source.offsets[index - 1] for index in indices], np.float32),
        {name: value for name, value in source.tags().items() if name != "AREA_OR_POINT"},
    )
    return header, indices


class _ZarrPart:
    def __init__(self, path: Path):
        self.name = str(path)
        zarr = import_zarr()
        attributes: dict[str, Any] = {}
        try:
            group = zarr.open_group(path, mode="r")
            attributes = group.attrs.asdict()
            self._array = group[ZARR_ARRAY]
            quantization = self._array.attrs.asdict()
            names = tuple(quantization["band_names"])
            num_bands, height, width = self._array.shape
        except (KeyError, ValueError, TypeError, OSError) as error:
            raise NotEmbeddingError(
                f"{path} is not a Zarr store of embeddings ({error}). Expected a group with an "
                f"array {ZARR_ARRAY!r} of (band, y, x), as `sits-keras convert` writes it."
            ) from error
        transform = attributes.get("spatial:transform")
        self.header = Header(
            Grid(
                height,
                width,
                attributes.get("proj:code") or attributes.get("proj:wkt2"),
                None if transform is None else tuple(map(float, transform)),
            ),
            names,
            (),
            str(self._array.dtype),
            np.broadcast_to(np.float32(quantization["scale"]), num_bands),
            np.broadcast_to(np.float32(quantization["offset"]), num_bands),
            {name: str(value) for name, value in attributes.get("sits_keras", {}).items()},
        )

    def read(self, window: Window) -> npt.NDArray[Any]:
        rows = slice(window.row, window.row + window.height)
        cols = slice(window.col, window.col + window.width)
        try:
            return np.asarray(self._array[:, rows, cols])
        except (ValueError, RuntimeError, OSError) as error:
            raise DataError(
                f"{self.name} cannot be read: {error}. It may be incomplete or damaged: write it "
                "again."
            ) from error


def import_zarr() -> Any:
    """Import zarr, version 3.

    Returns:
        The module.

    Raises:
        MissingLibraryError: It is not installed, or older.
    """
    try:
        import zarr

        if int(zarr.__version__.split(".")[0]) >= 3:
            return zarr
        cause: ImportError | None = None
    except ImportError as error:
        cause = error
    raise MissingLibraryError(
        "Zarr stores need zarr 3 or later. Install it: pip install 'sits_keras[zarr]', or use a "
        "GeoTIFF."
    ) from cause
