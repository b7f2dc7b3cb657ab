"""Embedding rasters, as `sits-keras embed` writes them, of any numbers."""

from pathlib import Path

import numpy as np
import rasterio
import rasterio.warp

UTM = rasterio.Affine(20.0, 0.0, 600_000.0, 0.0, -20.0, 5_000_000.0)


def moved(row: float, col: float, scale: float = 1) -> rasterio.Affine:
    """Return the transform of a raster whose upper left corner is at a cell of another."""
    return rasterio.Affine(
        20.0 * scale, 0.0, 600_000.0 + 20 * col, 0.0, -20.0 * scale, 5_000_000.0 - 20 * row
    )


def place_at(row: float, col: float) -> tuple[float, float]:
    """Return the longitude and latitude of a position, in cells, of a raster at UTM."""
    x, y = 600_000.0 + 20 * col, 5_000_000.0 - 20 * row
    (lon,), (lat,) = rasterio.warp.transform("EPSG:32631", "OGC:CRS84", [x], [y])
    return lon, lat


def write_embeddings(
    path: Path,
    values: np.ndarray,
    *,
    scales=1.0,
    offsets=0.0,
    crs: str | None = "EPSG:32631",
    transform: rasterio.Affine | None = UTM,
    names: list[str] | None = None,
    tags: dict[str, str] | None = None,
) -> Path:
    """Write `(bands, height, width)` int8 or floats, the bands named A00, A01, ... by default."""
    count, height, width = values.shape
    georeferencing = {} if crs is None else {"crs": crs, "transform": transform}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=values.dtype,
        nodata=np.nan if values.dtype.kind == "f" else -128,
        tiled=True,
        blockxsize=64,
        blockysize=64,
        **georeferencing,
    ) as target:
        target.write(values)
        target.descriptions = names or [f"A{index:02d}" for index in range(count)]
        target.scales = np.broadcast_to(scales, count).tolist()
        target.offsets = np.broadcast_to(offsets, count).tolist()
        target.update_tags(**(tags or {}))
    return path


def random_vectors(num_features: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-127, 128, (num_features, height, width)).astype(np.int8)
