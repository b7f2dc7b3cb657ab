"""What the page shows for a click, a threshold, a number of clusters: arrays in, arrays out."""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.rows import Strips, preview_step, thin
from sits_keras.explore.engine.cache import Vectors
from sits_keras.tasks.retrieval.search import Match, rank_windows
from sits_keras.tasks.segmentation.clusters import Clusters, cluster_windows
from sits_keras.tasks.segmentation.maps import count_votes, nearest_cluster
from sits_keras.tasks.windows.sliding import WindowRow

_PART = 512  # windows whose features are compared at once: as float64, within the caches
_NUM_THREADS = 2
_NUM_BINS = 60


def window_at(x: float, y: float, height: int, width: int) -> tuple[int, int]:
    """Row and column that the window around a point begins in, shifted into the image."""
    row, col = int(np.floor(y)) - IMAGE_SIZE // 2, int(np.floor(x)) - IMAGE_SIZE // 2
    return inside(row, col, height, width)


def inside(row: int, col: int, height: int, width: int) -> tuple[int, int]:
    """Row and column of a window, shifted into the image."""
    return min(max(row, 0), height - IMAGE_SIZE), min(max(col, 0), width - IMAGE_SIZE)


def map_place(row: int, col: int, grid: Grid) -> str:
    """Where the middle of a window lies on a map, as a text; empty without georeferencing."""
    if grid.crs is None or grid.transform is None:
        return ""
    a, b, c, d, e, f = grid.transform
    x, y = col + IMAGE_SIZE / 2, row + IMAGE_SIZE / 2
    code = grid.crs if len(grid.crs) < 20 else "its CRS"  # which may be a page of WKT
    return f"{a * x + b * y + c:.10g}, {d * x + e * y + f:.10g} in {code}"


def look_up(
    query: np.ndarray, vectors: Vectors, num_matches: int, min_distance: int
) -> list[Match]:
    """The windows whose features are nearest to a query's, as `lookup.find_windows` finds them.

    Args:
        query: `(1, num_features)` float32.
        vectors: of the searched raster.
        num_matches, min_distance: see `lookup.find_windows`.
    """
    features = vectors.features.reshape(-1, vectors.features.shape[-1])
    parts = [features[start : start + _PART] for start in range(0, len(features), _PART)]
    measure = functools.partial(_distances, query)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        distances = np.concatenate(list(pool.map(measure, parts)))
    by_row = distances.reshape(vectors.valid_fraction.shape)
    rows = (
        WindowRow(int(row), vectors.cols, one[:, None], share, share)
        for row, one, share in zip(vectors.rows, by_row, vectors.valid_fraction, strict=True)
    )
    return rank_windows(
        rows, 1, vectors.stride, num_matches=num_matches, min_distance=min_distance, seed=0
    )


def _distances(query: np.ndarray, part: np.ndarray) -> np.ndarray:
    return cdist(query, part, "cityblock")[0]


class ThresholdScores:
    """How well the pixels above a threshold fit a reference, for any threshold at once.

    Args:
        distances: `(pixels,)`, of those with data.
        truth: `(pixels,)` bool, which of them changed.
    """

    def __init__(self, distances: np.ndarray, truth: np.ndarray):
        order = np.argsort(distances, kind="stable")
        self._sorted = distances[order]
        # True positives where the pixels from an index on are taken to have changed.
        self._hits = np.append(truth[order][::-1].cumsum()[::-1], 0)

    def f1(self, threshold: float | np.ndarray) -> np.ndarray:
        """F1 of the pixels above a threshold, or of each of several; 0 where none is."""
        first = np.searchsorted(self._sorted, threshold, side="right")
        taken = len(self._sorted) - first
        total = taken + self._hits[0]
        return np.divide(
            2 * self._hits[first], total, out=np.zeros(np.shape(first)), where=total > 0
        )

    def best(self) -> tuple[float, float]:
        """The threshold of the highest F1, and that F1: the reference was looked at."""
        candidates = np.unique(self._sorted)
        scores = self.f1(candidates)
        index = int(scores.argmax())
        return float(candidates[index]), float(scores[index])


def histogram(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the pixels in each bin, and the bins' edges."""
    counts, edges = np.histogram(distances, _NUM_BINS)
    return counts / max(counts.sum(), 1), edges


class Segments(NamedTuple):
    """A map of clusters as it is looked at.

    Attributes:
        clusters: the clusters.
        labels: every `preview_step`th row and column of the map, uint8, 0 where there is no data.
        shares: of the pixels with data, for each cluster.
    """

    clusters: Clusters
    labels: np.ndarray
    shares: np.ndarray


def segment_vectors(
    vectors: Vectors, strips: Strips, num_clusters: int, stride: int, fit_stride: int
) -> Segments:
    """What `segmentation.write_segments` writes, from features that are known.

    Args:
        vectors: of the raster.
        strips: the raster.
        num_clusters: how many.
        stride, fit_stride: multiples of the vectors' own stride.
    Raises:
        DataError, ConfigError: as `clusters.fit_clusters`.
    """
    clusters = cluster_windows(
        vectors.window_rows(fit_stride), strips, fit_stride, num_clusters=num_clusters, seed=0
    )
    windows = (
        one._replace(features=nearest_cluster(clusters.centres, np.nan_to_num(one.features)))
        for one in vectors.window_rows(stride)
    )
    step = preview_step(*strips.grid[:2])
    labels = thin(count_votes(windows, strips, num_clusters), step)
    counts = np.bincount(labels.ravel(), minlength=num_clusters + 1)[1:]
    return Segments(clusters, labels, counts / max(counts.sum(), 1))


def keep_colours(
    centres: np.ndarray, known: np.ndarray, colours: Sequence[int], num_colours: int
) -> list[int]:
    """Colours of clusters, such that those that go on from an earlier set keep theirs.

    Clusters are paired with the earlier ones so that the sum of their distances is the least
    (Hungarian assignment); those that are left over take the first colours that are free.

    Args:
        centres: `(clusters, num_features)`.
        known: `(earlier clusters, num_features)`.
        colours: index of the colour of each of these.
        num_colours: how many there are.
    Returns:
        Index of a colour for each cluster, no colour twice while there are enough.
    """
    new, old = linear_sum_assignment(cdist(centres, known))
    kept = dict(zip(new.tolist(), (colours[index] for index in old), strict=True))
    free = iter([one for one in range(num_colours) if one not in kept.values()])
    return [
        kept[index] if index in kept else next(free, index % num_colours)
        for index in range(len(centres))
    ]
