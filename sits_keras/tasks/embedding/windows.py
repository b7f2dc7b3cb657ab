"""Write the features of a raster's windows, as a raster or as a table of outlines."""

import copy
import datetime
import functools
import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.execution import runner_in_order
from sits_keras.data.rasters.embeddings import INT8_NODATA
from sits_keras.data.rasters.geoparquet import import_pyarrow, open_table
from sits_keras.data.rasters.rows import Strips
from sits_keras.data.rasters.write import open_map, scaled_grid
from sits_keras.data.tiling import Window, sliding_offsets
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import check_suffix, refuse_existing
from sits_keras.tasks.pictures import (
    PrincipalColours,
    check_picture,
    plot_images,
    preview_image,
)
from sits_keras.tasks.series import check_period, open_image, paths_of
from sits_keras.tasks.windows import (
    Encoder,
    Mode,
    WindowRow,
    check_size,
    is_dense,
    iterate_offsets,
    mode_of_samples,
)

STRIDE = 32
"""Distance between windows by default, in pixels."""

_LARGEST = 127  # the range is symmetric, and -128 is nodata
_MOST_SAMPLED = 2048  # windows that the scales are computed on
_PREVIEW_SIDE = 256  # px of a picture


class Embedding(NamedTuple):
    """Features that were written.

    Attributes:
        num_windows: Number of windows with data.
        num_features: Number of features of each window.
        scales: `(num_features,)` float32 factors of the int8 values; None for float32.
        clipped_fraction: Fraction of the values beyond the range of int8.
    """

    num_windows: int
    num_features: int
    scales: npt.NDArray[np.float32] | None
    clipped_fraction: float


def centred_offsets(length: int, stride: int) -> list[int]:
    """Return the first pixels of the windows centred on the pixels of a map.

    Pixel i of the map covers `i * stride` to `(i + 1) * stride`. Its window has the same centre, to
    half a pixel for an odd stride, and is shifted in where it would exceed an end. So the map
    covers the whole line, and pixels near its ends may share a window.

    Args:
        length: Length of the line, at least a window's side.
        stride: Pixels of the line for each pixel of the map, at least 1.
    """
    centres = (index * stride + stride // 2 for index in range(-(-length // stride)))
    return [min(max(c - IMAGE_SIZE // 2, 0), length - IMAGE_SIZE) for c in centres]


def embed_windows(
    image: Path | str | npt.NDArray[Any] | Sequence[Path | str],
    out: Path | str,
    encoder: Encoder,
    *,
    stride: int = STRIDE,
    dtype: Literal["float32", "int8"] = "float32",
    first: datetime.date | None = None,
    last: datetime.date | None = None,
    newest: bool = False,
    picture: Path | str | None = None,
    bands: Sequence[str] | None = None,
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Embedding:
    """Write the features of an image's windows as a raster or a table, in bounded memory.

    As `.tif`, the output is a cloud-optimised GeoTIFF with a band for each feature and a pixel for
    each `stride` x `stride` pixels of the image. A pixel holds the features of the window centred
    on it or, at the edges, of the nearest window that fits (see `centred_offsets`). It is nodata,
    NaN or -128, where the window has no data.

    As `.parquet`, the output is GeoParquet with a row for each window with data, the last window of
    a row or column shifted in to fit: `row`, `col`, `valid_fraction`, `features`, and `geometry`,
    the outline in longitude and latitude, or in pixels with a null CRS for a raster without one.

    int8 values are `round(feature / scale)`. The scale of each feature maps the largest absolute
    value of up to 2,048 evenly spread windows to 127; larger values are clipped. Scales are band
    scales in GeoTIFF, and metadata of the column `features` in GeoParquet.

    Args:
        image: Path of a raster, or a `(height, width, bands)` array of uint16 stored values or
            float reflectance; or a series, whose features are averaged over its clear dates.
        out: Output file, `.tif` or `.parquet`.
        encoder: Encoder to apply to each window, such as `hub.load(...)`.
        stride: Distance between windows, in pixels.
        dtype: Data type of the features, "float32" or "int8".
        first: First acquisition date of a series to use.
        last: Last acquisition date of a series to use.
        newest: Use the newest of several products of one tile and date; else they are an error.
        picture: PNG to write as well, with a GeoTIFF only: the image beside the first three
            principal components of the features as red, green and blue.
        bands: Band names of the encoder. By default those that it states.
        mode: "exact" or "dense". By default dense where the encoder supports it at this stride.
        workers: Processes that encode windows. With more than 1 the encoder must be picklable.
        scheduler: Address of a Dask scheduler to use instead of processes.
        overwrite: Overwrite existing files.
        progress: Show a progress bar.

    Returns:
        Counts of windows and features, and the int8 scales.

    Raises:
        ExistsError: If an output exists and `overwrite` is false, or is the input.
        OutputError: If an output cannot be written.
        MissingError: If the raster does not exist.
        DataError: If the raster cannot be read, lacks a band or has no valid data; if scenes of a
            series are not on one grid, or no date is in the period.
        ConfigError: If an argument is out of range, `out` has another suffix, the image is smaller
            than a window, pyarrow is needed and not installed, or the encoder does not support
            dense mode although it is required.

    Examples:
        >>> encoder = sits_keras.from_preset("sits_rgbn_small", "shared")
        >>> embed_windows("scene.tif", "features.tif", encoder, stride=16, dtype="int8")
        >>> embed_windows("scene.tif", "windows.parquet", encoder).num_windows
    """
    out = Path(out)
    check_suffix(out, "OUT", ".tif", ".tiff", ".parquet")
    if stride < 1:
        raise ConfigError(f"The stride must be at least 1 px. Received: {stride}.")
    if dtype not in ("float32", "int8"):
        raise ConfigError(f"dtype must be 'float32' or 'int8'. Received: {dtype!r}.")
    refuse_existing(out, overwrite, paths_of(image))
    picture = check_picture(picture, overwrite)
    is_dense(encoder, stride, mode)
    is_table = out.suffix.lower() == ".parquet"
    if is_table:
        if picture is not None:
            raise ConfigError(
                f"A picture shows a raster, and {out} is a table. Write a .tif, or leave out "
                "the picture (--picture)."
            )
        import_pyarrow()
    period = first, last
    check_period([image], period, newest)
    strips = open_image(
        image, bands or getattr(encoder, "bands", None), period=period, newest=newest
    )
    check_size(strips)
    height, width = strips.grid[:2]
    if is_table:
        rows, cols = (sliding_offsets(one, IMAGE_SIZE, stride) for one in (height, width))
    else:
        rows, cols = centred_offsets(height, stride), centred_offsets(width, stride)
    preview = None
    with runner_in_order(workers, scheduler) as run:
        encode = functools.partial(iterate_offsets, encoder, strips, run=run)
        sample = functools.partial(encode, mode=mode_of_samples(mode))
        quantizer = Quantizer(sample, rows, cols, stride) if dtype == "int8" else None
        title = "embed" if progress else None
        offsets = sorted(set(rows)), sorted(set(cols))
        windows = encode(*offsets, stride, mode=mode, progress=title)
        if is_table:
            counts = _write_table(out, strips, windows, quantizer)
        else:
            preview = None if picture is None else FeaturePreview(len(rows), len(cols))
            counts = _write_raster(out, strips, windows, (rows, cols), stride, quantizer, preview)
    if picture is not None and preview is not None:
        plot_images(
            [("image", preview_image(copy.deepcopy(strips))), ("features", preview.colours())],
            picture,
            overwrite=overwrite,
        )
    if quantizer is None:
        return Embedding(*counts, None, 0.0)
    return Embedding(*counts, quantizer.scales, quantizer.clipped_fraction)


class FeaturePreview:
    """Features of every n-th pixel of a map, as colours.

    Args:
        height: Rows of the map.
        width: Columns of the map.
    """

    def __init__(self, height: int, width: int):
        self._step = -(-max(height, width) // _PREVIEW_SIDE)
        self._lines: list[npt.NDArray[np.float32]] = []

    def add(self, row: int, line: npt.NDArray[np.float32]) -> None:
        """Keep a row of the map if it is one of those shown.

        Args:
            row: Index of the row.
            line: `(width, num_features)` float32, NaN where there is no data.
        """
        if row % self._step == 0:
            self._lines.append(line[:: self._step])

    def colours(self) -> npt.NDArray[np.float64]:
        """Return the first three principal components as colours.

        Returns:
            `(rows, columns, 3)` float in [0, 1], white where there is no data. Each component runs
            from its 2nd to its 98th percentile.
        """
        features = np.stack(self._lines)
        return PrincipalColours(features[np.isfinite(features[..., 0])])(features)


class Quantizer:
    """Quantize features as int8, with a scale for each feature.

    Args:
        encode: Function that encodes the windows at some rows and columns with a stride.
        rows: First rows of the windows.
        cols: First columns of the windows.
        stride: Distance between windows, in pixels.

    Attributes:
        scales: `(num_features,)` float32.
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
        # The scale of a feature that is always 0 is arbitrary.
        self.scales: npt.NDArray[np.float32] = np.where(largest > 0, largest / _LARGEST, 1).astype(
            np.float32
        )
        self._num_values = self._num_clipped = 0

    @property
    def clipped_fraction(self) -> float:
        """Fraction of the values so far that were beyond the range of int8."""
        return self._num_clipped / max(self._num_values, 1)

    def __call__(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
        """Quantize features.

        Args:
            features: `(..., num_features)` float32.

        Returns:
            `(..., num_features)` int8, -128 where the features are NaN.
        """
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
    offsets: tuple[list[int], list[int]],
    stride: int,
    quantizer: Quantizer | None,
    preview: FeaturePreview | None,
) -> tuple[int, int]:
    rows, cols = offsets
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
        resampling="nearest",  # a mean of feature vectors does not belong to a window
        scales=None if quantizer is None else quantizer.scales.tolist(),
        tags={"method": "windows", "stride": str(stride), "window": str(IMAGE_SIZE)},
    ) as target:
        for window_row in itertools.chain([first], windows):
            num_filled += int(np.count_nonzero(window_row.valid_fraction))
            values = window_row.features if quantizer is None else quantizer(window_row.features)
            index = np.searchsorted(window_row.cols, cols)
            for map_row in range(
                bisect_left(rows, window_row.row), bisect_right(rows, window_row.row)
            ):
                target.write(map_row, values[index][None])
                if preview is not None:
                    preview.add(map_row, window_row.features[index])
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
            shown = [Window(row.row, int(col), IMAGE_SIZE, IMAGE_SIZE) for col in row.cols[keep]]
            features = row.features[keep]
            values = features if quantizer is None else quantizer(features)
            table.write(shown, row.valid_fraction[keep], values)
            num_filled += len(shown)
        _check_filled(num_filled, strips)
    return num_filled, num_features


def _check_filled(num_filled: int, strips: Strips) -> None:
    if not num_filled:
        raise DataError(f"{strips.name} has no data: every pixel is nodata.")
