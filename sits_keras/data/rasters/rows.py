"""Reads an image from top to bottom, some rows at a time, so that it is never whole in memory."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sits_keras.data.radiometry import NODATA, to_stored, warn_if_dark
from sits_keras.data.rasters.read import (
    Grid,
    read_info,
    read_stored,
    same_crs,
    same_transform,
)
from sits_keras.data.tiling import Window, sample_windows
from sits_keras.errors import ConfigError, DataError

_ROWS_AT_A_TIME = 512  # half a tile of Sentinel-2's JPEG 2000: each is decoded twice
_PREVIEW_SIDE = 800  # px


class Placed(Protocol):
    """What lies on a grid.

    Attributes:
        name: for messages: the path, or "the image".
        grid: where its pixels lie.
        is_raster: it is a raster, so that no CRS or transform in `grid` means that it has none.
    """

    name: str
    grid: Grid
    is_raster: bool


class Strips(Placed, Protocol):
    """An image that is read by rows.

    A copy (`copy.deepcopy`, or `pickle`) reads on its own: rows are read in ascending order by one
    reader at a time.

    Attributes:
        bands: band names, in the order of the last axis; made up where none are known.
    """

    bands: tuple[str, ...]

    def read(self, row: int, num_rows: int) -> np.ndarray:
        """Stored values of some rows, `(num_rows, width, bands)` uint16.

        0 in all bands where there is no data in any.
        """
        ...


class RasterStrips:
    """A raster as strips: quick and small where rows are asked for in ascending order."""

    def __init__(self, path: Path, bands: Sequence[str] | None):
        info = read_info(path)
        if bands is None:
            bands = [name or f"band {index}" for index, name in enumerate(info.bands, start=1)]
        self.is_raster = True
        self.name = str(path)
        self.grid = info.grid
        self.bands = tuple(bands)
        self._path = path
        # A band that is not there, or values of a kind that is refused, are told at once.
        samples = [read_stored(path, self.bands, one) for one in sample_windows(*info.grid[:2])]
        info.warn_of_colours(self.bands, path)
        warn_if_dark(samples, path)
        self._start, self._rows = 0, samples[0][:0]

    def __getstate__(self) -> dict[str, Any]:
        rows = self._rows[:0].copy()
        return {**self.__dict__, "_path": self._path.absolute(), "_start": 0, "_rows": rows}

    def read(self, row: int, num_rows: int) -> np.ndarray:
        """See `Strips`."""
        stop = self._start + len(self._rows)
        if not self._start <= row <= stop:
            self._start, self._rows, stop = row, self._rows[:0], row
        parts = [self._rows[row - self._start :]]
        while stop < row + num_rows:
            height = min(max(_ROWS_AT_A_TIME, row + num_rows - stop), self.grid.height - stop)
            window = Window(stop, 0, height, self.grid.width)
            parts.append(read_stored(self._path, self.bands, window))
            stop += height
        if len(parts) > 1:
            parts = parts if len(parts[0]) else parts[1:]
            self._start, self._rows = row, np.concatenate(parts)
        return self._rows[row - self._start :][:num_rows]


class ArrayStrips:
    """An array as strips.

    Args:
        image: `(height, width, bands)`: uint16 stored values, 0 where there is no data, or float
            reflectance, NaN where there is none.
        bands: band names.
        name: for messages.
    """

    def __init__(self, image: np.ndarray, bands: Sequence[str] | None, name: str = "the image"):
        if image.ndim != 3 or not (image.dtype == np.uint16 or image.dtype.kind == "f"):
            raise ConfigError(
                "Expected an image of shape (height, width, bands), uint16 stored values or float "
                f"reflectance. Received: {image.dtype} of shape {image.shape}."
            )
        height, width, count = image.shape
        if bands is None:
            bands = [f"band {index}" for index in range(1, count + 1)]
        if len(bands) != count:
            raise DataError(f"{name} has {count} bands, expected {len(bands)}: {', '.join(bands)}.")
        self.is_raster = False
        self.name = name
        self.grid = Grid(height, width, None, None)
        self.bands = tuple(bands)
        self._image = image

    def __deepcopy__(self, memo: dict[int, Any]) -> "ArrayStrips":
        return self  # nothing of it changes

    def read(self, row: int, num_rows: int) -> np.ndarray:
        """See `Strips`."""
        values = self._image[row : row + num_rows]
        if values.dtype == np.uint16:
            return np.where((values != NODATA).all(axis=-1, keepdims=True), values, NODATA)
        valid = np.isfinite(values).all(axis=-1, keepdims=True)
        return to_stored(values, np.broadcast_to(valid, values.shape))


class CommonStrips:
    """An image without the pixels that some others have no data in.

    Args:
        image: what to read.
        others: images of the same size.
    """

    def __init__(self, image: Strips, others: Sequence[Strips]):
        self.name, self.grid, self.bands = image.name, image.grid, image.bands
        self.is_raster = image.is_raster
        self._image, self._others = image, others

    def read(self, row: int, num_rows: int) -> np.ndarray:
        """See `Strips`."""
        valid = np.ones((num_rows, self.grid.width, 1), bool)
        for other in self._others:
            valid &= other.read(row, num_rows)[..., :1] != NODATA
        return np.where(valid, self._image.read(row, num_rows), NODATA)


def open_strips(image: Path | str | np.ndarray, bands: Sequence[str] | None = None) -> Strips:
    """An array or a raster as strips.

    Args:
        image: path of a raster, or an array as `ArrayStrips` takes it.
        bands: band names, in the order wanted; those of the raster by default.
    Raises:
        MissingError: no such file.
        DataError: the raster cannot be read, or has not those bands.
        ConfigError: an array of another kind.
    """
    if isinstance(image, np.ndarray):
        return ArrayStrips(image, bands)
    return RasterStrips(Path(image), bands)


def check_same_grid(first: Placed, second: Placed) -> None:
    """Raises DataError, which names both, where two images are not of the same pixels.

    Size and CRS must be the same, and the transform to a thousandth of a pixel over the image.
    Where one is an array, which knows of no place, its size alone must be.
    """
    one, other = first.grid, second.grid
    differing = []
    if one[:2] != other[:2]:
        differing.append(f"size {one.height} x {one.width} and {other.height} x {other.width} px")
    if first.is_raster and second.is_raster:
        if not same_crs(one.crs, other.crs):
            differing.append(f"CRS {one.crs or 'none'} and {other.crs or 'none'}")
        if not same_transform(one, other):
            differing.append(f"transform {one.transform or 'none'} and {other.transform or 'none'}")
    if differing:
        raise DataError(
            f"{first.name} and {second.name} are not on the same grid: {'; '.join(differing)}. "
            "Warp one to the grid of the other first (gdalwarp)."
        )


def preview_step(height: int, width: int) -> int:
    """Every which row and column of an image is enough to look at."""
    return -(-max(height, width) // _PREVIEW_SIDE)


def thin(parts: Iterable[tuple[int, np.ndarray]], step: int) -> np.ndarray:
    """Every `step`th row and column of what comes in parts, each with its first row.

    Args:
        parts: from the top, `(rows, width, ...)` arrays.
        step: at least 1.
    """
    return np.concatenate([part[-row % step :: step, ::step] for row, part in parts])
