"""Map a raster by clusters of its windows, voted on by pixel (section 4.5, Figure 6)."""

import copy
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.execution import RunInOrder, runner_in_order
from sits_keras.data.radiometry import NODATA
from sits_keras.data.rasters.rows import Placed, Strips, open_strips, preview_step, thin
from sits_keras.data.rasters.write import MapClass, open_map
from sits_keras.data.tiling import sliding_offsets
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import check_suffix, refuse_existing
from sits_keras.tasks.pictures import check_picture, plot_classes
from sits_keras.tasks.windows import (
    Encoder,
    Mode,
    WindowRow,
    check_size,
    check_stride,
    is_dense,
    iterate_windows,
    mode_of_samples,
    sum_over_windows,
)

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
        mode: See `tasks.windows.iterate_windows`.
        run: See `tasks.windows.iterate_windows`.
        progress: Show a progress bar.

    Returns:
        The clusters.

    Raises:
        MissingError: If the raster does not exist.
        DataError: If the raster cannot be read, lacks a band or has no valid data.
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


UNLABELLED = 0
"""Value of pixels without data; clusters are 1, 2, ..."""


class WrittenSegments(NamedTuple):
    """A class map that was written.

    Attributes:
        clusters: Classes of the map.
        preview: `(rows, columns)` uint8, every `preview_step`-th row and column of the map.
    """

    clusters: Clusters
    preview: npt.NDArray[np.uint8]


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
        ConfigError: If the stride is out of range, or the encoder does not support dense mode and
            it was asked for.
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


def segment(
    image: Path | str | npt.NDArray[Any],
    encoder: Encoder,
    *,
    num_clusters: int = 7,
    stride: int = 8,
    fit_stride: int = 32,
    seed: int = 0,
    bands: Sequence[str] | None = None,
    mode: Mode = None,
    progress: bool = False,
) -> tuple[npt.NDArray[np.uint8], Clusters]:
    """Map an image by clusters, in memory. `segment_raster` maps large images in bounded memory.

    Args:
        image: See `fit_clusters`.
        encoder: See `fit_clusters`.
        num_clusters: See `fit_clusters`.
        stride: Distance between the windows that vote, in pixels, 1 to 64.
        fit_stride: Distance between the windows that the clusters are fitted on, in pixels.
        seed: See `fit_clusters`.
        bands: See `fit_clusters`.
        mode: "exact" or "dense". By default dense where the encoder supports it at this stride.
            Windows for the fit are encoded densely where their stride allows it.
        progress: Show progress bars.

    Returns:
        `(height, width)` uint8 map, 0 where there is no data, and the clusters.

    Raises:
        MissingError: See `fit_clusters`.
        DataError: See `fit_clusters`.
        ConfigError: See `fit_clusters`.
    """
    check_stride(stride)
    is_dense(encoder, stride, mode)
    strips = open_image(image, encoder, bands)
    clusters = fit_clusters(
        strips,
        encoder,
        num_clusters=num_clusters,
        stride=fit_stride,
        seed=seed,
        mode=mode_of_samples(mode),
        progress=progress,
    )
    parts = label_rows(strips, encoder, clusters, stride, mode=mode, progress=progress)
    return np.concatenate([labels for _, labels in parts]), clusters


def segment_raster(
    image: Path | str | npt.NDArray[Any],
    out: Path | str,
    encoder: Encoder,
    *,
    num_clusters: int = 7,
    stride: int = 8,
    fit_stride: int = 32,
    seed: int = 0,
    picture: Path | str | None = None,
    bands: Sequence[str] | None = None,
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> WrittenSegments:
    """Map a raster by clusters of its windows as a cloud-optimised GeoTIFF, in bounded memory.

    The features of windows are clustered by k-means; each window then votes for the cluster of its
    pixels. Classes are 1, 2, ... from the darkest to the brightest cluster, 0 is no data. The map
    has a colour table, and class names in `<out>.aux.xml`.

    Args:
        image: Path of a raster, or a `(height, width, bands)` array of uint16 stored values or
            float reflectance.
        out: Output GeoTIFF.
        encoder: Shared encoder, such as `hub.load(...)`.
        num_clusters: Number of classes, 2 to 254.
        stride: Distance between the windows that vote, in pixels, 1 to 64.
        fit_stride: Distance between the windows that the clusters are fitted on, in pixels.
        seed: Seed of k-means.
        picture: PNG to write as well: the image beside the map, with a legend.
        bands: Band names of the encoder. By default those that it states.
        mode: "exact" or "dense". By default dense where the encoder supports it at this stride.
        workers: Processes that encode windows. With more than 1 the encoder must be picklable.
        scheduler: Address of a Dask scheduler to use instead of processes.
        overwrite: Overwrite existing files.
        progress: Show progress bars.

    Returns:
        The clusters, and a preview of the map.

    Raises:
        ExistsError: If an output exists and `overwrite` is false, or is the input.
        OutputError: If an output cannot be written.
        MissingError: If the raster does not exist.
        DataError: If the raster cannot be read, lacks a band or has no valid data.
        ConfigError: If an argument is out of range, the image is smaller than a window or has
            fewer windows than clusters, or the encoder does not support dense mode and it was
            asked for.

    Examples:
        >>> encoder = sits_keras.from_preset("sits_rgbn_small", "shared")
        >>> done = segment_raster("scene.tif", "classes.tif", encoder, num_clusters=5)
        >>> print(done.clusters.num_windows)
    """
    out = Path(out)
    check_suffix(out, "OUT", ".tif", ".tiff")
    refuse_existing(out, overwrite, [image] if isinstance(image, Path | str) else [])
    picture = check_picture(picture, overwrite)
    check_stride(stride)
    is_dense(encoder, stride, mode)
    strips = open_image(image, encoder, bands)
    step = preview_step(*strips.grid[:2])
    preview = []
    with runner_in_order(workers, scheduler) as run:
        clusters = fit_clusters(
            strips,
            encoder,
            num_clusters=num_clusters,
            stride=fit_stride,
            seed=seed,
            mode=mode_of_samples(mode),
            run=run,
            progress=progress,
        )
        with open_map(
            out,
            strips.grid,
            ["cluster"],
            "uint8",
            UNLABELLED,
            resampling="mode",
            classes=clusters.classes(),
            tags={"stride": str(stride), "fit_stride": str(fit_stride), "seed": str(seed)},
        ) as target:
            for row, labels in label_rows(
                strips, encoder, clusters, stride, mode=mode, run=run, progress=progress
            ):
                target.write(row, labels)
                preview.append(thin([(row, labels)], step))
    labels = np.concatenate(preview)
    if picture is not None:
        plot_classes(
            image, labels, clusters.classes(), picture, bands=strips.bands, overwrite=overwrite
        )
    return WrittenSegments(clusters, labels)


def nearest_cluster(
    centres: npt.NDArray[np.float32], features: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Return the index of the centre nearest to each vector; a `Reduce`.

    Args:
        centres: `(clusters, num_features)` float32.
        features: `(windows, num_features)` float32.

    Returns:
        `(windows,)` uint8.
    """
    # |f - c|^2 without |f|^2, which is equal for all centres.
    lengths = np.square(centres).sum(axis=1)
    nearest: npt.NDArray[np.intp] = (lengths - 2 * features @ centres.T).argmin(axis=1)
    return nearest.astype(np.uint8)
