"""Score change maps against a reference, beside baselines."""

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.read import Grid, read_info, read_mask
from sits_keras.data.rasters.rows import check_same_grid, thin
from sits_keras.data.sources.paths import visible_files
from sits_keras.data.tiling import Window, row_blocks
from sits_keras.errors import DataError, MissingError
from sits_keras.hub import HubEncoder
from sits_keras.tasks.change.detection import (
    Change,
    ImagePair,
    WindowDistances,
    detect_change,
    open_pair,
    otsu_threshold,
    pixel_distances,
)
from sits_keras.tasks.change.pixels import (
    PixelChange,
    detect_pixel_change,
    irmad_changes,
)
from sits_keras.tasks.windows import Encoder, Mode

_MAX_SCORED = 4_000_000  # pixels with scores in memory at once
_NUM_BINS = 512
_NUM_RESAMPLES = 1000  # of pairs, for intervals


class ChangeScores(NamedTuple):
    """Scores of one method's distances against a reference.

    Attributes:
        method: Name of the method.
        f1: F1 score of the pixels above the threshold.
        iou: Intersection over union of the pixels above the threshold.
        average_precision: Average precision of the distances, independent of the threshold.
        threshold: Threshold of the method: the automatic one, or the one given.
        chance: Fraction of the pixels that changed, the average precision of a guess.
        num_pixels: Number of pixels scored.
        precision: Fraction of the pixels above the threshold that changed.
        recall: Fraction of the pixels that changed that are above the threshold.
        auc: Area under the curve of true against false positives.
        best_f1: Highest F1 of any threshold: an oracle upper bound, not a result.
    """

    method: str
    f1: float
    iou: float
    average_precision: float
    threshold: float
    chance: float
    num_pixels: int
    precision: float
    recall: float
    auc: float
    best_f1: float


def image_difference(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the image difference: the mean over bands of the absolute difference.

    Args:
        before: `(..., bands)` reflectance.
        after: `(..., bands)` reflectance.

    Returns:
        `(...)` distance.
    """
    difference: npt.NDArray[Any] = np.abs(after - before).mean(axis=-1)
    return difference


def change_vector(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the length of the spectral difference, as in change vector analysis.

    Args:
        before: `(..., bands)` reflectance.
        after: `(..., bands)` reflectance.

    Returns:
        `(...)` distance.
    """
    length: npt.NDArray[Any] = np.linalg.norm(after - before, axis=-1)
    return length


ImageDistance = Callable[[npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[Any]]

BASELINES: Mapping[str, ImageDistance] = {
    "image difference": image_difference,
    "change vector": change_vector,
}

PIXEL_BASELINES: Mapping[str, str] = {
    "pixels": "centred difference, smoothed",
    "irmad": "IR-MAD",
    "irmad smoothed": "IR-MAD, smoothed",
}
"""Names of the baselines of `detect_pixel_change`."""

DIRECTED = "loss of NDVI (knows the direction)"
"""Baseline that knows that vegetation was lost; the others do not."""


def _greenness_loss(bands: Sequence[str]) -> ImageDistance:
    red, infrared = bands.index("B04"), bands.index("B08")

    def ndvi(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        total = np.maximum(image[..., infrared] + image[..., red], 1e-4)
        index: npt.NDArray[Any] = (image[..., infrared] - image[..., red]) / total
        return index

    return lambda before, after: ndvi(before) - ndvi(after)


def score_change(
    changes: Mapping[str, Change], mask: Path | str | npt.NDArray[Any]
) -> list[ChangeScores]:
    """Score change maps of one pair of images, and the baselines.

    Image difference and change vectors are scored per pixel and, if a map is of windows, once more
    averaged like it: over each window's pixels, then over the windows that cover a pixel. They use
    Otsu's threshold, the other baselines (`PIXEL_BASELINES`) their own. Of more than four million
    pixels, every second (third, ...) row and column is scored.

    Args:
        changes: Changes of one pair, by name of the method.
        mask: Raster whose first band is not zero where there was a change, or a bool array.

    Returns:
        Scores of each method.

    Raises:
        MissingError: If the mask does not exist.
        DataError: If the mask cannot be read, is on another grid, or marks all pixels or none.
    """
    first = next(iter(changes.values()))
    pair = first.pair
    reference = _Mask(mask)
    check_same_grid(pair.before, reference)
    height, width = pair.before.grid[:2]
    step = int(np.ceil(np.sqrt(height * width / _MAX_SCORED)))
    parts = list(row_blocks(height, 512))
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
    windowed = next((one for one in changes.values() if not isinstance(one, PixelChange)), None)
    for name, distance in BASELINES.items():
        rows = [(name, _pixels(pair, distance))]
        if windowed is not None:
            averaged = _average(pair, windowed.windows, distance)
            rows.append((f"{name}, averaged", pixel_distances(pair, averaged)))
        for method, part in rows:
            scores = thin(part, step)[keep]
            results.append(_score(method, truth, scores, _otsu(scores)))
    known = {getattr(one, "method", "") for one in changes.values()}
    for baseline in (detect_pixel_change(pair, "pixels"), *irmad_changes(pair)):
        if baseline.method not in known:
            name = PIXEL_BASELINES[baseline.method]
            scores = thin(baseline.rows(), step)[keep]
            results.append(_score(name, truth, scores, baseline.threshold))
    if {"B04", "B08"} <= set(pair.before.bands):
        scores = thin(_pixels(pair, _greenness_loss(pair.before.bands)), step)[keep]
        results.append(_score(DIRECTED, truth, scores, _otsu(scores)))
    return results


def score_pairs(
    folder: Path | str,
    encoders: Mapping[str, Encoder],
    *,
    layers: Mapping[str, HubEncoder] = types.MappingProxyType({}),
    stride: int = 32,
    mode: Mode = None,
    on_pair: Callable[[str], None] = lambda name: None,
) -> dict[str, list[ChangeScores]]:
    """Score encoders and the baselines on every labelled pair of a folder.

    Args:
        folder: Folder with a sub-folder `<family>-<name>` for each pair, which holds `before.tif`,
            `after.tif` and `mask.tif`. Pairs without a mask are skipped.
        encoders: Exclusive encoders whose windows are compared, by name of the method.
        layers: Shared encoders whose layers are compared at each pixel, by name of the method.
        stride: Distance between windows, in pixels.
        mode: See `detect_change`.
        on_pair: Called with the name of each finished pair.

    Returns:
        Scores of each pair, by its name.

    Raises:
        MissingError: If there is no labelled pair.
        DataError: See `detect_change` and `score_change`.
        ConfigError: See `detect_change`.
    """
    pairs = [mask.parent for mask in visible_files(Path(folder), "*/mask.tif")]
    if not pairs:
        raise MissingError(
            f"No labelled pairs in {folder}. Expected <family>-<name>/ folders, each with "
            "before.tif, after.tif and mask.tif."
        )
    scores = {}
    for pair in pairs:
        files = pair / "before.tif", pair / "after.tif"
        changes: dict[str, Change] = {}
        for name, encoder in layers.items():
            opened = open_pair(*files, encoder.bands, any_size=True)
            changes[name] = detect_pixel_change(opened, "layers", [encoder])
        for name, window_encoder in encoders.items():
            changes[name] = detect_change(*files, window_encoder, stride=stride, mode=mode)
        scores[pair.name] = score_change(changes, pair / "mask.tif")
        on_pair(pair.name)
    return scores


def mean_by_family(
    scores: Mapping[str, list[ChangeScores]],
) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean scores over the pairs of each family, for each method.

    Args:
        scores: Output of `score_pairs`. The family is the part of a pair's name before the first
            `-`.

    Returns:
        By family and method: the mean of each score, the number of pairs, and the 95 % interval of
        the mean average precision over 1,000 samples of the pairs with replacement, as `ap_low` and
        `ap_high`.
    """
    grouped: dict[str, dict[str, list[ChangeScores]]] = {}
    for pair, of_pair in scores.items():
        family = grouped.setdefault(pair.split("-")[0], {})
        for one in of_pair:
            family.setdefault(one.method, []).append(one)
    return {
        family: {method: _means(ones) for method, ones in methods.items()}
        for family, methods in grouped.items()
    }


def _means(ones: Sequence[ChangeScores]) -> dict[str, float]:
    names = [name for name in ChangeScores._fields if name not in ("method", "threshold")]
    means = {name: float(np.mean([getattr(one, name) for one in ones])) for name in names}
    precisions = np.array([one.average_precision for one in ones])
    samples = np.random.default_rng(0).integers(0, len(ones), (_NUM_RESAMPLES, len(ones)))
    low, high = np.percentile(precisions[samples].mean(axis=1), (2.5, 97.5))
    return {**means, "num_pairs": len(ones), "ap_low": float(low), "ap_high": float(high)}


class _Mask:
    """A reference that is read by rows: a raster's first band, or an array."""

    def __init__(self, mask: Path | str | npt.NDArray[Any]):
        self._array = mask if isinstance(mask, np.ndarray) else None
        self._path = Path() if isinstance(mask, np.ndarray) else Path(mask)
        self.is_raster = self._array is None
        self.name = "the mask" if self._array is not None else str(self._path)
        if self._array is None:
            self.grid = read_info(self._path).grid
        else:
            self.grid = Grid(self._array.shape[0], self._array.shape[1], None, None)

    def read(self, row: int, num_rows: int) -> npt.NDArray[np.bool_]:
        if self._array is not None:
            marked: npt.NDArray[np.bool_] = self._array[row : row + num_rows] != 0
            return marked
        return read_mask(self._path, Window(row, 0, num_rows, self.grid.width))


def _pixels(pair: ImagePair, distance: ImageDistance) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    for row, num_rows in row_blocks(pair.before.grid.height, 128):
        yield row, _distance_of_rows(pair, distance, row, num_rows)


def _distance_of_rows(
    pair: ImagePair, distance: ImageDistance, row: int, num_rows: int
) -> npt.NDArray[Any]:
    before, after = (
        strips.read(row, num_rows).astype(np.float32) / QUANTIFICATION for strips in pair
    )
    return distance(before, after)  # 0 without data, since both are 0 there


def _average(pair: ImagePair, windows: WindowDistances, distance: ImageDistance) -> WindowDistances:
    """Return the mean distance over the pixels with data of each window."""
    means = []
    for row, weights in zip(windows.rows, windows.weights, strict=True):
        columns = _distance_of_rows(pair, distance, int(row), IMAGE_SIZE).sum(0, dtype=np.float64)
        running = np.concatenate([[0.0], np.cumsum(columns)])
        sums = running[windows.cols + IMAGE_SIZE] - running[windows.cols]
        means.append(sums / np.maximum(weights * IMAGE_SIZE**2, 1))
    return windows._replace(distances=np.stack(means))


def _otsu(scores: npt.NDArray[Any]) -> float:
    counts, edges = np.histogram(scores, _NUM_BINS)
    return otsu_threshold(counts, edges)


def _score(
    method: str, truth: npt.NDArray[np.bool_], scores: npt.NDArray[Any], threshold: float
) -> ChangeScores:
    found = scores > threshold
    from sklearn import metrics  # here, because most maps are not scored

    precisions, recalls, _ = metrics.precision_recall_curve(truth, scores)
    return ChangeScores(
        method,
        float(metrics.f1_score(truth, found, zero_division=0)),
        float(metrics.jaccard_score(truth, found, zero_division=0)),
        float(metrics.average_precision_score(truth, scores)),
        threshold,
        float(truth.mean()),
        len(truth),
        float(truth[found].mean()) if found.any() else 0.0,
        float(found[truth].mean()),
        float(metrics.roc_auc_score(truth, scores)),
        float((2 * precisions * recalls / np.maximum(precisions + recalls, 1e-12)).max()),
    )
