"""Measure retrieval of a place at another date (section 4.3, Table 2)."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.rasters.rows import ArrayStrips
from sits_keras.data.tiling import sliding_windows
from sits_keras.errors import ConfigError, DataError
from sits_keras.tasks.retrieval.distances import Distances, RetrievalMethod, comparison_of
from sits_keras.tasks.retrieval.search import NEAR, STRIDE
from sits_keras.tasks.windows import Encoder, Mode, encode_at, is_dense, iterate_windows


class Recall(NamedTuple):
    """Retrieval scores.

    Ties count by expected rank: an encoder of constants scores as chance.

    Attributes:
        at_1: Recall@1, fraction of the queries whose nearest window is that of the same place.
        at_5: Recall@5, fraction of the queries whose own window is among the five nearest.
        near: Fraction of the queries whose nearest window begins within `NEAR` pixels of their own.
        chance: Expected `at_1` of random matches.
        chance_at_5: Expected `at_5` of random matches.
        chance_near: Expected `near` of random matches.
        error: Standard error of `at_1` over the series, since queries of one series are dependent;
            None for a single series.
        num_queries: Number of look-ups, each in one image.
        num_series: Number of series.
        num_windows: Number of searched windows, over all images.
        at_1_of_series: Recall@1 of each series of two or more dates.
    """

    at_1: float
    at_5: float
    near: float
    chance: float
    chance_at_5: float
    chance_near: float
    error: float | None
    num_queries: int
    num_series: int
    num_windows: int
    at_1_of_series: tuple[float, ...]


def measure_recall(
    encoder: Encoder,
    series: Sequence[npt.NDArray[Any]],
    *,
    num_queries: int = 64,
    stride: int = STRIDE,
    seed: int = 0,
    method: RetrievalMethod = None,
    mode: Mode = None,
) -> Recall:
    """Look windows of each date up in every other date of their series.

    Windows are encoded and compared in batches, so memory does not grow with the number of
    features: a float32 distance is kept for each query and window of one date. Windows without data
    are not found.

    Args:
        encoder: Encoder whose features are compared.
        series: `(time, height, width, bands)` uint16 stored values or float reflectance of each
            series.
        num_queries: Number of windows of each date, sampled without replacement, that are looked up
            in all other dates. An image with fewer windows gives all of them.
        stride: Distance between windows, in pixels.
        seed: Seed of the sample. The same seed gives the same queries for every encoder.
        method: Distance of windows, see `sits_keras.tasks.retrieve`.
        mode: "exact" or "dense". By default dense where the encoder supports it at this stride.

    Returns:
        The scores.

    Raises:
        ConfigError: If an image is smaller than a window, `num_queries` is below 1, or the encoder
            does not support dense mode or layers although they are required.
        DataError: If no series has two dates, or features are not finite.
    """
    if num_queries < 1:
        raise ConfigError(f"num_queries must be at least 1. Received: num_queries={num_queries}.")
    if all(len(images) < 2 for images in series):
        raise DataError(
            "Expected at least one series of two or more dates to look places up in. "
            f"Received: {len(series)} series."
        )
    encoder, compare = comparison_of(encoder, method)
    is_dense(encoder, stride, mode)
    rng = np.random.default_rng(seed)
    outcomes = [
        _look_up_series(encoder, compare, images, num_queries, stride, rng, mode)
        for images in series
        if len(images) > 1
    ]
    found = np.array([one.found for one in outcomes])
    chance = np.array([one.chance for one in outcomes])
    counts = np.array([one.num_queries for one in outcomes])
    at_1, at_5, near = map(float, found.sum(axis=0) / counts.sum())
    chance_at_1, chance_at_5, chance_near = map(float, chance.sum(axis=0) / counts.sum())
    return Recall(
        at_1=at_1,
        at_5=at_5,
        near=near,
        chance=chance_at_1,
        chance_at_5=chance_at_5,
        chance_near=chance_near,
        error=_error_of_ratio(found[:, 0], counts),
        num_queries=int(counts.sum()),
        num_series=len(outcomes),
        num_windows=sum(one.num_windows for one in outcomes),
        at_1_of_series=tuple((found[:, 0] / counts).tolist()),
    )


class _Outcome(NamedTuple):
    """Sums over the queries of one series: found at 1, at 5, near; and the same by chance."""

    found: npt.NDArray[np.float64]
    chance: npt.NDArray[np.float64]
    num_queries: int
    num_windows: int


def _look_up_series(
    encoder: Encoder,
    compare: Distances,
    images: npt.NDArray[Any],
    num_queries: int,
    stride: int,
    rng: np.random.Generator,
    mode: Mode,
) -> _Outcome:
    height, width = images.shape[1:3]
    windows = sliding_windows(height, width, IMAGE_SIZE, stride)
    corners = np.array([window[:2] for window in windows])
    count = min(num_queries, len(windows))
    sampled = [rng.choice(len(windows), count, replace=False) for _ in images]
    strips = [ArrayStrips(image, None) for image in images]
    features = [
        encode_at(encoder, image, [windows[i] for i in chosen])
        for image, chosen in zip(strips, sampled, strict=True)
    ]
    is_near = [_are_near(corners[chosen], corners) for chosen in sampled]
    found, chance = np.zeros(3), np.zeros(3)
    for target, image in enumerate(strips):
        others = [date for date in range(len(images)) if date != target]
        looked_up = np.concatenate([features[date] for date in others])
        distances = np.empty((len(looked_up), len(windows)), np.float32)
        start = 0
        reduce = functools.partial(compare, looked_up)
        for row in iterate_windows(encoder, image, stride, reduce=reduce, mode=mode):
            stop = start + len(row.cols)
            distances[:, start:stop] = np.nan_to_num(row.features.T, nan=np.inf)
            start = stop
        for date, part in zip(others, np.split(distances, len(others)), strict=True):
            found += _count_found(part, sampled[date], is_near[date])
            chance += np.array([1, min(5, len(windows)), is_near[date].sum() / count]) * (
                count / len(windows)
            )
    return _Outcome(
        found, chance, count * len(images) * (len(images) - 1), len(windows) * len(images)
    )


def _are_near(
    corners: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return whether two windows begin within `NEAR` pixels of each other, `(n, m)` bool."""
    near: npt.NDArray[np.bool_] = cdist(corners, others) <= NEAR
    return near


def _count_found(
    distances: npt.NDArray[np.float32],
    own_windows: npt.NDArray[np.int64],
    is_near: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Return expected numbers of queries found at 1, at 5 and near, with ties broken at random.

    Args:
        distances: `(queries, windows)`.
        own_windows: `(queries,)`, index of each query's own window.
        is_near: `(queries, windows)` bool.
    """
    own = np.take_along_axis(distances, own_windows[:, None], axis=1)
    num_nearer = (distances < own).sum(axis=1)
    num_as_near = (distances == own).sum(axis=1)  # including its own window
    at = [np.clip((k - num_nearer) / num_as_near, 0, 1).sum() for k in (1, 5)]
    is_nearest = distances == distances.min(axis=1, keepdims=True)
    near = ((is_nearest & is_near).sum(axis=1) / is_nearest.sum(axis=1)).sum()
    return np.array([*at, near])


def _error_of_ratio(found: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> float | None:
    """Return the standard error of the ratio `found.sum() / counts.sum()` of joint samples."""
    if len(counts) < 2:
        return None
    residuals = found - found.sum() / counts.sum() * counts
    factor = len(counts) / (len(counts) - 1)
    return math.sqrt(factor * float(np.square(residuals).sum())) / float(counts.sum())
