"""Fit the projection of an encoder: principal components, each of deviation one."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from sits_keras.data.radiometry import NODATA, QUANTIFICATION, has_data
from sits_keras.data.rasters.rows import ArrayStrips
from sits_keras.errors import ConfigError, DataError
from sits_keras.hub import HubEncoder
from sits_keras.hub.encoder import weights_sha256
from sits_keras.hub.layers import LayerEncoder
from sits_keras.hub.projection import NUM_AXES, PROJECTED_LAYERS, Projection
from sits_keras.tasks.layers import iterate_tiles
from sits_keras.tasks.series import SeriesImage

Floats = npt.NDArray[np.float32]

STEP = 0.05
"""Difference of numbers that one step of int8 stands for: its range is 6.35 deviations."""

_PIXELS_OF_DATE = 150
_MOST_DATES = 8  # of one image
_MOST_WINDOWS = 16  # of a series that is given as such
_SIDE = 256  # px of these windows
_LEAST = 1e-4  # deviation of a feature
_LEAST_VARIANCE = 1e-6  # of an axis, relative to the first


def fit_projection(
    encoder: HubEncoder,
    images: Iterable[tuple[str, npt.NDArray[np.uint16]]],
    *,
    seed: int = 0,
) -> Projection:
    """Fit the projection of an encoder on images of many places, in bounded memory.

    Features are reflectance and layers 1 to 4, each standardised, and each layer weighted so that
    all count the same. Their principal components, divided by their deviations, are the axes. All
    places count the same, whatever their size and number of dates.

    Args:
        encoder: Shared encoder.
        images: Place, and `(dates, height, width, bands)` uint16 stored values of part of it, 0
            without data. At most 8 dates of each, and 150 pixels of a date, are used. A place may
            have several parts.
        seed: Seed of the sampled pixels.

    Returns:
        The projection, of 128 axes or as many as there are features.

    Raises:
        ConfigError: If the encoder has no layers, or is not the shared one.
        DataError: If there are fewer sampled pixels than features.
    """
    if isinstance(encoder, HubEncoder) and encoder.metadata["encoder"] != "shared":
        raise ConfigError(
            "Expected the shared encoder. Received: the exclusive encoder, whose numbers describe "
            "a date. Use the shared encoder, or windows (method='windows')."
        )
    layers = LayerEncoder(encoder, PROJECTED_LAYERS)
    sizes = [len(layers.bands), *(grid.num_channels for grid in layers.grids)]
    moments: dict[str, _Moments] = {}
    for place, values in _sample(layers, images, seed):
        moments.setdefault(place, _Moments(sum(sizes))).add(values)
    num_pixels = sum(one.count for one in moments.values())
    if num_pixels <= sum(sizes):
        raise DataError(
            f"{num_pixels} pixels with data were sampled, to fit {sum(sizes)} features. Expected "
            "more pixels than features. Use more or larger images."
        )
    mean = np.mean([one.sums / one.count for one in moments.values()], axis=0)
    squares = np.mean([one.squares / one.count for one in moments.values()], axis=0)
    covariance = squares - np.outer(mean, mean)
    scale = np.maximum(np.sqrt(np.maximum(np.diag(covariance), 0)), _LEAST)
    scale *= np.sqrt(np.repeat(sizes, sizes))
    variances, axes = np.linalg.eigh(covariance / np.outer(scale, scale))
    order = np.argsort(-variances, kind="stable")[:NUM_AXES]
    axes = axes[:, order]
    # The sign of an axis is arbitrary: its largest entry is positive.
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    # Axes of rounding errors are not scaled up to a deviation of one.
    axes = axes * signs / np.sqrt(np.maximum(variances[order], _LEAST_VARIANCE * variances[-1]))
    return Projection(
        mean.astype(np.float32),
        (axes / scale[:, None]).astype(np.float32),
        STEP,
        weights_sha256(encoder),
    )


def sample_series(series: SeriesImage) -> Iterator[tuple[str, npt.NDArray[np.uint16]]]:
    """Yield windows of a series, spread over it, for `fit_projection`; clouds count as no data.

    Args:
        series: Series of the encoder's bands.
    """
    windows = series.windows(side=_SIDE)
    kept = np.unique(np.linspace(0, len(windows) - 1, min(len(windows), _MOST_WINDOWS)).astype(int))
    for number in kept:
        images = []
        for index in _spread(len(series.acquisitions)):
            stored, clear = series.read(index, windows[number])
            images.append(np.where(clear[..., None], stored, NODATA))
        if min(windows[number][2:]) > 1:
            yield series.name, np.stack(images)


def _spread(num_dates: int) -> list[int]:
    kept = np.linspace(0, num_dates - 1, min(num_dates, _MOST_DATES)).astype(int)
    return [int(one) for one in np.unique(kept)]


def _sample(
    layers: LayerEncoder, images: Iterable[tuple[str, npt.NDArray[np.uint16]]], seed: int
) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    """Yield the features of some pixels of each image and date."""
    rng = np.random.default_rng(seed)
    for place, dates in images:
        for index in _spread(len(dates)):
            image = dates[index]
            valid = np.flatnonzero(has_data(image))
            if not len(valid):
                continue
            chosen = np.sort(rng.choice(valid, min(len(valid), _PIXELS_OF_DATE), replace=False))
            rows, cols = np.divmod(chosen, image.shape[1])
            for tile in iterate_tiles([layers], ArrayStrips(image, layers.bands)):
                top, left, height, width = tile.window
                here = (rows >= top) & (rows < top + height)
                here &= (cols >= left) & (cols < left + width)
                row, col = rows[here], cols[here]
                parts: list[npt.NDArray[np.floating]] = [image[row, col] / QUANTIFICATION]
                parts += [
                    tile.at(number, cells, row - top, col - left)
                    for number, cells in enumerate(tile.cells)
                ]
                yield place, np.concatenate(parts, axis=1, dtype=np.float64)


class _Moments:
    """Sums of the features of a place and of their products."""

    def __init__(self, num_features: int):
        self.count = 0
        self.sums = np.zeros(num_features)
        self.squares = np.zeros((num_features, num_features))

    def add(self, values: npt.NDArray[np.float64]) -> None:
        self.count += len(values)
        self.sums += values.sum(axis=0)
        self.squares += values.T @ values
