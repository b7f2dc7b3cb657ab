"""What features that stay as they are tell of classes, by simple probes (section 4.4)."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from sits_keras.data.eurosat import LabelledImages, sample_fraction, split_stratified
from sits_keras.errors import DataError
from sits_keras.files import written_aside
from sits_keras.tasks.windows.sliding import Encoder

NUM_NEIGHBOURS = 5

LINEAR_CS = (0.01, 0.1, 1.0, 10.0)
"""Inverse weights of the linear probe's penalty, of which each encoder gets what suits it."""

_CHOICE_IMAGES = 2500  # the penalty is chosen on so many, a fifth of them held out
_MAX_ITER = 300  # steps of L-BFGS
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def image_statistics(images: np.ndarray) -> np.ndarray:
    """The encoder that knows nothing of shape: mean, deviation and quantiles of each band.

    Args:
        images: `(batch, 64, 64, bands)`.
    Returns:
        `(batch, 7 * bands)`: means, standard deviations, then the 5th, 25th, 50th, 75th and 95th
        percentiles.
    """
    quantiles = np.quantile(images, _QUANTILES, axis=(1, 2))
    return np.concatenate([images.mean(axis=(1, 2)), images.std(axis=(1, 2)), *quantiles], axis=1)


def encode_images(
    encoder: Encoder,
    images: LabelledImages,
    *,
    batch_size: int = 128,
    progress: bool = False,
    what: str = "encode",
) -> np.ndarray:
    """Features of every image, `(images, num_features)` float32.

    Args:
        encoder: what to apply to reflectance.
        images: the images.
        batch_size: images encoded at a time.
        progress: show a progress bar.
        what: its title.
    """
    starts = range(0, len(images.labels), batch_size)
    return np.concatenate(
        [
            np.asarray(encoder(images.reflectance(slice(start, start + batch_size))), np.float32)
            for start in tqdm(starts, what, unit="batch", disable=not progress, leave=False)
        ]
    )


def predict_linear(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, *, seed: int = 0
) -> np.ndarray:
    """Classes by multinomial logistic regression on standardised features.

    The weight of its penalty is chosen by a part of the training images that is held out.

    Args:
        train: `(images, num_features)` to learn from.
        labels: their classes.
        test: `(others, num_features)`.
        seed: seed of that part.
    Returns:
        `(others,)` classes.
    """
    penalty = _choose_penalty(train, labels, seed)
    return _fit_linear(train, labels, penalty).predict(test)


def predict_nearest(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Classes by the majority of the five nearest images, L2 on standardised features.

    Arguments and result as in `predict_linear`; with fewer than five images to learn from, all.
    """
    probe = make_pipeline(
        StandardScaler(), KNeighborsClassifier(min(NUM_NEIGHBOURS, len(train)), algorithm="brute")
    )
    return probe.fit(train, labels).predict(test)


def _choose_penalty(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    chosen = np.arange(len(labels))
    if len(labels) > _CHOICE_IMAGES:
        chosen = sample_fraction(labels, chosen, _CHOICE_IMAGES / len(labels), seed)
    try:
        train, held_out = split_stratified(labels[chosen], seed=seed)
    except DataError:  # too few
        return 1.0
    train, held_out = chosen[train], chosen[held_out]
    scores = [
        _fit_linear(features[train], labels[train], one).score(features[held_out], labels[held_out])
        for one in LINEAR_CS
    ]
    return LINEAR_CS[int(np.argmax(scores))]


def _fit_linear(features: np.ndarray, labels: np.ndarray, penalty: float) -> Pipeline:
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=_MAX_ITER))
    with warnings.catch_warnings():
        # Correlated features take L-BFGS long after the predictions have settled.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(features, labels)


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


def plot_confusion(confusion: np.ndarray, classes: Sequence[str], path: Path) -> Path:
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
