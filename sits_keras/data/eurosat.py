"""EuroSAT and labelled data sets of the same layout, and their splits."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from tqdm import tqdm

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.chips import ChipSource, find_chips, read_chips
from sits_keras.data.rasters.read import Grid, find_longitudes
from sits_keras.errors import ConfigError, DataError

TEST_FRACTION = 0.2
"""Fraction of the images to test on: the paper's split is 80:20."""

SplitName = Literal["stratified", "spatial", "longitude"]
"""Names of the splits of `split_images`."""

LISTS = {
    "train": ("eurosat-spatial-train.txt", "eurosat-spatial-val.txt"),
    "test": ("eurosat-spatial-test.txt",),
}
"""Lists of file names that TorchGeo publishes for EuroSAT, split by longitude: from west to east,
60 % to train, 20 % to validate and 20 % to test."""


class Split(NamedTuple):
    """Indices of the images to train and to test on, each int64 in ascending order."""

    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def split_stratified(
    labels: npt.NDArray[np.integer], *, seed: int, test_fraction: float = TEST_FRACTION
) -> Split:
    """Sample a fraction of each class for the test, as the paper does.

    Adjacent images may be in different parts; see `split_spatial`.

    Args:
        labels: `(images,)` int.
        seed: Seed of the sample.
        test_fraction: Fraction of the images to test on.

    Raises:
        ConfigError: The fraction is not in (0, 1).
        DataError: A class has fewer than two images, or a part has fewer images than classes.
    """
    _check_fraction("test_fraction", test_fraction, 1, is_open=True)
    smallest = np.bincount(labels)[np.unique(labels)].min()
    if smallest < 2:
        raise DataError(
            "A class has one image. Expected at least two, to train and to test on. Add an image, "
            "or remove the class."
        )
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
    labels: npt.NDArray[np.integer],
    cells: Sequence[str] | None,
    *,
    seed: int,
    test_fraction: float = TEST_FRACTION,
) -> Split:
    """Sample complete cells, squares of about 100 km, for the test: no cell is in both parts.

    The cells are chosen so that classes keep their fractions as closely as possible
    (`StratifiedGroupKFold`). Neighbouring cells may be in different parts.

    Args:
        labels: `(images,)` int.
        cells: Name of the cell of each image; `None` if images have no georeferencing.
        seed: Seed of the sample.
        test_fraction: Approximate fraction of the images to test on.

    Raises:
        ConfigError: The fraction is not in (0, 0.5].
        DataError: There are no cells or too few, or a class lies in too few of them.
    """
    _check_fraction("test_fraction", test_fraction, 0.5)
    if cells is None:
        raise DataError(
            "A spatial split requires the position of each image, but these have no "
            "georeferencing. Use GeoTIFF chips with a CRS, or a stratified split."
        )
    num_folds = round(1 / test_fraction)
    if len(set(cells)) < num_folds:
        raise DataError(
            f"A spatial split of {test_fraction:.0%} requires images in at least {num_folds} cells "
            f"of 100 km. Received: {len(set(cells))}."
        )
    classes = set(np.unique(labels))
    for train, test in _list_folds(labels, cells, num_folds, seed):
        if set(labels[train]) == set(labels[test]) == classes:
            return Split(train, test)
    raise DataError(
        "No spatial split has every class in both parts: a class lies in too few places. Add chips "
        "of it from other places, try another seed, or use a stratified split."
    )


def split_longitude(
    labels: npt.NDArray[np.integer],
    longitudes: npt.NDArray[np.float64] | None,
    *,
    test_fraction: float = TEST_FRACTION,
) -> Split:
    """Train in the west and test in the east, as TorchGeo's EuroSATSpatial does.

    Args:
        labels: `(images,)` int.
        longitudes: `(images,)` degrees; `None` if images have no georeferencing.
        test_fraction: Fraction of the images to test on, the easternmost ones.

    Raises:
        ConfigError: The fraction is not in (0, 0.5].
        DataError: There are no longitudes, or the west lacks a class.
    """
    _check_fraction("test_fraction", test_fraction, 0.5)
    if longitudes is None:
        raise DataError(
            "A split by longitude requires the position of each image, but these have no "
            "georeferencing. Use GeoTIFF chips with a CRS, or put TorchGeo's lists "
            f"({', '.join(sum(LISTS.values(), ()))}) beside the images."
        )
    order = np.argsort(longitudes, kind="stable")
    num_train = round(len(order) * (1 - test_fraction))
    return _check_classes(labels, Split(np.sort(order[:num_train]), np.sort(order[num_train:])))


def split_listed(
    labels: npt.NDArray[np.integer], files: Sequence[str], folder: Path
) -> Split | None:
    """Split images by the lists of file names in a folder (`LISTS`).

    Names are compared without their folder and suffix, so that the lists, which name JPEGs, also
    split the GeoTIFFs of the same chips. Images that are not listed are in neither part.

    Args:
        labels: `(images,)` int.
        files: Name of the file of each image.
        folder: Folder of the lists.

    Returns:
        The split; `None` if a list is missing, or they name no image to train or to test on.

    Raises:
        DataError: The images to train on lack a class.
    """
    if not all((folder / name).is_file() for names in LISTS.values() for name in names):
        return None
    stems = [PurePosixPath(file).stem for file in files]
    parts = []
    for names in LISTS.values():
        lines = [line for name in names for line in (folder / name).read_text().split()]
        listed = {PurePosixPath(line).stem for line in lines}
        parts.append(np.array([i for i, stem in enumerate(stems) if stem in listed], np.int64))
    return _check_classes(labels, Split(*parts)) if all(map(len, parts)) else None


def _check_classes(labels: npt.NDArray[np.integer], split: Split) -> Split:
    missing = set(np.unique(labels)) - set(np.unique(labels[split.train]))
    if missing:
        raise DataError(
            f"{len(missing)} classes lie in the east alone. Expected images of all classes in the "
            "west, to train on. Add chips from other places, or use a stratified split."
        )
    return split


def sample_fraction(
    labels: npt.NDArray[np.integer], indices: npt.NDArray[np.int64], fraction: float, seed: int
) -> npt.NDArray[np.int64]:
    """Sample a fraction of the images of each class, at least one of each.

    A smaller fraction is a subset of a larger one with the same seed.

    Args:
        labels: `(images,)` int, of all images.
        indices: Indices of the images to sample from.
        fraction: Fraction of them, in (0, 1].
        seed: Seed of the sample.

    Returns:
        Indices, int64 in ascending order.

    Raises:
        ConfigError: The fraction is not in (0, 1], or is less than one image a class.
    """
    _check_fraction("fraction", fraction, 1)
    classes = np.unique(labels[indices])
    if fraction * len(indices) < len(classes):
        raise ConfigError(
            f"fraction={fraction:g} of {len(indices)} images is less than one image for each of "
            f"{len(classes)} classes. Use at least {len(classes) / len(indices):.4f}."
        )
    rng = np.random.default_rng(seed)
    chosen = []
    for one in classes:
        members = rng.permutation(indices[labels[indices] == one])
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen))


def _list_folds(
    labels: npt.NDArray[np.integer], cells: Sequence[str], num_folds: int, seed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # About classes with fewer images than folds, which the caller checks.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return list(folds.split(labels, labels, np.asarray(cells)))
        except ValueError:  # all classes have
            return []


def _check_fraction(name: str, value: float, highest: float, is_open: bool = False) -> None:
    if not (value > 0 and value <= highest and not (is_open and value == highest)):
        raise ConfigError(
            f"{name} must be in (0, {highest:g}{')' if is_open else ']'}. Received: {value!r}."
        )


SQUARE_SIDE = 100_000.0
"""Side in metres of the cells of a spatial split."""

_DEGREES_PIXEL = 0.01  # a pixel smaller than this in its CRS is in degrees: 10 m are 0.0001
_LISTED = 12


class LabelledImages(NamedTuple):
    """Images of known class, stored as compactly as in their files.

    Attributes:
        values: `(images, 64, 64, bands)` uint8 or uint16; 0 of uint16 is missing data.
        labels: `(images,)` int64 indices of `classes`.
        classes: Names of the classes, in ascending order.
        files: Name of the file of each image within its source.
        bands: Band names, in the order of the last axis.
        unit: Reflectance of a value of 1.
        clipped_at: Reflectance at which the values are clipped; `None` if they are not.
        cells: Name of the square of about 100 km that each image lies in; `None` if an image has no
            georeferencing.
        sha256: Checksum of the names and contents of all files read, the same for a folder as for
            its archive.
        longitudes: `(images,)` degrees of the centres; `None` if an image has no georeferencing.
        folder: Folder that contains the source; `None` if the images are not of files.
    """

    values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    files: tuple[str, ...]
    bands: tuple[str, ...]
    unit: float
    clipped_at: float | None
    cells: tuple[str, ...] | None
    sha256: str
    longitudes: npt.NDArray[np.float64] | None = None
    folder: Path | None = None

    def reflectance(self, indices: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.float32]:
        """Return some of the images as `(n, 64, 64, bands)` reflectance."""
        return self.values[indices].astype(np.float32) * np.float32(self.unit)

    def select(self, indices: npt.NDArray[np.int64]) -> "LabelledImages":
        """Return some of the images, in the order of the indices, with the checksum of all."""
        return self._replace(
            values=self.values[indices],
            labels=self.labels[indices],
            files=tuple(self.files[index] for index in indices),
            cells=None if self.cells is None else tuple(self.cells[index] for index in indices),
            longitudes=None if self.longitudes is None else self.longitudes[indices],
        )


def split_images(images: LabelledImages, split: str, seed: int) -> Split:
    """Split a labelled set 80:20.

    Args:
        images: Labelled images.
        split: "stratified", "spatial", or "longitude": the published lists if they are next to the
            images (`split_listed`), else by position (`split_longitude`).
        seed: Seed of the split. The split by longitude does not depend on it.

    Returns:
        Indices of training and test images.

    Raises:
        ConfigError: There is no such split.
        DataError: The images cannot be split.
    """
    match split:
        case "stratified":
            return split_stratified(images.labels, seed=seed)
        case "spatial":
            return split_spatial(images.labels, images.cells, seed=seed)
        case "longitude":
            listed = None
            if images.folder is not None:
                listed = split_listed(images.labels, images.files, images.folder)
            return listed or split_longitude(images.labels, images.longitudes)
    raise ConfigError(f"split must be 'stratified', 'spatial' or 'longitude'. Received: {split!r}.")


def read_labelled(
    path: Path | str,
    bands: Sequence[str],
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> LabelledImages:
    """Read a labelled set: a folder or zip archive with a folder of chips for each class.

    Args:
        path: Path of the folder or archive.
        bands: Band names, in the order wanted. Pictures have B04, B03 and B02.
        limit: Approximate number of chips to read, the same fraction of each class and at least
            one; all by default.
        seed: Seed of their sample (`sample_fraction`).
        progress: Show a progress bar.

    Returns:
        Images with labels and class names.

    Raises:
        MissingError: The path does not exist.
        ConfigError: Pictures do not show a band, or the limit is below one chip for each class.
        DataError: There are no class folders, only one, or an empty one; or a chip is damaged, of
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
        # Sampled before anything is decoded, which takes most of the time.
        chosen = sample_fraction(labels, np.arange(len(labels)), limit / len(labels), seed)
        names, labels = tuple(names[index] for index in chosen), labels[chosen]
    values = np.empty(
        (len(names), IMAGE_SIZE, IMAGE_SIZE, len(bands)),
        np.uint8 if source.kind == "picture" else np.uint16,
    )
    grids: list[Grid | None] = []
    digest = hashlib.sha256()
    chips = read_chips(source, names, bands)
    bar = tqdm(chips, "read", len(names), unit="chip", disable=not progress)
    for index, (name, chip) in enumerate(zip(names, bar, strict=True)):
        values[index] = chip.values
        grids.append(chip.grid)
        # The class and the file name, independent of the folder around them.
        short = "/".join(PurePosixPath(name).parts[-2:])
        digest.update(f"{short}\0{len(chip.content)}\0".encode())
        digest.update(chip.content)
    placed = [grid for grid in grids if grid and grid.crs and grid.transform]
    is_placed = len(placed) == len(grids)
    return LabelledImages(
        values=values,
        labels=labels,
        classes=classes,
        files=names,
        bands=tuple(bands),
        unit=source.unit,
        clipped_at=source.clipped_at,
        cells=tuple(map(_cell_of, placed)) if is_placed else None,
        sha256=digest.hexdigest(),
        longitudes=find_longitudes(placed) if is_placed else None,
        folder=source.path.parent,
    )


def _find_classes(source: ChipSource) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    folders = [PurePosixPath(name).parent for name in source.names]
    layout = "Expected a folder of chips for each class, <Class>/<file>, all of them side by side."
    roots = sorted({str(folder.parent) for folder in folders if folder.name})
    bare = [name for name, folder in zip(source.names, folders, strict=True) if not folder.name]
    if bare:
        raise DataError(
            f"{source.path} has chips outside of class folders, such as {bare[0]}. {layout}"
        )
    if len(roots) > 1:
        raise DataError(
            f"{source.path} contains class folders in several folders: "
            f"{', '.join(roots[:_LISTED])}. {layout} Name one of these folders."
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
            f"{source.path} has one class only, {classes[0]}. Expected at least two to classify. "
            f"{layout}"
        )
    index_of = {name: index for index, name in enumerate(classes)}
    return classes, np.array([index_of[folder.name] for folder in folders], np.int64)


def _cell_of(grid: Grid) -> str:
    a, b, c, d, e, f = grid.transform or ()
    x = c + a * grid.width / 2 + b * grid.height / 2
    y = f + d * grid.width / 2 + e * grid.height / 2
    side = 1.0 if abs(a) + abs(b) < _DEGREES_PIXEL else SQUARE_SIDE
    return f"{grid.crs} {int(x // side)} {int(y // side)}"
