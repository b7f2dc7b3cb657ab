"""EuroSAT and labelled sets laid out like it, and their splits."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from tqdm import tqdm

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.chips import ChipSource, find_chips, read_chips
from sits_keras.data.rasters.read import Grid
from sits_keras.errors import ConfigError, DataError

TEST_FRACTION = 0.2
"""The paper's 80:20."""


class Split(NamedTuple):
    """Indices of the images to train and to test on, each int64 in ascending order."""

    train: np.ndarray
    test: np.ndarray


def split_stratified(
    labels: np.ndarray, *, seed: int, test_fraction: float = TEST_FRACTION
) -> Split:
    """Draws a share of each class for the test, as the paper does.

    Images that lie side by side can end up one in each part; see `split_spatial`.

    Args:
        labels: `(images,)` int.
        seed: seed of the draw.
        test_fraction: share of the images to test on.
    Raises:
        ConfigError: the share is not in (0, 1).
        DataError: a class has less than two images, or there are fewer images than classes for
            either part.
    """
    _check_fraction("test_fraction", test_fraction, 1, is_open=True)
    smallest = np.bincount(labels)[np.unique(labels)].min()
    if smallest < 2:
        raise DataError("A class has one image only: it needs one to train and one to test on.")
    try:
        train, test = train_test_split(
            np.arange(len(labels)), test_size=test_fraction, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise DataError(
            f"{len(labels)} images of {len(np.unique(labels))} classes are too few to hold out "
            f"{test_fraction:.0%} with every class: {error}"
        ) from error
    return Split(np.sort(train), np.sort(test))


def split_spatial(
    labels: np.ndarray,
    cells: Sequence[str] | None,
    *,
    seed: int,
    test_fraction: float = TEST_FRACTION,
) -> Split:
    """Draws whole cells, squares of about 100 km, for the test: no cell is in both parts.

    The cells are drawn so that classes keep their shares as nearly as they can
    (`StratifiedGroupKFold`). Neighbouring cells can be in different parts.

    Args:
        labels: `(images,)` int.
        cells: name of each image's cell; `None` where images have no georeferencing.
        seed: seed of the draw.
        test_fraction: share of the images to test on, nearly.
    Raises:
        ConfigError: the share is not in (0, 0.5].
        DataError: there are no cells or too few, or a class lies in too few of them.
    """
    _check_fraction("test_fraction", test_fraction, 0.5)
    if cells is None:
        raise DataError(
            "A spatial split needs to know where each image lies, and these have no "
            "georeferencing. Use GeoTIFF chips with a CRS, or a stratified split."
        )
    num_folds = round(1 / test_fraction)
    if len(set(cells)) < num_folds:
        raise DataError(
            f"A spatial split of {test_fraction:.0%} needs images of at least {num_folds} cells of "
            f"100 km. Received: {len(set(cells))}."
        )
    classes = set(np.unique(labels))
    for train, test in _list_folds(labels, cells, num_folds, seed):
        if set(labels[train]) == set(labels[test]) == classes:
            return Split(train, test)
    raise DataError(
        "No spatial split leaves every class in both parts: a class lies in too few places. Add "
        "chips of it from elsewhere, try another seed, or use a stratified split."
    )


def sample_fraction(
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
    _check_fraction("fraction", fraction, 1)
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


def _list_folds(
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


def _check_fraction(name: str, value: float, highest: float, is_open: bool = False) -> None:
    if not (value > 0 and value <= highest and not (is_open and value == highest)):
        raise ConfigError(
            f"{name} must be in (0, {highest:g}{')' if is_open else ']'}. Received: {value!r}."
        )


CELL_SIZE = 100_000.0
"""Side in metres of the squares by which chips are near to each other or not."""

_DEGREES_PIXEL = 0.01  # a pixel smaller than this in its CRS is in degrees: 10 m are 0.0001
_LISTED = 12


class LabelledImages(NamedTuple):
    """Images of known class, stored as compactly as their files hold them.

    Attributes:
        values: `(images, 64, 64, bands)` uint8 or uint16; 0 of uint16 is missing data.
        labels: `(images,)` int64, indices of `classes`.
        classes: names, in ascending order.
        files: name of each image's file within its source.
        bands: band names, in the order of the last axis.
        unit: reflectance of a value of 1.
        clipped_at: reflectance at which the files clip, `None` where they do not.
        cells: for each image, the name of the square of about 100 km that it lies in; `None`
            where an image has no georeferencing.
        sha256: of the names and contents of all files that were read, the same for a folder as for
            its archive.
    """

    values: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    files: tuple[str, ...]
    bands: tuple[str, ...]
    unit: float
    clipped_at: float | None
    cells: tuple[str, ...] | None
    sha256: str

    def reflectance(self, indices: np.ndarray | slice) -> np.ndarray:
        """Some of the images, `(n, 64, 64, bands)` float32 reflectance."""
        return self.values[indices].astype(np.float32) * np.float32(self.unit)

    def select(self, indices: np.ndarray) -> "LabelledImages":
        """Some of the images, in the order of the indices. The checksum stays that of the set."""
        return self._replace(
            values=self.values[indices],
            labels=self.labels[indices],
            files=tuple(self.files[index] for index in indices),
            cells=None if self.cells is None else tuple(self.cells[index] for index in indices),
        )


def read_labelled(
    path: Path | str,
    bands: Sequence[str],
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> LabelledImages:
    """Reads a labelled set: a folder or zip archive with a folder of chips for each class.

    Args:
        path: of the folder or archive.
        bands: band names, in the order wanted. Pictures have B04, B03 and B02.
        limit: read about so many chips, of each class its share and at least one; all by default.
        seed: seed by which those are drawn (`data.splits.sample_fraction`).
        progress: show a progress bar.
    Raises:
        MissingError: nothing is there.
        ConfigError: pictures do not show a band; or the limit is below one chip for each class.
        DataError: there are no class folders, only one, or an empty one; or a chip is damaged, of
            another size, or lacks a band.
    """
    source = find_chips(Path(path))
    classes, labels = _find_classes(source)
    names = source.names
    if limit is not None and limit < len(names):
        if limit < len(classes):
            raise ConfigError(
                f"limit must be at least {len(classes)}, one chip for each class of {source.path}. "
                f"Received: limit={limit}."
            )
        # Drawn before anything is decoded, which is what takes the time.
        chosen = sample_fraction(labels, np.arange(len(labels)), limit / len(labels), seed)
        names, labels = tuple(names[index] for index in chosen), labels[chosen]
    values = np.empty(
        (len(names), IMAGE_SIZE, IMAGE_SIZE, len(bands)),
        np.uint8 if source.kind == "picture" else np.uint16,
    )
    cells = []
    digest = hashlib.sha256()
    chips = read_chips(source, names, bands)
    bar = tqdm(chips, "read", len(names), unit="chip", disable=not progress)
    for index, (name, chip) in enumerate(zip(names, bar, strict=True)):
        values[index] = chip.values
        cells.append(_cell_of(chip.grid))
        # The class and the file, whatever folder they lie in.
        short = "/".join(PurePosixPath(name).parts[-2:])
        digest.update(f"{short}\0{len(chip.content)}\0".encode())
        digest.update(chip.content)
    known = tuple(cell for cell in cells if cell is not None)
    return LabelledImages(
        values=values,
        labels=labels,
        classes=classes,
        files=names,
        bands=tuple(bands),
        unit=source.unit,
        clipped_at=source.clipped_at,
        cells=known if len(known) == len(cells) else None,
        sha256=digest.hexdigest(),
    )


def _find_classes(source: ChipSource) -> tuple[tuple[str, ...], np.ndarray]:
    folders = [PurePosixPath(name).parent for name in source.names]
    layout = "Expected a folder of chips for each class, <Class>/<file>, all of them side by side."
    roots = sorted({str(folder.parent) for folder in folders if folder.name})
    bare = [name for name, folder in zip(source.names, folders, strict=True) if not folder.name]
    if bare:
        raise DataError(f"{source.path} has chips in no class folder, such as {bare[0]}. {layout}")
    if len(roots) > 1:
        raise DataError(
            f"{source.path} has class folders in several places: {', '.join(roots[:_LISTED])}. "
            f"{layout} Name one of these."
        )
    empty = [name for name in source.empty if str(PurePosixPath(name).parent) == roots[0]]
    if empty:
        raise DataError(
            f"{source.path} has a class folder without chips: {', '.join(empty[:_LISTED])}. "
            "Remove it or fill it."
        )
    classes = tuple(sorted({folder.name for folder in folders}))
    if len(classes) < 2:
        raise DataError(
            f"{source.path} has one class only, {classes[0]}: there is nothing to tell apart. "
            f"{layout}"
        )
    index_of = {name: index for index, name in enumerate(classes)}
    return classes, np.array([index_of[folder.name] for folder in folders], np.int64)


def _cell_of(grid: Grid | None) -> str | None:
    if grid is None or grid.crs is None or grid.transform is None:
        return None
    a, b, c, d, e, f = grid.transform
    x = c + a * grid.width / 2 + b * grid.height / 2
    y = f + d * grid.width / 2 + e * grid.height / 2
    side = 1.0 if abs(a) + abs(b) < _DEGREES_PIXEL else CELL_SIZE
    return f"{grid.crs} {int(x // side)} {int(y // side)}"
