"""Labelled points of a raster, as GeoJSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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
    cols, rows = np.array(places).T
    if grid.crs is not None and grid.transform is not None:
        try:
            xs, ys = rasterio.warp.transform(_WGS84, grid.crs, cols, rows)[:2]
        except rasterio.errors.CRSError as error:
            raise DataError(f"Coordinates cannot be converted to {grid.crs}: {error}.") from error
        inverse = ~rasterio.Affine(*grid.transform)
        cols, rows = _apply(inverse, xs, ys)
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
    cols, rows = ([getattr(one, name) + 0.5 for one in points] for name in ("col", "row"))
    xs, ys = cols, rows
    if grid.crs is not None and grid.transform is not None and points:
        xs, ys = _apply(rasterio.Affine(*grid.transform), cols, rows)
        xs, ys = rasterio.warp.transform(grid.crs, _WGS84, xs, ys)[:2]
    collection: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [round(x, 8), round(y, 8)]},
                "properties": {"changed": one.changed},
            }
            for one, x, y in zip(points, xs, ys, strict=True)
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.write_text(json.dumps(collection) + "\n", encoding="utf-8")


def _apply(affine: rasterio.Affine, xs: Any, ys: Any) -> tuple[Any, Any]:
    xs, ys = np.asarray(xs, float), np.asarray(ys, float)
    return affine.a * xs + affine.b * ys + affine.c, affine.d * xs + affine.e * ys + affine.f
