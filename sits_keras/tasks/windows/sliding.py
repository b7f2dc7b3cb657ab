"""Features of the windows that slide over an image (sections 4.3, 4.5 and 4.6).

In exact mode windows are encoded in batches, each alone. In dense mode an encoder that is fit for
it runs over tiles of the image, and shares what windows that overlap have in common: the same
features, up to rounding, much faster. Either way an image is read block by block.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.execution import RunInOrder
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.rows import Strips
from sits_keras.data.tiling import Window, sliding_offsets
from sits_keras.errors import ConfigError
from sits_keras.tasks.windows.encoding import (
    TILE_SIDE,
    BlockValues,
    Layout,
    Reduce,
    encode_block,
    even_spans,
    halo_of,
    read_ahead,
    read_and_encode,
    read_block,
)

Encoder = Callable[[np.ndarray], Any]
"""From `(batch, 64, 64, bands)` reflectance to `(batch, num_features)`: a hub module, say.

One that has a `context_margin` (pixels before, after) also takes windows with that context.
One that has `dense_strides` can be run over whole images at their multiples (see
`sits_keras.hub.HubEncoder.dense`)."""

Mode = Literal["exact", "dense"] | None
"""How windows are encoded; `None` for dense where the encoder is fit for it at the stride."""

BATCH_SIZE = 64
"""Windows encoded at a time in exact mode: more were no faster, and out of the caches."""

_BLOCK_BYTES = 2**28  # of features that are in memory at once


class WindowRow(NamedTuple):
    """The windows of an image that begin in one of its rows.

    Attributes:
        row: that row.
        cols: `(windows,)` int, the column that each begins in.
        features: `(windows, num_features)` float32, NaN of a window without any data; or what a
            `Reduce` made of them, `(windows, ...)`, then NaN or 0.
        valid_fraction: `(windows,)` float32, share of a window's pixels that hold data.
        brightness: `(windows,)` float32, mean reflectance of those, 0 where there are none.
    """

    row: int
    cols: np.ndarray
    features: np.ndarray
    valid_fraction: np.ndarray
    brightness: np.ndarray


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """The encoder that encodes nothing: the paper's baseline of section 4.3."""
    return images.reshape(len(images), -1)


def check_size(strips: Strips) -> None:
    """Raises ConfigError where an image is smaller than a window."""
    height, width = strips.grid[:2]
    if min(height, width) < IMAGE_SIZE:
        raise ConfigError(
            f"{strips.name} is {height} x {width} px, smaller than a window of {IMAGE_SIZE} x "
            f"{IMAGE_SIZE} px. Use a larger raster."
        )


def is_dense(encoder: Encoder, stride: int, mode: Mode) -> bool:
    """Whether windows of a stride are encoded densely.

    Raises:
        ConfigError: that is asked for, and the encoder is not fit for it or not at this stride; or
            there is no such mode.
    """
    if mode not in ("exact", "dense", None):
        raise ConfigError(f"mode must be 'exact', 'dense' or None. Received: {mode!r}.")
    strides = getattr(encoder, "dense_strides", ())
    is_served = any(stride % one == 0 for one in strides)
    if mode == "dense" and not is_served:
        if strides:
            raise ConfigError(
                f"Dense mode takes strides that are multiples of {min(strides)} px. Received: "
                f"{stride}. Use one of them, or exact mode (--mode exact)."
            )
        why = getattr(
            encoder, "not_dense_reason", "it is a function of windows, and no more is known"
        )
        raise ConfigError(
            f"The encoder is not fit for dense mode: {why}. Use exact mode (--mode exact)."
        )
    return mode != "exact" and is_served


def mode_of_samples(mode: Mode) -> Mode:
    """How windows at a wider stride are encoded, which only prepare for those of a mode.

    Where dense mode is asked for, they are encoded densely if their stride allows it.
    """
    return None if mode == "dense" else mode


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
    """Features of every window of an image, a row of windows at a time.

    Neither the image nor the features are ever whole in memory. Windows begin every `stride` px,
    the last ones shifted in to reach the edges.

    Args:
        encoder: what to apply to each window.
        images: the image, or several of one size whose windows are reduced together; pixels that
            one lacks data in, the others must lack it in, too.
        stride: pixels from a window to the next.
        reduce: what to keep of each window; its features by default. Applied where they are
            encoded, to some windows with data at a time.
        mode: "exact" or "dense"; by default dense where the encoder is fit for it.
        run: what runs blocks elsewhere (`data.execution.runner_in_order`); `None` for here.
        batch_size: windows encoded at a time in exact mode.
        progress: title of a progress bar that counts windows; `None` for no bar.
    Yields:
        A row of windows, from the top.
    Raises:
        ConfigError: the image is smaller than a window; dense mode is asked for and not to be had.
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
    """Features of the windows that begin in some rows and columns.

    Pixels without data are a reflectance of 0 to the encoder; a window that holds nothing else is
    not encoded.

    Args:
        encoder, images, reduce, mode, run, batch_size, progress: see `iterate_windows`.
        rows, cols: where windows begin, both in ascending order.
        stride: pixels from most of them to the next.
    Yields:
        A row of windows, from the top.
    """
    sources = list(images) if isinstance(images, Sequence) else [images]
    layout = Layout(tuple(cols), stride, is_dense(encoder, stride, mode), batch_size)
    height = max(1, TILE_SIDE // stride)
    if reduce is None:
        # What is not known is taken to be as many numbers as there are pixels.
        most = IMAGE_SIZE**2 * len(sources[0].bands)
        size = 4 * getattr(encoder, "num_features", most) * len(cols)
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
        if run is None:
            read = (read_block(sources, block, cols, halo_of(encoder)) for block in blocks)
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
            values, share, brightness = next(done)
            for index, row in enumerate(block):
                # A copy: whoever keeps a row would else keep the block while the next is made.
                yield WindowRow(row, starts, values[index].copy(), share[index], brightness[index])
            del values


def encode_at(
    encoder: Encoder, strips: Strips, windows: Sequence[Window], batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """Features of some windows of an image, each encoded alone, `(windows, num_features)` float32.

    Args:
        encoder: what to apply to each window.
        strips: the image.
        windows: of 64 x 64 px, in any order.
        batch_size: windows encoded at a time.
    """
    crops: list[np.ndarray] = [np.empty(0)] * len(windows)
    for index in sorted(range(len(windows)), key=lambda i: windows[i]):  # strips go down
        row, col = windows[index][:2]
        (crops[index],) = read_block([strips], [row], [col], halo_of(encoder)).pixels
    batches = (crops[start : start + batch_size] for start in range(0, len(crops), batch_size))
    return np.concatenate(
        [
            np.asarray(encoder(np.stack(batch).astype(np.float32) / QUANTIFICATION), np.float32)
            for batch in batches
        ]
    )


class EqualRows(NamedTuple):
    """Rows of an image that the same windows cover.

    Attributes:
        row: the first one.
        num_rows: how many.
        edges: `(cells + 1,)` columns between which pixels are covered by the same windows.
        sums: `(cells, values)` float64, of what these windows hold; 0 where there is none.
    """

    row: int
    num_rows: int
    edges: np.ndarray
    sums: np.ndarray

    def spread(self, values: np.ndarray) -> np.ndarray:
        """What is known of each cell, for each pixel: `(cells, ...)` as `(num_rows, width, ...)`.

        The rows share their memory and are not to be written to.
        """
        line = np.repeat(values, np.diff(self.edges), axis=0)
        return np.broadcast_to(line, (self.num_rows, *line.shape))


def sum_over_windows(
    rows: Iterable[tuple[int, np.ndarray, np.ndarray]], height: int, width: int
) -> Iterator[EqualRows]:
    """Sums of what the windows that cover a pixel hold, from the top, some rows at a time.

    Between two rows that windows begin in, all pixels of a column have the same sum, and between
    two such columns all pixels of a row: no sum is worked out more than once.

    Args:
        rows: windows by the row that they begin in, in ascending order and at most 64 px apart:
            that row, `(windows,)` columns that they begin in, the same in each row,
            `(windows, values)` finite float.
        height, width: of the image.
    """
    over: deque[tuple[int, np.ndarray]] = deque()  # rows of windows that cover the row at hand
    edges = np.zeros(0, int)
    top = 0
    for row, cols, values in rows:
        if over:
            yield from _down_to(row, top, edges, over)
        else:
            edges = np.unique(np.concatenate([[0], cols, cols + IMAGE_SIZE, [width]]))
        over.append((row, _sum_by_cell(edges, cols, values)))
        top = row
    if over:
        yield from _down_to(height, top, edges, over)


def check_stride(stride: int) -> None:
    """Raises ConfigError where a stride is below 1 or leaves pixels that no window covers."""
    if not 1 <= stride <= IMAGE_SIZE:
        raise ConfigError(
            f"The stride must be 1 to {IMAGE_SIZE} px, so that windows cover every pixel. "
            f"Received: {stride}."
        )


def _down_to(
    row: int, top: int, edges: np.ndarray, over: deque[tuple[int, np.ndarray]]
) -> Iterator[EqualRows]:
    """The rows from `top` to `row`, between which windows may end and none begins."""
    while top < row:
        while over[0][0] + IMAGE_SIZE <= top:
            over.popleft()
        stop = min(row, over[0][0] + IMAGE_SIZE)
        yield EqualRows(
            top, stop - top, edges, functools.reduce(np.add, [line for _, line in over])
        )
        top = stop


def _sum_by_cell(edges: np.ndarray, cols: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums of the windows of one row over each cell, added from left to right."""
    # Not as differences of running sums: what is the same must leave nothing behind.
    first = np.searchsorted(cols, edges[:-1] - IMAGE_SIZE, side="right")
    stop = np.searchsorted(cols, edges[:-1], side="right")
    sums = np.zeros((len(first), values.shape[1]))
    for step in range(int((stop - first).max())):
        covered = first + step < stop
        sums[covered] += values[(first + step)[covered]]
    return sums
