"""Labelled chips: EuroSAT in either of its forms, or a user's own (section 4.4).

    <anything>/<Class>/<file>      .jpg, .png or .tif of 64 x 64 pixels; a folder or a .zip

The official archives look like this: `EuroSAT.zip` holds pictures of red, green and blue,
`EuroSATallBands.zip` GeoTIFFs of 13 bands at the top of the atmosphere. See `data.chips` for what
their values mean.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.labelled.chips import ChipSource, find_chips, read_chips
from sits_keras.data.labelled.splits import take_fraction
from sits_keras.data.rasters.read import Grid
from sits_keras.errors import ConfigError, DataError

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
        seed: seed by which those are drawn (`data.splits.take_fraction`).
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
        chosen = take_fraction(labels, np.arange(len(labels)), limit / len(labels), seed)
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
