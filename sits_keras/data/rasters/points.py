"""Labelled points of a raster, as GeoJSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.errors
import rasterio.warp

from sits_keras.data.rasters.read import Grid
from sits_keras.errors import DataError, MissingError
from sits_keras.files import written_aside

_WGS84 = "OGC:CRS84"


class Point(NamedTuple):
    """Labelled pixel.

    Attributes:
        row: Row of the pixel.
        col: Column of the pixel.
        changed: Whether it changed.
    """

    row: int
    col: int
    changed: bool


def read_points(path: Path | str, grid: Grid) -> list[Point]:
    """Read labelled points.

    Args:
        path: GeoJSON feature collection of points, each with a property `changed` (true or false, 1
            or 0). Coordinates are WGS84 longitude and latitude or, if the raster has no CRS,
            column and row in pixels.
        grid: Grid of the raster.

    Returns:
        The points, those outside the raster included.

    Raises:
        MissingError: If the file does not exist.
        DataError: If it is not such a collection.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(f"No file at {path}. Expected a GeoJSON file of labelled points.")
    try:
        features = json.loads(path.read_bytes())["features"]
        places = [[float(v) for v in one["geometry"]["coordinates"][:2]] for one in features]
        kinds = {one["geometry"]["type"] for one in features}
        labels = [one["properties"]["changed"] for one in features]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a GeoJSON collection of labelled points ({error}). Expected point "
            "features with a property 'changed', true or false."
        ) from error
    if kinds - {"Point"} or any(label not in (0, 1) for label in labels) or not labels:
        wrong = ", ".join(sorted(map(str, kinds - {"Point"}))) or sorted(set(map(str, labels)))
        raise DataError(
            f"{path} does not contain labelled points. Expected at least one point, with a "
            f"property 'changed' that is true or false. Received: {wrong}."
        )
    xs, ys = np.array(places).T
    rows, cols = position_of(xs, ys, grid)
    return [
        Point(int(np.floor(row)), int(np.floor(col)), bool(label))
        for row, col, label in zip(rows, cols, labels, strict=True)
    ]


def write_points(path: Path | str, points: Sequence[Point], grid: Grid) -> None:
    """Write labelled points as `read_points` reads them; a failed write leaves nothing.

    Args:
        path: Output GeoJSON.
        points: Labelled pixels; their centres are written.
        grid: Grid of the raster.
    """
    path = Path(path)
    places: list[tuple[float, float]] = []
    if points:
        rows, cols = ([getattr(one, name) + 0.5 for one in points] for name in ("row", "col"))
        places = list(zip(*place_of(rows, cols, grid), strict=True))
    collection: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [round(x, 8), round(y, 8)]},
                "properties": {"changed": one.changed},
            }
            for one, (x, y) in zip(points, places, strict=True)
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.write_text(json.dumps(collection) + "\n", encoding="utf-8")


def position_of(
    xs: Sequence[float], ys: Sequence[float], grid: Grid
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the positions of places on a grid.

    Args:
        xs: WGS84 longitudes in degrees, or columns in pixels if the grid has no CRS.
        ys: WGS84 latitudes in degrees, or rows in pixels.
        grid: Grid of a raster.

    Returns:
        Rows and columns in pixels from the upper left corner, float64.

    Raises:
        DataError: If PROJ does not know the CRS.
    """
    if grid.crs is None or grid.transform is None:
        return np.asarray(ys, np.float64), np.asarray(xs, np.float64)
    try:
        xs, ys = rasterio.warp.transform(_WGS84, grid.crs, xs, ys)[:2]
    except rasterio.errors.CRSError as error:
        raise DataError(f"Coordinates cannot be converted to {grid.crs}: {error}.") from error
    cols, rows = _apply(~rasterio.Affine(*grid.transform), xs, ys)
    return rows, cols


def place_of(
    rows: Sequence[float], cols: Sequence[float], grid: Grid
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the places of positions on a grid, the inverse of `position_of`.

    Args:
        rows: Rows in pixels from the upper left corner.
        cols: Columns in pixels.
        grid: Grid of a raster.

    Returns:
        WGS84 longitudes and latitudes in degrees, or columns and rows if the grid has no CRS.
    """
    if grid.crs is None or grid.transform is None:
        return np.asarray(cols, np.float64), np.asarray(rows, np.float64)
    xs, ys = _apply(rasterio.Affine(*grid.transform), cols, rows)
    lons, lats = rasterio.warp.transform(grid.crs, _WGS84, xs, ys)[:2]
    return np.asarray(lons, np.float64), np.asarray(lats, np.float64)


def _apply(
    affine: rasterio.Affine, xs: Any, ys: Any
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    xs, ys = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
    return affine.a * xs + affine.b * ys + affine.c, affine.d * xs + affine.e * ys + affine.f
