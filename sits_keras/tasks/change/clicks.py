"""Change steered by a few labelled points: "changed" or "not changed" here.

A logistic regression on the differences of the layers of both encoders and of the bands, on the
bands of both dates and on their IR-MAD variates corrects the unsupervised distance. Its weights are
drawn towards 0, so that with few labels the map is that of the unsupervised method, and each label
counts more the more the features agree.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from scipy.special import expit

from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.points import Point
from sits_keras.errors import DataError
from sits_keras.hub import HubEncoder
from sits_keras.tasks.change.pixels import (
    Floats,
    PixelChange,
    RowStore,
    layer_differences,
    robust_scale,
    smooth_variates,
)
from sits_keras.tasks.layers import LayerTile, open_layers

_LAYERS = (1, 2, 3)
_CLIP = 8.0
_PRIOR_SLOPE = 1.0  # of the logit, for each deviation of the unsupervised distance
_PRIOR_LIMIT = 4.0  # of the logit, so that labels can contradict any distance
_RIDGE = 4.0  # inverse variance of a weight
_PIXEL_WEIGHT = np.float32(2)  # of 4 features a band, beside hundreds of channels
_DEEPEST_WEIGHT = np.float32(1.5)  # of layer 3 of the first encoder, which sees most around a pixel
_ABSOLUTE_WEIGHT = np.float32(1.5)  # beside signed values: few labels do not show all directions
_OFFSET_RIDGE = 0.1  # of the offset
_MAX_SAMPLES = 20_000  # cells of a tile that scales are computed on
_IN_MEMORY = 2**22  # pixels whose features are kept between fits


class _Part(NamedTuple):
    tile: LayerTile
    features: tuple[Floats, ...]  # of each layer's cells, then of the pixels


class ClickedChange:
    """Fit change to labelled points, again and again; features are computed once.

    Of images of at most 4 million pixels, features stay in memory, and a fit and its map take less
    than a second for 1,024 x 1,024 px. Larger images are encoded again for each map.

    Args:
        prior: Unsupervised change of the pair.
        encoders: Encoders whose layers are used: the shared one, or both.

    Raises:
        ConfigError: If an encoder has no layers.
    """

    def __init__(self, prior: PixelChange, encoders: Sequence[HubEncoder]):
        self.prior = prior
        self._layers = open_layers(encoders, _LAYERS)
        self._centre = float(np.log(max(prior.threshold, 1e-6)))
        self._unit = prior.calibration.log_deviation
        self._logits = RowStore.filled(prior.pair, self._prior_logits)
        height, width = prior.pair.before.grid[:2]
        self._parts: list[_Part] | None = None
        if height * width <= _IN_MEMORY:
            tiles = list(self._tiles())
            self._scales = _fit_scales(tiles)
            self._parts = [self._scale(tile) for tile in tiles]
        else:
            self._scales = _fit_scales(self._tiles())

    def fit(self, points: Sequence[Point], *, threshold: float | None = None) -> PixelChange:
        """Fit the change to points and return its map.

        Args:
            points: Labelled pixels. Those outside the image or without data are ignored.
            threshold: Probability of change above which a pixel has changed; 0.5 by default.

        Returns:
            The change; its distance is the probability of change.

        Raises:
            DataError: If no point has data in both images.
        """
        at, labels = self._at(points)
        pair = self.prior.pair
        rows: dict[int, Floats] = {}
        for part in self._parts or self._iterate():
            row, col, num_rows, num_cols = part.tile.window
            inside = (at >= (row, col)).all(axis=1) & (at < (row + num_rows, col + num_cols)).all(1)
            found = _features_at(part, *(at[inside] - (row, col)).T)
            rows.update(zip(np.flatnonzero(inside).tolist(), found, strict=True))
        kept = sorted(rows)
        features = np.stack([rows[index] for index in kept])
        logits = np.array([self._logits.read(row, 1)[0, col] for row, col in at[kept].tolist()])
        weights, offset = fit_logistic(features, labels[kept], logits)
        store = RowStore(*pair.before.grid[:2])
        store.write_tiles(
            (part.tile.window, _score(part, weights)) for part in self._parts or self._iterate()
        )

        def probability(row: int, num_rows: int) -> Floats:
            logit = self._logits.read(row, num_rows) + store.read(row, num_rows)
            return np.asarray(expit(logit + np.float32(offset)), np.float32)

        threshold = 0.5 if threshold is None else threshold
        return PixelChange(pair, "clicks", probability, threshold)

    def _at(self, points: Sequence[Point]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        height, width = self.prior.pair.before.grid[:2]
        kept = [
            point
            for point in points
            if 0 <= point.row < height
            and 0 <= point.col < width
            and self.prior.pair.valid(point.row, 1)[0, point.col]
        ]
        if not kept:
            raise DataError(
                f"None of the {len(points)} labelled points has data in both images. Expected "
                "points within the images. Check the coordinates."
            )
        at = np.array([(point.row, point.col) for point in kept])
        return at, np.array([point.changed for point in kept], np.float64)

    def _prior_logits(self, row: int, num_rows: int) -> Floats:
        """Return the logits of the unsupervised distance, NaN without data."""
        logits = self._scaled(self.prior.score(row, num_rows))
        return np.where(self.prior.pair.valid(row, num_rows), logits, np.nan).astype(np.float32)

    def _scaled(self, distance: Floats) -> npt.NDArray[np.float64]:
        logs = np.log(np.maximum(distance, 1e-6))
        scaled = _PRIOR_SLOPE * (logs - self._centre) / self._unit
        bounded: npt.NDArray[np.float64] = scaled / (1 + np.abs(scaled) / _PRIOR_LIMIT)
        return bounded

    def _tiles(self) -> Iterator[_Part]:
        """Yield the differences of all layers, and features of the pixels, without scaling."""
        pair = copy.deepcopy(self.prior.pair)  # tiles are read ahead in threads
        variates = smooth_variates(pair)
        rows: Floats = np.zeros((0, 0, 0), np.float32)
        for tile in layer_differences(self._layers, self.prior.pair):
            row, col, num_rows, num_cols = tile.window
            if col == 0:
                one, two = (
                    image.read(row, num_rows).astype(np.float32) / np.float32(QUANTIFICATION)
                    for image in pair
                )
                found: list[Floats] = [two - one, one, two, variates(row, num_rows)]
                rows = np.concatenate(found, axis=-1)
            yield _Part(tile, (*tile.cells, rows[:, col : col + num_cols]))

    def _iterate(self) -> Iterator[_Part]:
        return map(self._scale, self._tiles())

    def _scale(self, part: _Part) -> _Part:
        features = []
        for values, (centre, scale) in zip(part.features, self._scales, strict=True):
            scaled = (values - centre) / scale
            features.append(np.tanh(np.clip(scaled, -_CLIP, _CLIP) / 3))
        features[len(_LAYERS) - 1] *= _DEEPEST_WEIGHT
        features[-1][~part.tile.valid] = 0
        features[-1] = gaussian_filter(_PIXEL_WEIGHT * features[-1], (1, 1, 0))
        return _Part(part.tile._replace(cells=()), tuple(features))


def _fit_scales(parts: Iterable[_Part]) -> list[tuple[Floats, Floats]]:
    """Return the medians and deviations of each layer and of the bands."""
    samples: list[list[Floats]] = []
    for part in parts:
        found = [part.tile.inner(index, cells) for index, cells in enumerate(part.tile.cells)]
        found.append(part.features[-1][part.tile.valid])
        steps = [max(1, len(values) // _MAX_SAMPLES) for values in found]
        samples.append([v[::step] for v, step in zip(found, steps, strict=True)])
    scales = []
    for values in map(np.concatenate, zip(*samples, strict=True)):
        known = values if len(values) else np.zeros((1, values.shape[1]), np.float32)
        centre, scale = robust_scale(known)
        scales.append((centre.astype(np.float32), scale.astype(np.float32)))
    return scales


def fit_logistic(
    features: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.floating[Any]],
    logits: npt.NDArray[np.floating[Any]],
    ridge: float = _RIDGE,
) -> tuple[npt.NDArray[np.float64], float]:
    """Fit a logistic regression that corrects given logits; its weights are drawn towards 0.

    Both labels have the same total weight, so that many clicks of one kind do not move the map.

    Args:
        features: `(points, features)`.
        labels: `(points,)` 0 or 1.
        logits: `(points,)` logits to correct.
        ridge: Inverse variance of a weight.

    Returns:
        `(features,)` weights, and an offset.
    """
    counts = [max(float((labels == value).sum()), 1.0) for value in (0, 1)]
    importance = np.where(labels == 1, 1 / counts[1], 1 / counts[0]) * len(labels) / 2
    signs = np.where(labels == 1, 1.0, -1.0)
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1).astype(np.float64)
    penalty = np.append(np.full(features.shape[1], ridge), _OFFSET_RIDGE)
    start = np.zeros(design.shape[1])

    def objective(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        margin = signs * (logits + design @ weights)
        loss = importance @ np.logaddexp(0, -margin) + 0.5 * (penalty * weights) @ weights
        gradient = -design.T @ (importance * signs * expit(-margin)) + penalty * weights
        return float(loss), gradient

    found = minimize(objective, start, jac=True, method="L-BFGS-B").x
    return found[:-1], float(found[-1])


def _features_at(
    part: _Part, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return each value and its absolute value at some pixels of a part, `(pixels, features)`."""
    found = []
    for index, values in enumerate(part.features[:-1]):
        both = values, _ABSOLUTE_WEIGHT * np.abs(values)
        found += [part.tile.at(index, one, rows, cols) for one in both]
    pixels = part.features[-1][rows, cols]
    return np.concatenate([*found, pixels, _ABSOLUTE_WEIGHT * np.abs(pixels)], axis=1)


def _score(part: _Part, weights: npt.NDArray[np.float64]) -> Floats:
    """Return the correction of the logits of a part, `(height, width)`."""
    total: Floats = np.zeros(part.tile.valid.shape, np.float32)
    first = 0
    for index, values in enumerate(part.features):
        count = values.shape[-1]
        own, absolute = weights[first : first + 2 * count].astype(np.float32).reshape(2, count)
        score = values @ own + np.abs(values) @ (_ABSOLUTE_WEIGHT * absolute)
        is_layer = index < len(part.tile.grids)
        total += part.tile.upsample(index, score) if is_layer else score
        first += 2 * count
    return total
