"""Where two dates of a place differ, by their exclusive representations (section 4.6, Figure 7)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sits_keras.data.execution import runner_in_order
from sits_keras.data.radiometry import NODATA
from sits_keras.data.rasters.rows import CommonStrips, Strips, check_same_grid, open_strips
from sits_keras.data.rasters.write import open_map
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import refuse_existing
from sits_keras.tasks.windows.sliding import (
    Encoder,
    Mode,
    check_size,
    check_stride,
    is_dense,
    iterate_windows,
    sum_over_windows,
)

BANDS = ("distance", "changed")
"""Of a written map."""

_NUM_BINS = 512  # of the histogram that Otsu's threshold is found on

Image = Path | str | np.ndarray


class WindowDistances(NamedTuple):
    """How far two images are apart, window by window.

    Attributes:
        rows, cols: where windows begin.
        distances: `(rows, cols)` float64, 0 where there is no data.
        weights: `(rows, cols)` float64, share of a window's pixels that hold data in both images.
    """

    rows: np.ndarray
    cols: np.ndarray
    distances: np.ndarray
    weights: np.ndarray


class ChangeMap(NamedTuple):
    """What changed, pixel by pixel.

    Attributes:
        distance: `(height, width)` float32, NaN where either image has no data.
        changed: `(height, width)` bool: the distance is above the threshold.
    """

    distance: np.ndarray
    changed: np.ndarray


class ImagePair(NamedTuple):
    """Two images of the same pixels; each lacks data where the other does."""

    before: Strips
    after: Strips

    def valid(self, row: int, num_rows: int) -> np.ndarray:
        """`(num_rows, width)` bool: which pixels of some rows hold data in both images."""
        return self.before.read(row, num_rows)[..., 0] != NODATA


def open_pair(before: Image, after: Image, bands: Sequence[str] | None = None) -> ImagePair:
    """Two images, each a raster's path or an array (see `data.rasters.rows.open_strips`).

    Raises:
        MissingError, DataError: a raster is not there, cannot be read or lacks a band; the two
            differ in size, CRS or transform.
        ConfigError: they are smaller than a window.
    """
    first = open_strips(before, bands)
    second = open_strips(after, first.bands if bands is None else bands)
    check_same_grid(first, second)
    check_size(first)
    return ImagePair(CommonStrips(first, [second]), CommonStrips(second, [first]))


def window_distances(
    pair: ImagePair,
    encoder: Encoder,
    stride: int,
    *,
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool = False,
) -> WindowDistances:
    """L1 distances between the features of two images, for each window of both.

    Args:
        pair: the two images.
        encoder, stride, mode, workers, scheduler, progress: see `detect_change`.
    Raises:
        ConfigError: the stride is below 1 or above a window's side; dense mode is asked for and not
            to be had.
        DataError: no pixel holds data in both images.
    """
    check_stride(stride)
    is_dense(encoder, stride, mode)
    with runner_in_order(workers, scheduler) as run:
        found = [
            (one.row, one.cols, np.nan_to_num(one.features), one.valid_fraction)
            for one in iterate_windows(
                encoder,
                pair,
                stride,
                reduce=_l1_distance,
                mode=mode,
                run=run,
                progress="encode" if progress else None,
            )
        ]
    rows, cols, distances, weights = zip(*found, strict=True)
    if not np.any(weights):
        raise DataError(
            f"{pair.before.name} and {pair.after.name} have no pixel with data in both. "
            "Expected two dates that overlap."
        )
    return WindowDistances(
        np.array(rows), cols[0], np.stack(distances), np.stack(weights).astype(np.float64)
    )


def pixel_distances(pair: ImagePair, windows: WindowDistances) -> Iterator[tuple[int, np.ndarray]]:
    """Mean distance of the windows that cover a pixel, from the top, some rows at a time.

    A window counts by its share of pixels with data.

    Yields:
        The first row, and `(rows, width)` float32, NaN where either image has no data.
    """
    values = np.stack([windows.distances * windows.weights, windows.weights], axis=-1)
    height, width = pair.before.grid[:2]
    by_row = ((int(row), windows.cols, one) for row, one in zip(windows.rows, values, strict=True))
    for part in sum_over_windows(by_row, height, width):
        weighted, weight = part.sums.T
        means = np.divide(weighted, weight, out=np.zeros(len(weight)), where=weight > 0)
        valid = pair.valid(part.row, part.num_rows)
        yield part.row, np.where(valid, part.spread(means.astype(np.float32)), np.float32(np.nan))


def otsu_threshold(counts: np.ndarray, edges: np.ndarray) -> float:
    """The edge between two bins that best parts a histogram in two (Otsu, 1979).

    It makes the variance between the two parts largest; of edges as good as each other, which an
    empty stretch between two peaks gives, it is the middle one.

    Args:
        counts: `(bins,)`, of each bin.
        edges: `(bins + 1,)` ascending.
    """
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sum_below = np.cumsum(counts * centres)[:-1]
    sum_above = (counts * centres).sum() - sum_below
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = below * above * (sum_below / below - sum_above / above) ** 2
    variance = np.nan_to_num(variance)
    best = np.flatnonzero(variance >= variance.max() * (1 - 1e-9))
    return float(edges[1 + best[len(best) // 2]])


class Change:
    """What changed between two images; the pixels are worked out when they are asked for.

    Attributes:
        pair: the images.
        windows: the distance of each window.
        stride: pixels from a window to the next.
        threshold: above this distance a pixel has changed.
    """

    def __init__(
        self, pair: ImagePair, windows: WindowDistances, stride: int, threshold: float | None
    ):
        self.pair = pair
        self.windows = windows
        self.stride = stride
        self.threshold = self._otsu() if threshold is None else threshold

    def rows(self) -> Iterator[tuple[int, np.ndarray]]:
        """The first row of some, and their distances (see `pixel_distances`)."""
        return pixel_distances(self.pair, self.windows)

    def map(self) -> ChangeMap:
        """The whole map, in memory."""
        distance = np.concatenate([part for _, part in self.rows()])
        return ChangeMap(distance, distance > self.threshold)

    def write(self, path: Path | str, *, overwrite: bool = False) -> float:
        """Writes the map as a cloud-optimised GeoTIFF, in bounded memory.

        Band 1 is the distance, band 2 is 1 where it is above the threshold and else 0; both are
        float32, NaN where either image has no data.

        Args:
            path: of the map.
            overwrite: replace a map that is there.
        Returns:
            The share of the pixels with data that changed.
        Raises:
            ExistsError: `path` is there, and not to be replaced, or is one of the images.
            OutputError: `path` cannot be written.
        """
        path = Path(path)
        images = [one.name for one in self.pair if one.is_raster]
        refuse_existing(path, overwrite, images)
        num_valid = num_changed = 0
        tags = {"stride": str(self.stride), "threshold": repr(self.threshold)}
        with open_map(path, self.pair.before.grid, BANDS, "float32", np.nan, tags=tags) as target:
            for row, distance in self.rows():
                valid = np.isfinite(distance)
                changed = distance > self.threshold
                target.write(row, np.stack([distance, np.where(valid, changed, np.nan)], axis=-1))
                num_valid += int(valid.sum())
                num_changed += int(changed.sum())
        return num_changed / num_valid

    def _otsu(self) -> float:
        # Means of the windows' distances lie between them.
        known = self.windows.distances[self.windows.weights > 0]
        edges = np.linspace(known.min(), known.max(), _NUM_BINS + 1)
        if edges[0] == edges[-1]:
            return float(edges[-1])
        counts = np.zeros(_NUM_BINS, np.int64)
        for _, distance in self.rows():
            inside = np.clip(distance[np.isfinite(distance)], edges[0], edges[-1])
            counts += np.histogram(inside, edges)[0]
        return otsu_threshold(counts, edges)


def detect_change(
    before: Image,
    after: Image,
    encoder: Encoder,
    *,
    stride: int = 32,
    threshold: float | Literal["auto"] = "auto",
    bands: Sequence[str] | None = None,
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool = False,
) -> Change:
    """Finds what changed between two images, of any size in bounded memory.

    The distance of a window is the L1 distance of its features in the two images, that of a pixel
    the mean of all windows that cover it.

    Args:
        before, after: two dates of one place: paths of rasters, or `(height, width, bands)` arrays
            of uint16 stored values or float reflectance.
        encoder: the exclusive encoder, say.
        stride: pixels from a window to the next; the paper's is 32.
        threshold: above this distance a pixel has changed; "auto" for Otsu's, on the histogram of
            the pixels' distances.
        bands: names of the encoder's bands; those that it knows of by default.
        mode: how windows are encoded, "exact" or "dense"; by default dense where the encoder is fit
            for it.
        workers: processes that encode windows; the encoder must be one that can be pickled.
        scheduler: address of a Dask scheduler whose workers encode them, in their place.
        progress: show a progress bar.
    Returns:
        What changed: `map()` gives it as arrays, `write(path)` writes it.
    Raises:
        MissingError, DataError: a raster is not there, cannot be read or lacks a band; the two
            differ in size, CRS or transform; no pixel holds data in both.
        ConfigError: they are smaller than a window; the stride or the threshold is none; dense mode
            is asked for and not to be had.
    """
    limit = None
    if threshold != "auto":
        if not isinstance(threshold, int | float) or not 0 <= threshold < np.inf:
            raise ConfigError(
                f"The threshold must be 'auto' or a number of at least 0. Received: {threshold!r}."
            )
        limit = float(threshold)
    pair = open_pair(before, after, bands or getattr(encoder, "bands", None))
    windows = window_distances(
        pair,
        encoder,
        stride,
        mode=mode,
        workers=workers,
        scheduler=scheduler,
        progress=progress,
    )
    return Change(pair, windows, stride, limit)


def _l1_distance(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(before - after).sum(axis=1, dtype=np.float64)
