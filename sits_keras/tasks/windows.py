"""Encode the windows that slide over an image (sections 4.3, 4.5 and 4.6).

Exact mode encodes windows in batches, each alone. Dense mode runs an encoder that supports it over
tiles of the image, so that overlapping windows share computation: the same features up to rounding,
much faster. In both modes an image is read block by block.

The features of a window of a series are averaged over the dates, one date after the other. The
weight of a date is the clear fraction of the pixels that the window sees, to the fourth power.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from sits_keras.config import CELL_SIZE, GRID_SIZE, IMAGE_SIZE
from sits_keras.data.execution import RunInOrder, read_ahead
from sits_keras.data.radiometry import NODATA, QUANTIFICATION, aligned_empty
from sits_keras.data.rasters.rows import Strips
from sits_keras.data.tiling import Window, reflect, sliding_offsets, split_evenly
from sits_keras.errors import ConfigError
from sits_keras.receptive_field import cell_distance
from sits_keras.tasks.series import ClearMean, SeriesImage, SeriesStrips

Encoder = Callable[[npt.NDArray[Any]], Any]
"""From `(batch, 64, 64, bands)` reflectance to `(batch, num_features)`, such as a hub module.

An encoder with an attribute `context_margin` (pixels before, after) also takes windows with that
context. An encoder with `dense_strides` can be run over whole images at multiples of these (see
`sits_keras.hub.HubEncoder.dense`)."""

Mode = Literal["exact", "dense"] | None
"""Mode of encoding windows; None is dense if the encoder supports it at the stride."""

Reduce = Callable[..., npt.NDArray[Any]]
"""From `(windows, num_features)` of each image to the values to keep, `(windows, ...)`."""

BATCH_SIZE = 64
"""Windows encoded at a time in exact mode. More were not faster, for they exceed the caches."""

TILE_SIDE = 1024
"""Side of the square in which the windows of one tile begin, in pixels, in dense mode.

The context of tiles is computed twice: 64 % more pixels at 512 px, 30 % at 1,024."""

_BLOCK_BYTES = 2**28  # limit of the features of a block or tile in memory

_EXACT_ROWS = 512  # pixel rows in which the windows of a block begin, in exact mode

# Windows along a side of a tile whose features are averaged at once, by whether mode is dense.
_AVERAGED = {True: 128, False: 64}


class WindowRow(NamedTuple):
    """Windows of an image that begin in one of its rows.

    The arrays may be views of a block of rows: copy what is to be kept without it.

    Attributes:
        row: First row of the windows.
        cols: `(windows,)` int, first column of each window.
        features: `(windows, num_features)` float32, NaN for a window without data; or the output of
            a `Reduce`, `(windows, ...)`, then NaN or 0.
        valid_fraction: `(windows,)` float32, fraction of a window's pixels with data.
        brightness: `(windows,)` float32, mean reflectance of those, 0 where there are none.
    """

    row: int
    cols: npt.NDArray[np.integer[Any]]
    features: npt.NDArray[Any]
    valid_fraction: npt.NDArray[np.float32]
    brightness: npt.NDArray[np.float32]


class WindowLayout(NamedTuple):
    """Columns that windows begin in, and how they are encoded.

    Attributes:
        cols: First columns of the windows.
        stride: Distance between windows, in pixels.
        is_dense: Whether tiles are encoded as a whole.
        batch_size: Windows encoded at a time if not.
    """

    cols: tuple[int, ...]
    stride: int
    is_dense: bool
    batch_size: int


class WindowBlock(NamedTuple):
    """Pixels of the windows that begin in some rows of one or several images.

    Attributes:
        rows: `(rows,)` int, first pixel row of each window in `pixels`, context included.
        cols: `(cols,)` int, first pixel column of each window in `pixels`, context included.
        pixels: `(height, width, bands)` uint16 stored values of each image.
        num_valid: `(rows, cols)` int, pixels with data of each window in the first image.
        brightness: `(rows, cols)` float32, their mean reflectance, 0 where there are none.
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    pixels: list[npt.NDArray[np.uint16]]
    num_valid: npt.NDArray[np.int64]
    brightness: npt.NDArray[np.float32]


class GridRows:
    """Flattened grids of the windows of a block, gathered a row at a time.

    Up to 16 windows share a cell. So the grids of a whole block take up to 16 times the memory of
    the cells, and writing them takes as long as computing them.

    Args:
        is_empty: `(rows, cols)` bool, windows without data.
        stride: Distance between windows, in pixels.
    """

    def __init__(self, is_empty: npt.NDArray[np.bool_], stride: int):
        self._is_empty = is_empty
        distance = cell_distance(stride)
        self._step, self._spacing = stride // distance, CELL_SIZE // distance
        self._tiles: list[tuple[slice, slice, npt.NDArray[np.float32]]] = []
        self._grids: list[npt.NDArray[np.float32]] = []

    def add(self, rows: slice, cols: slice, cells: npt.NDArray[np.float32]) -> None:
        """Add the cells of a tile.

        Args:
            rows: Rows of the windows of the tile in the block.
            cols: Columns of these windows.
            cells: `(height, width, channels)`, from the first window on, see `HubEncoder.cells`.
        """
        self._tiles.append((rows, cols, cells))

    def gather(self, row: int) -> npt.NDArray[np.float32]:
        """Return the grids of a row of windows, `(cols, num_flattened)`.

        Those of windows in tiles without data are 0.
        """
        for _, _, cells in self._tiles[len(self._grids) :]:
            self._grids.append(self._grids_of(cells))
        grids = np.empty((self._is_empty.shape[1], *self._grids[0].shape[2:]), np.float32)
        grids[self._is_empty[row]] = 0  # their tile may have no cells
        for (rows, cols, _), tile in zip(self._tiles, self._grids, strict=True):
            if rows.start <= row < rows.stop:
                grids[cols] = tile[row - rows.start, : cols.stop - cols.start]
        return grids.reshape(len(grids), -1)

    def _grids_of(self, cells: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the grids of a tile as a view of its cells, `(rows, cols, 4, 4, channels)`."""
        span = self._spacing * (GRID_SIZE - 1) + 1
        windows = np.lib.stride_tricks.sliding_window_view(cells, (span, span), axis=(0, 1))
        grids = windows[:: self._step, :: self._step, :, :: self._spacing, :: self._spacing]
        return grids.transpose(0, 1, 3, 4, 2)

    def __getstate__(self) -> dict[str, Any]:
        # Another process would get a copy of the views, 16 times as large as the cells.
        return {**self.__dict__, "_grids": []}

    def __getitem__(self, row: int) -> npt.NDArray[np.float32]:
        """Return what `gather` does, with NaN for windows without data."""
        grids = self.gather(row)
        grids[self._is_empty[row]] = np.nan
        return grids


BlockValues = tuple[npt.NDArray[Any] | GridRows, npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Values, valid-data fraction and brightness of a block's windows, each `(rows, cols, ...)`."""

# Index into (rows, cols), and the features of each image.
_Encoded = Iterator[tuple[Any, list[npt.NDArray[np.float32]]]]


def iterate_windows(
    encoder: Encoder,
    images: Strips | Sequence[Strips],
    stride: int,
    *,
    reduce: Reduce | None = None,
    mode: Mode = None,
    run: RunInOrder | None = None,
    batch_size: int = BATCH_SIZE,
    progress: str | None = None,
) -> Iterator[WindowRow]:
    """Encode every window of an image, a row of windows at a time, in bounded memory.

    Windows begin every `stride` px; the last ones are shifted in to end at the edges.

    Args:
        encoder: Encoder to apply to each window.
        images: The image, or several of one size whose windows are reduced together. A pixel
            without data in one must be without data in all. The features of a series
            (`SeriesStrips`) are averaged over its dates before they are reduced.
        stride: Distance between windows, in pixels.
        reduce: Function of the features to keep for each window, by default the features. It is
            applied where windows are encoded, to some windows with data at a time.
        mode: "exact" or "dense". By default dense where the encoder supports it at this stride.
        run: Ordered remote runner (`data.execution.runner_in_order`), or None to run locally.
        batch_size: Windows encoded at a time in exact mode.
        progress: Title of a progress bar that counts windows, or None for no bar.

    Yields:
        Rows of windows, from the top.

    Raises:
        ConfigError: If the image is smaller than a window, or the encoder does not support dense
            mode although it is required.
    """
    first = images[0] if isinstance(images, Sequence) else images
    check_size(first)
    rows, cols = (sliding_offsets(length, IMAGE_SIZE, stride) for length in first.grid[:2])
    yield from iterate_offsets(
        encoder,
        images,
        rows,
        cols,
        stride,
        reduce=reduce,
        mode=mode,
        run=run,
        batch_size=batch_size,
        progress=progress,
    )


def iterate_offsets(
    encoder: Encoder,
    images: Strips | Sequence[Strips],
    rows: Sequence[int],
    cols: Sequence[int],
    stride: int,
    *,
    reduce: Reduce | None = None,
    mode: Mode = None,
    run: RunInOrder | None = None,
    batch_size: int = BATCH_SIZE,
    progress: str | None = None,
) -> Iterator[WindowRow]:
    """Encode the windows that begin in some rows and columns.

    Pixels without data have reflectance 0 for the encoder. A window without any data is not
    encoded.

    Args:
        encoder: See `iterate_windows`.
        images: See `iterate_windows`.
        rows: First rows of the windows, ascending.
        cols: First columns of the windows, ascending.
        stride: Usual distance between windows, in pixels.
        reduce: See `iterate_windows`.
        mode: See `iterate_windows`.
        run: See `iterate_windows`.
        batch_size: See `iterate_windows`.
        progress: See `iterate_windows`.

    Yields:
        Rows of windows, from the top.
    """
    sources = list(images) if isinstance(images, Sequence) else [images]
    layout = WindowLayout(tuple(cols), stride, is_dense(encoder, stride, mode), batch_size)
    side = TILE_SIDE if layout.is_dense else min(TILE_SIDE, _EXACT_ROWS)
    height = max(1, side // stride)
    series = _series_of(sources)
    if series is not None:
        height = min(height, _most_averaged(layout))
    if reduce is None and not (layout.is_dense and has_cells(encoder)):
        # Assume as many features as pixels where the number is not known.
        most = IMAGE_SIZE**2 * len(sources[0].bands)
        size = 4 * getattr(encoder, "num_flattened", most) * len(cols)
        height = max(1, min(height, _BLOCK_BYTES // size))
    spans = even_spans(rows, stride if layout.is_dense else None, height)
    blocks = [tuple(rows[start:stop]) for start, stop in spans]
    starts = np.array(cols)
    with tqdm(
        total=len(rows) * len(cols),
        desc=progress,
        unit="window",
        disable=progress is None,
        mininterval=1.0,
    ) as bar:
        done: Iterator[BlockValues]
        if run is None and series is not None:
            done = (
                average_block(encoder, layout, reduce, series, block, bar.update)
                for block in blocks
            )
        elif run is None:
            read = (read_block(sources, block, cols, margin_of(encoder)) for block in blocks)
            done = (
                encode_block(encoder, layout, reduce, block, bar.update)
                for block in read_ahead(read)
            )
        else:
            common = (encoder, layout, reduce, sources)
            work = [(block,) for block in blocks]
            weights = [len(block) * len(cols) for block in blocks]
            done = run(read_and_encode, common, work, bar, weights)
        for block in blocks:
            values, valid, brightness = next(done)
            for index, row in enumerate(block):
                yield WindowRow(row, starts, values[index], valid[index], brightness[index])
            del values


def encode_at(
    encoder: Encoder, strips: Strips, windows: Sequence[Window], batch_size: int = BATCH_SIZE
) -> npt.NDArray[np.float32]:
    """Encode some windows of an image, each alone.

    Args:
        encoder: Encoder to apply to each window.
        strips: The image. The features of a series are averaged over its dates.
        windows: Windows of 64 x 64 px, in any order.
        batch_size: Windows encoded at a time.

    Returns:
        `(windows, num_features)` float32.
    """
    encode = window_function(encoder)
    if isinstance(strips, SeriesStrips):
        return _average_at(encoder, strips.series, windows, batch_size)
    crops: list[npt.NDArray[np.uint16]] = [np.empty(0, np.uint16)] * len(windows)
    # Strips are read from top to bottom.
    for index in sorted(range(len(windows)), key=lambda i: windows[i]):
        row, col = windows[index][:2]
        (crops[index],) = read_block([strips], [row], [col], margin_of(encoder)).pixels
    batches = (crops[start : start + batch_size] for start in range(0, len(crops), batch_size))
    return np.concatenate(
        [
            np.asarray(encode(np.stack(batch).astype(np.float32) / QUANTIFICATION), np.float32)
            for batch in batches
        ]
    )


def raw_pixels(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the pixels themselves: the raw-pixel baseline of section 4.3.

    Args:
        images: `(batch, 64, 64, bands)` reflectance.

    Returns:
        `(batch, 64 * 64 * bands)`.
    """
    return images.reshape(len(images), -1)


def normalised_pixels(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return pixels less their mean over the window, divided by their deviation, by band.

    Args:
        images: `(batch, 64, 64, bands)` reflectance.

    Returns:
        `(batch, 64 * 64 * bands)`. A band without contrast is 0.
    """
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    return raw_pixels(centred / (centred.std(axis=(1, 2), keepdims=True) + 1e-6))


def check_size(strips: Strips) -> None:
    """Check that an image is at least as large as a window.

    Args:
        strips: Image to check.

    Raises:
        ConfigError: If the image is smaller.
    """
    height, width = strips.grid[:2]
    if min(height, width) < IMAGE_SIZE:
        raise ConfigError(
            f"{strips.name} is {height} x {width} px, smaller than a window of {IMAGE_SIZE} x "
            f"{IMAGE_SIZE} px. Use a larger raster."
        )


def is_dense(encoder: Encoder, stride: int, mode: Mode) -> bool:
    """Return whether windows are encoded densely.

    Args:
        encoder: Encoder to apply.
        stride: Distance between windows, in pixels.
        mode: "exact", "dense", or None for dense where the encoder supports it at this stride.

    Raises:
        ConfigError: If dense mode is required and the encoder does not support it, or not at this
            stride, or if there is no such mode.
    """
    if mode not in ("exact", "dense", None):
        raise ConfigError(f"mode must be 'exact', 'dense' or None. Received: {mode!r}.")
    strides = getattr(encoder, "dense_strides", ())
    is_served = any(stride % one == 0 for one in strides)
    if mode == "dense" and not is_served:
        if strides:
            raise ConfigError(
                f"Dense mode requires a stride that is a multiple of {min(strides)} px. Received: "
                f"{stride}. Change the stride, or use exact mode (--mode exact)."
            )
        why = getattr(encoder, "not_dense_reason", "it is a plain function of windows")
        raise ConfigError(
            f"The encoder does not support dense mode: {why}. Use exact mode (--mode exact)."
        )
    return mode != "exact" and is_served


def mode_of_samples(mode: Mode) -> Mode:
    """Return the mode for a sample of windows at a wider stride.

    If dense mode is required, the sample is encoded densely only where its stride allows it.

    Args:
        mode: Mode of all windows.
    """
    return None if mode == "dense" else mode


def window_function(encoder: Any) -> Any:
    """Return the function of an encoder that maps are made of.

    It is the flattened grid, which `dense` also returns. An encoder without one is itself a
    function.
    """
    return getattr(encoder, "flattened", encoder)


def margin_of(encoder: Any) -> tuple[int, int]:
    """Return the pixels of context before and after a window that an encoder sees.

    Args:
        encoder: Encoder, with or without an attribute `context_margin`.
    """
    return getattr(encoder, "context_margin", (0, 0))


def has_cells(encoder: Any) -> bool:
    """Return whether an encoder has the function `cells` of `HubEncoder`."""
    return getattr(encoder, "has_cells", False)


def read_and_encode(
    encoder: Any,
    layout: WindowLayout,
    reduce: Reduce | None,
    images: Sequence[Strips],
    rows: Sequence[int],
) -> BlockValues:
    """Read and encode one block of windows; this runs in a worker.

    Args:
        encoder: Encoder to apply.
        layout: Columns of the windows, and how they are encoded.
        reduce: See `encode_block`.
        images: Images to read.
        rows: First rows of the windows.

    Returns:
        See `encode_block`.
    """
    if (series := _series_of(images)) is not None:
        return average_block(encoder, layout, reduce, series, rows)
    block = read_block(images, rows, layout.cols, margin_of(encoder))
    return encode_block(encoder, layout, reduce, block)


def read_block(
    images: Sequence[Strips],
    rows: Sequence[int],
    cols: Sequence[int],
    context_margin: tuple[int, int],
) -> WindowBlock:
    """Read the windows that begin in some rows, with their context.

    Args:
        images: Images of the same size.
        rows: First rows of the windows, ascending.
        cols: First columns of the windows, ascending.
        context_margin: Pixels of context before and after each window, reflected beyond the
            image's edges.

    Returns:
        The block.
    """
    before, after = context_margin
    top, bottom = rows[0] - before, rows[-1] + IMAGE_SIZE + after
    left, right = cols[0] - before, cols[-1] + IMAGE_SIZE + after
    height, width = images[0].grid[:2]
    shown = reflect(np.arange(top, bottom), height)
    first = shown.min()
    beyond = (
        (max(0, -top), max(0, bottom - height)),
        (max(0, -left), max(0, right - width)),
        (0, 0),
    )
    pixels = []
    for image in images:
        stored = image.read(int(first), int(shown.max() + 1 - first))
        if np.any(beyond):
            stored = np.pad(stored, beyond, mode="reflect")
        stored = stored[max(0, top - first) :, max(0, left) :]
        pixels.append(stored[: bottom - top, : right - left])
    rows_here, cols_here = np.array(rows) - rows[0], np.array(cols) - cols[0]
    inside = pixels[0][before : bottom - top - after, before : right - left - after]
    has_data = inside[..., 0] != NODATA
    num_valid = np.full((len(rows), len(cols)), IMAGE_SIZE**2)
    if not has_data.all():
        num_valid = _window_sums(has_data, rows_here, cols_here)
    sums = _window_sums(inside, rows_here, cols_here)
    brightness = sums / (np.maximum(num_valid, 1) * (inside.shape[2] * QUANTIFICATION))
    return WindowBlock(rows_here, cols_here, pixels, num_valid, brightness.astype(np.float32))


def encode_block(
    encoder: Any,
    layout: WindowLayout,
    reduce: Reduce | None,
    block: WindowBlock,
    on_windows: Callable[[int], Any] = lambda count: None,
) -> BlockValues:
    """Encode a block of windows.

    Args:
        encoder: Encoder to apply.
        layout: Columns of the windows, and how they are encoded.
        reduce: Function of the features to keep for each window, or None for the features.
        block: Pixels of the windows.
        on_windows: Called with the number of windows done.

    Returns:
        Values, `(rows, cols, ...)`, NaN or 0 for a window without data; valid-data fraction and
        brightness, each `(rows, cols)` float32.
    """
    reduced = reduce or _identity
    empty = block.num_valid == 0
    valid_fraction = (block.num_valid / IMAGE_SIZE**2).astype(np.float32)
    values: npt.NDArray[Any] | None = None
    if layout.is_dense and has_cells(encoder) and not empty.all():
        grids = _encode_cells(encoder, layout, block)
        if reduce is None:
            on_windows(empty.size)
            return grids[0], valid_fraction, block.brightness
        found = []
        for row in range(len(empty)):
            found.append(reduce(*(one.gather(row) for one in grids)))
            on_windows(len(found[-1]))
        return _fill_empty(np.stack(found), empty), valid_fraction, block.brightness
    num_left = block.num_valid.size
    for where, features in _encode(encoder, layout, block):
        new = reduced(*(one.reshape(-1, one.shape[-1]) for one in features))
        shape = *block.num_valid.shape, *new.shape[1:]
        if len(new) == block.num_valid.size:
            values = new.reshape(shape)  # a tile that is the whole block: no copy
        else:
            if values is None:
                values = np.zeros(shape, new.dtype)
            values[where] = new.reshape(*features[0].shape[:-1], *new.shape[1:])
        on_windows(features[0][..., 0].size)
        num_left -= features[0][..., 0].size
    if values is None:
        features = [_encode_blank(encoder, block.pixels[0].shape[2])] * len(block.pixels)
        new = reduced(*features)
        values = np.zeros((*block.num_valid.shape, *new.shape[1:]), new.dtype)
    on_windows(num_left)
    return _fill_empty(values, empty), valid_fraction, block.brightness


def average_block(
    encoder: Any,
    layout: WindowLayout,
    reduce: Reduce | None,
    series: SeriesImage,
    rows: Sequence[int],
    on_windows: Callable[[int], Any] = lambda count: None,
) -> BlockValues:
    """Encode a block of windows of a series, and average their features over the dates.

    Args:
        encoder: See `encode_block`.
        layout: See `encode_block`.
        reduce: Function of the averages to keep for each window, or None for the averages.
        series: The series.
        rows: First rows of the windows.
        on_windows: See `encode_block`.

    Returns:
        See `encode_block`. A pixel is valid if it is clear on at least one date; the brightness is
        the mean over the clear pixels of all dates.
    """
    reduced = reduce or _identity
    spacing, most = layout.stride if layout.is_dense else None, _most_averaged(layout)
    tiles = [
        (slice(*down), slice(*along))
        for down in even_spans(rows, spacing, most)
        for along in even_spans(layout.cols, spacing, most)
    ]
    dates = range(len(series.acquisitions))
    parts = read_ahead(
        _read_dated(series, index, rows[tile[0]], layout.cols[tile[1]], margin_of(encoder))
        for tile in tiles
        for index in dates
    )
    num_seen = (IMAGE_SIZE + sum(margin_of(encoder))) ** 2
    shape = len(rows), len(layout.cols)
    values: npt.NDArray[Any] | None = None
    valid_fraction, brightness = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for tile in tiles:
        tile_shape = valid_fraction[tile].shape
        mean = ClearMean(tile_shape)
        num_dates: Any = 0
        total: Any = 0
        for _ in dates:
            block, clear, light = next(parts)
            for where, (features,) in _encode(encoder, layout, block):
                mean.add(features, block.num_valid[where] / num_seen, where)
            num_dates, total = num_dates + clear, total + light
        starts = block.rows, block.cols
        num_valid = _window_sums(num_dates > 0, *starts)
        sums, counts = _window_sums(total, *starts), _window_sums(num_dates, *starts)
        valid_fraction[tile] = num_valid / IMAGE_SIZE**2
        brightness[tile] = sums / (np.maximum(counts, 1) * (len(series.bands) * QUANTIFICATION))
        if mean.values is not None:
            new = reduced(mean.values.reshape(-1, mean.values.shape[-1]))
            if values is None:
                values = np.zeros((*shape, *new.shape[1:]), new.dtype)
            values[tile] = new.reshape(*tile_shape, *new.shape[1:])
        on_windows(num_valid.size)
    if values is None:
        new = reduced(_encode_blank(encoder, len(series.bands)))
        values = np.zeros((*shape, *new.shape[1:]), new.dtype)
    return _fill_empty(values, valid_fraction == 0), valid_fraction, brightness


def even_spans(
    offsets: Sequence[int] | npt.NDArray[np.int64], stride: int | None, most: int
) -> list[tuple[int, int]]:
    """Split ascending offsets where their spacing differs from the stride, and into limited parts.

    Args:
        offsets: Ascending offsets, at least one.
        stride: Required spacing within a part, or None for any.
        most: Maximum number of offsets of a part, at least 1.

    Returns:
        Index of the first offset of each part, and of the one after its last.
    """
    leaps = [
        index
        for index, (one, other) in enumerate(itertools.pairwise(offsets), start=1)
        if stride is not None and other - one != stride
    ]
    return [
        (start + first, start + first + length)
        for start, stop in itertools.pairwise([0, *leaps, len(offsets)])
        for first, length in split_evenly(stop - start, most)
    ]


def _encode(encoder: Any, layout: WindowLayout, block: WindowBlock) -> _Encoded:
    parts = _encode_tiles if layout.is_dense else _encode_batches
    return parts(encoder, layout, block)


def _encode_batches(encoder: Any, layout: WindowLayout, block: WindowBlock) -> _Encoded:
    """Yield features of windows with data, each encoded alone: `(batch, num_features)`."""
    encode = window_function(encoder)
    filled = np.argwhere(block.num_valid)
    starts = range(0, len(filled), layout.batch_size)
    indices = [filled[first : first + layout.batch_size] for first in starts]
    batches = read_ahead(_copy_windows(block, indices, IMAGE_SIZE + sum(margin_of(encoder))))
    for where, images in zip(indices, batches, strict=True):
        # Copy: an encoder may return a view of the batch, whose memory is reused.
        yield tuple(where.T), [np.array(encode(batch), np.float32) for batch in images]


def _copy_windows(
    block: WindowBlock, indices: Sequence[npt.NDArray[np.int64]], side: int
) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Yield the reflectance of windows, a batch of each image for each item of `indices`.

    A batch is overwritten two items later.
    """
    if not indices:
        return
    shape = (len(block.pixels), len(indices[0]), side, side, block.pixels[0].shape[2])
    buffers = [aligned_empty(shape), aligned_empty(shape)]
    # Divide each pixel once, not in each window that holds it.
    reflectance = [np.divide(pixels, np.float32(QUANTIFICATION)) for pixels in block.pixels]
    for buffer, where in zip(itertools.cycle(buffers), indices, strict=False):
        rows, cols = block.rows[where[:, 0]], block.cols[where[:, 1]]
        for batch, pixels in zip(buffer, reflectance, strict=True):
            for target, row, col in zip(batch, rows, cols, strict=False):
                target[...] = pixels[row : row + side, col : col + side]
        yield list(buffer[:, : len(where)])


def _encode_tiles(encoder: Any, layout: WindowLayout, block: WindowBlock) -> _Encoded:
    """Yield features of tiles with data, each encoded as a whole: `(rows, cols, num_features)`."""
    most = TILE_SIDE // layout.stride
    if (num_features := getattr(encoder, "num_flattened", 0)) > 0:
        most = min(most, math.isqrt(_BLOCK_BYTES // (4 * num_features)))
    for where, images in _tiles(encoder, layout, block, max(1, most)):
        yield where, [np.asarray(encoder.dense(one, layout.stride))[0] for one in images]


def _encode_cells(encoder: Any, layout: WindowLayout, block: WindowBlock) -> list[GridRows]:
    """Return the grids of the windows of each image."""
    grids = [GridRows(block.num_valid == 0, layout.stride) for _ in block.pixels]
    for where, images in _tiles(encoder, layout, block, max(1, TILE_SIDE // layout.stride)):
        for rows, image in zip(grids, images, strict=True):
            rows.add(*where, np.asarray(encoder.cells(image, layout.stride))[0])
    return grids


def _tiles(
    encoder: Any, layout: WindowLayout, block: WindowBlock, most: int
) -> Iterator[tuple[tuple[slice, slice], list[npt.NDArray[np.float32]]]]:
    """Yield tiles of windows with data: where they are, and the reflectance of each image.

    Args:
        encoder: Encoder that the tiles are for.
        layout: Stride of the windows.
        block: The windows.
        most: Maximum number of windows along a side of a tile.
    """
    side = IMAGE_SIZE + sum(margin_of(encoder))
    for row, last_row in even_spans(block.rows, layout.stride, most):
        for col, last_col in even_spans(block.cols, layout.stride, most):
            where = slice(row, last_row), slice(col, last_col)
            if not block.num_valid[where].any():
                continue
            down = slice(block.rows[row], block.rows[last_row - 1] + side)
            along = slice(block.cols[col], block.cols[last_col - 1] + side)
            images = []
            for pixels in block.pixels:
                stored = pixels[None, down, along]
                images.append(aligned_empty(stored.shape))
                np.divide(stored, np.float32(QUANTIFICATION), out=images[-1])
            yield where, images


def _fill_empty(values: npt.NDArray[Any], is_empty: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return values with NaN for windows without data, or 0 where they are not floats."""
    if is_empty.any():
        values = np.require(values, requirements="W")  # a copy of an encoder's own memory
        values[is_empty] = np.nan if values.dtype.kind == "f" else 0
    return values


def _encode_blank(encoder: Any, num_bands: int) -> npt.NDArray[np.float32]:
    """Return the features of a window without data, `(1, num_features)`."""
    side = IMAGE_SIZE + sum(margin_of(encoder))
    blank = np.zeros((1, side, side, num_bands), np.float32)
    return np.asarray(window_function(encoder)(blank), np.float32)


def _identity(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return features


def _series_of(images: Sequence[Strips]) -> SeriesImage | None:
    """Return the series whose features are averaged, None for other images."""
    (first, *others) = images
    return first.series if isinstance(first, SeriesStrips) and not others else None


def _most_averaged(layout: WindowLayout) -> int:
    """Return the windows along a side of the tiles of a series."""
    side = TILE_SIDE if layout.is_dense else _EXACT_ROWS
    return max(1, min(side // layout.stride, _AVERAGED[layout.is_dense]))


def _average_at(
    encoder: Encoder, series: SeriesImage, windows: Sequence[Window], batch_size: int
) -> npt.NDArray[np.float32]:
    encode, margin = window_function(encoder), margin_of(encoder)
    num_seen = (IMAGE_SIZE + sum(margin)) ** 2
    mean = ClearMean((len(windows),))
    for index in range(len(series.acquisitions)):
        for start in range(0, len(windows), batch_size):
            read = [
                _read_dated(series, index, [one.row], [one.col], margin)[0]
                for one in windows[start : start + batch_size]
            ]
            clear = np.array([block.num_valid.item() for block in read]) / num_seen
            if clear.any():
                batch = np.stack([block.pixels[0] for block in read]).astype(np.float32)
                features = np.asarray(encode(batch / QUANTIFICATION), np.float32)
                mean.add(features, clear, slice(start, start + len(read)))
    if mean.values is None:
        return np.repeat(_encode_blank(encoder, len(series.bands)), len(windows), axis=0)
    return mean.values


def _read_dated(
    series: SeriesImage,
    index: int,
    rows: Sequence[int],
    cols: Sequence[int],
    context_margin: tuple[int, int],
) -> tuple[WindowBlock, npt.NDArray[np.bool_], npt.NDArray[np.uint32]]:
    """Read windows of a series at one date, with their context.

    Args:
        series: The series.
        index: Index of the acquisition.
        rows: First rows of the windows, ascending.
        cols: First columns of the windows, ascending.
        context_margin: See `read_block`.

    Returns:
        The block, whose `num_valid` are the clear pixels of each window with its context, without
        brightness; which of the pixels of the windows are clear; and the sum of the bands of
        these, 0 for the others.
    """
    (before, after), margin = context_margin, max(context_margin)
    height, width = (one[-1] - one[0] + IMAGE_SIZE for one in (rows, cols))
    stored, clear = series.read(index, Window(rows[0], cols[0], height, width), margin)
    seen = tuple(slice(margin - before, margin + side + after) for side in (height, width))
    inside = np.s_[margin : margin + height, margin : margin + width]
    rows_here, cols_here = np.array(rows) - rows[0], np.array(cols) - cols[0]
    num_clear = _window_sums(clear[seen], rows_here, cols_here, IMAGE_SIZE + before + after)
    light = stored[inside].sum(axis=-1, dtype=np.uint32) * clear[inside]
    brightness = np.zeros(num_clear.shape, np.float32)
    block = WindowBlock(rows_here, cols_here, [stored[seen]], num_clear, brightness)
    return block, clear[inside], light


def _window_sums(
    values: npt.NDArray[Any],
    rows: npt.NDArray[np.int64],
    cols: npt.NDArray[np.int64],
    side: int = IMAGE_SIZE,
) -> npt.NDArray[np.int64]:
    """Return sums over the windows that begin in some rows and columns, `(rows, cols)` int64.

    Args:
        values: `(height, width)` or `(height, width, bands)` bool or unsigned; bands are added up.
            The first window begins at its first pixel, the last window ends at its last.
        rows: First rows, ascending.
        cols: First columns, ascending.
        side: Side of a window.
    """
    for axis, starts in enumerate((rows, cols)):
        edges = np.unique(np.concatenate([starts, starts + side]))
        if axis == 0:  # three times as fast as `reduceat` for all
            dtype = np.uint32 if values.itemsize <= 2 else np.int64
            lines = [values[a:b].sum(axis=0, dtype=dtype) for a, b in itertools.pairwise(edges)]
            cells = np.stack(lines).astype(np.int64)
            cells = cells if cells.ndim == 2 else cells.sum(axis=2)
        else:
            cells = np.add.reduceat(values, edges[:-1], axis=axis)
        running = np.insert(cells.cumsum(axis=axis), 0, 0, axis=axis)
        ends, begins = (np.searchsorted(edges, starts + size) for size in (side, 0))
        values = running.take(ends, axis=axis) - running.take(begins, axis=axis)
    return values
