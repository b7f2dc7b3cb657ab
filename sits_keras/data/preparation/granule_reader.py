"""Reads a granule window by window, all of its layers on one grid (section 4.1).

Layers coarser than the grid by a whole number, such as the 20 m bands beside those of 10 m, are
repeated: each of their pixels becomes a square of equal ones. No value is made up.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sits_keras.data.preparation.screening import (
    MASK_BANDS,
    MASKS_AS_BANDS,
    Coverage,
    count_coverage,
    has_data,
    is_cloudy,
)
from sits_keras.data.radiometry import NODATA, values_to_stored
from sits_keras.data.rasters.read import (
    Grid,
    Source,
    check_readable,
    describe,
    open_raster,
    radiometry_of,
    read_pixels,
    resampled,
    same_crs,
    same_grid,
)
from sits_keras.data.sources.granules import CloudMask, Granule, Layer
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError

RESAMPLING = "bilinear"
"""How bands are brought to another grid where that is asked for; masks take the nearest pixel."""

_ROWS = 1024  # read at a time when a whole granule is screened


class _Band(NamedTuple):
    source: Source
    number: int
    scale: float
    offset: float
    factor: int
    path: str


class GranuleReader(contextlib.ExitStack):
    """A granule that is open for reading, and a context manager that closes it.

    Args:
        granule: what to read.
        bands: band names, in the order wanted.
        onto: a grid to resample to where the granule lies on another one (`RESAMPLING`).

    Attributes:
        grid: where its pixels lie.
        is_resampled: whether it has to be resampled to `onto`.
        cloud_source: what says where cloud is: a kind of mask, `"product"` for the product's own
            statement of its cloud cover, or `"none"`.

    Raises:
        MissingError: a file is not there.
        DataError: a file cannot be read, a band is missing, or layers do not fit each other.
    """

    def __init__(self, granule: Granule, bands: Sequence[str], onto: Grid | None = None):
        super().__init__()
        self._granule = granule
        self._sources: dict[tuple[str, str], Source] = {}
        try:
            layers, self._mask = self._find_layers(bands)
            grids = [describe(self._open(layer.path)).grid for layer in layers]
            own = max(grids, key=lambda grid: grid.height)
            self._check_crs(own)
            self.is_resampled = onto is not None and not same_grid(own, onto)
            self.grid = onto or own
            self._bands = [self._place_band(layer) for layer in layers]
        except BaseException:
            self.close()
            raise
        if self._mask:
            self.cloud_source: str = self._mask.kind
        else:
            self.cloud_source = "none" if granule.cloud_cover is None else "product"

    def read(self, window: Window) -> np.ndarray:
        """Stored values, `(height, width, bands)` uint16, 0 in all bands where any has no data."""
        stored = np.empty((window.height, window.width, len(self._bands)), np.uint16)
        valid = np.ones((window.height, window.width), bool)
        # Bands of one raster are read together: a file may hold them pixel by pixel.
        for _, group in itertools.groupby(enumerate(self._bands), lambda one: id(one[1].source)):
            positions, bands = zip(*group, strict=True)
            source, factor = bands[0].source, bands[0].factor
            coarse, crop = _coarse_window(window, factor)
            values, has = read_pixels(source, [band.number for band in bands], coarse)
            valid &= _refine(has, factor, crop)
            for position, band, numbers in zip(positions, bands, values, strict=True):
                one = values_to_stored(numbers, has, band.path, band.scale, band.offset)
                stored[..., position] = _refine(one, factor, crop)
        stored[~valid] = NODATA
        return stored

    def cloudy(self, window: Window) -> np.ndarray | None:
        """Where cloud or shadow is, `(height, width)` bool; `None` where no mask says."""
        if self._mask is None:
            return None
        source, factor = self._place(self._mask.path, "nearest")
        coarse, crop = _coarse_window(window, factor)
        return _refine(
            is_cloudy(_read_mask(source, self._mask, coarse), self._mask.kind), factor, crop
        )

    def check_mask(self) -> None:
        """Checks that the cloud mask, where there is one, lies on the grid.

        Raises:
            MissingError: its file is not there.
            DataError: it does not, or cannot be read.
        """
        if self._mask:
            self._place(self._mask.path, "nearest")

    def coverage(self) -> Coverage:
        """Cloud and completeness of the whole granule.

        Where the product has a scene classification, that alone is read. Else data is missing
        where it is missing in the product's coarsest band or, of a raster of all bands, in any
        band that is asked for. The end of each band's file is read, to tell a file that was cut.
        """
        for band in self._bands:
            check_readable(self._open(band.path), [band.number])
        if self._mask and self._mask.kind == "SCL" and not self.is_resampled:
            source = self._open(self._mask.path)
            strips = _strips(describe(source).grid)
            read = (_read_mask(source, self._mask, strip) for strip in strips)
            counts = [count_coverage(has_data(scl[0]), is_cloudy(scl, "SCL")) for scl in read]
        else:
            windows = _strips(self.grid)
            counts = [count_coverage(self._valid(one), self.cloudy(one)) for one in windows]
        total = Coverage(*(sum(column) for column in zip(*counts, strict=True)))
        if self.cloud_source == "product":
            cover = self._granule.cloud_cover or 0.0
            total = total._replace(cloudy=round(total.valid * cover))
        return total

    def _valid(self, window: Window) -> np.ndarray:
        if self._granule.image is not None:
            return self.read(window)[..., 0] != NODATA
        paths = sorted({layer.path for layer in self._granule.layers.values()})
        coarsest = min(paths, key=lambda path: self._open(path).height)
        source, factor = self._place(coarsest, "nearest")
        coarse, crop = _coarse_window(window, factor)
        return _refine(read_pixels(source, [1], coarse)[1], factor, crop)

    def _find_layers(self, bands: Sequence[str]) -> tuple[list[Layer], CloudMask | None]:
        granule = self._granule
        if granule.image is None:
            missing = [band for band in bands if band not in granule.layers]
            if missing:
                raise DataError(
                    f"{granule.name} has no band {', '.join(missing)}. It has: "
                    f"{', '.join(granule.layers) or 'none'}. Fetch it again, or name other bands."
                )
            return [granule.layers[band] for band in bands], granule.mask
        info = describe(self._open(granule.image))
        layers = [Layer(granule.image, i) for i in info.indices(bands, granule.image)]
        for kind in MASKS_AS_BANDS:
            if kind in info.bands:
                return layers, CloudMask(kind, granule.image, info.bands.index(kind) + 1)
        return layers, granule.mask

    def _check_crs(self, grid: Grid) -> None:
        expected = self._granule.crs
        if expected and grid.crs and not same_crs(grid.crs, expected):
            raise DataError(
                f"{self._granule.name} is in {expected} by its metadata, but its pixels are in "
                f"{grid.crs}. Fetch the product again."
            )

    def _open(self, path: str) -> Source:
        if (path, "") not in self._sources:
            self._sources[path, ""] = self.enter_context(open_raster(path))
        return self._sources[path, ""]

    def _place_band(self, layer: Layer) -> _Band:
        scale, offset = radiometry_of(self._open(layer.path), layer.number)
        source, factor = self._place(layer.path, RESAMPLING)
        return _Band(
            source=source,
            number=layer.number,
            scale=scale if layer.scale is None else layer.scale,
            offset=offset if layer.offset is None else layer.offset,
            factor=factor,
            path=layer.path,
        )

    def _place(self, path: str, method: str) -> tuple[Source, int]:
        """A raster on the reader's grid, and how many of the grid's pixels one of its pixels is."""
        source = self._open(path)
        if self.is_resampled:
            if (path, method) not in self._sources:
                onto = resampled(source, self.grid, method)
                self._sources[path, method] = self.enter_context(onto)
            return self._sources[path, method], 1
        grid = describe(source).grid
        factor = max(1, round(self.grid.height / grid.height))
        if not _fits(grid, self.grid, factor):
            raise DataError(
                f"{path} has {_words(grid)}, which do not fit the {_words(self.grid)} of "
                f"{self._granule.name}. Resample it to the same grid."
            )
        return source, factor


def _read_mask(source: Source, mask: CloudMask, window: Window) -> np.ndarray:
    indices = range(mask.number, mask.number + MASK_BANDS[mask.kind])
    return read_pixels(source, indices, window)[0]


def _fits(coarse: Grid, grid: Grid, factor: int) -> bool:
    """Whether each pixel of one grid is a square of `factor` x `factor` pixels of the other."""
    if (coarse.height, coarse.width) != (-(-grid.height // factor), -(-grid.width // factor)):
        return False
    if not (coarse.crs and grid.crs and coarse.transform and grid.transform):
        return True  # the one says nothing that the other could contradict
    a, b, c, d, e, f = grid.transform
    expected = (a * factor, b * factor, c, d * factor, e * factor, f)
    return same_grid(coarse, Grid(coarse.height, coarse.width, grid.crs, expected))


def _words(grid: Grid) -> str:
    where = f" in {grid.crs} at {grid.transform}" if grid.crs or grid.transform else ""
    return f"{grid.height} x {grid.width} pixels{where}"


def _strips(grid: Grid) -> Iterator[Window]:
    for row in range(0, grid.height, _ROWS):
        yield Window(row, 0, min(_ROWS, grid.height - row), grid.width)


def _coarse_window(window: Window, factor: int) -> tuple[Window, Window]:
    """The pixels that cover a window on a grid `factor` times coarser, and the window in them."""
    if factor == 1:
        return window, Window(0, 0, window.height, window.width)
    row, col = window.row // factor, window.col // factor
    stop_row = -(-(window.row + window.height) // factor)
    stop_col = -(-(window.col + window.width) // factor)
    crop = Window(window.row - row * factor, window.col - col * factor, window.height, window.width)
    return Window(row, col, stop_row - row, stop_col - col), crop


def _refine(values: np.ndarray, factor: int, crop: Window) -> np.ndarray:
    if factor == 1:
        return values
    fine = values.repeat(factor, axis=0).repeat(factor, axis=1)
    return fine[crop.row : crop.row + crop.height, crop.col : crop.col + crop.width]
