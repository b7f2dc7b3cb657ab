"""Which labelled images are trained on, and which tested on (section 4.4)."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from sits_keras.errors import ConfigError, DataError

TEST_SHARE = 0.2
"""The paper's 80:20."""


class Split(NamedTuple):
    """Indices of the images to train and to test on, each int64 in ascending order."""

    train: np.ndarray
    test: np.ndarray


def split_stratified(labels: np.ndarray, *, seed: int, test_share: float = TEST_SHARE) -> Split:
    """Draws a share of each class for the test, as the paper does.

    Images that lie side by side can end up one in each part; see `split_spatial`.

    Args:
        labels: `(images,)` int.
        seed: seed of the draw.
        test_share: share of the images to test on.
    Raises:
        ConfigError: the share is not in (0, 1).
        DataError: a class has less than two images, or there are fewer images than classes for
            either part.
    """
    _check_share("test_share", test_share, 1, is_open=True)
    smallest = np.bincount(labels)[np.unique(labels)].min()
    if smallest < 2:
        raise DataError("A class has one image only: it needs one to train and one to test on.")
    try:
        train, test = train_test_split(
            np.arange(len(labels)), test_size=test_share, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise DataError(
            f"{len(labels)} images of {len(np.unique(labels))} classes are too few to hold out "
            f"{test_share:.0%} with every class: {error}"
        ) from error
    return Split(np.sort(train), np.sort(test))


def split_spatial(
    labels: np.ndarray, cells: Sequence[str] | None, *, seed: int, test_share: float = TEST_SHARE
) -> Split:
    """Draws whole cells, squares of about 100 km, for the test: no cell is in both parts.

    The cells are drawn so that classes keep their shares as nearly as they can
    (`StratifiedGroupKFold`). Neighbouring cells can be in different parts.

    Args:
        labels: `(images,)` int.
        cells: name of each image's cell; `None` where images have no georeferencing.
        seed: seed of the draw.
        test_share: share of the images to test on, nearly.
    Raises:
        ConfigError: the share is not in (0, 0.5].
        DataError: there are no cells or too few, or a class lies in too few of them.
    """
    _check_share("test_share", test_share, 0.5)
    if cells is None:
        raise DataError(
            "A spatial split needs to know where each image lies, and these have no "
            "georeferencing. Use GeoTIFF chips with a CRS, or a stratified split."
        )
    num_folds = round(1 / test_share)
    if len(set(cells)) < num_folds:
        raise DataError(
            f"A spatial split of {test_share:.0%} needs images of at least {num_folds} cells of "
            f"100 km. Received: {len(set(cells))}."
        )
    classes = set(np.unique(labels))
    for train, test in _draw_folds(labels, cells, num_folds, seed):
        if set(labels[train]) == set(labels[test]) == classes:
            return Split(train, test)
    raise DataError(
        "No spatial split leaves every class in both parts: a class lies in too few places. Add "
        "chips of it from elsewhere, try another seed, or use a stratified split."
    )


def take_fraction(
    labels: np.ndarray, indices: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """Draws a share of the images of each class, at least one of each.

    A smaller fraction is part of a larger one that was drawn with the same seed.

    Args:
        labels: `(images,)` int, of all images.
        indices: the images to draw from.
        fraction: share of them, in (0, 1].
        seed: seed of the draw.
    Returns:
        Indices, int64 in ascending order.
    Raises:
        ConfigError: the fraction is not in (0, 1], or leaves less than one image a class.
    """
    _check_share("fraction", fraction, 1)
    classes = np.unique(labels[indices])
    if fraction * len(indices) < len(classes):
        raise ConfigError(
            f"fraction={fraction:g} of {len(indices)} images is less than one for each of "
            f"{len(classes)} classes. Use at least {len(classes) / len(indices):.4f}."
        )
    rng = np.random.default_rng(seed)
    taken = []
    for one in classes:
        members = rng.permutation(indices[labels[indices] == one])
        taken.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(taken))


def _draw_folds(
    labels: np.ndarray, cells: Sequence[str], num_folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # That a class has fewer images than there are folds, which is looked at by who asks.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return list(folds.split(labels, labels, np.asarray(cells)))
        except ValueError:  # every class has
            return []


def _check_share(name: str, value: float, highest: float, is_open: bool = False) -> None:
    if not (value > 0 and value <= highest and not (is_open and value == highest)):
        raise ConfigError(
            f"{name} must be in (0, {highest:g}{')' if is_open else ']'}. Received: {value!r}."
        )
