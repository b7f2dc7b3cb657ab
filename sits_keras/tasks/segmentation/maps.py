"""Maps of clusters: labels of all pixels, merged into regions and written with a legend."""

import copy
import datetime
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sits_keras.data.execution import RunInOrder, runner_in_order
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.rows import Strips, preview_step
from sits_keras.data.rasters.write import open_map
from sits_keras.data.tiling import row_blocks
from sits_keras.errors import ConfigError
from sits_keras.files import check_suffix, refuse_existing
from sits_keras.hub import HubEncoder
from sits_keras.hub.encoder import weights_sha256
from sits_keras.hub.layers import LayerEncoder
from sits_keras.tasks.layers import require_layers
from sits_keras.tasks.pictures import check_picture, plot_classes
from sits_keras.tasks.segmentation.clusters import (
    UNLABELLED,
    Clusters,
    SegmentMethod,
    check_num_clusters,
    clusters_path,
    read_clusters,
    write_clusters,
)
from sits_keras.tasks.segmentation.pixels import (
    LAYERS,
    cluster_pixels,
    label_pixels,
    sample_pixels,
)
from sits_keras.tasks.segmentation.windows import fit_clusters, label_rows
from sits_keras.tasks.series import check_period, open_image, paths_of
from sits_keras.tasks.window_sums import check_stride
from sits_keras.tasks.windows import (
    Encoder,
    Mode,
    check_size,
    is_dense,
    mode_of_samples,
)

NUM_CLUSTERS = 7
MIN_REGION = 16
"""Smallest region of a map by default, in pixels: 0.16 ha at 10 m."""

MOST_MIN_REGION = 1000
_REACH = 64  # px within which a small region finds a larger one to join
_PIXELS_AT_A_TIME = 2**22
_TOUCHING = np.ones((3, 3), bool)  # pixels of a region touch by sides or corners


class Segments(NamedTuple):
    """A map of clusters, not yet written.

    Attributes:
        clusters: Clusters of the map, from the darkest to the brightest. Each has a region, unless
            they are those of another map.
        labels: `(height, width)` uint8, 1 for the first cluster, 0 where there is no data. A file
            that is mapped into memory.
        num_pixels: `(clusters,)` int64, pixels of each cluster.
    """

    clusters: Clusters
    labels: npt.NDArray[np.uint8]
    num_pixels: npt.NDArray[np.int64]

    @property
    def preview(self) -> npt.NDArray[np.uint8]:
        """Every `preview_step`-th row and column of the map."""
        step = preview_step(*self.labels.shape)
        return np.array(self.labels[::step, ::step])


class WrittenSegments(NamedTuple):
    """A class map that was written.

    Attributes:
        clusters: Classes of the map.
        preview: `(rows, columns)` uint8, every `preview_step`-th row and column of the map.
        num_pixels: `(clusters,)` int64, pixels of each class.
    """

    clusters: Clusters
    preview: npt.NDArray[np.uint8]
    num_pixels: npt.NDArray[np.int64]


def compute_segments(
    strips: Strips,
    encoder: Encoder,
    *,
    num_clusters: int | None = None,
    method: SegmentMethod = "layers",
    min_region: int = MIN_REGION,
    like: Clusters | None = None,
    stride: int = 8,
    fit_stride: int = 32,
    seed: int = 0,
    mode: Mode = None,
    run: RunInOrder | None = None,
    scratch: Path | None = None,
    progress: bool = False,
) -> Segments:
    """Compute a map of clusters in bounded memory; see `segment_raster`.

    Args:
        strips: The image.
        encoder: See `segment_raster`.
        num_clusters: See `segment_raster`.
        method: See `segment_raster`.
        min_region: See `segment_raster`.
        like: See `segment_raster`.
        stride: See `segment_raster`.
        fit_stride: See `segment_raster`.
        seed: See `segment_raster`.
        mode: See `segment_raster`.
        run: Ordered remote runner for windows, or None to run locally.
        scratch: Existing folder for two bytes a pixel while the map is made. By default the
            system's folder for temporary files.
        progress: Show progress bars.

    Raises:
        DataError: If the image has no valid data.
        ConfigError: If an argument is out of range or does not fit the others.
    """
    if like is not None and num_clusters is not None:
        raise ConfigError("Expected num_clusters (--clusters) or like (--like). Received: both.")
    if method not in ("layers", "windows"):
        raise ConfigError(f"method must be 'layers' or 'windows'. Received: {method!r}.")
    if like is not None and like.method != method:
        raise ConfigError(
            f"The clusters are of method {like.method!r}. Received: method={method!r}. Pass the "
            "method of the clusters (--method)."
        )
    if not 1 <= min_region <= MOST_MIN_REGION:
        raise ConfigError(
            f"min_region must be 1 to {MOST_MIN_REGION} px. Received: min_region={min_region}."
        )
    count = NUM_CLUSTERS if num_clusters is None else num_clusters
    check_num_clusters(count)
    checksum = weights_sha256(encoder) if isinstance(encoder, HubEncoder) else ""
    if like is not None and like.encoder != checksum:
        raise ConfigError(
            "The clusters were found with another encoder. Expected the encoder of the map whose "
            "clusters are applied (--like). Use the same model, or find new clusters."
        )
    labels = _scratch_array(strips.grid[:2], scratch)
    if method == "layers":
        layers = LayerEncoder(require_layers(encoder), LAYERS)
        sample = sample_pixels(strips, layers, seed, progress)
        clusters = like or cluster_pixels(
            sample, strips, num_clusters=count, seed=seed, encoder=checksum
        )
        for window, part in label_pixels(strips, layers, clusters, sample, progress):
            row, col, height, width = window
            labels[row : row + height, col : col + width] = part
    else:
        check_size(strips)
        check_stride(stride)
        is_dense(encoder, stride, mode)
        clusters = like or fit_clusters(
            strips,
            encoder,
            num_clusters=count,
            stride=fit_stride,
            seed=seed,
            mode=mode_of_samples(mode),
            run=run,
            progress=progress,
        )._replace(encoder=checksum)
        for row, part in label_rows(
            strips, encoder, clusters, stride, mode=mode, run=run, progress=progress
        ):
            labels[row : row + len(part)] = part
    merged = _scratch_array(strips.grid[:2], scratch)
    for row, part in merge_regions(labels, min_region):
        merged[row : row + len(part)] = part
    return _describe(strips, merged, clusters, is_fixed=like is not None)


def merge_regions(
    labels: npt.NDArray[np.uint8], min_region: int
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield a map without small regions, some rows at a time.

    A region is a set of pixels of one cluster that touch by sides or corners. Each pixel of a
    region below the minimum gets the cluster of the nearest pixel of a region that is not, within
    64 px; farther from any, it keeps its own. The result does not depend on the rows at a time.

    Args:
        labels: `(height, width)` uint8, 0 where there is no data.
        min_region: Pixels of the smallest region to keep.

    Yields:
        First row, and `(rows, width)` uint8.
    """
    height, width = labels.shape
    if min_region == 1:
        yield 0, labels
        return
    # A region of fewer pixels than the minimum has fewer rows, so the margin shows its size.
    margin = min_region + _REACH
    for top, num_rows in row_blocks(height, max(64, _PIXELS_AT_A_TIME // width)):
        stop = top + num_rows
        first = max(0, top - margin)
        part = labels[first : min(height, stop + margin)]
        inner = slice(top - first, stop - first)
        is_small = np.zeros(part.shape, bool)
        for value in np.unique(part):
            if value == UNLABELLED:
                continue
            regions, _ = ndimage.label(part == value, _TOUCHING)
            sizes = np.bincount(regions.ravel())
            sizes[0] = min_region
            is_small |= sizes[regions] < min_region
        result = np.array(part[inner])
        changed = is_small[inner]
        if changed.any() and (~is_small & (part != UNLABELLED)).any():
            distance, nearest = ndimage.distance_transform_edt(
                is_small | (part == UNLABELLED), return_indices=True
            )
            changed &= distance[inner] <= _REACH
            rows, cols = (one[inner][changed] for one in nearest)
            result[changed] = part[rows, cols]
        yield top, result


def segment(
    image: Path | str | npt.NDArray[Any],
    encoder: Encoder,
    *,
    bands: Sequence[str] | None = None,
    **options: Any,
) -> tuple[npt.NDArray[np.uint8], Clusters]:
    """Map an image by clusters, in memory. `segment_raster` maps large images in bounded memory.

    Args:
        image: See `segment_raster`.
        encoder: See `segment_raster`.
        bands: See `segment_raster`.
        **options: Options of `compute_segments`.

    Returns:
        `(height, width)` uint8 map, 0 where there is no data, and the clusters.

    Raises:
        MissingError: If the raster does not exist.
        DataError: If the raster cannot be read, lacks a band or has no valid data.
        ConfigError: If an argument is out of range or does not fit the others.
    """
    strips = open_image(image, bands or getattr(encoder, "bands", None))
    found = compute_segments(strips, encoder, **options)
    return np.array(found.labels), found.clusters


def segment_raster(
    image: Path | str | npt.NDArray[Any] | Sequence[Path | str],
    out: Path | str,
    encoder: Encoder,
    *,
    num_clusters: int | None = None,
    method: SegmentMethod = "layers",
    min_region: int = MIN_REGION,
    like: Path | str | None = None,
    stride: int = 8,
    fit_stride: int = 32,
    seed: int = 0,
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
) -> WrittenSegments:
    """Map a raster by clusters as a cloud-optimised GeoTIFF, at pixel resolution, any size.

    Method "layers" describes a pixel by its reflectance and by layers 1 to 4 of the shared encoder
    around it, each feature standardised over the image. K-means clusters 24 principal components
    of 20,000 pixels; each pixel gets the nearest cluster. Method "windows" is the paper's (section
    4.5): the representations of windows are clustered, and windows vote for their pixels.

    Regions below a minimum size are merged into their neighbours. Classes are 1, 2, ... from the
    darkest to the brightest cluster, 0 is no data. Each class of a new map has a region. The map
    has a colour table, and class names with the mean spectrum in `<out>.aux.xml`.

    The clusters are written beside the map (`classes.clusters.json` for `classes.tif`), and can be
    applied to other dates and scenes with `like`: the same values and colours then have the same
    meaning. Each image is standardised by its own pixels, which takes out season and light. So it
    should contain the same kinds of land.

    Args:
        image: Path of a raster, or a `(height, width, bands)` array of uint16 stored values or
            float reflectance; or a series, as `embed_raster` takes it: layers and reflectance, or
            the features of windows, are then averaged over its clear dates.
        out: Output GeoTIFF.
        encoder: Shared encoder, such as `hub.load(...)`. With method "windows" any function.
        num_clusters: Number of classes, 2 to 254; 7 by default.
        method: "layers" for pixel resolution, or "windows".
        min_region: Pixels of the smallest region that is kept, 1 to 1,000.
        like: File of the clusters of another map, to apply instead of finding new ones.
        stride: Distance between the windows that vote, in pixels, 1 to 64; for windows only.
        fit_stride: Distance between the windows that clusters are fitted on; for windows only.
        seed: Seed of k-means and of the sample.
        first: First acquisition date of a series to use.
        last: Last acquisition date of a series to use.
        newest: Use the newest of several products of one tile and date; else they are an error.
        picture: PNG to write as well: the image beside the map, with a legend.
        bands: Band names of the encoder. By default those that it states.
        mode: "exact" or "dense", for windows only. By default dense where the encoder supports it
            at this stride.
        workers: Processes that encode windows. With more than 1 the encoder must be picklable.
        scheduler: Address of a Dask scheduler to use instead of processes, for windows only.
        overwrite: Overwrite existing files.
        progress: Show progress bars.

    Returns:
        The clusters, a preview of the map, and the pixels of each class.

    Raises:
        ExistsError: If an output exists and `overwrite` is false, or is the input.
        OutputError: If an output cannot be written.
        MissingError: If the raster or the file of the clusters does not exist.
        DataError: If the raster cannot be read, lacks a band or has no valid data; if scenes of a
            series are not on one grid, or no date is in the period.
        ConfigError: If an argument is out of range or does not fit the others; if the encoder has
            no layers; or, for windows, if the image is smaller than a window or has fewer windows
            than clusters, or the encoder does not support dense mode although it is required.

    Examples:
        >>> encoder = sits_keras.from_preset("sits_rgbn_small", "shared")
        >>> done = segment_raster("june.tif", "june-classes.tif", encoder, num_clusters=5)
        >>> known = "june-classes.clusters.json"
        >>> segment_raster("july.tif", "july-classes.tif", encoder, like=known)
    """
    out = Path(out)
    check_suffix(out, "OUT", ".tif", ".tiff")
    sources = [*paths_of(image), *([] if like is None else [like])]
    refuse_existing(out, overwrite, sources)
    if like is None:
        refuse_existing(clusters_path(out), overwrite, sources)
    picture = check_picture(picture, overwrite)
    known = None if like is None else read_clusters(like)
    period = first, last
    check_period([image], period, newest)
    strips = open_image(
        image, bands or getattr(encoder, "bands", None), period=period, newest=newest
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with runner_in_order(workers, scheduler) as run:
        found = compute_segments(
            strips,
            encoder,
            num_clusters=num_clusters,
            method=method,
            min_region=min_region,
            like=known,
            stride=stride,
            fit_stride=fit_stride,
            seed=seed,
            mode=mode,
            run=run,
            scratch=out.parent,
            progress=progress,
        )
    tags = {"method": method, "min_region": str(min_region), "seed": str(seed)}
    if method == "windows":
        tags |= {"stride": str(stride), "fit_stride": str(fit_stride)}
    classes = found.clusters.classes()
    with open_map(
        out,
        strips.grid,
        ["cluster"],
        "uint8",
        UNLABELLED,
        resampling="mode",
        classes=classes,
        tags=tags,
    ) as target:
        for row, num_rows in _row_blocks(found.labels):
            target.write(row, found.labels[row : row + num_rows])
    if like is None:
        write_clusters(clusters_path(out), found.clusters)
    preview = found.preview
    if picture is not None:
        plot_classes(strips, preview, classes, picture, overwrite=overwrite)
    return WrittenSegments(found.clusters, preview, found.num_pixels)


def _scratch_array(shape: tuple[int, int], folder: Path | None) -> npt.NDArray[np.uint8]:
    """Return an array of zeros in a file without a name, which ends with the array."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _row_blocks(labels: npt.NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Return the first of some rows and their number, from the top."""
    height, width = labels.shape
    return row_blocks(height, max(1, _PIXELS_AT_A_TIME // width))


def _describe(
    strips: Strips, labels: npt.NDArray[np.uint8], clusters: Clusters, *, is_fixed: bool
) -> Segments:
    """Measure the clusters of a map, drop those without a pixel, and renumber the others."""
    pixels = copy.deepcopy(strips)
    count, num_bands = clusters.spectra.shape
    num_pixels = np.zeros(count + 1, np.int64)
    sums = np.zeros((count + 1, num_bands))
    for row, num_rows in _row_blocks(labels):
        part = labels[row : row + num_rows].ravel()
        stored = pixels.read(row, num_rows).reshape(-1, num_bands)
        num_pixels += np.bincount(part, minlength=count + 1)
        for band in range(num_bands):
            sums[:, band] += np.bincount(part, stored[:, band], count + 1)
    num_pixels, sums = num_pixels[1:], sums[1:]
    if is_fixed:  # the names stay those of the map that the clusters are of
        return Segments(clusters, labels, num_pixels)
    spectra = sums / np.maximum(num_pixels, 1)[:, None] / QUANTIFICATION
    kept = np.flatnonzero(num_pixels)
    kept = kept[np.argsort(spectra[kept].mean(axis=1), kind="stable")]
    numbers = np.zeros(count + 1, np.uint8)
    numbers[1 + kept] = np.arange(1, 1 + len(kept))
    for row, num_rows in _row_blocks(labels):
        labels[row : row + num_rows] = numbers[labels[row : row + num_rows]]
    found = clusters._replace(spectra=spectra).select(kept)
    return Segments(found, labels, num_pixels[kept])
