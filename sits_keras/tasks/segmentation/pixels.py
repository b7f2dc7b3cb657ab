"""Clusters of pixels by their reflectance and the layers of the shared encoder around them."""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.rows import Strips
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError
from sits_keras.hub.layers import LayerEncoder
from sits_keras.tasks.averages import iterate_averages, job_bar
from sits_keras.tasks.layers import TILE_SIDE, LayerTile, iterate_tiles
from sits_keras.tasks.segmentation.clusters import Clusters, run_k_means
from sits_keras.tasks.series import SeriesStrips, stored_values

LAYERS = (1, 2, 3, 4)
"""Layers of the shared encoder that describe a pixel."""

_NUM_SAMPLES = 20_000  # pixels that clusters are fitted on
_NUM_AXES = 24  # principal components that k-means compares
_SCORE_BYTES = 2**27  # of the scores of all clusters at the pixels of one tile


class PixelSample(NamedTuple):
    """Some pixels of an image.

    Attributes:
        features: `(pixels, features)` float32: reflectance, then the channels of each layer.
        offset: `(features,)` float32, mean of each feature.
        scale: `(features,)` float32 above 0: standard deviation of each feature, times the square
            root of the number of features of its layer, so that all layers count the same.
        num_bands: Number of the first features that are reflectance.
    """

    features: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    num_bands: int


def sample_pixels(
    strips: Strips, layers: LayerEncoder, seed: int, progress: bool = False
) -> PixelSample:
    """Sample the features of about 20,000 pixels with data, the same ones for each seed.

    Args:
        strips: The image.
        layers: Layers of the shared encoder.
        seed: Seed of the sample.
        progress: Show a progress bar.

    Raises:
        DataError: If the image has no data.
    """
    height, width = strips.grid[:2]
    rng = np.random.default_rng(seed)
    count = min(height * width, 2 * _NUM_SAMPLES)  # twice, as some have no data
    pixels = np.sort(rng.choice(height * width, count, replace=False))
    rows, cols = np.divmod(pixels, width)
    sizes = [len(strips.bands), *(grid.num_channels for grid in layers.grids)]
    features = np.full((count, sum(sizes)), np.nan, np.float32)
    for tile, stored in _tiles(strips, layers, TILE_SIDE, "sample" if progress else None):
        top, left, tall, wide = tile.window
        here = (rows >= top) & (rows < top + tall) & (cols >= left) & (cols < left + wide)
        here[here] = tile.valid[rows[here] - top, cols[here] - left]
        row, col = rows[here] - top, cols[here] - left
        parts = [stored[row, col] / np.float32(QUANTIFICATION)]
        parts += [tile.at(index, cells, row, col) for index, cells in enumerate(tile.cells)]
        features[here] = np.concatenate(parts, axis=1)
    features = features[~np.isnan(features[:, 0])]
    if not len(features):
        raise DataError(f"{strips.name} has no data: every pixel is nodata.")
    if len(features) > _NUM_SAMPLES:
        features = features[rng.choice(len(features), _NUM_SAMPLES, replace=False)]
    spread = features.std(axis=0, dtype=np.float64)
    spread[spread < 1e-6] = 1.0  # a constant feature carries no information
    return PixelSample(
        features,
        features.mean(axis=0, dtype=np.float64).astype(np.float32),
        (spread * np.sqrt(np.repeat(sizes, sizes))).astype(np.float32),
        sizes[0],
    )


def cluster_pixels(
    sample: PixelSample, strips: Strips, *, num_clusters: int, seed: int, encoder: str
) -> Clusters:
    """Find clusters of sampled pixels by k-means on 24 principal components of their features.

    Args:
        sample: Pixels of an image.
        strips: The image.
        num_clusters: Number of clusters.
        seed: Seed of k-means.
        encoder: Checksum of the encoder.

    Returns:
        The clusters, from the darkest to the brightest.

    Raises:
        ConfigError: If there are fewer pixels than clusters.
    """
    if len(sample.features) < num_clusters:
        raise ConfigError(
            f"{strips.name} has {len(sample.features)} sampled pixels with data, fewer than "
            f"{num_clusters} clusters. Use fewer clusters."
        )
    standardised = (sample.features - sample.offset) / sample.scale
    _, axes = np.linalg.eigh(np.cov(standardised, rowvar=False, dtype=np.float64))
    axes = axes[:, ::-1][:, :_NUM_AXES].astype(np.float32)
    centres, labels = run_k_means(standardised @ axes, num_clusters, seed)
    counts = np.bincount(labels, minlength=num_clusters)
    spectra = (
        np.stack(
            [
                np.bincount(labels, band, num_clusters)
                for band in sample.features.T[: sample.num_bands]
            ],
            axis=1,
        )
        / np.maximum(counts, 1)[:, None]
    )
    # Identical pixels leave some clusters empty.
    order = np.array(
        [i for i in np.argsort(spectra.mean(axis=1), kind="stable") if counts[i]], np.intp
    )
    return Clusters(
        "layers",
        strips.bands,
        (centres @ axes.T)[order],
        spectra[order],
        len(sample.features),
        encoder,
    )


def label_pixels(
    strips: Strips,
    layers: LayerEncoder,
    clusters: Clusters,
    sample: PixelSample,
    progress: bool = False,
) -> Iterator[tuple[Window, npt.NDArray[np.uint8]]]:
    """Yield the nearest cluster of each pixel, a tile of the image at a time.

    The distance to a centre is linear in the features, but for a term that all centres share. So
    scores of the clusters are computed at the cells of each layer, and interpolated and added.

    Args:
        strips: The image.
        layers: Layers of the shared encoder.
        clusters: Clusters of features of the same layers, of this image or of another one.
        sample: Pixels of this image, by which its features are standardised.
        progress: Show a progress bar.

    Yields:
        Window of a tile, and its `(height, width)` uint8 clusters: 1 for the first one, 0 where
        there is no data.
    """
    count = len(clusters.centres)
    side = TILE_SIDE
    while side > 64 and 4 * count * side**2 > _SCORE_BYTES:
        side //= 2
    weights = (clusters.centres / sample.scale).T
    bias = -0.5 * np.square(clusters.centres).sum(axis=1) - sample.offset @ weights
    sizes = [len(strips.bands), *(grid.num_channels for grid in layers.grids)]
    of_bands, *of_layers = np.split(weights, np.cumsum(sizes)[:-1])
    for tile, stored in _tiles(strips, layers, side, "label" if progress else None):
        scores = (stored / np.float32(QUANTIFICATION)) @ of_bands + bias
        for index, (cells, weight) in enumerate(zip(tile.cells, of_layers, strict=True)):
            scores += tile.upsample(index, cells @ weight)
        labels = scores.argmax(axis=-1).astype(np.uint8) + np.uint8(1)
        yield tile.window, np.where(tile.valid, labels, np.uint8(0))


def _tiles(
    strips: Strips, layers: LayerEncoder, side: int, title: str | None
) -> Iterator[tuple[LayerTile, npt.NDArray[np.uint16]]]:
    """Yield tiles of an image with their `(height, width, bands)` stored values.

    Layers and values of a series are averages over its clear dates.
    """
    height, width = strips.grid[:2]
    if isinstance(strips, SeriesStrips):
        series = strips.series
        num_dates = len(series.acquisitions)
        with job_bar(height * width * num_dates, title) as bar:
            windows = series.windows(side=side)
            for one in iterate_averages(layers, series, windows, on_date=bar.update):
                yield one.tile, stored_values(one.reflectance, one.tile.valid)
        return
    pixels = copy.deepcopy(strips)  # read separately: tiles are read ahead
    with job_bar(height * width, title) as bar:
        for tile in iterate_tiles([layers], strips, side):
            row, col, tall, wide = tile.window
            stored = pixels.read(row, tall)[:, col : col + wide]
            yield tile, stored
            bar.update(tall * wide)
