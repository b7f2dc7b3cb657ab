"""Clusters of the windows of an image, which vote for the pixels they cover (section 4.5)."""

import copy
import functools
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.execution import RunInOrder
from sits_keras.data.radiometry import NODATA
from sits_keras.data.rasters.rows import Strips
from sits_keras.data.tiling import sliding_offsets
from sits_keras.errors import ConfigError, DataError
from sits_keras.tasks.segmentation.clusters import (
    UNLABELLED,
    Clusters,
    check_num_clusters,
    nearest_cluster,
)
from sits_keras.tasks.window_sums import check_stride, sum_over_windows
from sits_keras.tasks.windows import (
    Encoder,
    Mode,
    WindowRow,
    iterate_windows,
)

_MOST_FITTED = 50_000  # windows with features in memory at once


def fit_clusters(
    strips: Strips,
    encoder: Encoder,
    *,
    num_clusters: int = 7,
    stride: int = 32,
    seed: int = 0,
    mode: Mode = None,
    run: RunInOrder | None = None,
    progress: bool = False,
) -> Clusters:
    """Find clusters of an image's windows by k-means.

    A window is weighted by its valid-data fraction. Of more than 50,000 windows, about as many are
    sampled at random.

    Args:
        strips: The image.
        encoder: Encoder to apply to each window, such as the shared encoder.
        num_clusters: Number of clusters, 2 to 254.
        stride: Distance between windows, in pixels.
        seed: Seed of k-means and of the sample.
        mode: See `tasks.windows.iterate_windows`.
        run: See `tasks.windows.iterate_windows`.
        progress: Show a progress bar.

    Returns:
        The clusters.

    Raises:
        DataError: If the image has no valid data.
        ConfigError: If an argument is out of range, the image is smaller than a window or has fewer
            windows than clusters, or the encoder does not support dense mode although it is
            required.
    """
    check_num_clusters(num_clusters)
    title = "fit" if progress else None
    rows = iterate_windows(encoder, strips, stride, mode=mode, run=run, progress=title)
    return cluster_windows(rows, strips, stride, num_clusters=num_clusters, seed=seed)


def cluster_windows(
    rows: Iterable[WindowRow], strips: Strips, stride: int, *, num_clusters: int, seed: int
) -> Clusters:
    """Find clusters of windows whose features are known, see `fit_clusters`.

    Args:
        rows: All windows of an image at a stride, from the top.
        strips: The image.
        stride: Distance between these windows, in pixels.
        num_clusters: Number of clusters.
        seed: Seed of k-means and of the sample.

    Returns:
        The clusters.

    Raises:
        DataError: If the image has no valid data.
        ConfigError: If the image has fewer windows with data than clusters.
    """
    num_rows, num_cols = (
        len(sliding_offsets(length, IMAGE_SIZE, stride)) for length in strips.grid[:2]
    )
    kept_fraction = min(1.0, _MOST_FITTED / (num_rows * num_cols))
    rng = np.random.default_rng(seed)
    features, weights, brightness = [], [], []
    for row in rows:
        kept = (row.valid_fraction > 0) & (rng.random(len(row.cols)) < kept_fraction)
        features.append(row.features[kept])
        weights.append(row.valid_fraction[kept])
        brightness.append(row.brightness[kept])
    samples, weight = np.concatenate(features), np.concatenate(weights)
    if not len(samples):
        raise DataError(f"{strips.name} has no data: every pixel is nodata.")
    if len(samples) < num_clusters:
        raise ConfigError(
            f"{strips.name} has {len(samples)} windows with data at a stride of {stride} px, fewer "
            f"than {num_clusters} clusters. Use a smaller stride to fit (--fit-stride)."
        )
    means = MiniBatchKMeans(num_clusters, random_state=seed, n_init=10)
    # Batches are small: threads would cost more than they save, and change the order of sums.
    with threadpool_limits(1):
        labels = means.fit(samples, sample_weight=weight).labels_
    counts = np.bincount(labels, weight, minlength=num_clusters)
    sums = np.bincount(labels, weight * np.concatenate(brightness), minlength=num_clusters)
    mean = sums / np.where(counts > 0, counts, np.nan)
    order = np.argsort(mean, kind="stable")[: np.count_nonzero(counts)]  # NaN last
    return Clusters(
        "windows",
        strips.bands,
        means.cluster_centers_[order].astype(np.float32),
        # A window has one mean for all bands. The map that is made has a mean for each.
        np.repeat(mean[order][:, None], len(strips.bands), axis=1),
        len(samples),
    )


def label_rows(
    strips: Strips,
    encoder: Encoder,
    clusters: Clusters,
    stride: int,
    *,
    mode: Mode = None,
    run: RunInOrder | None = None,
    progress: bool = False,
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield the classes of an image's pixels, from the top, some rows at a time.

    The nearest cluster of each window is a vote for all its pixels, weighted by the window's
    valid-data fraction. Of classes with equal votes, the first wins.

    Args:
        strips: The image.
        encoder: See `tasks.windows.iterate_windows`.
        clusters: Clusters of its windows.
        stride: Distance between windows, in pixels, 1 to 64.
        mode: See `tasks.windows.iterate_windows`.
        run: See `tasks.windows.iterate_windows`.
        progress: Show a progress bar.

    Yields:
        First row, and `(rows, width)` uint8: 1 for the first cluster, 0 where there is no data.

    Raises:
        ConfigError: If the stride is out of range, or the encoder does not support dense mode
            although it is required.
    """
    check_stride(stride)
    windows = iterate_windows(
        encoder,
        strips,
        stride,
        reduce=functools.partial(nearest_cluster, clusters.centres),
        mode=mode,
        run=run,
        progress="label" if progress else None,
    )
    yield from count_votes(windows, strips, len(clusters.centres))


def count_votes(
    windows: Iterable[WindowRow], strips: Strips, num_clusters: int
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield the classes of an image's pixels from the clusters of its windows, see `label_rows`.

    Args:
        windows: All windows, from the top. `features` holds cluster indices, `(windows,)` uint8.
        strips: The image.
        num_clusters: Number of clusters.

    Yields:
        See `label_rows`.
    """
    mask = copy.deepcopy(strips)  # read separately: windows are read ahead of finished rows
    identity = np.eye(num_clusters)
    votes = (
        (one.row, one.cols, identity[one.features] * one.valid_fraction[:, None]) for one in windows
    )
    for part in sum_over_windows(votes, *strips.grid[:2]):
        labels = part.spread(part.sums.argmax(axis=-1).astype(np.uint8) + np.uint8(1))
        valid = mask.read(part.row, part.num_rows)[..., 0] != NODATA
        yield part.row, np.where(valid, labels, np.uint8(UNLABELLED))
