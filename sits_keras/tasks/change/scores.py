"""How well change maps fit a reference, beside image differencing and change vectors."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.read import Grid, read_info, read_mask
from sits_keras.data.rasters.rows import check_same_grid, thin
from sits_keras.data.sources.locations import visible_files
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError, MissingError
from sits_keras.tasks.change.detection import (
    Change,
    ImagePair,
    WindowDistances,
    detect_change,
    otsu_threshold,
    pixel_distances,
)
from sits_keras.tasks.windows.sliding import Encoder, Mode

_MAX_SCORED = 4_000_000  # pixels whose scores are in memory at once
_NUM_BINS = 512


class ChangeScores(NamedTuple):
    """How well one method's distances fit a reference.

    Attributes:
        method: its name.
        f1, iou: of the pixels above the threshold.
        average_precision: of the distances, whatever the threshold.
        threshold: Otsu's, or the one given for the method.
        chance: share of the pixels that changed: the average precision of a guess.
        num_pixels: how many were scored.
    """

    method: str
    f1: float
    iou: float
    average_precision: float
    threshold: float
    chance: float
    num_pixels: int


def image_difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Image differencing: mean over the bands of |difference|.

    Args:
        before, after: `(..., bands)` reflectance.
    """
    return np.abs(after - before).mean(axis=-1)


def change_vector(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Change vector analysis: length of the spectral difference.

    Args:
        before, after: `(..., bands)` reflectance.
    """
    return np.linalg.norm(after - before, axis=-1)


BASELINES: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "image difference": image_difference,
    "change vector": change_vector,
}


def score_change(
    changes: Mapping[str, Change], mask: Path | str | np.ndarray
) -> list[ChangeScores]:
    """Scores change maps of one pair of images, and the two baselines.

    The baselines are scored pixel by pixel as they are, and once more averaged as a map is: over
    each window's pixels, then over the windows that cover a pixel, at the stride of the first map.
    Their thresholds are Otsu's. Of more than four million pixels, every second (third, ...) row
    and column is scored.

    Args:
        changes: of one pair, by the name of the method.
        mask: a raster whose first band is not zero where there was a change, or a bool array.
    Raises:
        MissingError, DataError: the mask is not there or cannot be read, is on another grid, or
            marks all of the pixels or none.
    """
    first = next(iter(changes.values()))
    pair = first.pair
    reference = _Mask(mask)
    check_same_grid(pair.before, reference)
    height, width = pair.before.grid[:2]
    step = int(np.ceil(np.sqrt(height * width / _MAX_SCORED)))
    parts = list(_row_parts(height))
    keep = thin(((row, pair.valid(row, num_rows)) for row, num_rows in parts), step)
    truth = thin(((row, reference.read(row, num_rows)) for row, num_rows in parts), step)[keep]
    if truth.all() or not truth.any():
        raise DataError(
            f"{reference.name} marks {'all' if truth.all() else 'none'} of the pixels with data as "
            "changed. Expected some of them, to score against."
        )
    results = []
    for name, change in changes.items():
        scores = thin(change.rows(), step)[keep]
        results.append(_score(name, truth, scores, change.threshold))
    for name, distance in BASELINES.items():
        averaged = _average(pair, first.windows, distance)
        for method, rows in (
            (name, _pixels(pair, distance)),
            (f"{name}, averaged", pixel_distances(pair, averaged)),
        ):
            scores = thin(rows, step)[keep]
            results.append(_score(method, truth, scores, _otsu(scores)))
    return results


def score_pairs(
    folder: Path | str,
    encoders: Mapping[str, Encoder],
    *,
    stride: int = 32,
    mode: Mode = None,
    on_pair: Callable[[str], None] = lambda name: None,
) -> dict[str, list[ChangeScores]]:
    """Scores encoders, and the baselines, on every labelled pair of a folder.

    Args:
        folder: holds a folder `<family>-<name>` for each pair, with `before.tif`, `after.tif` and
            `mask.tif`. Pairs without a mask are passed over.
        encoders: exclusive encoders, by the name of the method.
        stride: pixels from a window to the next.
        mode: how windows are encoded, see `detect_change`.
        on_pair: called with the name of each pair that is done.
    Returns:
        Scores of each pair, by its name.
    Raises:
        MissingError: there is no labelled pair.
        DataError, ConfigError: see `detect_change` and `score_change`.
    """
    pairs = [mask.parent for mask in visible_files(Path(folder), "*/mask.tif")]
    if not pairs:
        raise MissingError(
            f"No labelled pairs in {folder}. Expected <family>-<name>/ folders, each with "
            "before.tif, after.tif and mask.tif."
        )
    scores = {}
    for pair in pairs:
        changes = {
            name: detect_change(
                pair / "before.tif", pair / "after.tif", encoder, stride=stride, mode=mode
            )
            for name, encoder in encoders.items()
        }
        scores[pair.name] = score_change(changes, pair / "mask.tif")
        on_pair(pair.name)
    return scores


def mean_by_family(
    scores: Mapping[str, list[ChangeScores]],
) -> dict[str, dict[str, dict[str, float]]]:
    """Means over pairs: of each family, of each method, of each score.

    Args:
        scores: as `score_pairs` gives them. What stands before the first `-` of a pair's name is
            its family.
    """
    grouped: dict[str, dict[str, list[ChangeScores]]] = {}
    for pair, of_pair in scores.items():
        family = grouped.setdefault(pair.split("-")[0], {})
        for one in of_pair:
            family.setdefault(one.method, []).append(one)
    names = ("f1", "iou", "average_precision", "chance")
    return {
        family: {
            method: {
                **{name: float(np.mean([getattr(one, name) for one in ones])) for name in names},
                "num_pairs": len(ones),
            }
            for method, ones in methods.items()
        }
        for family, methods in grouped.items()
    }


class _Mask:
    """A reference by rows: a raster's first band, or an array."""

    def __init__(self, mask: Path | str | np.ndarray):
        self._array = mask if isinstance(mask, np.ndarray) else None
        self._path = Path() if isinstance(mask, np.ndarray) else Path(mask)
        self.is_raster = self._array is None
        self.name = "the mask" if self._array is not None else str(self._path)
        if self._array is None:
            self.grid = read_info(self._path).grid
        else:
            self.grid = Grid(self._array.shape[0], self._array.shape[1], None, None)

    def read(self, row: int, num_rows: int) -> np.ndarray:
        if self._array is not None:
            return self._array[row : row + num_rows] != 0
        return read_mask(self._path, Window(row, 0, num_rows, self.grid.width))


def _row_parts(height: int, most: int = 512) -> Iterator[tuple[int, int]]:
    for row in range(0, height, most):
        yield row, min(most, height - row)


def _pixels(pair: ImagePair, distance: Callable) -> Iterator[tuple[int, np.ndarray]]:
    for row, num_rows in _row_parts(pair.before.grid.height, 128):
        yield row, _distance_of_rows(pair, distance, row, num_rows)


def _distance_of_rows(pair: ImagePair, distance: Callable, row: int, num_rows: int) -> np.ndarray:
    before, after = (
        strips.read(row, num_rows).astype(np.float32) / QUANTIFICATION for strips in pair
    )
    return distance(before, after)  # 0 where either has no data: both are 0 there


def _average(pair: ImagePair, windows: WindowDistances, distance: Callable) -> WindowDistances:
    """Mean over the pixels with data of each window."""
    means = []
    for row, weights in zip(windows.rows, windows.weights, strict=True):
        columns = _distance_of_rows(pair, distance, int(row), IMAGE_SIZE).sum(0, dtype=np.float64)
        running = np.concatenate([[0.0], np.cumsum(columns)])
        sums = running[windows.cols + IMAGE_SIZE] - running[windows.cols]
        means.append(sums / np.maximum(weights * IMAGE_SIZE**2, 1))
    return windows._replace(distances=np.stack(means))


def _otsu(scores: np.ndarray) -> float:
    counts, edges = np.histogram(scores, _NUM_BINS)
    return otsu_threshold(counts, edges)


def _score(method: str, truth: np.ndarray, scores: np.ndarray, threshold: float) -> ChangeScores:
    found = scores > threshold
    return ChangeScores(
        method,
        float(f1_score(truth, found, zero_division=0)),
        float(jaccard_score(truth, found, zero_division=0)),
        float(average_precision_score(truth, scores)),
        threshold,
        float(truth.mean()),
        len(truth),
    )
