"""Presets as folders: how they are found by name, and told from damaged or altered ones.

NAME/preset.json           what a program needs to know, with the checksum of all that is loaded
NAME/shared_encoder/       hub module
NAME/exclusive_encoder/    hub module
NAME/model.keras           the whole model, without the state of its optimizers
NAME/training.json         how it came to be: places, licences, hardware, known failures
NAME/metrics.json          every measured score, with the command that measures it again
NAME/README.md, item.json  the card and the STAC item, rendered from those
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sits_keras.errors import ConfigError, DataError, MissingError, suggest
from sits_keras.files import read_json, sha256_of
from sits_keras.formats import MODEL_NAME, PRESET, is_kind, read_format
from sits_keras.presets.download import HOME_VARIABLE, fetch, home, is_url

TRAINING_NAME = "training.json"
METRICS_NAME = "metrics.json"
ENCODER_NAMES = {"shared": "shared_encoder", "exclusive": "exclusive_encoder"}

_SOURCE_TREE = Path(__file__).resolve().parents[2] / "savedmodels"
_REMEDY = PRESET.remedy


def list_presets() -> dict[str, Path]:
    """Folders of the presets that can be named, by name: of `SITS_KERAS_HOME`, then those that
    come with the source tree."""
    found: dict[str, Path] = {}
    for root in (home(), _SOURCE_TREE):
        for file in sorted(root.glob(f"*/{PRESET.file}")):
            if is_kind(file.parent, "preset"):
                found.setdefault(file.parent.name, file.parent)
    return dict(sorted(found.items()))


def find_preset(name: Path | str) -> Path:
    """The folder of a preset.

    Args:
        name: of a preset (`list_presets`); or the path of its folder or zip archive; or the URL of
            such an archive, which is then fetched (see `downloads.fetch`).
    Raises:
        MissingError: there is none.
        ConfigError: a URL that is refused.
        DataError: the archive or its `preset.json` is damaged, or of another format; or there is
            something else.
    """
    text = str(name)
    if is_url(text):
        return _inside(fetch(text, progress=True), text)
    path = Path(name)
    if path.is_file() and path.suffix.lower() == ".zip":
        return _inside(fetch(path.resolve().as_uri() + f"#sha256={sha256_of(path)}"), text)
    if (path / PRESET.file).is_file():
        read_preset(path)
        return path
    known = list_presets()
    if text in known:
        return known[text]
    if path.exists():
        is_module = is_kind(path, "hub module")
        raise DataError(
            f"{path} {'is a hub module, not' if is_module else 'does not contain'} a preset. "
            f"Expected a folder with {PRESET.file}, or its zip archive."
        )
    if not could_be_name(path):
        raise MissingError(f"No preset at {path}. Expected its folder, or its zip archive.")
    raise MissingError(
        f"No preset {text!r}. {describe_known(text)} A preset is given by its name, or by the path "
        "or URL of its folder's zip archive; a folder, by its path."
    )


def could_be_name(path: Path) -> bool:
    """Whether what was given may be a preset's name, and not only a path."""
    return not (path.parent.name or path.is_absolute())


def describe_known(name: str) -> str:
    """Which names there are, as sentences for an error about one that is none of them."""
    known = list_presets()
    if not known:
        return (
            f"No presets are there: wheels carry none. Put folders of presets into {home()} "
            f"(or set {HOME_VARIABLE}), or work from a clone of the source tree."
        )
    return f"{suggest(name, known)}There are: {', '.join(known)}."


def read_preset(folder: Path) -> dict[str, Any]:
    """What a preset's `preset.json` says.

    Raises:
        DataError: it is damaged or of another format.
    """
    file = folder / PRESET.file
    preset = read_format(folder, PRESET)
    if not isinstance(preset.get("files"), dict) or MODEL_NAME not in preset["files"]:
        raise DataError(f"{file} is damaged: it lists no files. {_REMEDY}")
    return preset


def verify(folder: Path, part: str | None = None) -> dict[str, Any]:
    """Checks the files of a preset against the checksums in its `preset.json`.

    A folder of a part that holds other files than those listed is refused, too.

    Args:
        folder: of the preset.
        part: the file or folder within it that is to be loaded; all of them by default.
    Returns:
        What `preset.json` says.
    Raises:
        DataError: a file is missing, has another checksum, or is not listed. It is named.
    """
    preset = read_preset(folder)
    parts = [part] if part else [MODEL_NAME, *ENCODER_NAMES.values()]
    listed = {
        name: facts
        for name, facts in preset["files"].items()
        if any(name == one or name.startswith(f"{one}/") for one in parts)
    }
    there = {name for one in parts for name in walk(folder, one)}
    for name, facts in listed.items():
        expected = facts.get("sha256") if isinstance(facts, dict) else None
        if name not in there:
            raise DataError(
                f"{folder / name} is missing. Expected a file of sha256 {expected}. {_REMEDY}"
            )
        found = sha256_of(folder / name)
        if found != expected:
            raise DataError(
                f"{folder / name} is damaged or was altered. Expected sha256 {expected}, received "
                f"{found}. {_REMEDY}"
            )
    if others := sorted(there - set(listed)):
        raise DataError(
            f"{folder / others[0]} is not among the files that {PRESET.file} lists. Remove it. "
            f"{_REMEDY}"
        )
    if not listed:
        raise DataError(f"{folder / PRESET.file} lists no file of {part}. {_REMEDY}")
    return preset


def describe_file(file: Path) -> dict[str, Any]:
    """Return what `preset.json` lists of a file: its checksum and its size in bytes."""
    return {"sha256": sha256_of(file), "bytes": file.stat().st_size}


def walk(folder: Path, part: str) -> Iterator[str]:
    """Names within a preset, `/` between folders, of a part's files."""
    path = folder / part
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            yield file.relative_to(folder).as_posix()


def read_training(folder: Path) -> dict[str, Any]:
    """What `training.json` says; nothing where there is none."""
    file = folder / TRAINING_NAME
    return read_json(file, "Write it again.") if file.is_file() else {}


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """The scores of `metrics.json`; none where there is no such file.

    Raises:
        DataError: it is damaged.
    """
    file = folder / METRICS_NAME
    if not file.is_file():
        return []
    scores = read_json(file, "Make it again with `sits-keras card --scores`.").get("scores")
    if not isinstance(scores, list) or not all(isinstance(one, dict) for one in scores):
        raise DataError(f"{file} holds no list of scores. Make it again.")
    return scores


def _inside(folder: Path, name: str) -> Path:
    """The preset in an unpacked archive: at its top, or in the one folder there."""
    candidates = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    found = [path for path in candidates if (path / PRESET.file).is_file()]
    if not found:
        raise DataError(f"{name} holds no preset: expected {PRESET.file} at its top.")
    if len(found) > 1 and found[0] != folder:
        raise ConfigError(f"{name} holds several presets. Expected one.")
    read_preset(found[0])
    return found[0]
