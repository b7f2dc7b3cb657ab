"""Read an image from top to bottom, some rows at a time, so that it is never whole in memory."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sits_keras.data.plausibility import (
    ValueCounts,
    add_counts,
    count_stored,
    find_problems,
    warn_of_problems,
)
from sits_keras.data.radiometry import NODATA, has_data, pixels_to_stored
from sits_keras.data.rasters.read import (
    Grid,
    describe,
    open_raster,
    radiometry_of,
    read_stored,
    same_crs,
    same_transform,
)
from sits_keras.data.tiling import Window, diagonal_windows
from sits_keras.errors import ConfigError, DataError

ImageSource = Path | str | npt.NDArray[Any]
"""Path of a raster, or a `(height, width, bands)` array as `ArrayStrips` takes it."""

_ROWS_AT_A_TIME = 512  # half a tile of Sentinel-2's JPEG 2000: each is decoded twice
PREVIEW_SIDE = 800
"""Largest side of a preview, in pixels."""


class Placed(Protocol):
    """Image with a grid.

    Attributes:
        name: Name for messages: the path, or "the image".
        grid: Position of its pixels.
        is_raster: Whether it is a raster, so that it has no CRS or transform if `grid` has none.
    """

    name: str
    grid: Grid
    is_raster: bool


class Strips(Placed, Protocol):
    """Image that is read by rows, in ascending order.

    A copy (`copy.deepcopy`, or `pickle`) reads independently of the original.

    Attributes:
        bands: Band names, in the order of the last axis; "band 1" and so on if none are known.
        values: Counts of values in samples of a raster; `None` of an array, which has no samples.
    """

    bands: tuple[str, ...]
    values: ValueCounts | None

    def read(self, row: int, num_rows: int) -> npt.NDArray[np.uint16]:
        """Read some rows as stored values.

        Args:
            row: First row.
            num_rows: Number of rows.

        Returns:
            `(num_rows, width, bands)` array, 0 in all bands of a pixel without data in any.
        """
        ...


class RowBuffer:
    """Rows that were read ahead: each is read once if they are requested in ascending order.

    A copy does not contain rows.

    Args:
        height: Rows of the image.
    """

    def __init__(self, height: int):
        self._height = height
        self._start, self._rows = 0, np.empty(0, np.uint16)

    def __getstate__(self) -> dict[str, Any]:
        return {"_height": self._height, "_start": 0, "_rows": np.empty(0, np.uint16)}

    def read(
        self, row: int, num_rows: int, read: Callable[[int, int], npt.NDArray[np.uint16]]
    ) -> npt.NDArray[np.uint16]:
        """Return some rows.

        Args:
            row: First row.
            num_rows: Number of rows.
            read: Function that reads rows from their first and their number.
        """
        stop = self._start + len(self._rows)
        if not self._start <= row <= stop:
            self._start, self._rows, stop = row, self._rows[:0], row
        parts = [self._rows[row - self._start :]]
        while stop < row + num_rows:
            height = min(max(_ROWS_AT_A_TIME, row + num_rows - stop), self._height - stop)
            parts.append(read(stop, height))
            stop += height
        if len(parts) > 1:
            parts = parts if len(parts[0]) else parts[1:]
            self._start, self._rows = row, np.concatenate(parts)
        return self._rows[row - self._start :][:num_rows]


class RasterStrips:
    """Raster that is read by rows; each is read once if they are requested in ascending order.

    Args:
        path: Path of the raster.
        bands: Band names, in the order wanted; those of the raster if `None`.

    Raises:
        MissingError: The file does not exist.
        DataError: The raster cannot be read, or lacks a band.
    """

    def __init__(self, path: Path, bands: Sequence[str] | None):
        with open_raster(path) as source:
            info = describe(source)
            if bands is None:
                bands = [name or f"band {index}" for index, name in enumerate(info.bands, start=1)]
            indices = info.indices(bands, path)
            radiometry = [radiometry_of(source, index) for index in indices]
        self.is_raster = True
        self.name = str(path)
        self.grid = info.grid
        self.bands = tuple(bands)
        self._path = path
        # Missing bands and values that are refused raise an error now, not in the middle.
        samples = [read_stored(path, self.bands, one) for one in diagonal_windows(*info.grid[:2])]
        info.warn_of_colours(self.bands, path)
        counts = add_counts([count_stored(one) for one in samples])
        self.values: ValueCounts | None = counts
        named = dict(zip(self.bands, radiometry, strict=True))
        warn_of_problems(find_problems(self.name, counts, named, may_be_bytes=True))
        self._buffer = RowBuffer(info.grid.height)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_path": self._path.absolute()}

    def read(self, row: int, num_rows: int) -> npt.NDArray[np.uint16]:
        """Read some rows; see `Strips`."""
        return self._buffer.read(row, num_rows, self._read)

    def _read(self, row: int, num_rows: int) -> npt.NDArray[np.uint16]:
        return read_stored(self._path, self.bands, Window(row, 0, num_rows, self.grid.width))


class ArrayStrips:
    """Array that is read by rows.

    Args:
        image: `(height, width, bands)` array of uint16 stored values, 0 without data, or of float
            reflectance, NaN without data.
        bands: Band names; "band 1" and so on if `None`.
        name: Name for messages.

    Raises:
        ConfigError: The array has another shape or dtype.
        DataError: The number of bands differs.
    """

    def __init__(
        self, image: npt.NDArray[Any], bands: Sequence[str] | None, name: str = "the image"
    ):
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
        self.values: ValueCounts | None = None
        self.bands = tuple(bands)
        self._image = image

    def __deepcopy__(self, memo: dict[int, Any]) -> "ArrayStrips":
        return self  # it has no state

    def read(self, row: int, num_rows: int) -> npt.NDArray[np.uint16]:
        """Read some rows; see `Strips`."""
        values = self._image[row : row + num_rows]
        if values.dtype == np.uint16:
            valid = has_data(values)
            return values if valid.all() else np.where(valid[..., None], values, NODATA)
        return pixels_to_stored(values, self.name)


class CommonStrips:
    """Image without the pixels in which other images have no data.

    Which pixels have data is remembered, in a bit each, so that the other images are read once.

    Args:
        image: Image to read.
        others: Images of the same size.
    """

    def __init__(self, image: Strips, others: Sequence[Strips]):
        self.name, self.grid, self.bands = image.name, image.grid, image.bands
        self.is_raster = image.is_raster
        self.values = image.values
        self._image, self._others = image, others
        self._is_known = np.zeros(image.grid.height, bool)
        self._bits = np.zeros((image.grid.height, -(-image.grid.width // 8)), np.uint8)

    def read(self, row: int, num_rows: int) -> npt.NDArray[np.uint16]:
        """Read some rows; see `Strips`."""
        image = self._image.read(row, num_rows)
        rows = slice(row, row + num_rows)
        if not self._is_known[rows].all():
            valid = image[..., 0] != NODATA
            for other in self._others:
                valid &= other.read(row, num_rows)[..., 0] != NODATA
            self._bits[rows] = np.packbits(valid, axis=1)
            self._is_known[rows] = True
        return np.where(self.valid(row, num_rows)[..., None], image, NODATA)

    def valid(self, row: int, num_rows: int) -> npt.NDArray[np.bool_]:
        """Return which pixels of some rows have data in all images, `(num_rows, width)` bool."""
        rows = slice(row, row + num_rows)
        if not self._is_known[rows].all():
            self.read(row, num_rows)
        bits = np.unpackbits(self._bits[rows], axis=1, count=self.grid.width)
        return bits.view(np.bool_)


def open_strips(image: ImageSource, bands: Sequence[str] | None = None) -> Strips:
    """Open an array or a raster for reading by rows.

    Args:
        image: Path of a raster, or an array as `ArrayStrips` takes it.
        bands: Band names, in the order wanted; those of the raster by default.

    Returns:
        The image.

    Raises:
        MissingError: The file does not exist.
        DataError: The raster cannot be read, or lacks a band.
        ConfigError: The array has another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        return ArrayStrips(image, bands)
    return RasterStrips(Path(image), bands)


def check_same_grid(first: Placed, second: Placed) -> None:
    """Check that two images have the same pixels (see `read.same_grid`).

    Of an array, which has no CRS and no transform, only the size is compared.

    Args:
        first: An image.
        second: Another one.

    Raises:
        DataError: Size, CRS or transform differ. The message names both images.
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
    """Return the step between the rows and columns of an image that a preview shows."""
    return -(-max(height, width) // PREVIEW_SIDE)


def thin(parts: Iterable[tuple[int, npt.NDArray[Any]]], step: int) -> npt.NDArray[Any]:
    """Return every `step`-th row and column of an image that is given in parts.

    Args:
        parts: First row and `(rows, width, ...)` array of each part, from the top.
        step: Step, at least 1.

    Returns:
        `(rows, columns, ...)` array.
    """
    return np.concatenate([part[-row % step :: step, ::step] for row, part in parts])
