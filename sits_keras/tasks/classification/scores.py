"""How good a classification is, and how sure that is."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure
import numpy as np
from sklearn.metrics import confusion_matrix

from sits_keras.errors import DataError
from sits_keras.files import written_aside

_Z = 1.959963984540054  # 95 % of a normal distribution lie within this many deviations


class Score(NamedTuple):
    """What a classifier reached on test images.

    Attributes:
        accuracy: share of them that was told right, in [0, 1].
        low, high: Wilson's 95 % confidence interval of it, for this number of test images.
        num_test: how many there were.
        confusion: `(classes, classes)` int, images of the row's class that were told to be of the
            column's.
    """

    accuracy: float
    low: float
    high: float
    num_test: int
    confusion: np.ndarray


def score(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> Score:
    """Compares predicted classes to the true ones.

    Args:
        labels: `(images,)` int, the true classes.
        predicted: the same, as predicted.
        num_classes: how many classes there are.
    Raises:
        DataError: there are no images.
    """
    if not len(labels):
        raise DataError("Expected at least one image to test on. Received none.")
    confusion = confusion_matrix(labels, predicted, labels=range(num_classes))
    right = int(np.trace(confusion))
    low, high = wilson_interval(right / len(labels), len(labels))
    return Score(right / len(labels), low, high, len(labels), confusion)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a share that was seen in `count` trials."""
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = (
        _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / (1 + _Z**2 / count)
    )
    return max(0.0, centre - half), min(1.0, centre + half)


def draw_confusion(confusion: np.ndarray, classes: Sequence[str], path: Path) -> Path:
    """Draws a confusion matrix: counts, on the share of the row's class.

    Args:
        confusion: `(classes, classes)` int; rows are the true classes.
        classes: their names.
        path: of the PNG.
    Returns:
        The path.
    """
    totals = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    side = 2.2 + 0.5 * len(classes)
    figure = matplotlib.figure.Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right = np.trace(confusion) / max(1, confusion.sum())
    axes.set_title(f"{right:.1%} of {confusion.sum():,} test images")
    for (row, col), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if shares[row, col] > 0.5 else "black"
            axes.text(col, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    return path
