"""Comparisons that a click, a threshold or a number of clusters asks for: arrays in, arrays out."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.read import Grid
from sits_keras.explore.engine.cache import Vectors, block_bounds
from sits_keras.tasks.retrieval.search import Match, rank_windows, select_matches
from sits_keras.tasks.windows import WindowRow

_PART = 512  # windows whose features are compared at once: as float64, within the caches
_NUM_THREADS = 2
_NUM_BINS = 60
_FIRST = 64  # windows that are compared at once, at first


def window_around(x: float, y: float, height: int, width: int) -> tuple[int, int]:
    """Return the first row and column of the window around a point, shifted into the raster."""
    row, col = int(np.floor(y)) - IMAGE_SIZE // 2, int(np.floor(x)) - IMAGE_SIZE // 2
    return clip_window(row, col, height, width)


def clip_window(row: int, col: int, height: int, width: int) -> tuple[int, int]:
    """Return the first row and column of a window, shifted into the raster."""
    return min(max(row, 0), height - IMAGE_SIZE), min(max(col, 0), width - IMAGE_SIZE)


def map_position(row: int, col: int, grid: Grid, side: int = IMAGE_SIZE) -> str:
    """Return the map coordinates of a window's centre as text, empty without georeferencing."""
    if grid.crs is None or grid.transform is None:
        return ""
    a, b, c, d, e, f = grid.transform
    x, y = col + side / 2, row + side / 2
    code = grid.crs if len(grid.crs) < 20 else "its CRS"  # which may be a page of WKT
    return f"{a * x + b * y + c:.10g}, {d * x + e * y + f:.10g} in {code}"


def find_by_features(
    query: npt.NDArray[np.float32], vectors: Vectors, num_matches: int, min_distance: int
) -> list[Match]:
    """Find the windows with the nearest features, as `tasks.retrieve` does.

    Args:
        query: `(1, num_features)` float32, features of the query.
        vectors: Windows of the searched raster.
        num_matches: Maximum number of matches.
        min_distance: Minimum distance between matches, in pixels.

    Returns:
        The matches, nearest first.
    """
    features = vectors.features.reshape(-1, vectors.features.shape[-1])
    parts = [features[start : start + _PART] for start in range(0, len(features), _PART)]
    measure = functools.partial(_distances, query)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        distances = np.concatenate(list(pool.map(measure, parts)))
    by_row = distances.reshape(vectors.valid_fraction.shape)
    rows = (
        WindowRow(int(row), vectors.cols, distance[:, None], fraction, fraction)
        for row, distance, fraction in zip(
            vectors.rows, by_row, vectors.valid_fraction, strict=True
        )
    )
    return rank_windows(
        rows, 1, vectors.stride, num_matches=num_matches, min_distance=min_distance, seed=0
    )


def _distances(
    query: npt.NDArray[np.float32], part: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    distances: npt.NDArray[np.float64] = cdist(query, part, "cityblock")[0]
    return distances


def find_by_pixels(
    query: npt.NDArray[np.uint16],
    vectors: Vectors,
    read: Callable[[int, int], npt.NDArray[np.uint16]],
    *,
    num_matches: int,
    min_distance: int,
    max_compared: int | None = None,
) -> tuple[list[Match], int]:
    """Find the windows with the nearest raw pixels, without comparing them all.

    Windows are compared in the order of a lower bound of their distance, until the matches are
    nearer than the bound of all that are left (successive elimination; Li and Salari, 1995). The
    matches are those of `tasks.retrieve` with raw pixels; of windows at the same distance, the
    upper left one comes first.

    Args:
        query: `(64, 64, bands)` stored values.
        vectors: Windows of the searched raster.
        read: Function that returns the stored values of the window at a row and column.
        num_matches: Maximum number of matches.
        min_distance: Minimum distance between matches, in pixels.
        max_compared: Maximum number of windows to compare: those with the least bounds. The
            matches are then the nearest of these.

    Returns:
        The matches, nearest first, with distances in reflectance, summed over pixels and bands;
        and the number of windows that were compared.
    """
    has_data = vectors.valid_fraction > 0
    bounds = block_bounds(query, vectors.rows, vectors.cols, vectors.blocks)[has_data]
    order = np.argsort(bounds, kind="stable")[:max_compared]
    candidates, bounds = np.argwhere(has_data)[order], bounds[order]
    compared = np.empty((0, 4))
    matches: list[Match] = []
    step = _FIRST
    while len(compared) < len(candidates):
        batch = candidates[len(compared) : len(compared) + step]
        new = np.zeros((len(batch), 4))  # distance, unused, row, column
        new[:, 2], new[:, 3] = vectors.rows[batch[:, 0]], vectors.cols[batch[:, 1]]
        new[:, 0] = _pixel_distances(query, new[:, 2:].astype(int), read)
        compared = np.concatenate([compared, new])
        best = compared[np.lexsort((compared[:, 3], compared[:, 2], compared[:, 0]))]
        matches = select_matches(0, best, num_matches, min_distance)
        left = bounds[len(compared)] if len(compared) < len(candidates) else np.inf
        if len(matches) == num_matches and matches[-1].distance <= left:
            break
        step *= 2
    scaled = [match._replace(distance=match.distance / QUANTIFICATION) for match in matches]
    return scaled, len(compared)


def _pixel_distances(
    query: npt.NDArray[np.uint16],
    positions: npt.NDArray[np.integer],
    read: Callable[[int, int], npt.NDArray[np.uint16]],
) -> npt.NDArray[np.float64]:
    """Return the exact L1 distances of windows from a query, `(windows,)`."""

    def measure(part: npt.NDArray[np.integer]) -> list[int]:
        larger, smaller = np.empty_like(query), np.empty_like(query)
        sums = []
        for row, col in part:
            window = read(int(row), int(col))
            # The difference of unsigned numbers, without a copy of another type.
            np.maximum(query, window, out=larger)
            np.minimum(query, window, out=smaller)
            sums.append(int(np.subtract(larger, smaller, out=larger).sum(dtype=np.int64)))
        return sums

    parts = np.array_split(positions, _NUM_THREADS)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return np.concatenate(list(pool.map(measure, parts))).astype(np.float64)


class ThresholdScores:
    """F1 of the pixels above a threshold against a reference, for any threshold at once.

    Args:
        distances: `(pixels,)`, distances of the pixels with data.
        truth: `(pixels,)` bool, True for a pixel that changed.
    """

    def __init__(self, distances: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]):
        order = np.argsort(distances, kind="stable")
        self._sorted = distances[order]
        # True positives where the pixels from an index on count as changed.
        self._hits = np.append(truth[order][::-1].cumsum()[::-1], 0)

    def f1(self, threshold: float | npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return the F1 of each threshold, 0 where no pixel is above it."""
        first = np.searchsorted(self._sorted, threshold, side="right")
        above = len(self._sorted) - first
        total = above + self._hits[0]
        f1: npt.NDArray[np.float64] = np.divide(
            2 * self._hits[first], total, out=np.zeros(np.shape(first)), where=total > 0
        )
        return f1

    def best(self) -> tuple[float, float]:
        """Return the threshold with the highest F1, and that F1: an oracle upper bound."""
        candidates = np.unique(self._sorted)
        scores = self.f1(candidates)
        index = int(scores.argmax())
        return float(candidates[index]), float(scores[index])


def histogram(
    distances: npt.NDArray[np.floating],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the fraction of pixels in each bin, and the edges of the bins."""
    counts, edges = np.histogram(distances, _NUM_BINS)
    return counts / max(counts.sum(), 1), edges


def assign_colours(
    centres: npt.NDArray[np.floating],
    known_centres: npt.NDArray[np.floating],
    known_colours: Sequence[int],
    num_colours: int,
) -> list[int]:
    """Assign colours to clusters, so that a cluster of an earlier set keeps its colour.

    Clusters are paired with the earlier ones so that the sum of their distances is minimal
    (Hungarian assignment). Those that are left over get the first free colours.

    Args:
        centres: `(clusters, num_features)`.
        known_centres: `(earlier clusters, num_features)`.
        known_colours: Index of the colour of each earlier cluster.
        num_colours: Number of colours.

    Returns:
        Index of a colour for each cluster, each colour once while there are enough.
    """
    new, old = linear_sum_assignment(cdist(centres, known_centres))
    kept = dict(zip(new.tolist(), (known_colours[index] for index in old), strict=True))
    free = iter([colour for colour in range(num_colours) if colour not in kept.values()])
    return [
        kept[index] if index in kept else next(free, index % num_colours)
        for index in range(len(centres))
    ]
