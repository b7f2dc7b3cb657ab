"""Folders of dated rasters of random values, with cloud masks."""

from pathlib import Path

import numpy as np

from sits_keras.data.rasters.read import Grid, write_raster

BANDS = ("B02", "B03", "B04", "B08")
UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)


def make_image(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return `(height, width, 4)` uint16 stored values, different for each pixel."""
    return np.random.default_rng(seed).integers(100, 4000, (height, width, 4)).astype(np.uint16)


def save(path: Path, values: np.ndarray, offset=(0, 0), names=BANDS) -> Path:
    """Write a raster whose upper left corner is at a row and column of a grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row, col = offset
    a, b, c, d, e, f = UTM
    grid = Grid(*values.shape[:2], "EPSG:32631", (a, b, c + 10 * col, d, e, f - 10 * row))
    write_raster(path, values, names, grid)
    return path


def save_series(folder: Path, images, clouds=(), names=BANDS) -> Path:
    """Write images of the first days of January, February, ..., and their masks of clouds."""
    for number, image in enumerate(images, start=1):
        save(folder / f"2020-0{number}-01.tif", image, names=names)
    for number, cloud in enumerate(clouds, start=1):
        mask = cloud[..., None].astype(np.uint8)
        save(folder / f"2020-0{number}-01_cloud.tif", mask, names=["cloud"])
    return folder
