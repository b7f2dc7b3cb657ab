"""Unsupervised maps: clusters of windows, voted on by pixel (section 4.5, Figure 6)."""

import copy
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sits_keras.data.execution import RunInOrder, runner_in_order
from sits_keras.data.radiometry import NODATA
from sits_keras.data.rasters.rows import Strips, preview_step, thin
from sits_keras.data.rasters.write import open_map
from sits_keras.files import check_suffix, refuse_existing
from sits_keras.tasks.pictures import check_picture, plot_classes
from sits_keras.tasks.segmentation.clusters import Clusters, fit_clusters, open_image
from sits_keras.tasks.windows.sliding import (
    Encoder,
    Mode,
    WindowRow,
    check_stride,
    is_dense,
    iterate_windows,
    mode_of_samples,
    sum_over_windows,
)

UNLABELLED = 0
"""Value of pixels without data; the clusters' are 1, 2, ..."""


class WrittenSegments(NamedTuple):
    """What a written map holds.

    Attributes:
        clusters: its classes.
        preview: every `preview_step`th row and column of it, `(rows, columns)` uint8.
    """

    clusters: Clusters
    preview: np.ndarray


def label_rows(
    strips: Strips,
    encoder: Encoder,
    clusters: Clusters,
    stride: int,
    *,
    mode: Mode = None,
    run: RunInOrder | None = None,
    progress: bool = False,
) -> Iterator[tuple[int, np.ndarray]]:
    """Classes of an image's pixels, from the top, some rows at a time.

    The nearest cluster of each window is a vote for all its pixels, which counts by the window's
    share of pixels with data. Of classes with as many votes, the first is taken.

    Args:
        strips: the image.
        clusters: of its windows.
        encoder, stride, mode, run, progress: see `tasks.windows.iterate_windows`.
    Yields:
        The first row, and `(rows, width)` uint8: 1 for the first cluster, 0 where there is no data.
    Raises:
        ConfigError: the stride is below 1 or above a window's side; dense mode is asked for and not
            to be had.
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
) -> Iterator[tuple[int, np.ndarray]]:
    """Classes of an image's pixels, of windows whose clusters are known; see `label_rows`.

    Args:
        windows: all of them, from the top; `features` are indices of clusters, `(windows,)` uint8.
        strips: the image.
        num_clusters: how many there are.
    Yields:
        As `label_rows`.
    """
    mask = copy.deepcopy(strips)  # windows are read ahead of the rows that are done
    identity = np.eye(num_clusters)
    votes = (
        (one.row, one.cols, identity[one.features] * one.valid_fraction[:, None]) for one in windows
    )
    for part in sum_over_windows(votes, *strips.grid[:2]):
        labels = part.spread(part.sums.argmax(axis=-1).astype(np.uint8) + np.uint8(1))
        valid = mask.read(part.row, part.num_rows)[..., 0] != NODATA
        yield part.row, np.where(valid, labels, np.uint8(UNLABELLED))


def segment(
    image: Path | str | np.ndarray,
    encoder: Encoder,
    *,
    num_clusters: int = 7,
    stride: int = 8,
    fit_stride: int = 32,
    seed: int = 0,
    bands: Sequence[str] | None = None,
    mode: Mode = None,
    progress: bool = False,
) -> tuple[np.ndarray, Clusters]:
    """Maps an image by clusters, in memory; `segment_raster` is for large ones.

    Args:
        image, encoder, num_clusters, seed, bands, progress: see `fit_clusters`.
        stride: pixels from a window that votes to the next.
        fit_stride: pixels from a window that the clusters are fitted on to the next.
        mode: how windows are encoded, "exact" or "dense"; by default dense where the encoder is fit
            for it. Those that the clusters are fitted on are encoded densely where that is to be
            had at their stride.
    Returns:
        `(height, width)` uint8 map, 0 where there is no data, and the clusters.
    Raises:
        MissingError, DataError, ConfigError: see `fit_clusters`.
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
    image: Path | str | np.ndarray,
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
        DataError: If the raster cannot be read, lacks a band or holds no data.
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


def nearest_cluster(centres: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Index of the centre that is nearest to each vector, `(windows,)` uint8: a `Reduce`."""
    # |f - c|^2 without |f|^2, which is the same for all.
    lengths = np.square(centres).sum(axis=1)
    return (lengths - 2 * features @ centres.T).argmin(axis=1).astype(np.uint8)
