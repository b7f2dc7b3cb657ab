"""Cluster an image's windows by k-means on their features (section 4.5)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.execution import RunInOrder
from sits_keras.data.rasters.rows import Placed, Strips, open_strips
from sits_keras.data.rasters.write import MapClass
from sits_keras.data.tiling import sliding_offsets
from sits_keras.errors import ConfigError, DataError
from sits_keras.tasks.windows.sliding import Encoder, Mode, WindowRow, check_size, iterate_windows

_MOST_FITTED = 50_000  # windows with features in memory at once
_MOST_CLUSTERS = 254

# Paul Tol's muted scheme, for colour-blind readers.
_COLOURS = (
    (51, 34, 136),
    (68, 170, 153),
    (17, 119, 51),
    (153, 153, 51),
    (221, 204, 119),
    (204, 102, 119),
    (136, 34, 85),
    (136, 204, 238),
    (170, 68, 153),
    (187, 187, 187),
)


class Clusters(NamedTuple):
    """Clusters of windows, from the darkest to the brightest.

    Attributes:
        centres: `(clusters, num_features)` float32.
        brightness: `(clusters,)` float64, mean reflectance of the windows of each cluster, NaN for
            a cluster without windows.
        num_windows: Number of windows that the clusters were fitted on.
    """

    centres: npt.NDArray[np.float32]
    brightness: npt.NDArray[np.float64]
    num_windows: int

    def classes(self) -> dict[int, MapClass]:
        """Return the name and colour of each value of a map."""
        return {
            value: MapClass(f"cluster {value}, reflectance {brightness:.3f}", colour)
            for value, (brightness, colour) in enumerate(
                zip(self.brightness, class_colours(len(self.brightness)), strict=True), start=1
            )
        }


def class_colours(count: int) -> list[tuple[int, int, int]]:
    """Return RGB colours for classes, distinguishable for colour-blind readers up to ten.

    Args:
        count: Number of classes. Beyond ten, colours repeat.
    """
    return [_COLOURS[index % len(_COLOURS)] for index in range(count)]


def fit_clusters(
    image: Path | str | npt.NDArray[Any] | Strips,
    encoder: Encoder,
    *,
    num_clusters: int = 7,
    stride: int = 32,
    seed: int = 0,
    bands: Sequence[str] | None = None,
    mode: Mode = None,
    run: RunInOrder | None = None,
    progress: bool = False,
) -> Clusters:
    """Find clusters of an image's windows by k-means.

    A window is weighted by its valid-data fraction. Of more than 50,000 windows, about as many are
    sampled at random.

    Args:
        image: Path of a raster, or a `(height, width, bands)` array of uint16 stored values or
            float reflectance.
        encoder: Encoder to apply to each window, such as the shared encoder.
        num_clusters: Number of clusters, 2 to 254.
        stride: Distance between windows, in pixels.
        seed: Seed of k-means and of the sample.
        bands: Band names of the encoder. By default those that it states.
        mode: See `tasks.windows.sliding.iterate_windows`.
        run: See `tasks.windows.sliding.iterate_windows`.
        progress: Show a progress bar.

    Returns:
        The clusters.

    Raises:
        MissingError: If the raster does not exist.
        DataError: If the raster cannot be read, lacks a band or holds no data.
        ConfigError: If an argument is out of range, the image is smaller than a window or has fewer
            windows than clusters, or the encoder does not support dense mode and it was asked for.
    """
    if not 2 <= num_clusters <= _MOST_CLUSTERS:
        raise ConfigError(
            f"num_clusters must be 2 to {_MOST_CLUSTERS}. Received: num_clusters={num_clusters}."
        )
    strips = open_image(image, encoder, bands)
    title = "fit" if progress else None
    rows = iterate_windows(encoder, strips, stride, mode=mode, run=run, progress=title)
    return cluster_windows(rows, strips, stride, num_clusters=num_clusters, seed=seed)


def cluster_windows(
    rows: Iterable[WindowRow], strips: Placed, stride: int, *, num_clusters: int, seed: int
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
        DataError: If the image holds no data.
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
    mean = np.divide(sums, counts, out=np.full(num_clusters, np.nan), where=counts > 0)
    order = np.argsort(mean, kind="stable")  # NaN last
    return Clusters(means.cluster_centers_[order].astype(np.float32), mean[order], len(samples))


def open_image(
    image: Path | str | npt.NDArray[Any] | Strips, encoder: Encoder, bands: Sequence[str] | None
) -> Strips:
    """Open an image with the encoder's bands.

    Args:
        image: See `fit_clusters`, or an image that is open already.
        encoder: Encoder whose bands are read.
        bands: Band names, instead of the encoder's.

    Raises:
        MissingError: See `fit_clusters`.
        DataError: See `fit_clusters`.
        ConfigError: If the image is smaller than a window.
    """
    if isinstance(image, Path | str | np.ndarray):
        image = open_strips(image, bands or getattr(encoder, "bands", None))
    check_size(image)
    return image
