"""Finding a place again at another date (section 4.3, Table 2)."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import pairwise_distances

from sits_keras.errors import ConfigError, DataError
from sits_keras.tasks.windows import Encoder, encode_windows


class Recall(NamedTuple):
    """How often a window was found at its own place.

    Attributes:
        at_1: share of the queries whose nearest window is that of the same place, in [0, 1].
        chance: what picking a window at random would give.
        num_queries: queries that were looked up.
    """

    at_1: float
    chance: float
    num_queries: int


def measure_recall(
    encoder: Encoder,
    series: Sequence[np.ndarray],
    *,
    num_queries: int = 64,
    stride: int = 8,
    seed: int = 0,
) -> Recall:
    """Looks windows of each date up in every other date of their series, by L1 distance.

    Args:
        encoder: what to compare windows by.
        series: of each, `(time, height, width, bands)` float32 reflectance.
        num_queries: windows looked up in each pair of dates, drawn without repetition; all of
            them where an image has fewer.
        stride: pixels from a window to the next.
        seed: seed of the draws. The same seed draws the same queries for every encoder.
    Raises:
        ConfigError: an image is smaller than a window, or no queries are asked for.
        DataError: no series has two dates.
    """
    if num_queries < 1:
        raise ConfigError(f"num_queries must be at least 1. Received: num_queries={num_queries}.")
    if all(len(images) < 2 for images in series):
        raise DataError(
            "Expected at least one series of two or more dates to look places up in. "
            f"Received: {len(series)} series."
        )
    rng = np.random.default_rng(seed)
    num_found = num_looked_up = 0
    chances = []
    for images in series:
        features = [encode_windows(encoder, image, stride)[0] for image in images]
        num_windows = len(features[0])
        for source, target in itertools.permutations(features, 2):
            queries = rng.choice(num_windows, min(num_queries, num_windows), replace=False)
            distances = pairwise_distances(source[queries], target, metric="manhattan")
            num_found += int((distances.argmin(axis=1) == queries).sum())
            num_looked_up += len(queries)
            chances.append(len(queries) / num_windows)
    return Recall(num_found / num_looked_up, sum(chances) / num_looked_up, num_looked_up)
