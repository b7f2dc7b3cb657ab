"""File formats of this package: what a path holds, and what to do if it cannot be read.

Every folder that the package writes has one JSON or YAML file that describes it. `identify` reads
that file once. Nothing here imports TensorFlow.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from sits_keras.errors import DataError, MissingError
from sits_keras.files import read_json, read_yaml

Kind = Literal["records", "run", "model", "hub module", "preset", "classifier", "converted encoder"]


class UnknownFormatError(DataError):
    """A path holds nothing that this package writes."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of folder, and the file that describes it.

    Attributes:
        kind: Kind of the folder.
        file: Name of the file that describes it.
        name: Value of `format` in that file.
        version: Value of `version` in that file. Other versions are not read.
        remedy: What to do if the file is damaged or of another version, one sentence.
    """

    kind: Kind
    file: str
    name: str
    version: int
    remedy: str


PRESET = Format("preset", "preset.json", "sits_keras preset", 1, "Fetch the preset again.")
HUB_MODULE = Format(
    "hub module", "module.json", "sits_keras hub module", 1, "Export the module again."
)
CLASSIFIER = Format(
    "classifier", "classifier.json", "sits_keras classifier", 1, "Train the classifier again."
)
CONVERTED = Format(
    "converted encoder",
    "encoder.json",
    "sits_keras converted encoder",
    1,
    "Export the encoder again.",
)
RECORDS = Format(
    "records",
    "manifest.json",
    "sits_keras records",
    1,
    "Prepare the records again with --overwrite.",
)
_FORMATS = (PRESET, HUB_MODULE, CONVERTED, CLASSIFIER, RECORDS)

PLAN_NAME = "plan.json"
"""File of a records folder whose preparation has begun; the manifest is written at its end."""

CONFIG_NAME = "config.yaml"
"""File that describes a run's folder."""

MODEL_NAME = "model.keras"
"""Whole model in the folder of a finished run, and in a preset."""

PROJECTION_NAME = "projection.npz"
"""Projection of an encoder's layers, in the folder of its hub module and in that of a preset."""

_RUN_SECTIONS = ("model", "objective", "optimizer", "train", "records")


@dataclasses.dataclass(frozen=True)
class Identity:
    """Format of a path, and the content of its description.

    Attributes:
        kind: Kind of the folder or file.
        path: The path that was given.
        content: Content of the JSON or YAML file that describes it; empty for a model file, and
            for records whose preparation is not finished.
    """

    kind: Kind
    path: Path
    content: dict[str, Any]


def identify(path: Path | str) -> Identity:
    """Identify what a path holds, from the JSON or YAML file that describes it.

    Args:
        path: Folder of records, of a run, of a hub module, of a converted encoder, of a preset or
            of a classifier; or a `.keras` file, or a folder with `model.keras` alone.

    Returns:
        Its kind, with the content of that file. Data files are not read.

    Raises:
        MissingError: Nothing is at `path`.
        DataError: The file is damaged or of a version that is not supported, or `path` is
            something else.

    Examples:
        >>> import sits_keras
        >>> sits_keras.identify("savedmodels/sits_rgbn_small").kind
        'preset'
        >>> sits_keras.identify("savedmodels/sits_rgbn_small/shared_encoder").kind
        'hub module'
    """
    path = Path(path)
    if not path.exists():
        raise MissingError(f"Nothing at {path}.")
    if path.is_file():
        if path.suffix == ".keras":
            return Identity("model", path, {})
        raise _unknown(path)
    for one in _FORMATS:
        if (path / one.file).is_file():
            content = read_json(path / one.file, one.remedy)
            if str(content.get("format", "sits_keras")).startswith("sits_keras"):
                return Identity(one.kind, path, _check(content, path / one.file, one))
    if (path / PLAN_NAME).is_file():
        return Identity("records", path, {})
    if (path / CONFIG_NAME).is_file():
        try:
            return Identity("run", path, _read_run(path / CONFIG_NAME))
        except DataError:
            if not (path / MODEL_NAME).is_file():
                raise
    if (path / MODEL_NAME).is_file():
        return Identity("model", path, {})
    raise _unknown(path)


def is_kind(path: Path | str, *kinds: Kind) -> bool:
    """Return whether a path holds one of some kinds, in a version that is supported."""
    try:
        return identify(path).kind in kinds
    except (OSError, DataError):
        return False


def read_format(folder: Path, expected: Format) -> dict[str, Any]:
    """Read the JSON file that describes a folder.

    Args:
        folder: Folder of the file.
        expected: Format of the folder.

    Returns:
        Content of the file.

    Raises:
        DataError: The file is damaged, of another format, or of a version that is not supported.
    """
    file = folder / expected.file
    return _check(read_json(file, expected.remedy), file, expected)


def _check(content: dict[str, Any], file: Path, expected: Format) -> dict[str, Any]:
    name, version = content.get("format"), content.get("version")
    if (name, version) == (expected.name, expected.version):
        return content
    others = {one.name: one for one in _FORMATS}
    if name == expected.name and isinstance(version, int) and version > expected.version:
        raise DataError(
            f"{file} is of version {version}, which a newer sits_keras wrote. Expected version "
            f"{expected.version}. Update the package: pip install --upgrade sits_keras."
        )
    if name in others and name != expected.name:
        other = others[name]
        raise DataError(
            f"{file} describes a {other.kind}. Expected a {expected.kind} there; a {other.kind} "
            f"is described by {other.file}. {other.remedy}"
        )
    raise DataError(
        f"{file} is of format {name!r}, version {version!r}. Expected {expected.name!r}, version "
        f"{expected.version}. {expected.remedy}"
    )


def damaged(found: Identity, error: Exception) -> DataError:
    """Return the error for a description that lacks a value, or has one of another type.

    Args:
        found: Path and kind, as `identify` returned them.
        error: Error met while its content was read.
    """
    for one in _FORMATS:
        if one.kind == found.kind:
            return DataError(f"{found.path / one.file} is damaged: {error!r}. {one.remedy}")
    file = found.path / CONFIG_NAME if found.kind == "run" else found.path
    return DataError(f"{file} is damaged: {error!r}. Name another {found.kind}.")


def _read_run(file: Path) -> dict[str, Any]:
    values = read_yaml(file, "Expected the settings of a run.")
    missing = [name for name in _RUN_SECTIONS if name not in values]
    if missing:
        raise DataError(
            f"{file} is not that of a run: it has no section {', '.join(missing)}. Expected what "
            "`sits-keras train` writes."
        )
    return values


def _unknown(path: Path) -> UnknownFormatError:
    return UnknownFormatError(
        f"{path} is none of: records folder ({RECORDS.file}), run ({CONFIG_NAME}), hub module "
        f"({HUB_MODULE.file}), preset ({PRESET.file}), classifier ({CLASSIFIER.file}), model file "
        "(.keras). For rasters and products, use `sits-keras inspect`."
    )
