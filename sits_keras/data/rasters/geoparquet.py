"""Write vectors with the outlines of their windows as GeoParquet 1.1.

This needs pyarrow, which the extra `parquet` installs.
"""

import contextlib
import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.write import outline
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.files import written_aside

_ROW_GROUP = 4096  # windows that are in memory at once


def import_pyarrow() -> Any:
    """Import pyarrow with its Parquet module.

    Returns:
        The module.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "GeoParquet needs pyarrow: pip install pyarrow, or name a .tif to write."
        ) from error
    return pyarrow


class TableHeader(NamedTuple):
    """Description of a table.

    Attributes:
        num_rows: Number of windows.
        num_features: Length of each vector.
        dtype: Data type of the vectors.
        scales: Factor of each feature, `None` for floats.
        bounds: West, south, east and north in degrees; `None` for a raster without a CRS.
    """

    num_rows: int
    num_features: int
    dtype: str
    scales: list[float] | None
    bounds: tuple[float, float, float, float] | None


def read_table_header(path: Path) -> TableHeader:
    """Read the description of a table that `open_table` wrote.

    Args:
        path: GeoParquet file.

    Raises:
        MissingError: The file does not exist.
        DataError: It is not such a table.
        ConfigError: pyarrow is not installed.
    """
    pa = import_pyarrow()
    if not path.is_file():
        raise MissingError(f"No file at {path}. Expected a table of `sits-keras embed`.")
    try:
        file = pa.parquet.ParquetFile(path)
        field = file.schema_arrow.field("features")
        geo = json.loads(file.schema_arrow.metadata[b"geo"])["columns"]["geometry"]
        scales = json.loads((field.metadata or {}).get(b"scale", b"null"))
        header = TableHeader(
            file.metadata.num_rows,
            field.type.list_size,
            field.type.value_type.to_pandas_dtype().__name__,
            scales,
            None if "crs" in geo and geo["crs"] is None else _bounds_of(file),
        )
    except (pa.ArrowInvalid, KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path} is not a table of embeddings ({error}). Expected GeoParquet with a column "
            "'features', as `sits-keras embed` writes it."
        ) from error
    return header


def _bounds_of(file: Any) -> tuple[float, float, float, float]:
    """Return the bounds of all outlines, read a row group at a time."""
    bounds = [np.inf, np.inf, -np.inf, -np.inf]
    for batch in file.iter_batches(columns=["geometry"]):
        for geometry in batch.column(0):
            lons, lats = np.array(_points_of(geometry.as_py())).T
            bounds = [
                min(bounds[0], lons.min()),
                min(bounds[1], lats.min()),
                max(bounds[2], lons.max()),
                max(bounds[3], lats.max()),
            ]
    west, south, east, north = map(float, bounds)
    return west, south, east, north


def _points_of(binary: bytes) -> list[tuple[float, float]]:
    """Return the points of a Polygon or MultiPolygon of `_well_known_binary`."""
    kind, count = struct.unpack_from("<II", binary, 1)
    points: list[tuple[float, float]] = []
    position = 9
    for _ in range(count):
        rings = 1
        if kind == 6:  # each part has a head of its own
            (rings,) = struct.unpack_from("<I", binary, position + 5)
            position += 9
        for _ in range(rings):
            (length,) = struct.unpack_from("<I", binary, position)
            position += 4
            points += struct.iter_unpack("<dd", binary[position : position + 16 * length])
            position += 16 * length
    return points


class TableWriter:
    """Open GeoParquet file (see `open_table`)."""

    def __init__(self, writer: Any, schema: Any, grid: Grid):
        self._writer = writer
        self._schema = schema
        self._grid = grid
        self._waiting: list[tuple[Sequence[Window], npt.NDArray[Any], npt.NDArray[Any]]] = []

    def write(
        self,
        windows: Sequence[Window],
        valid_fraction: npt.NDArray[np.floating],
        values: npt.NDArray[Any],
    ) -> None:
        """Add some rows.

        Args:
            windows: Window of each row.
            valid_fraction: `(rows,)` fraction of each window's pixels that have data.
            values: `(rows, num_features)` vectors.
        """
        self._waiting.append((windows, valid_fraction, values))
        if sum(len(one) for one, _, _ in self._waiting) >= _ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the rows in memory as a row group."""
        windows = [window for one, _, _ in self._waiting for window in one]
        if not windows:
            return
        pa = import_pyarrow()
        values = np.concatenate([values for _, _, values in self._waiting])
        columns = {
            "row": pa.array([window.row for window in windows], pa.int32()),
            "col": pa.array([window.col for window in windows], pa.int32()),
            "valid_fraction": pa.array(np.concatenate([valid for _, valid, _ in self._waiting])),
            "features": pa.FixedSizeListArray.from_arrays(
                values.ravel(), type=self._schema.field("features").type
            ),
            "geometry": pa.array(
                [_well_known_binary(outline(window, self._grid)) for window in windows]
            ),
        }
        self._writer.write_table(pa.Table.from_pydict(columns, schema=self._schema))
        self._waiting = []


@contextlib.contextmanager
def open_table(
    path: Path,
    grid: Grid,
    num_features: int,
    dtype: str,
    *,
    scales: Sequence[float] | None = None,
) -> Iterator[TableWriter]:
    """Write GeoParquet, some rows at a time; a failed write leaves nothing.

    Columns: `row`, `col`, where a window begins; `valid_fraction`; `features`, of a fixed size;
    `geometry`, its outline in longitude and latitude, or in pixels (column, row) with a CRS of null
    where the raster has none.

    Args:
        path: Output file. An existing file is overwritten.
        grid: Grid of the raster that the windows belong to.
        num_features: Length of each vector.
        dtype: "float32" or "int8".
        scales: Factor of each feature, written as JSON in the metadata `scale` of the column
            `features`.

    Yields:
        Writer of rows.
    """
    pa = import_pyarrow()
    metadata = None if scales is None else {"scale": json.dumps(list(scales))}
    schema = pa.schema(
        [
            pa.field("row", pa.int32(), nullable=False),
            pa.field("col", pa.int32(), nullable=False),
            pa.field("valid_fraction", pa.float32(), nullable=False),
            pa.field("features", pa.list_(getattr(pa, dtype)(), num_features), metadata=metadata),
            pa.field("geometry", pa.binary(), nullable=False),
        ],
        metadata={"geo": json.dumps(_geo_metadata(grid))},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        written_aside(path) as aside,
        pa.parquet.ParquetWriter(aside, schema, compression="zstd") as writer,
    ):
        table = TableWriter(writer, schema, grid)
        yield table
        table.flush()


def _geo_metadata(grid: Grid) -> dict[str, Any]:
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [],  # not known beforehand: MultiPolygon across 180 degrees
        "orientation": "counterclockwise",
    }
    if grid.crs is None or grid.transform is None:
        column["crs"] = None  # nothing is known; left out, it would be longitude and latitude
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _well_known_binary(geometry: dict[str, Any]) -> bytes:
    """Return a GeoJSON Polygon or MultiPolygon as little-endian WKB."""
    parts = geometry["coordinates"]
    if geometry["type"] == "MultiPolygon":
        polygons = [_well_known_binary({"type": "Polygon", "coordinates": one}) for one in parts]
        return struct.pack("<BII", 1, 6, len(parts)) + b"".join(polygons)
    rings = [struct.pack("<I", len(ring)) + np.array(ring, "<f8").tobytes() for ring in parts]
    return struct.pack("<BII", 1, 3, len(parts)) + b"".join(rings)
