"""The data that a model is evaluated on: which there are, and their checksums.

DATA/series/<id>/<YYYY-MM-DD>.tif             translation, retrieval
DATA/eurosat/EuroSAT*.zip                     classification
DATA/scenes/*.tif                             segmentation
DATA/change/<id>/{before,after,mask}.tif      change
"""

import hashlib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sits_keras.config import PrepareConfig
from sits_keras.data.preparation.pipeline import prepare
from sits_keras.data.records import read_blocks
from sits_keras.data.sources.series import find_series
from sits_keras.errors import DataError, MissingError
from sits_keras.files import sha256_of


class Place(NamedTuple):
    """One place at its clear dates.

    Attributes:
        id: of its series.
        dates: ISO dates, ascending.
        images: `(time, height, width, bands)` uint16 stored values.
    """

    id: str
    dates: tuple[str, ...]
    images: np.ndarray


class Inventory(NamedTuple):
    """What a folder of data holds.

    Attributes:
        folder: it.
        held_out: names of the series that were not trained on.
        trained_on: names of the others.
        archives: labelled sets.
        scenes: rasters to segment.
        pairs: folders of labelled pairs of dates.
    """

    folder: Path
    held_out: tuple[str, ...]
    trained_on: tuple[str, ...]
    archives: tuple[Path, ...]
    scenes: tuple[Path, ...]
    pairs: tuple[Path, ...]

    def files(self, kind: str) -> list[Path]:
        """Every file of the series, archives, scenes or pairs."""
        if kind == "series":
            names = (*self.held_out, *self.trained_on)
            return [file for name in names for file in _files(self.folder / "series" / name)]
        found = getattr(self, kind)
        return [file for one in found for file in (_files(one) if one.is_dir() else [one])]


def take_stock(folder: Path, held_out: Sequence[str]) -> Inventory:
    """Lists what a folder of data holds.

    Args:
        folder: laid out as above; whatever is not there is not evaluated.
        held_out: shell patterns of the series that were not trained on.
    Raises:
        MissingError: there is no such folder, or nothing of the kind in it.
        DataError: a pattern fits no series.
    """
    if not folder.is_dir():
        raise MissingError(f"No folder at {folder}. Expected one with series, eurosat, ... in it.")
    names = []
    if (folder / "series").is_dir():
        names = [series.id for series in find_series([folder / "series"])]
    for pattern in held_out:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise DataError(
                f"No series in {folder / 'series'} fits {pattern!r}. "
                f"There are: {', '.join(names) or 'none'}."
            )
    is_held_out = {name: any(fnmatchcase(name, one) for one in held_out) for name in names}
    stock = Inventory(
        folder,
        held_out=tuple(name for name in names if is_held_out[name]),
        trained_on=tuple(name for name in names if not is_held_out[name]),
        archives=tuple(sorted((folder / "eurosat").glob("EuroSAT*.zip"))),
        scenes=tuple(sorted((folder / "scenes").glob("*.tif"))),
        pairs=tuple(sorted(mask.parent for mask in (folder / "change").glob("*/mask.tif"))),
    )
    if not any(stock[1:]):
        raise MissingError(
            f"{folder} holds nothing to evaluate on. Expected series/<id>/<YYYY-MM-DD>.tif, "
            "eurosat/EuroSAT*.zip, scenes/*.tif or change/<id>/{before,after,mask}.tif in it."
        )
    return stock


def read_places(
    stock: Inventory, names: Sequence[str], bands: Sequence[str], records: Path, progress: bool
) -> list[Place]:
    """Reads the clear dates of some places, screened as for training (section 4.1).

    Args:
        stock: where they lie.
        names: of the series.
        bands: bands to read.
        records: folder for the records that are made on the way, and used again.
        progress: show progress bars.
    """
    # A place is one block wherever the paper's patch holds it.
    config = PrepareConfig(bands=tuple(bands), block_size=PrepareConfig().patch_size)
    escaped = [name.replace("[", "[[]") for name in names]
    manifest = prepare(
        stock.folder / "series", records, config, include=escaped, overwrite=True, progress=progress
    )
    return [Place(block.series, block.dates, images) for block, images in read_blocks(manifest)]


def count_places(places: Sequence[Place]) -> str:
    """How many places and dates there are, for people."""
    num_dates = sum(len(place.dates) for place in places)
    return f"{len(places)} with {num_dates} dates"


def checksum(files: Iterable[Path], folder: Path) -> dict[str, Any]:
    """SHA-256 of the names and contents of some files, and how many they are.

    Args:
        files: which.
        folder: that their names are relative to.
    """
    digest = hashlib.sha256()
    count = size = 0
    for file in sorted(files):
        name = file.relative_to(folder).as_posix()
        digest.update(f"{name}\0{sha256_of(file)}\n".encode())
        count, size = count + 1, size + file.stat().st_size
    return {"sha256": digest.hexdigest(), "files": count, "bytes": size}


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())
