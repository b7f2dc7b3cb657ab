"""Windows in the order of their distance to what is looked up, no two finds in one place."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.tiling import Window
from sits_keras.tasks.windows.sliding import WindowRow


class Match(NamedTuple):
    """A window that was found for a query.

    Attributes:
        query: index of the query.
        rank: 1 for the nearest.
        window: where it lies in the searched image.
        distance: L1 distance of the features.
    """

    query: int
    rank: int
    window: Window
    distance: float


def rank_windows(
    rows: Iterable[WindowRow],
    num_queries: int,
    stride: int,
    *,
    num_matches: int,
    apart: int,
    seed: int,
) -> list[Match]:
    """The nearest windows of each query, of windows whose distances are known.

    Args:
        rows: the searched windows, from the top; `features` are the `(windows, num_queries)`
            distances.
        num_queries: how many.
        stride, num_matches, apart, seed: see `lookup.find_windows`.
    Returns:
        The matches of each query, the nearest first; none where no window holds data.
    """
    # Windows that a match rules out, at most; so that enough are kept for the next ones.
    num_overlapping = (2 * math.ceil(apart / stride)) ** 2 + 1
    num_kept = (num_matches - 1) * num_overlapping + 1
    rng = np.random.default_rng(seed)
    best = np.empty((num_queries, 0, 4))  # distance, draw, row, col; the best first
    for found in rows:
        holds_data = found.data_share > 0
        if not holds_data.any():
            continue
        cols = found.cols[holds_data]
        new = np.empty((num_queries, len(cols), 4))
        new[..., 0] = found.features[holds_data].T
        new[..., 1] = rng.random(len(cols))
        new[..., 2], new[..., 3] = found.row, cols
        both = np.concatenate([best, new], axis=1)
        order = np.lexsort((both[..., 1], both[..., 0]), axis=1)[:, :num_kept]
        best = np.take_along_axis(both, order[..., None], axis=1)
    return [
        match
        for query, candidates in enumerate(best)
        for match in choose_apart(query, candidates, num_matches, apart)
    ]


def choose_apart(query: int, candidates: np.ndarray, num_matches: int, apart: int) -> list[Match]:
    """The first candidates of a query that lie apart from each other.

    Args:
        query: its index.
        candidates: `(candidates, 4)`: distance, draw, row, col; the nearest first.
        num_matches, apart: see `lookup.find_windows`.
    """
    chosen: list[Match] = []
    for distance, _, row, col in candidates:
        if all(
            max(abs(row - other.window.row), abs(col - other.window.col)) >= apart
            for other in chosen
        ):
            window = Window(int(row), int(col), IMAGE_SIZE, IMAGE_SIZE)
            chosen.append(Match(query, len(chosen) + 1, window, float(distance)))
            if len(chosen) == num_matches:
                break
    return chosen
