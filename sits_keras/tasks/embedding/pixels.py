"""Numbers of every pixel of a series: projected layers, averaged over the clear dates."""

import contextlib
import datetime
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.data.execution import RunInOrder
from sits_keras.data.rasters.embeddings import INT8_NODATA, has_vector
from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.write import open_map, scaled_grid
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError
from sits_keras.hub import HubEncoder
from sits_keras.hub.layers import LayerEncoder
from sits_keras.hub.projection import PROJECTED_LAYERS, Projection
from sits_keras.tasks.averages import iterate_averages, job_bar
from sits_keras.tasks.layers import LayerTile
from sits_keras.tasks.series import Floats, SeriesImage

Dtype = Literal["int8", "float16", "float32"]

WINDOW_SIDE = 1024
"""Side of the windows of a series that are averaged at a time, in pixels."""

_LARGEST = 127  # the range is symmetric, and -128 is nodata
_SPREAD_SIDE = 4  # px, at least
_ROWS = 128  # of pixels that are projected at a time


class WrittenPixels(NamedTuple):
    """Numbers of pixels that were written.

    Attributes:
        num_pixels: Cells with data.
        num_features: Numbers of each.
        dates: Acquisition dates; None for a raster without a date in its name.
        clipped_fraction: Fraction of the numbers beyond the range of int8.
        num_tiles: Tiles of the output; 1 for a file.
        num_skipped: Tiles that existed.
    """

    num_pixels: int
    num_features: int
    dates: tuple[datetime.date | None, ...]
    clipped_fraction: float
    num_tiles: int = 1
    num_skipped: int = 0


class EmbeddedBlock(NamedTuple):
    """Embeddings and quality of the cells of a window.

    Attributes:
        values: `(rows, cols, numbers)` as written.
        quality: `(rows, cols, 2)` float32, spread and number of dates.
        num_clipped: Numbers beyond the range of int8.
    """

    values: npt.NDArray[Any]
    quality: Floats
    num_clipped: int

    @property
    def num_filled(self) -> int:
        """Cells with data."""
        return int(np.count_nonzero(has_vector(np.moveaxis(self.values, -1, 0))))


class PixelEmbedder:
    """Computation of the embeddings of a series, window by window. It can be pickled.

    Args:
        encoder: Shared encoder.
        series: Series of its bands.
        projection: Projection of its layers.
        dim: Numbers to write, the first of the projection.
        dtype: Data type to write.
        side: Side of a cell of the output, in pixels.

    Attributes:
        series: Series of the encoder's bands.
        side: Side of a cell of the output, in pixels.
        dim: Numbers of a cell.
        dtype: Data type to write.
    """

    def __init__(
        self,
        encoder: HubEncoder,
        series: SeriesImage,
        projection: Projection,
        dim: int,
        dtype: Dtype,
        side: int,
    ):
        self.encoder, self.series, self.projection = encoder, series, projection
        self.dim, self.dtype, self.side = dim, dtype, side
        self.layers = LayerEncoder(encoder, PROJECTED_LAYERS)
        sizes = [len(self.layers.bands), *(grid.num_channels for grid in self.layers.grids)]
        axes = projection.axes[:, :dim]
        self._axes = np.split(axes, np.cumsum(sizes)[:-1])
        self._bias = (projection.offset.astype(np.float64) @ axes).astype(np.float32)

    def __reduce__(self) -> tuple[Any, ...]:
        return PixelEmbedder, (
            self.encoder,
            self.series,
            self.projection,
            self.dim,
            self.dtype,
            self.side,
        )

    @property
    def bands(self) -> list[str]:
        """Names of the bands."""
        return [f"A{number:02}" for number in range(self.dim)]

    @property
    def tags(self) -> dict[str, str]:
        """Metadata of a written raster."""
        dates = [str(date) for date in self.series.dates if date is not None]
        return {
            "method": "layers",
            "encoder": str(self.encoder.metadata["name"]),
            "encoder_sha256": self.projection.encoder,
            "projection_sha256": self.projection.sha256,
            "dim": str(self.dim),
            "resolution": str(self.side),
            "dates": ",".join(dates),
            "num_dates": str(len(self.series.dates)),
        }

    def blocks(
        self, windows: Sequence[Window], on_date: Callable[[int], object] = lambda pixels: None
    ) -> Iterator[EmbeddedBlock]:
        """Compute the numbers of windows whose sides are multiples of 16 px, but for the last.

        Args:
            windows: Windows of the series.
            on_date: Called with the number of pixels as each date of a window is done.
        """
        side = max(self.side, _SPREAD_SIDE)
        has_spread = len(self.series.acquisitions) > 1
        project = functools.partial(self._project_blocks, side) if has_spread else None
        averages = iterate_averages(self.layers, self.series, windows, project, side, on_date)
        for window, average in zip(windows, averages, strict=True):
            rows, cols = (-(-length // self.side) for length in window[2:])
            values = np.empty((rows, cols, self.dim), np.float32)
            num_dates = np.empty((rows, cols), np.float32)
            parts = [
                cells @ axes for cells, axes in zip(average.tile.cells, self._axes[1:], strict=True)
            ]
            for top in range(0, window.height, _ROWS):
                lines = slice(top, min(top + _ROWS, window.height))
                found = average.reflectance[lines] @ self._axes[0] - self._bias
                for layer, part in enumerate(parts):
                    found += average.tile.upsample(layer, part, lines)
                counts = average.num_dates[lines]
                target = slice(top // self.side, -(-lines.stop // self.side))
                values[target], num_dates[target] = _cell_means(found, counts, self.side)
            spread = np.full((rows, cols), np.nan, np.float32)
            if average.spread is not None:
                factor = side // self.side
                fine = average.spread.repeat(factor, axis=0).repeat(factor, axis=1)
                spread = np.where(num_dates > 0, fine[:rows, :cols], np.float32(np.nan))
            quality = np.stack([spread, num_dates], axis=-1).astype(np.float32)
            written, num_clipped = self._quantize(values)
            yield EmbeddedBlock(written, quality, num_clipped)

    def _project_blocks(self, side: int, tile: LayerTile, reflectance: Floats) -> Floats:
        """Return the numbers of one date, means of blocks of pixels."""
        total = _block_means(reflectance, side) @ self._axes[0] - self._bias
        for layer, (cells, axes) in enumerate(zip(tile.cells, self._axes[1:], strict=True)):
            total += tile.block_means(layer, cells @ axes, side)
        result: Floats = total
        return result

    def _quantize(self, values: Floats) -> tuple[npt.NDArray[Any], int]:
        if self.dtype != "int8":
            return values.astype(self.dtype), 0
        known = np.isfinite(values)
        scaled = np.rint(np.where(known, values, 0) / np.float32(self.projection.step))
        num_clipped = int((np.abs(scaled) > _LARGEST).sum())
        clipped = np.clip(scaled, -_LARGEST, _LARGEST)
        return np.where(known, clipped, INT8_NODATA).astype(np.int8), num_clipped

    @contextlib.contextmanager
    def open_files(
        self, out: Path, grid: Grid, tags: Mapping[str, str]
    ) -> Iterator[Callable[[int, int, EmbeddedBlock], None]]:
        """Open a raster and, for several dates, its quality; yield the function that writes both.

        The raster gets its name last: if it exists, both are complete.

        Args:
            out: Output GeoTIFF. Existing files are overwritten.
            grid: Grid of the output.
            tags: Metadata of the raster.
        """
        is_int8 = self.dtype == "int8"
        side = WINDOW_SIDE // self.side
        with contextlib.ExitStack() as stack:
            values = stack.enter_context(
                open_map(
                    out,
                    grid,
                    self.bands,
                    self.dtype,
                    INT8_NODATA if is_int8 else np.nan,
                    scales=[self.projection.step] * self.dim if is_int8 else None,
                    tags=tags,
                    block_side=side,
                )
            )
            quality = None
            if len(self.series.acquisitions) > 1:
                quality = stack.enter_context(
                    open_map(
                        quality_path(out),
                        grid,
                        ["spread", "dates"],
                        "float32",
                        np.nan,
                        block_side=side,
                    )
                )
            else:
                quality_path(out).unlink(missing_ok=True)  # of a former raster of this name

            def write(row: int, col: int, block: EmbeddedBlock) -> None:
                values.write_block(row, col, block.values)
                if quality is not None:
                    quality.write_block(row, col, block.quality)

            yield write


def quality_path(out: Path) -> Path:
    """Return the path of the quality of an embedding raster: `a.quality.tif` of `a.tif`."""
    return out.with_name(f"{out.stem}.quality{out.suffix}")


def _cell_means(
    values: Floats, num_dates: npt.NDArray[np.uint16], side: int
) -> tuple[Floats, Floats]:
    """Return the means of the pixels with data of each cell, NaN and 0 without any."""
    valid = num_dates > 0
    if side == 1:
        return np.where(valid[..., None], values, np.float32(np.nan)), num_dates.astype(np.float32)
    rows, cols = (np.arange(0, length, side) for length in valid.shape)

    def sums(of: npt.NDArray[Any]) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = np.add.reduceat(np.add.reduceat(of, rows, axis=0), cols, axis=1)
        return found

    count = sums(valid.astype(np.float32))
    at_least_one = np.maximum(count, 1)
    means = sums(values * valid[..., None]) / at_least_one[..., None]
    means[count == 0] = np.nan
    return means.astype(np.float32), (sums(num_dates.astype(np.float32)) / at_least_one).astype(
        np.float32
    )


def _block_means(values: Floats, side: int) -> Floats:
    rows, cols = (np.arange(0, length, side) for length in values.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=0), cols, axis=1)
    heights, widths = (
        np.diff([*line, length])
        for line, length in zip((rows, cols), values.shape[:2], strict=True)
    )
    means: Floats = (sums / (heights[:, None] * widths)[..., None]).astype(np.float32)
    return means


def write_pixels(
    embedder: PixelEmbedder,
    out: Path,
    *,
    run: RunInOrder | None = None,
    progress: bool = False,
) -> WrittenPixels:
    """Write the numbers of a whole series as one GeoTIFF, and its quality.

    Args:
        embedder: Computation of the embeddings.
        out: Output GeoTIFF.
        run: Ordered remote runner, or None to run locally.
        progress: Show a progress bar.

    Raises:
        DataError: If there is no data.
    """
    series, side = embedder.series, embedder.side
    height, width = series.grid[:2]
    grid = scaled_grid(series.grid, side, -(-height // side), -(-width // side))
    windows = series.windows(side=WINDOW_SIDE)
    num_dates = len(series.acquisitions)
    num_filled = num_clipped = 0
    with (
        embedder.open_files(out, grid, embedder.tags) as write,
        job_bar(height * width * num_dates, "embed" if progress else None) as bar,
    ):
        if run is None:
            blocks = embedder.blocks(windows, bar.update)
        else:
            weights = [window.height * window.width * num_dates for window in windows]
            blocks = run(_compute, [embedder], [(window,) for window in windows], bar, weights)
        for window, block in zip(windows, blocks, strict=True):
            write(window.row // side, window.col // side, block)
            num_filled += block.num_filled
            num_clipped += block.num_clipped
        if not num_filled:
            raise DataError(f"{series.name} has no data: every pixel is nodata or cloud.")
    clipped = num_clipped / (num_filled * embedder.dim)
    return WrittenPixels(num_filled, embedder.dim, series.dates, clipped)


def _compute(embedder: PixelEmbedder, window: Window) -> EmbeddedBlock:
    (block,) = embedder.blocks([window])
    return block


def write_area(
    embedder: PixelEmbedder,
    out: Path,
    area: Window,
    on_date: Callable[[int], object] = lambda pixels: None,
) -> tuple[int, int]:
    """Write the numbers of a part of a series as one GeoTIFF, and its quality.

    Args:
        embedder: Computation of the embeddings.
        out: Output GeoTIFF.
        area: Pixels of the series, which may reach beyond its grid.
        on_date: Called with the number of pixels as each date of a window is done.

    Returns:
        Number of cells with data, and of numbers beyond the range of int8.
    """
    series, side = embedder.series, embedder.side
    grid = series.grid.part(area)
    grid = scaled_grid(grid, side, area.height // side, area.width // side)
    windows = series.windows(area, WINDOW_SIDE)
    num_filled = num_clipped = 0
    with embedder.open_files(out, grid, embedder.tags) as write:
        for window, block in zip(windows, embedder.blocks(windows, on_date), strict=True):
            write((window.row - area.row) // side, (window.col - area.col) // side, block)
            num_filled += block.num_filled
            num_clipped += block.num_clipped
    return num_filled, num_clipped
