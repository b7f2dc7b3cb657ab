"""Reads a granule window by window, all of its layers on one grid (section 4.1).

Layers coarser than the grid by an integer factor, such as the 20 m bands beside those of 10 m, are
repeated: each of their pixels becomes a square of equal ones. No value is interpolated.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from sits_keras.data.execution import map_in_threads
from sits_keras.data.plausibility import (
    Problem,
    Radiometry,
    ValueCounts,
    add_counts,
    count_values,
    find_problems,
)
from sits_keras.data.preparation.screening import (
    MASK_BANDS,
    Coverage,
    add_coverages,
    count_coverage,
    find_masks,
    in_qa60_gap,
    is_classified,
    is_cloudy,
)
from sits_keras.data.radiometry import (
    NODATA,
    FillFinder,
    holds_data_only,
    is_missing,
    may_hold,
    values_to_stored,
)
from sits_keras.data.rasters.read import (
    TAGGED,
    Grid,
    RasterInfo,
    ResampledRaster,
    Source,
    check_readable,
    describe,
    one_thread,
    open_raster,
    radiometry_of,
    read_pixels,
    resampled,
    same_crs,
    same_grid,
)
from sits_keras.data.sources.granules import Granule, Layer, MaskKind
from sits_keras.data.sources.paths import redact
from sits_keras.data.tiling import Window, diagonal_windows
from sits_keras.errors import DataError

RESAMPLING = "bilinear"
"""Resampling of bands to another grid, on request; masks take the nearest pixel."""

# Less than the cache, so that each block of a file is decoded once.
_CHUNK_BYTES = 2 * 2**20  # of all bands, read at a time when a whole granule is screened
_CHUNK_WIDTH = 1024  # px, at least
_STRIP_PIXELS = 2**21  # of a mask or of one band, read at a time
_CACHE_BYTES = 32 * 2**20
_STACK_CACHE_BYTES = 8 * 2**20  # of a raster of all bands: blocks in a larger one are read slower
_SAMPLE_SIDE = 512  # px, of the windows by which the values of a product are judged
_SAMPLES_PER_SIDE = 3
_MAX_READERS = 8  # threads, each of which holds a cache and pixels
_SMALL_SIDE = 2048  # px; the blocks that samples of a smaller raster touch are most of it
_MAX_SCL = 11
_MAX_DIFFERING = 0.05  # of the sampled pixels, classified though the bands have no data

_T = TypeVar("_T")
_FindPixels = Callable[["GranuleReader", Window], npt.NDArray[np.bool_]]


class _Band(NamedTuple):
    source: Source
    number: int
    radiometry: Radiometry
    factor: int
    path: str


class _Mask(NamedTuple):
    """Bands of a raster that mark cloud."""

    kind: MaskKind
    path: str
    numbers: tuple[int, ...]


class _RasterRead(NamedTuple):
    """Values of some bands of one raster in a window, at its own resolution.

    Attributes:
        bands: The bands.
        values: `(bands, height, width)`, as the raster holds them.
        has_data: `(height, width)` bool.
        crop: Position of the window in the pixels, once they are repeated.
    """

    bands: list[_Band]
    values: npt.NDArray[Any]
    has_data: npt.NDArray[np.bool_]
    crop: Window

    @property
    def is_complete(self) -> bool:
        """Return whether no pixel can be missing, by the bounds of the values."""
        return bool(self.has_data.all()) and all(
            holds_data_only(self.values, *radiometry) for radiometry in self._radiometry
        )

    def stored(self) -> npt.NDArray[np.uint16]:
        """Return stored values, which may be a view of the values."""
        path = redact(self.bands[0].path)
        if len(self._radiometry) == 1:
            (radiometry,) = self._radiometry
            return values_to_stored(self.values, self.has_data, path, *radiometry)
        each = zip(self.values, self.bands, strict=True)
        return np.stack(
            [values_to_stored(v, self.has_data, path, *b.radiometry[:2]) for v, b in each]
        )

    def refined(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return `(..., height, width)` pixels on the grid of the window."""
        return _refine(pixels, self.bands[0].factor, self.crop)

    @property
    def _radiometry(self) -> set[tuple[float, float]]:
        return {band.radiometry[:2] for band in self.bands}


class _WindowRead(NamedTuple):
    """Stored values of a window, and which of its pixels are missing for an unusual reason.

    The array `stored` is `(height, width, bands)`, a view of one that holds band by band.
    """

    stored: npt.NDArray[np.uint16]
    partly_zero: npt.NDArray[np.bool_]
    undeclared: npt.NDArray[np.bool_]
    example: float | None

    def counts(self, cloudy: npt.NDArray[np.bool_] | None = None) -> ValueCounts:
        """Count the values, of clear pixels if it is known where cloud is: haze hides dark land."""
        stored = self.stored
        if cloudy is not None and cloudy.any():
            stored = np.where(cloudy[..., None], np.uint16(NODATA), stored)
        return count_values(stored, self.partly_zero, self.undeclared, self.example)


class GranuleReader(contextlib.ExitStack):
    """A granule open for reading, and a context manager that closes it.

    Args:
        granule: Granule to read.
        bands: Band names, in the order wanted.
        onto: Grid to resample to if the granule lies on another one (`RESAMPLING`).
        num_threads: Number of threads that `screen` reads with.

    Attributes:
        grid: Grid of its pixels.
        is_resampled: Whether it has to be resampled to `onto`.
        info: Header of its raster of all bands; `None` for a product.
        radiometry: Conversion of each band.
        cloud_source: Source of its cloud cover: a kind of mask, or kinds joined by `+`,
            `"product"` for the product's own figure, or `"none"`. `screen` sets it to `"none"` if
            the mask turns out to be empty.
        unread_masks: Names of bands that look like cloud masks, but cannot be read.
        has_mask: Whether there is a cloud mask.
        reads_all: Whether `screen` reads all pixels: of a raster of all bands, and of a product
            that is not larger than the samples are worth.

    Raises:
        MissingError: A file is missing.
        DataError: A file cannot be read, a band is missing, or layers do not fit each other.
    """

    def __init__(
        self,
        granule: Granule,
        bands: Sequence[str],
        onto: Grid | None = None,
        num_threads: int = 1,
    ):
        super().__init__()
        self._granule = granule
        self._names = tuple(bands)
        self._onto = onto
        self._num_threads = num_threads
        self._threads: ThreadPoolExecutor | None = None
        self._sources: dict[tuple[str, str], Source] = {}
        self.info: RasterInfo | None = None
        try:
            self.unread_masks: tuple[str, ...] = ()
            layers, self._masks = self._find_layers(bands)
            grids = [describe(self._open(layer.path)).grid for layer in layers]
            own = max(grids, key=lambda grid: grid.height)
            self._check_crs(own)
            self.is_resampled = onto is not None and not same_grid(own, onto)
            self.grid = onto or own
            self._bands = [self._place_band(layer) for layer in layers]
        except BaseException:
            self.close()
            raise
        self.radiometry = tuple(band.radiometry for band in self._bands)
        self.has_mask = bool(self._masks)
        self.reads_all = granule.image is not None or max(self.grid[:2]) <= _SMALL_SIDE
        kinds = "+".join(mask.kind for mask in self._masks)
        self.cloud_source: str = kinds or ("none" if granule.cloud_cover is None else "product")

    def read(self, window: Window) -> npt.NDArray[np.uint16]:
        """Read stored values, `(height, width, bands)`, 0 in all bands where any has no data."""
        return self._read(window)[0]

    def _read(self, window: Window) -> _WindowRead:
        # Bands of one raster are read together: a file may hold them pixel by pixel.
        rasters = [
            list(bands) for _, bands in itertools.groupby(self._bands, lambda band: id(band.source))
        ]
        each = self._threads.map if self._threads and len(rasters) > 1 else map
        reads = list(each(self._read_raster, rasters, itertools.repeat(window)))
        if all(one.is_complete for one in reads):
            parts = [one.refined(one.stored()) for one in reads]
            stored = parts[0] if len(parts) == 1 else np.concatenate(parts)
            none = np.zeros(stored.shape[1:], bool)
            return _WindowRead(np.moveaxis(stored, 0, -1), none, none, None)
        stored = np.empty((len(self._bands), window.height, window.width), np.uint16)
        valid = np.ones(stored.shape[1:], bool)
        fill = FillFinder(window.height, window.width)
        example, position = None, 0
        for raster in reads:
            has, num_valid = raster.has_data, np.count_nonzero(raster.has_data)
            valid &= raster.refined(has)
            for numbers, one in zip(raster.values, raster.stored(), strict=True):
                stored[position] = raster.refined(one)
                position += 1
                fill.add(raster.refined(numbers))
                if example is None and np.count_nonzero(one) < num_valid:
                    example = float(numbers[has & (one == NODATA)][0])
        return _mark_missing(stored, valid, fill, example)

    def _read_raster(self, bands: list[_Band], window: Window) -> _RasterRead:
        """Read bands of one raster."""
        coarse, crop = _coarse_window(window, bands[0].factor)
        numbers = [band.number for band in bands]
        with one_thread():
            return _RasterRead(bands, *read_pixels(bands[0].source, numbers, coarse), crop)

    def cloudy(self, window: Window) -> npt.NDArray[np.bool_] | None:
        """Return where cloud or shadow is, `(height, width)`; `None` without a mask."""
        if not self._masks:
            return None
        cloudy = np.zeros((window.height, window.width), bool)
        for mask in self._masks:
            source, factor = self._place(mask.path, "nearest")
            coarse, crop = _coarse_window(window, factor)
            cloudy |= _refine(is_cloudy(_read_mask(source, mask, coarse), mask.kind), factor, crop)
            if mask.kind != "SCL" and isinstance(source, ResampledRaster):
                cloudy |= ~source.covers(coarse)  # unknown there
        return cloudy

    def check_mask(self) -> None:
        """Check that the cloud mask, if there is one, lies on the grid.

        Raises:
            MissingError: Its file is missing.
            DataError: It lies on another grid, or cannot be read.
        """
        for mask in self._masks:
            self._place(mask.path, "nearest")

    def sample_values(self) -> ValueCounts:
        """Count unlikely values in a few small windows."""
        windows = diagonal_windows(*self.grid[:2])
        return add_counts([self._read(one).counts(self.cloudy(one)) for one in windows])

    def find_problems(self, values: ValueCounts) -> list[Problem]:
        """Return what is unlikely about values of the granule.

        Args:
            values: Counts of all of them (`screen`), or of samples (`sample_values`).
        """
        radiometry = dict(zip(self._names, self.radiometry, strict=True))
        is_product = self._granule.level is not None
        return find_problems(self._granule.name, values, radiometry, may_be_bytes=not is_product)

    def coverage(self) -> Coverage:
        """Count cloud and completeness of the whole granule; see `screen`."""
        return self.screen()[0]

    def screen(self, keep: "PixelWriter | None" = None) -> tuple[Coverage, ValueCounts]:
        """Count cloud, completeness and unlikely values of the whole granule.

        If the product has a scene classification (SCL), coverage is read from it alone, unless
        samples of the bands hold less data than it states. Otherwise data is missing where it is
        missing in the product's coarsest band or, in a raster of all bands, in any band that is
        asked for. The values of a product are sampled. The end of each band's file is read, to
        detect a truncated file.

        Args:
            keep: Where to keep the pixels of a raster that is read completely.

        Returns:
            Counts of cloud and completeness, and of the values.
        """
        if self._granule.image is not None:
            return self._scan(keep)
        if not self.reads_all:
            for band in self._bands:
                check_readable(self._open(band.path), [band.number])
        if [mask.kind for mask in self._masks] == ["SCL"] and not self.is_resampled:
            return self._screen_by_classes(self._masks[0], keep)
        if self.reads_all:
            return self._scan(keep, GranuleReader._valid)
        values = add_counts([self._read(one).counts() for one in _samples(self.grid)])
        counts = [count_coverage(self._valid(one), self.cloudy(one)) for one in _strips(self.grid)]
        return self._checked(add_coverages(counts)), values

    def _screen_by_classes(
        self, scl: _Mask, keep: "PixelWriter | None"
    ) -> tuple[Coverage, ValueCounts]:
        """Count by a scene classification, unless the bands have less data than it states."""
        source = self._open(scl.path)
        # First, so that its blocks are in the cache when they are compared with the bands.
        read = (_read_mask(source, scl, strip) for strip in _strips(describe(source).grid))
        counts = [count_coverage(is_classified(one[0]), is_cloudy(one, "SCL")) for one in read]
        coverage = add_coverages(counts)

        def look(reader: GranuleReader, window: Window) -> tuple[ValueCounts, int]:
            one, _ = reader._read_and_keep(window, keep)
            unlike = reader._classified(window) & (one.stored[..., 0] == NODATA)
            return one.counts(), int(np.count_nonzero(unlike))

        windows = self._chunks(keep) if self.reads_all else _samples(self.grid)
        each, counts_differing = zip(*self._in_threads(look, list(windows)), strict=True)
        values, differing = add_counts(each), sum(counts_differing)
        if differing > _MAX_DIFFERING * values.pixels or (values.valid and not coverage.valid):
            return self._scan()
        return coverage, values

    def _scan(
        self, keep: "PixelWriter | None" = None, find_valid: _FindPixels | None = None
    ) -> tuple[Coverage, ValueCounts]:
        """Count everywhere, by the values of all bands or by `find_valid`."""

        def look(reader: GranuleReader, window: Window) -> tuple[Coverage, ValueCounts]:
            one, cloudy = reader._read_and_keep(window, keep)
            # While the blocks are in GDAL's cache.
            valid = find_valid(reader, window) if find_valid else one.stored[..., 0] != NODATA
            return count_coverage(valid, cloudy), one.counts()

        looks = self._in_threads(look, list(self._chunks(keep)))
        coverages, values = zip(*looks, strict=True)
        return self._checked(add_coverages(coverages)), add_counts(values)

    def _read_and_keep(
        self, window: Window, keep: "PixelWriter | None"
    ) -> tuple[_WindowRead, npt.NDArray[np.bool_] | None]:
        """Read the pixels and the cloud mask of a window, and keep them if they are wanted."""
        one, cloudy = self._read(window), self.cloudy(window)
        if keep:
            keep.write(window, one.stored, cloudy)
        return one, cloudy

    def _in_threads(
        self, look: "Callable[[GranuleReader, Window], _T]", windows: Sequence[Window]
    ) -> list[_T]:
        """Return what a function returns of each window, in order.

        Threads call it, each with a reader of its own, for every second window if there are two:
        what is read is used where it is read, in the cache of one core. Where there are more
        threads than windows, they read several files of a window.
        """
        with contextlib.ExitStack() as opened:
            readers = [self]
            for _ in range(min(self._num_threads, _MAX_READERS, len(windows)) - 1):
                other = GranuleReader(self._granule, self._names, self._onto)
                readers.append(opened.enter_context(other))
            num_left = self._num_threads // len(readers)
            for reader in readers:  # here, because the thread that opens a file has to close it
                if num_left > 1:  # a file may have one block, as that of a small product has
                    reader._threads = opened.enter_context(ThreadPoolExecutor(num_left))
                    opened.callback(setattr, reader, "_threads", None)
                reader.check_mask()
                if self._granule.layers:
                    reader._coarsest()
            return map_in_threads(look, readers, windows)

    def _chunks(self, keep: "PixelWriter | None") -> Iterator[Window]:
        """Return windows that cover the grid, of whole blocks of the file where that is possible.

        They are as wide as the grid, or as some blocks that are kept.
        """
        source = self._open(self._bands[0].path)
        tile_height, tile_width = source.block_shapes[0]
        size = np.dtype(source.dtypes[0]).itemsize * max(source.count, len(self._bands))
        edges = [0, self.grid.width]
        if tile_width < self.grid.width:
            width = max(tile_width, _CHUNK_WIDTH // tile_width * tile_width)
            edges = [*range(0, self.grid.width, width), self.grid.width]
            if keep:
                edges = keep.column_edges(width)
        for left, right in itertools.pairwise(edges):
            rows = max(1, _CHUNK_BYTES // (size * (right - left)))
            rows = max(rows // tile_height, 1) * tile_height
            for row in range(0, self.grid.height, rows):
                yield Window(row, left, min(rows, self.grid.height - row), right - left)

    def _checked(self, coverage: Coverage) -> Coverage:
        """Return a coverage with the cloud that the product states, and find empty masks."""
        if self.cloud_source == "product":
            cover = self._granule.cloud_cover or 0.0
            return coverage._replace(cloudy=round(coverage.valid * cover))
        is_empty = coverage.valid and not coverage.cloudy
        if is_empty and self.cloud_source == "QA60" and in_qa60_gap(self._granule.date):
            self.cloud_source = "none"
        has_classes = (self._classified(one).any() for one in _strips(self.grid))
        if is_empty and self.cloud_source == "SCL" and not any(has_classes):
            self.cloud_source = "none"
        return coverage

    def _classified(self, window: Window) -> npt.NDArray[np.bool_]:
        """Return where the scene classification, the only mask, has data."""
        (scl,) = self._masks
        source, factor = self._place(scl.path, "nearest")
        coarse, crop = _coarse_window(window, factor)
        return _refine(is_classified(_read_mask(source, scl, coarse)[0]), factor, crop)

    def _valid(self, window: Window) -> npt.NDArray[np.bool_]:
        """Return where the coarsest band of a product has data."""
        coarsest, source, factor = self._coarsest()
        coarse, crop = _coarse_window(window, factor)
        values, valid = read_pixels(source, [coarsest.number], coarse)
        missing = is_missing(values[0], *self._radiometry(coarsest)[:2])
        return _refine(valid & ~missing, factor, crop)

    def _coarsest(self) -> tuple[Layer, Source, int]:
        """Return the coarsest band of a product, its raster and its factor."""
        layers = sorted(self._granule.layers.values(), key=lambda layer: layer.path)
        coarsest = min(layers, key=lambda layer: self._open(layer.path).height)
        return coarsest, *self._place(coarsest.path, "nearest")

    def _find_layers(self, bands: Sequence[str]) -> tuple[list[Layer], tuple[_Mask, ...]]:
        granule = self._granule
        masks: tuple[_Mask, ...] = ()
        if mask := granule.mask:
            numbers = range(mask.number, mask.number + MASK_BANDS[mask.kind])
            masks = (_Mask(mask.kind, mask.path, tuple(numbers)),)
        if granule.image is None:
            missing = [band for band in bands if band not in granule.layers]
            if missing:
                raise DataError(
                    f"{granule.name} has no band {', '.join(missing)}. It has: "
                    f"{', '.join(granule.layers) or 'none'}. Fetch it again, or name other bands."
                )
            return [granule.layers[band] for band in bands], masks
        self.info = info = describe(self._open(granule.image))
        layers = [Layer(granule.image, i) for i in info.indices(bands, granule.image)]
        found, unread = find_masks(info.bands)
        # A mask of the user counts as well as one among the bands.
        masks += tuple(_Mask(kind, granule.image, numbers) for kind, numbers in found.items())
        self.unread_masks = () if masks else unread
        return layers, masks

    def _check_crs(self, grid: Grid) -> None:
        expected = self._granule.crs
        if expected and grid.crs and not same_crs(grid.crs, expected):
            raise DataError(
                f"{self._granule.name} is in {expected} by its metadata, but its pixels are in "
                f"{grid.crs}. Fetch the product again."
            )

    def _open(self, path: str) -> Source:
        if (path, "") not in self._sources:
            is_stack = path == self._granule.image
            opened = open_raster(path, _STACK_CACHE_BYTES if is_stack else _CACHE_BYTES)
            self._sources[path, ""] = self.enter_context(opened)
        return self._sources[path, ""]

    def _place_band(self, layer: Layer) -> _Band:
        source, factor = self._place(layer.path, RESAMPLING)
        return _Band(source, layer.number, self._radiometry(layer), factor, layer.path)

    def _radiometry(self, layer: Layer) -> Radiometry:
        """Return the conversion that counts, the metadata's before the raster's own."""
        source = self._open(layer.path)
        own = radiometry_of(source, layer.number)
        if layer.scale is None and layer.offset is None:
            return own
        stated = (
            own.scale if layer.scale is None else layer.scale,
            own.offset if layer.offset is None else layer.offset,
        )
        contradiction = ""
        is_tagged = own.origin == TAGGED
        if is_tagged and not np.allclose(stated, own[:2], rtol=1e-6, atol=1e-9):
            contradiction = f"scale {own.scale:g} and offset {own.offset:g} ({own.origin})"
        return Radiometry(*stated, "its metadata", contradiction)

    def _place(self, path: str, method: str) -> tuple[Source, int]:
        """Return a raster on the grid, and the side of its pixels in pixels of the grid."""
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
                f"{redact(path)} has {_words(grid)}, which do not fit the {_words(self.grid)} of "
                f"{self._granule.name}. Resample it to the same grid."
            )
        return source, factor


BlockPixels = tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_] | None]
"""Stored values of a block, `(height, width, bands)`, and `(height, width)` bool where cloud is,
`None` without a mask."""

BlockReader = Callable[[Window], BlockPixels]
"""Reads a block."""


@dataclasses.dataclass(frozen=True)
class KeptPixels:
    """File with the pixels of a granule, which its screening has read and its records need.

    Attributes:
        path: The file: block by block, `(height, width, bands)` little-endian uint16 stored values,
            then `(height, width)` bool where cloud is if there is a mask.
        blocks: Windows of the blocks.
        num_bands: Number of bands.
        has_mask: Whether there is a cloud mask.
        is_full: Whether it is known that every pixel has data.
    """

    path: Path
    blocks: tuple[Window, ...]
    num_bands: int
    has_mask: bool
    is_full: bool = False

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self._size(sum(block.height * block.width for block in self.blocks))

    @functools.cached_property
    def offsets(self) -> dict[Window, int]:
        """Position of each block in the file, in bytes."""
        ends = itertools.accumulate(block.height * block.width for block in self.blocks)
        return dict(zip(self.blocks, map(self._size, [0, *ends]), strict=False))

    @contextlib.contextmanager
    def opened(self) -> Iterator[BlockReader]:
        """Open the file, and provide a function that reads one of the blocks.

        Raises:
            DataError: The file has been truncated or removed.
        """
        with self._errors():
            file = self.path.open("rb", buffering=0)
        with file:
            yield functools.partial(self._read, file)

    def _read(self, file: io.FileIO, block: Window) -> BlockPixels:
        stored = np.empty((block.height, block.width, self.num_bands), "<u2")
        cloudy = np.empty((block.height, block.width), bool) if self.has_mask else None
        with self._errors():
            file.seek(self.offsets[block])
            for array in (stored,) if cloudy is None else (stored, cloudy):
                if file.readinto(array.data.cast("B")) != array.nbytes:
                    raise DataError(f"{self.path} is truncated. Run the same command again.")
        return stored, cloudy

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be read: {error.strerror}. Run the same command again."
            ) from error

    def _size(self, pixels: int) -> int:
        return pixels * (2 * self.num_bands + self.has_mask)


def interleaved(stored: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Return an array that holds pixel by pixel, from a view of one that holds band by band.

    Args:
        stored: `(height, width, bands)` stored values.
    """
    # Faster than a copy of the transposed array.
    return np.stack(list(np.moveaxis(stored, -1, 0)), axis=-1)


class PixelWriter:
    """Writes the file of `KeptPixels`; a context manager that removes it if it is not complete.

    Args:
        kept: File to write, which does not exist yet.

    Attributes:
        kept: The file.
        is_complete: Whether all that was written is in the file; false if the disk is full.
    """

    def __init__(self, kept: KeptPixels):
        self.kept = kept
        self._blocks = np.array(kept.blocks)
        self._file = kept.path.open("xb", buffering=0)
        self._lock = threading.Lock()  # of the position in the file
        self.is_complete = True

    def __enter__(self) -> "PixelWriter":
        return self

    def __exit__(self, error: object, *details: object) -> None:
        self._file.close()
        if error or not self.is_complete:
            self.kept.path.unlink(missing_ok=True)

    def column_edges(self, width: int) -> list[int]:
        """Return columns at which blocks meet, at least `width` apart, and the outermost ones."""
        last = max(block.col + block.width for block in self.kept.blocks)
        edges = [0]
        for col in sorted({block.col for block in self.kept.blocks}):
            if col - edges[-1] >= width:
                edges.append(col)
        return [*edges, last]

    def write(
        self,
        window: Window,
        stored: npt.NDArray[np.uint16],
        cloudy: npt.NDArray[np.bool_] | None,
    ) -> None:
        """Write a window that contains whole rows of blocks; several threads may call it.

        Args:
            window: Position of the window.
            stored: `(height, width, bands)` stored values.
            cloudy: `(height, width)` bool; `None` without a mask.
        """
        row, col, height, _ = self._blocks.T
        is_within = (window.col <= col) & (col < window.col + window.width)
        is_within &= (row < window.row + window.height) & (window.row < row + height)
        for number in np.flatnonzero(is_within):
            block = self.kept.blocks[number]
            if not self.is_complete:
                return
            first = max(window.row, block.row)
            stop = min(window.row + window.height, block.row + block.height)
            rows = slice(first - window.row, stop - window.row)
            cols = slice(block.col - window.col, block.col - window.col + block.width)
            at = self.kept.offsets[block]
            done = (first - block.row) * block.width
            pixels = interleaved(stored[rows, cols]).astype("<u2", copy=False)
            self._put(at + 2 * self.kept.num_bands * done, pixels)
            if cloudy is not None:
                at += 2 * self.kept.num_bands * block.height * block.width
                self._put(at + done, np.ascontiguousarray(cloudy[rows, cols]))

    def _put(self, at: int, values: npt.NDArray[Any]) -> None:
        try:
            with self._lock:
                self._file.seek(at)
                if self._file.write(values.data.cast("B")) == values.nbytes:
                    return
        except OSError:  # the disk is full
            pass
        self.is_complete = False


def _mark_missing(
    stored: npt.NDArray[np.uint16],
    declared: npt.NDArray[np.bool_],
    fill: FillFinder,
    example: float | None,
) -> _WindowRead:
    """Set the pixels to 0 in all bands that have no data in any.

    Args:
        stored: `(bands, height, width)` stored values, changed in place.
        declared: `(height, width)` bool, where the files declare data.
        fill: Finder that has seen the values.
        example: Value that cannot be reflectance, if there is one.
    """
    missing = fill.missing
    valid = declared & ~missing
    if may_hold(stored, NODATA):
        for band in stored:
            valid &= band != NODATA
    if valid.all():
        none = np.zeros(valid.shape, bool)
        return _WindowRead(np.moveaxis(stored, 0, -1), none, none, example)
    stored *= valid
    partly_zero = fill.some_zero & ~missing & ~valid
    undeclared = declared & ~valid & ~partly_zero
    if example is None:
        example = fill.example()
    return _WindowRead(np.moveaxis(stored, 0, -1), partly_zero, undeclared, example)


def _read_mask(source: Source, mask: _Mask, window: Window) -> npt.NDArray[Any]:
    values = read_pixels(source, mask.numbers, window)[0]
    if mask.kind == "SCL" and (
        (values > _MAX_SCL).any() or (values.dtype.kind == "f" and (values % 1 != 0).any())
    ):
        raise DataError(
            f"{redact(mask.path)} holds {values.max():g} at most as a scene classification (SCL), "
            f"and values that are not classes. Expected integers from 0 to {_MAX_SCL}. It was "
            "interpolated or scaled: resample it with the nearest neighbour (gdalwarp -r near)."
        )
    return values


def _fits(coarse: Grid, grid: Grid, factor: int) -> bool:
    """Return whether each pixel of one grid is `factor` x `factor` pixels of the other."""
    if (coarse.height, coarse.width) != (-(-grid.height // factor), -(-grid.width // factor)):
        return False
    if not (coarse.crs and grid.crs and coarse.transform and grid.transform):
        return True  # nothing to compare
    a, b, c, d, e, f = grid.transform
    expected = (a * factor, b * factor, c, d * factor, e * factor, f)
    return same_grid(coarse, Grid(coarse.height, coarse.width, grid.crs, expected))


def _words(grid: Grid) -> str:
    where = f" in {grid.crs} at {grid.transform}" if grid.crs or grid.transform else ""
    return f"{grid.height} x {grid.width} pixels{where}"


def _strips(grid: Grid) -> Iterator[Window]:
    rows = max(1, _STRIP_PIXELS // grid.width // 64) * 64
    for row in range(0, grid.height, rows):
        yield Window(row, 0, min(rows, grid.height - row), grid.width)


def _samples(grid: Grid) -> Iterator[Window]:
    """Return windows spread evenly over a grid; all of it if it is small."""
    rows, cols = (_spread(length) for length in (grid.height, grid.width))
    for (row, height), (col, width) in itertools.product(rows, cols):
        yield Window(row, col, height, width)


def _spread(length: int) -> list[tuple[int, int]]:
    if length <= _SAMPLES_PER_SIDE * _SAMPLE_SIDE:
        return [(0, length)]
    free = length - _SAMPLE_SIDE
    return [
        (index * free // (_SAMPLES_PER_SIDE - 1), _SAMPLE_SIDE)
        for index in range(_SAMPLES_PER_SIDE)
    ]


def _coarse_window(window: Window, factor: int) -> tuple[Window, Window]:
    """Return a window on a grid `factor` times coarser, and the position of the former in it."""
    if factor == 1:
        return window, Window(0, 0, window.height, window.width)
    row, col = window.row // factor, window.col // factor
    stop_row = -(-(window.row + window.height) // factor)
    stop_col = -(-(window.col + window.width) // factor)
    crop = Window(window.row - row * factor, window.col - col * factor, window.height, window.width)
    return Window(row, col, stop_row - row, stop_col - col), crop


def _refine(values: npt.NDArray[Any], factor: int, crop: Window) -> npt.NDArray[Any]:
    if factor == 1:
        return values
    fine = values.repeat(factor, axis=-2).repeat(factor, axis=-1)
    return fine[..., crop.row : crop.row + crop.height, crop.col : crop.col + crop.width]
