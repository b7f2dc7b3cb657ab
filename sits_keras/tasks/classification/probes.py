"""Evaluate frozen features with linear and k-NN probes (section 4.4)."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np
import numpy.typing as npt
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
from sits_keras.tasks.windows import Encoder

NUM_NEIGHBOURS = 5

LINEAR_CS = (0.01, 0.1, 1.0, 10.0)
"""Inverse weights of the linear probe's penalty, chosen for each encoder."""

_CHOICE_IMAGES = 2500  # images for the choice of the penalty, a fifth of them held out
_MAX_ITER = 300  # L-BFGS iterations
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def image_statistics(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return band statistics, a baseline encoder without any spatial structure.

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
    title: str = "encode",
) -> npt.NDArray[np.float32]:
    """Return features of every image.

    Args:
        encoder: Encoder to apply to reflectance.
        images: Labelled images.
        batch_size: Images encoded at a time.
        progress: Show a progress bar.
        title: Title of the progress bar.

    Returns:
        `(images, num_features)` float32.
    """
    starts = range(0, len(images.labels), batch_size)
    return np.concatenate(
        [
            np.asarray(encoder(images.reflectance(slice(start, start + batch_size))), np.float32)
            for start in tqdm(starts, title, unit="batch", disable=not progress, leave=False)
        ]
    )


def predict_linear(
    train: npt.NDArray[Any], labels: npt.NDArray[np.int64], test: npt.NDArray[Any], *, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Predict classes by multinomial logistic regression on standardised features.

    The weight of its penalty is chosen on a held-out part of the training images.

    Args:
        train: `(images, num_features)` training features.
        labels: `(images,)` their classes.
        test: `(others, num_features)` test features.
        seed: Seed of the held-out part.

    Returns:
        `(others,)` predicted classes.
    """
    penalty = _choose_penalty(train, labels, seed)
    predicted: npt.NDArray[np.int64] = _fit_linear(train, labels, penalty).predict(test)
    return predicted


def predict_nearest(
    train: npt.NDArray[Any], labels: npt.NDArray[np.int64], test: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """Predict classes by majority vote of the five nearest images, L2 on standardised features.

    Args:
        train: See `predict_linear`. With fewer than five images, all of them vote.
        labels: See `predict_linear`.
        test: See `predict_linear`.

    Returns:
        `(others,)` predicted classes.
    """
    probe = make_pipeline(
        StandardScaler(), KNeighborsClassifier(min(NUM_NEIGHBOURS, len(train)), algorithm="brute")
    )
    predicted: npt.NDArray[np.int64] = probe.fit(train, labels).predict(test)
    return predicted


def _choose_penalty(features: npt.NDArray[Any], labels: npt.NDArray[np.int64], seed: int) -> float:
    chosen = np.arange(len(labels))
    if len(labels) > _CHOICE_IMAGES:
        chosen = sample_fraction(labels, chosen, _CHOICE_IMAGES / len(labels), seed)
    try:
        train, held_out = split_stratified(labels[chosen], seed=seed)
    except DataError:  # too few images
        return 1.0
    train, held_out = chosen[train], chosen[held_out]
    scores = [
        _fit_linear(features[train], labels[train], one).score(features[held_out], labels[held_out])
        for one in LINEAR_CS
    ]
    return LINEAR_CS[int(np.argmax(scores))]


def _fit_linear(
    features: npt.NDArray[Any], labels: npt.NDArray[np.int64], penalty: float
) -> Pipeline:
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=_MAX_ITER))
    with warnings.catch_warnings():
        # With correlated features L-BFGS converges long after the predictions are stable.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(features, labels)


_Z = 1.959963984540054  # 95 % of a normal distribution lie within this many deviations


class Score(NamedTuple):
    """Score of a classifier on test images.

    Attributes:
        accuracy: Fraction of the images that were classified correctly, in [0, 1].
        low: Lower end of Wilson's 95 % confidence interval of the accuracy.
        high: Upper end of the interval.
        num_test: Number of test images.
        confusion: `(classes, classes)` int, images of the row's class predicted as the column's.
    """

    accuracy: float
    low: float
    high: float
    num_test: int
    confusion: npt.NDArray[np.int64]


def score(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], num_classes: int
) -> Score:
    """Score predicted classes against the true classes.

    Args:
        labels: `(images,)` int, true classes.
        predicted: `(images,)` int, predicted classes.
        num_classes: Number of classes.

    Returns:
        The score.

    Raises:
        DataError: If there are no images.
    """
    if not len(labels):
        raise DataError("Expected at least one image to test on. Received none.")
    confusion = confusion_matrix(labels, predicted, labels=range(num_classes))
    right = int(np.trace(confusion))
    low, high = wilson_interval(right / len(labels), len(labels))
    return Score(right / len(labels), low, high, len(labels), confusion)


def wilson_interval(fraction: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % confidence interval of a fraction observed in `count` trials.

    Args:
        fraction: Observed fraction, in [0, 1].
        count: Number of trials.
    """
    centre = (fraction + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = (
        _Z
        * math.sqrt(fraction * (1 - fraction) / count + _Z**2 / (4 * count**2))
        / (1 + _Z**2 / count)
    )
    return max(0.0, centre - half), min(1.0, centre + half)


def plot_confusion(confusion: npt.NDArray[np.int64], classes: Sequence[str], path: Path) -> Path:
    """Plot a confusion matrix: counts, coloured by the fraction of the row's class.

    Args:
        confusion: `(classes, classes)` int; rows are true classes.
        classes: Class names.
        path: Output PNG.

    Returns:
        The path.
    """
    totals = confusion.sum(axis=1, keepdims=True)
    fractions = confusion / np.maximum(totals, 1)
    side = 2.2 + 0.5 * len(classes)
    figure = matplotlib.figure.Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="fraction of the true class", shrink=0.8)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right = np.trace(confusion) / max(1, confusion.sum())
    axes.set_title(f"{right:.1%} of {confusion.sum():,} test images")
    for (row, col), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if fractions[row, col] > 0.5 else "black"
            axes.text(col, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    return path
