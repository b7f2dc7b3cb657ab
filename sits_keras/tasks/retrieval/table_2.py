"""Finding a place again at another date, and how often that succeeds (section 4.3, Table 2)."""

import concurrent.futures
import functools
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.rasters.rows import ArrayStrips
from sits_keras.data.tiling import sliding_windows
from sits_keras.errors import ConfigError, DataError
from sits_keras.tasks.windows.sliding import Encoder, Mode, encode_at, is_dense, iterate_windows

STRIDE = 4
"""Pixels from a searched window to the next: what the paper's counts come to."""

NEAR = IMAGE_SIZE // 2
"""Pixels, in a straight line, within which a window counts as near to its place."""


class Recall(NamedTuple):
    """How often a window was found at its own place.

    Windows that are as near as each other share what they are worth: an encoder of constants gives
    chance.

    Attributes:
        at_1: share of the queries whose nearest window is that of the same place, in [0, 1].
        at_5: share of those whose own window is among the five nearest.
        near: share of those whose nearest window begins within `NEAR` pixels of their own.
        chance, chance_at_5, chance_near: what picking windows at random would give.
        error: standard error of `at_1` over the series, whose queries are not independent of each
            other; `None` where there is only one.
        num_queries: windows that were looked up, each in one image.
        num_series: series that were looked up in.
        num_windows: windows that were searched, all images together.
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


def measure_recall(
    encoder: Encoder,
    series: Sequence[np.ndarray],
    *,
    num_queries: int = 64,
    stride: int = STRIDE,
    seed: int = 0,
    mode: Mode = None,
) -> Recall:
    """Looks windows of each date up in every other date of their series, by L1 distance.

    Memory does not grow with the features: windows are encoded and compared some at a time. What
    stays is a float32 distance for each query and window of one date. Windows without any data are
    never found.

    Args:
        encoder: what to compare windows by.
        series: of each, `(time, height, width, bands)` uint16 stored values or float reflectance.
        num_queries: windows of each date, drawn without repetition, that are looked up in all the
            other dates; all of them where an image has fewer.
        stride: pixels from a window to the next.
        seed: seed of the draws. The same seed draws the same queries for every encoder.
        mode: how searched windows are encoded, "exact" or "dense"; by default dense where the
            encoder is fit for it.
    Raises:
        ConfigError: an image is smaller than a window, or no queries are asked for; dense mode is
            asked for and not to be had.
        DataError: no series has two dates, or features are not finite.
    """
    if num_queries < 1:
        raise ConfigError(f"num_queries must be at least 1. Received: num_queries={num_queries}.")
    if all(len(images) < 2 for images in series):
        raise DataError(
            "Expected at least one series of two or more dates to look places up in. "
            f"Received: {len(series)} series."
        )
    is_dense(encoder, stride, mode)
    rng = np.random.default_rng(seed)
    outcomes = [
        _look_up_series(encoder, images, num_queries, stride, rng, mode)
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
    )


class _Outcome(NamedTuple):
    """Of one series, sums over its queries: found at 1, at 5, near; and the same by chance."""

    found: np.ndarray
    chance: np.ndarray
    num_queries: int
    num_windows: int


def _look_up_series(
    encoder: Encoder,
    images: np.ndarray,
    num_queries: int,
    stride: int,
    rng: np.random.Generator,
    mode: Mode,
) -> _Outcome:
    height, width = images.shape[1:3]
    windows = sliding_windows(height, width, IMAGE_SIZE, stride)
    corners = np.array([window[:2] for window in windows])
    count = min(num_queries, len(windows))
    places = [rng.choice(len(windows), count, replace=False) for _ in images]
    strips = [ArrayStrips(image, None) for image in images]
    features = [
        encode_at(encoder, image, [windows[i] for i in chosen])
        for image, chosen in zip(strips, places, strict=True)
    ]
    is_near = [_are_near(corners[chosen], corners) for chosen in places]
    found, chance = np.zeros(3), np.zeros(3)
    for target, image in enumerate(strips):
        others = [date for date in range(len(images)) if date != target]
        looked_up = np.concatenate([features[date] for date in others])
        distances = np.empty((len(looked_up), len(windows)), np.float32)
        start = 0
        reduce = functools.partial(distances_to, looked_up)
        for row in iterate_windows(encoder, image, stride, reduce=reduce, mode=mode):
            stop = start + len(row.cols)
            distances[:, start:stop] = np.nan_to_num(row.features.T, nan=np.inf)
            start = stop
        for date, part in zip(others, np.split(distances, len(others)), strict=True):
            found += _count_found(part, places[date], is_near[date])
            chance += np.array([1, min(5, len(windows)), is_near[date].sum() / count]) * (
                count / len(windows)
            )
    return _Outcome(
        found, chance, count * len(images) * (len(images) - 1), len(windows) * len(images)
    )


def l1_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """L1 distance of every row of one array from every row of another.

    Args:
        one: `(n, features)`.
        other: `(m, features)`.
    Returns:
        `(n, m)` float64.
    Raises:
        DataError: a feature is NaN or infinite.
    """
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise DataError("Features to compare are NaN or infinite. Expected finite ones.")
    # SciPy's loop is as fast as scikit-learn's and runs without the interpreter's lock.
    num_threads = os.cpu_count() or 1
    parts = np.array_split(one, min(num_threads, len(one)))
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        return np.concatenate(list(pool.map(lambda part: cdist(part, other, "cityblock"), parts)))


def distances_to(queries: np.ndarray, features: np.ndarray) -> np.ndarray:
    """L1 distances of some windows from all queries, `(windows, queries)`: a `Reduce`."""
    return l1_distances(queries, features).T


def _are_near(corners: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`(n, m)` bool, whether two windows begin within `NEAR` pixels of each other."""
    return cdist(corners, others) <= NEAR


def _count_found(distances: np.ndarray, places: np.ndarray, is_near: np.ndarray) -> np.ndarray:
    """Expected numbers of queries found at 1, at 5 and near, ties broken at random.

    Args:
        distances: `(queries, windows)`.
        places: `(queries,)`, index of each query's own window.
        is_near: `(queries, windows)` bool.
    """
    own = np.take_along_axis(distances, places[:, None], axis=1)
    num_nearer = (distances < own).sum(axis=1)
    num_as_near = (distances == own).sum(axis=1)  # its own among them
    at = [np.clip((k - num_nearer) / num_as_near, 0, 1).sum() for k in (1, 5)]
    is_nearest = distances == distances.min(axis=1, keepdims=True)
    near = ((is_nearest & is_near).sum(axis=1) / is_nearest.sum(axis=1)).sum()
    return np.array([*at, near])


def _error_of_ratio(found: np.ndarray, counts: np.ndarray) -> float | None:
    """Standard error of `found.sum() / counts.sum()`, its terms being drawn together."""
    if len(counts) < 2:
        return None
    residuals = found - found.sum() / counts.sum() * counts
    factor = len(counts) / (len(counts) - 1)
    return math.sqrt(factor * float(np.square(residuals).sum())) / float(counts.sum())
