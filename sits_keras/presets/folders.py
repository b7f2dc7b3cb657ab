"""Presets as folders: find them by name, path or URL, and verify their files.

NAME/preset.json           description for programs, with checksums of all files that are loaded
NAME/shared_encoder/       hub module, optional: else it is made from the whole model
NAME/exclusive_encoder/    hub module, optional
NAME/model.keras           whole model, without optimizer state
NAME/projection.npz        projection of the shared encoder's layers, optional; also in its module
NAME/*_layers.onnx         layers of each encoder, for ONNX Runtime, optional
NAME/training.json         training data with licences, hardware, limits
NAME/metrics.json          scores, with the commands that measure them
NAME/README.md, item.json  card and STAC item, rendered from these files
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sits_keras.data.sources.paths import redact
from sits_keras.errors import ConfigError, DataError, MissingError, suggest
from sits_keras.files import read_json, sha256_of, write_json
from sits_keras.formats import MODEL_NAME, PRESET, PROJECTION_NAME, is_kind, read_format
from sits_keras.presets.download import HOME_VARIABLE, fetch, home, is_url
from sits_keras.presets.handles import fetch_handle, is_handle

TRAINING_NAME = "training.json"
METRICS_NAME = "metrics.json"
ENCODER_NAMES = {"shared": "shared_encoder", "exclusive": "exclusive_encoder"}
LAYERS_NAMES = {"shared": "shared_layers.onnx", "exclusive": "exclusive_layers.onnx"}

_SOURCE_TREE = Path(__file__).resolve().parents[2] / "savedmodels"
_PACKAGED = Path(__file__).resolve().with_name("packaged")  # of a wheel, written by setup.py
_REGISTRY = Path(__file__).resolve().with_name("registry.json")
_REGISTRY_FORMAT = {"format": "sits_keras registry", "version": 1}
_REMEDY = PRESET.remedy


def list_presets() -> dict[str, Path]:
    """Return the folders of all presets that can be loaded by name.

    Returns:
        Folders by name, in alphabetical order: those in `SITS_KERAS_HOME`, or the user's cache,
        those of the source tree, and those that were installed with the package. The first of a
        name is used.

    Examples:
        >>> from sits_keras import presets
        >>> "sits_rgbn_small" in presets.list_presets()
        True
    """
    found: dict[str, Path] = {}
    for root in _roots():
        for file in sorted(root.glob(f"*/{PRESET.file}")):
            if is_kind(file.parent, "preset"):
                found.setdefault(file.parent.name, file.parent)
    return dict(sorted(found.items()))


def find_preset(name: Path | str) -> Path:
    """Find the folder of a preset.

    Args:
        name: Name of a preset (see `list_presets`), path of its folder or zip archive, URL of its
            zip archive, which is downloaded once (see `sits_keras.presets.download.fetch`), or
            handle of Hugging Face or Kaggle (see `sits_keras.presets.handles`).

    Returns:
        The folder.

    Raises:
        MissingError: There is no such preset, or the client of its host is not installed.
        ConfigError: The URL or the handle is refused.
        DataError: The archive or its `preset.json` is damaged or of a version that is not
            supported, or the path is not a preset.
    """
    text = str(name)
    if is_url(text):
        return _find_in_archive(fetch(text, progress=True), redact(text))
    if is_handle(text):
        return fetch_handle(text, verify)
    path = Path(name)
    if path.is_file() and path.suffix.lower() == ".zip":
        url = f"{path.resolve().as_uri()}#sha256={sha256_of(path)}"
        return _find_in_archive(fetch(url), text)
    if (path / PRESET.file).is_file():
        read_preset(path)
        return path
    if (named := find_named(text)) is not None:
        return named
    if path.exists():
        is_module = is_kind(path, "hub module")
        raise DataError(
            f"{path} {'is a hub module, not' if is_module else 'does not contain'} a preset. "
            f"Expected a folder with {PRESET.file}, or its zip archive."
        )
    if not could_be_name(path):
        raise MissingError(f"No preset at {path}. Expected its folder, or its zip archive.")
    if list_presets() and text in read_registry():
        raise MissingError(
            f"The preset {text!r} is in the source tree of this package, not in its wheel, which "
            f"would be too large. Pass the path of savedmodels/{text} in a source tree, or copy "
            f"that folder into {home()} (or set {HOME_VARIABLE})."
        )
    raise MissingError(
        f"No preset {text!r}. {describe_known(text)} Expected the name of a preset, the path of "
        "its folder, or the path or URL of its zip archive."
    )


def find_named(name: str) -> Path | None:
    """Find the folder of a preset by its name alone; None if no preset has this name.

    Raises:
        DataError: A preset of this name is damaged or of a version that is not supported.
    """
    known = list_presets()
    if name in known:
        return known[name]
    if could_be_name(Path(name)):
        for root in _roots():
            if (root / name / PRESET.file).is_file():
                read_preset(root / name)
    return None


def _roots() -> tuple[Path, ...]:
    """Return the folders in which presets are looked up by name, in order of precedence."""
    return home(), _SOURCE_TREE, _PACKAGED


def could_be_name(path: Path) -> bool:
    """Return whether a path could also be the name of a preset: it has no folder."""
    return not (path.parent.name or path.is_absolute())


def describe_known(name: str) -> str:
    """Describe the presets that can be loaded by name, for an error about an unknown name."""
    known = list_presets()
    if not known:
        return (
            f"No presets are installed. Put folders of presets into {home()} (or set "
            f"{HOME_VARIABLE}), or install the package again, whose wheel contains two."
        )
    return f"{suggest(name, known)}Available: {', '.join(known)}."


def read_preset(folder: Path) -> dict[str, Any]:
    """Read the `preset.json` of a preset.

    Args:
        folder: Folder of the preset.

    Returns:
        Content of the file.

    Raises:
        DataError: The file is damaged or of a version that is not supported.
    """
    file = folder / PRESET.file
    preset = read_format(folder, PRESET)
    if not isinstance(preset.get("files"), dict) or MODEL_NAME not in preset["files"]:
        raise DataError(f"{file} is damaged: it lists no files. {_REMEDY}")
    return preset


def read_registry() -> dict[str, dict[str, Any]]:
    """Read the registry of the presets that come with this package.

    Returns:
        For each name, its entries by version, oldest first (`registry.describe_version`).

    Raises:
        DataError: The registry is damaged.
    """
    values = read_json(_REGISTRY, "Install the package again.")
    presets: dict[str, dict[str, Any]] = values["presets"]
    return presets


def write_registry(presets: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write the registry into the package, and return its path.

    Args:
        presets: For each name, its entries by version, oldest first.
    """
    write_json(_REGISTRY, {**_REGISTRY_FORMAT, "presets": presets})
    return _REGISTRY


def _check_registered(folder: Path) -> None:
    """Compare the description of a preset of the wheel with the registry."""
    *_, newest = read_registry()[folder.name].values()
    expected = newest["files"][PRESET.file]["sha256"]
    found = sha256_of(folder / PRESET.file)
    if found != expected:
        raise DataError(
            f"{folder / PRESET.file} is damaged or was altered. Expected: sha256 {expected}, as in "
            f"{_REGISTRY.name}. Received: {found}. Install the package again."
        )


def verify(folder: Path, part: str | None = None) -> dict[str, Any]:
    """Compare the files of a preset with the checksums in its `preset.json`.

    Files that are not listed are refused as well, except hidden ones, which nothing loads. Of the
    presets that were installed with the package, `preset.json` itself is compared with the
    registry.

    Args:
        folder: Folder of the preset.
        part: File or folder in it that is to be loaded; by default the whole model, and the other
            parts that the folder contains.

    Returns:
        Content of `preset.json`.

    Raises:
        DataError: A file is missing, has another checksum or is not listed.
    """
    if folder.parent == _PACKAGED:
        _check_registered(folder)
    preset = read_preset(folder)
    optional = (*ENCODER_NAMES.values(), PROJECTION_NAME, *LAYERS_NAMES.values())
    present_parts = [name for name in optional if (folder / name).exists()]
    parts = [part] if part else [MODEL_NAME, *present_parts]
    listed = {
        name: facts
        for name, facts in preset["files"].items()
        if any(name == one or name.startswith(f"{one}/") for one in parts)
    }
    present = {name for one in parts for name in walk(folder, one)}
    for name, facts in listed.items():
        expected = facts.get("sha256") if isinstance(facts, dict) else None
        if name not in present:
            raise DataError(
                f"{folder / name} is missing. Expected a file of sha256 {expected}. {_REMEDY}"
            )
        found = sha256_of(folder / name)
        if found != expected:
            raise DataError(
                f"{folder / name} is damaged or was altered. Expected: sha256 {expected}. "
                f"Received: {found}. {_REMEDY}"
            )
    if others := sorted(present - set(listed)):
        raise DataError(
            f"{folder / others[0]} is not among the files that {PRESET.file} lists. Remove it, or "
            "fetch the preset again."
        )
    if not listed:
        raise DataError(f"{folder / PRESET.file} lists no file of {part}. {_REMEDY}")
    return preset


def count_bytes(folder: Path, preset: Mapping[str, Any]) -> int:
    """Return the size of the files of a preset that its folder contains.

    Args:
        folder: Folder of the preset.
        preset: Content of its `preset.json`.
    """
    return sum(one["bytes"] for file, one in preset["files"].items() if (folder / file).is_file())


def describe_file(file: Path) -> dict[str, Any]:
    """Return the entry of a file in `preset.json`: its checksum and its size in bytes."""
    return {"sha256": sha256_of(file), "bytes": file.stat().st_size}


def walk(folder: Path, part: str) -> Iterator[str]:
    """List the files of a part of a preset, without hidden ones.

    Args:
        folder: Folder of the preset.
        part: File or folder in it.

    Yields:
        Paths relative to `folder`, with `/` between folders.
    """
    path = folder / part
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not any(one.startswith(".") for one in name.parts):
            yield name.as_posix()


def read_training(folder: Path) -> dict[str, Any]:
    """Read `training.json` of a preset; empty if there is none.

    Raises:
        DataError: The file is damaged.
    """
    file = folder / TRAINING_NAME
    return read_json(file, "Write it again.") if file.is_file() else {}


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """Read the scores in `metrics.json` of a preset; empty if there is no such file.

    Raises:
        DataError: The file is damaged.
    """
    file = folder / METRICS_NAME
    if not file.is_file():
        return []
    remedy = "Write it again with `sits-keras card --scores`."
    scores = read_json(file, remedy).get("scores")
    if not isinstance(scores, list) or not all(isinstance(one, dict) for one in scores):
        raise DataError(f"{file} does not contain a list of scores. {remedy}")
    return scores


def _find_in_archive(folder: Path, name: str) -> Path:
    """Find the preset in an extracted archive: at its top, or in its only folder."""
    candidates = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    found = [path for path in candidates if (path / PRESET.file).is_file()]
    if not found:
        raise DataError(f"{name} does not contain a preset. Expected {PRESET.file} at its top.")
    if len(found) > 1 and found[0] != folder:
        raise ConfigError(f"{name} contains several presets. Expected one.")
    read_preset(found[0])
    return found[0]
