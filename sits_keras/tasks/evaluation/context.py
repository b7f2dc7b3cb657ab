"""Model, data and settings of an evaluation."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.config import PrepareConfig
from sits_keras.data.preparation.pipeline import prepare
from sits_keras.data.records import read_blocks, read_manifest
from sits_keras.data.sources.paths import visible_files
from sits_keras.data.sources.series import find_series
from sits_keras.errors import ConfigError, DataError, MissingError, SitsKerasError
from sits_keras.files import sha256_of
from sits_keras.formats import MODEL_NAME, identify
from sits_keras.model import DisentangledSITS
from sits_keras.presets.folders import read_training


class PlaceImages(NamedTuple):
    """Clear images of one place.

    Attributes:
        id: Name of its series.
        dates: ISO dates, ascending.
        images: `(time, height, width, bands)` uint16 stored values.
    """

    id: str
    dates: tuple[str, ...]
    images: npt.NDArray[np.uint16]


class Datasets(NamedTuple):
    """Data of an evaluation, as found in a folder.

    Attributes:
        folder: The folder.
        held_out: Names of the series that the model was not trained on.
        trained_on: Names of the other series.
        archives: Labelled sets.
        scenes: Rasters to segment.
        pairs: Folders of labelled pairs of dates.
    """

    folder: Path
    held_out: tuple[str, ...]
    trained_on: tuple[str, ...]
    archives: tuple[Path, ...]
    scenes: tuple[Path, ...]
    pairs: tuple[Path, ...]

    def files(self, kind: str) -> list[Path]:
        """Return every file of one kind of data.

        Args:
            kind: "series", "archives", "scenes" or "pairs".
        """
        if kind == "series":
            names = (*self.held_out, *self.trained_on)
            return [file for name in names for file in _files(self.folder / "series" / name)]
        found = getattr(self, kind)
        return [file for one in found for file in (_files(one) if one.is_dir() else [one])]


def list_datasets(folder: Path, held_out: Sequence[str]) -> Datasets:
    """List the data in a folder.

    Args:
        folder: Folder as described in `sits_keras.tasks.evaluate`.
        held_out: Shell patterns of the series that the model was not trained on.

    Returns:
        The data.

    Raises:
        MissingError: If there is no such folder, or no data in it.
        DataError: If a pattern does not match any series.
    """
    if not folder.is_dir():
        raise MissingError(
            f"No folder at {folder}. Expected a folder with series, eurosat, scenes or change."
        )
    names = []
    if (folder / "series").is_dir():
        names = [series.id for series in find_series([folder / "series"])]
    for pattern in held_out:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise DataError(
                f"No series in {folder / 'series'} matches {pattern!r}. "
                f"Found: {', '.join(names) or 'none'}."
            )
    is_held_out = {name: any(fnmatchcase(name, one) for one in held_out) for name in names}
    datasets = Datasets(
        folder,
        held_out=tuple(name for name in names if is_held_out[name]),
        trained_on=tuple(name for name in names if not is_held_out[name]),
        archives=visible_files(folder, "eurosat/EuroSAT*.zip"),
        scenes=visible_files(folder, "scenes/*.tif"),
        pairs=tuple(mask.parent for mask in visible_files(folder, "change/*/mask.tif")),
    )
    if not any(datasets[1:]):
        raise MissingError(
            f"{folder} does not contain data to evaluate on. Expected "
            "series/<id>/<YYYY-MM-DD>.tif, eurosat/EuroSAT*.zip, scenes/*.tif or "
            "change/<id>/{before,after,mask}.tif."
        )
    return datasets


def find_held_out(path: Path | None, name: str, series: Sequence[str]) -> list[str]:
    """Return the series that a preset or run was not trained on, as it records.

    Args:
        path: A preset's folder, a run's folder or a `.keras` file; None for a model in memory.
        name: Name of the model, for messages.
        series: Names of the series of the data.

    Returns:
        Names with shell wildcards escaped.

    Raises:
        ConfigError: If there is no such record, or the model was trained on all series.
    """
    remedy = "List the held-out series (--test NAMES)."
    unknown = f"{path or name} does not record the series it was trained on. {remedy}"
    if path is None:
        raise ConfigError(unknown)
    found = identify(path)
    if found.kind == "preset":
        places = read_training(path).get("places")
        if not places:
            raise ConfigError(unknown)
        trained_on = {one.get("id") for one in places}
    elif found.kind == "run":
        try:
            folder = found.content["records"]["folder"]
            trained_on = {one["id"] for one in read_manifest(folder).series}
        except (KeyError, TypeError, SitsKerasError, OSError) as error:
            raise ConfigError(f"The records of {path} cannot be read: {error} {remedy}") from error
    else:
        raise ConfigError(unknown)
    held_out = [one for one in series if one not in trained_on]
    if not held_out:
        raise ConfigError(f"{path} was trained on every series of the data. {remedy}")
    return [one.replace("[", "[[]") for one in held_out]


def read_places(
    datasets: Datasets, names: Sequence[str], bands: Sequence[str], records: Path, progress: bool
) -> list[PlaceImages]:
    """Read the clear dates of some places, screened as for training (section 4.1).

    Args:
        datasets: Data that holds the places.
        names: Names of the series.
        bands: Band names to read.
        records: Folder for intermediate records, which are reused.
        progress: Show progress bars.

    Returns:
        The places.
    """
    # A place of at most the paper's patch size is one block.
    config = PrepareConfig(bands=tuple(bands), block_size=PrepareConfig().patch_size)
    escaped = [name.replace("[", "[[]") for name in names]
    manifest = prepare(
        datasets.folder / "series",
        records,
        config,
        include=escaped,
        overwrite=True,
        progress=progress,
    )
    return [
        PlaceImages(block.series, block.dates, images) for block, images in read_blocks(manifest)
    ]


def count_places(places: Sequence[PlaceImages]) -> str:
    """Return the number of places and dates as text.

    Args:
        places: Places to count.
    """
    num_dates = sum(len(place.dates) for place in places)
    return f"{len(places)} with {num_dates} dates"


def checksum(files: Iterable[Path], folder: Path) -> dict[str, Any]:
    """Return the SHA-256 of the names and contents of files, their number and their size.

    Args:
        files: Files to read.
        folder: Folder that their names are relative to.
    """
    digest = hashlib.sha256()
    count = size = 0
    for file in sorted(files):
        name = file.relative_to(folder).as_posix()
        digest.update(f"{name}\0{sha256_of(file)}\n".encode())
        count, size = count + 1, size + file.stat().st_size
    return {"sha256": digest.hexdigest(), "files": count, "bytes": size}


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder without hidden ones, which file managers write."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part[0] == "." for part in file.relative_to(folder).parts)
    )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Amount of measurements.

    Attributes:
        num_seeds: Measurements of each number, each with its own random samples.
        num_crops: Crops of each set of places for Table 1 (the paper: 9,600).
        num_queries: Windows of each date that are looked up for Table 2.
        stride: Distance between searched windows for Table 2, in pixels.
        fractions: Fractions of the labels that classifiers are trained on for Table 3.
        train_encoder: Labelled sets on which the whole encoder is trained as well: "small" ones of
            at most 2,000 images, "all", which takes hours on a CPU, or "none".
        segment_stride: Distance between windows that vote, in pixels.
        change_stride: Distance between windows, in pixels.
        mode: Mode of the model's encoders, "exact" or "dense". By default dense where they support
            it. Baselines use the mode they support.
    """

    num_seeds: int = 3
    num_crops: int = 640
    num_queries: int = 64
    stride: int = 4
    fractions: tuple[float, ...] = (1.0, 0.1, 0.01)
    train_encoder: Literal["small", "all", "none"] = "small"
    segment_stride: int = 8
    change_stride: int = 32
    mode: Literal["exact", "dense"] | None = None

    def __post_init__(self) -> None:
        for name in ("num_seeds", "num_crops", "num_queries", "stride"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1. Received: {name}={getattr(self, name)}."
                )


QUICK = EvaluationConfig(
    num_seeds=1,
    num_crops=64,
    num_queries=16,
    stride=16,
    fractions=(0.1,),
    train_encoder="none",
    segment_stride=32,
)
"""Settings of a quick check, which takes minutes and is not a measurement."""


class EvaluatedModel(NamedTuple):
    """Model to evaluate, with its name and checksum.

    Attributes:
        model: The model.
        name: Its name in the report.
        sha256: Checksum of its file, or of its weights.
        path: The preset, run or file that it was loaded from, or None.
    """

    model: DisentangledSITS
    name: str
    sha256: str
    path: Path | None = None

    @classmethod
    def from_path(cls, model: DisentangledSITS, path: Path) -> "EvaluatedModel":
        """Return a model with the name and checksum of the path that it was loaded from.

        Args:
            model: The model.
            path: A preset's folder, a run's folder, or a `.keras` file.
        """
        file = path / MODEL_NAME if path.is_dir() else path
        return cls(model, path.resolve().name, sha256_of(file), path)

    @classmethod
    def from_model(cls, model: DisentangledSITS) -> "EvaluatedModel":
        """Return a model in memory with the checksum of its weights."""
        digest = hashlib.sha256()
        for variable in model.variables:
            digest.update(np.asarray(variable).tobytes())
        return cls(model, "model", digest.hexdigest())


class Context(NamedTuple):
    """Inputs of a section.

    Attributes:
        subject: Model to evaluate.
        datasets: Data to evaluate on.
        config: Amount of measurements.
        out: The evaluation's folder.
        progress: Show progress bars.
    """

    subject: EvaluatedModel
    datasets: Datasets
    config: EvaluationConfig
    out: Path
    progress: bool

    def read_places(self, which: Literal["held_out", "trained_on"]) -> list[PlaceImages]:
        """Read the places of one set, at their clear dates.

        Args:
            which: "held_out" or "trained_on".
        """
        return read_places(
            self.datasets,
            getattr(self.datasets, which),
            self.subject.model.config.bands,
            self.out / "records" / which,
            self.progress,
        )
