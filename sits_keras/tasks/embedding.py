"""The features of a raster's windows themselves, as a raster or as a table of outlines."""

import functools
import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.execution import runner_in_order
from sits_keras.data.rasters.geoparquet import import_pyarrow, open_table
from sits_keras.data.rasters.rows import Strips, open_strips
from sits_keras.data.rasters.write import open_map, scaled_grid
from sits_keras.data.tiling import Window, sliding_offsets
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import refuse_existing
from sits_keras.tasks.windows.sliding import (
    Encoder,
    Mode,
    WindowRow,
    check_size,
    is_dense,
    iterate_offsets,
    mode_of_samples,
)

INT8_NODATA = -128

_LARGEST = 127  # of int8, so that the range is symmetric and -128 is left for no data
_MOST_SAMPLED = 2048  # windows that the scales are found on


class Embedding(NamedTuple):
    """What was written.

    Attributes:
        num_windows: windows with data.
        num_features: length of each vector.
        scales: `(num_features,)`, what to multiply int8 by; `None` for float32.
        clipped_share: share of the values that int8 did not reach.
    """

    num_windows: int
    num_features: int
    scales: np.ndarray | None
    clipped_share: float


def centred_offsets(length: int, stride: int) -> list[int]:
    """Where windows begin that are centred on the pixels of a map, one for each `stride` px.

    Pixel i of the map covers `i * stride` to `(i + 1) * stride`; its window has the same centre (to
    half a pixel where the stride is odd), and is shifted in where it would reach over an end. So
    the map covers the whole line, and pixels near its ends may share a window.

    Args:
        length: of the line, at least a window's side.
        stride: at least 1.
    """
    centres = (index * stride + stride // 2 for index in range(-(-length // stride)))
    return [min(max(c - IMAGE_SIZE // 2, 0), length - IMAGE_SIZE) for c in centres]


def embed(
    image: Path | str,
    out: Path | str,
    encoder: Encoder,
    *,
    stride: int = 32,
    dtype: Literal["float32", "int8"] = "float32",
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Embedding:
    """Writes the features of an image's windows, in bounded memory.

    As `.tif`, a cloud-optimised GeoTIFF with a band for each feature and a pixel for each
    `stride` x `stride` pixels of the image, on whose corner it begins. A pixel holds the window
    that is centred on it, or, where that would reach over an edge, the nearest that does not (see
    `centred_offsets`). Pixels whose window has no data at all are nodata: NaN, or -128.

    As `.parquet`, GeoParquet with a row for each window of the stride's grid, the last ones shifted
    in, but for those without any data: `row`, `col`, `valid_fraction`, `features`, and `geometry`,
    its outline in longitude and latitude, or in pixels (CRS null) where the raster has none.

    int8 is `round(feature / scale)`, with a scale for each feature such that the largest value of
    up to 2,048 windows, spread evenly, is 127; what is beyond is clipped. The scales are the bands'
    in GeoTIFF, and in the metadata of `features` in GeoParquet.

    Args:
        image: a raster's path.
        out: path of what is written, `.tif` or `.parquet`.
        encoder: what to apply to each window.
        stride: pixels from a window to the next.
        dtype: of the values.
        mode: how windows are encoded, "exact" or "dense"; by default dense where the encoder is fit
            for it.
        workers: processes that encode windows; the encoder must be one that can be pickled.
        scheduler: address of a Dask scheduler whose workers encode them, in their place.
        overwrite: replace a file that is there.
        progress: show a progress bar.
    Raises:
        ExistsError: `out` is there, and not to be replaced, or is `image`.
        OutputError: `out` cannot be written.
        MissingError, DataError: the raster is not there, cannot be read, lacks a band or holds no
            data.
        ConfigError: `out` has another suffix; the raster is smaller than a window; the stride is
            below 1; pyarrow is needed and not installed; dense mode is asked for and not to be had.
    """
    out = Path(out)
    if out.suffix.lower() not in (".tif", ".tiff", ".parquet"):
        raise ConfigError(f"Expected a name that ends in .tif or .parquet. Received: {out}.")
    if stride < 1:
        raise ConfigError(f"The stride must be at least 1 px. Received: {stride}.")
    if dtype not in ("float32", "int8"):
        raise ConfigError(f"dtype must be 'float32' or 'int8'. Received: {dtype!r}.")
    refuse_existing(out, overwrite, [image])
    is_dense(encoder, stride, mode)
    is_table = out.suffix.lower() == ".parquet"
    if is_table:
        import_pyarrow()
    strips = open_strips(image, getattr(encoder, "bands", None))
    check_size(strips)
    height, width = strips.grid[:2]
    if is_table:
        rows, cols = (sliding_offsets(one, IMAGE_SIZE, stride) for one in (height, width))
    else:
        rows, cols = centred_offsets(height, stride), centred_offsets(width, stride)
    with runner_in_order(workers, scheduler) as run:
        encode = functools.partial(iterate_offsets, encoder, strips, run=run)
        sample = functools.partial(encode, mode=mode_of_samples(mode))
        quantizer = Quantizer(sample, rows, cols, stride) if dtype == "int8" else None
        title = "embed" if progress else None
        places = sorted(set(rows)), sorted(set(cols))
        windows = encode(*places, stride, mode=mode, progress=title)
        if is_table:
            counts = _write_table(out, strips, windows, quantizer)
        else:
            counts = _write_raster(out, strips, windows, (rows, cols), stride, quantizer)
    if quantizer is None:
        return Embedding(*counts, None, 0.0)
    return Embedding(*counts, quantizer.scales, quantizer.clipped_share)


class Quantizer:
    """Features as int8, with a scale for each.

    Attributes:
        scales: `(num_features,)` float32.
        clipped_share: share of the values so far that were beyond the range.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[int], Sequence[int], int], Iterator[WindowRow]],
        rows: Sequence[int],
        cols: Sequence[int],
        stride: int,
    ):
        rows, cols = sorted(set(rows)), sorted(set(cols))
        step = next(
            n
            for n in itertools.count(1)
            if math.ceil(len(rows) / n) * math.ceil(len(cols) / n) <= _MOST_SAMPLED
        )
        largest = functools.reduce(
            np.maximum,
            (
                np.abs(row.features[row.valid_fraction > 0]).max(axis=0, initial=0)
                for row in encode(rows[::step], cols[::step], step * stride)
            ),
        )
        # A feature that is always 0 has any scale.
        self.scales = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
        self._num_values = self._num_clipped = 0

    @property
    def clipped_share(self) -> float:
        """Share of the values so far that were beyond the range of int8."""
        return self._num_clipped / max(self._num_values, 1)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """`(..., num_features)` float32 as int8; -128 where they are NaN."""
        known = np.isfinite(features)
        scaled = np.rint(np.where(known, features / self.scales, 0))
        self._num_values += int(known.sum())
        self._num_clipped += int((np.abs(scaled) > _LARGEST).sum())
        clipped = np.clip(scaled, -_LARGEST, _LARGEST)
        return np.where(known, clipped, INT8_NODATA).astype(np.int8)


def _write_raster(
    out: Path,
    strips: Strips,
    windows: Iterator[WindowRow],
    places: tuple[list[int], list[int]],
    stride: int,
    quantizer: Quantizer | None,
) -> tuple[int, int]:
    rows, cols = places
    grid = scaled_grid(strips.grid, stride, len(rows), len(cols))
    first = next(windows)
    num_features = first.features.shape[1]
    num_filled = 0
    with open_map(
        out,
        grid,
        [f"feature {index}" for index in range(num_features)],
        "float32" if quantizer is None else "int8",
        np.nan if quantizer is None else INT8_NODATA,
        resampling="nearest",  # means of vectors are not features of any window
        scales=None if quantizer is None else quantizer.scales.tolist(),
        tags={"stride": str(stride), "window": str(IMAGE_SIZE)},
    ) as target:
        for window_row in itertools.chain([first], windows):
            num_filled += int(np.count_nonzero(window_row.valid_fraction))
            values = window_row.features if quantizer is None else quantizer(window_row.features)
            line = values[np.searchsorted(window_row.cols, cols)][None]
            for map_row in range(
                bisect_left(rows, window_row.row), bisect_right(rows, window_row.row)
            ):
                target.write(map_row, line)
        _check_filled(num_filled, strips)
    return num_filled, num_features


def _write_table(
    out: Path, strips: Strips, windows: Iterator[WindowRow], quantizer: Quantizer | None
) -> tuple[int, int]:
    first = next(windows)
    num_features = first.features.shape[1]
    num_filled = 0
    with open_table(
        out,
        strips.grid,
        num_features,
        "float32" if quantizer is None else "int8",
        scales=None if quantizer is None else quantizer.scales.tolist(),
    ) as table:
        for row in itertools.chain([first], windows):
            keep = row.valid_fraction > 0
            places = [Window(row.row, int(col), IMAGE_SIZE, IMAGE_SIZE) for col in row.cols[keep]]
            features = row.features[keep]
            values = features if quantizer is None else quantizer(features)
            table.write(places, row.valid_fraction[keep], values)
            num_filled += len(places)
        _check_filled(num_filled, strips)
    return num_filled, num_features


def _check_filled(num_filled: int, strips: Strips) -> None:
    if not num_filled:
        raise DataError(f"{strips.name} holds no data: every pixel is nodata.")
