"""Files and folders that are there whole or not at all."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sits_keras.errors import DataError, ExistsError


@contextlib.contextmanager
def written_aside(path: Path, unique: bool = False) -> Iterator[Path]:
    """A path to write to, which gets its real name when the block ends well and goes otherwise.

    Args:
        path: the real name, of a file or a folder. A file that is there is replaced; so is a
            folder, by a folder only and not in one step.
        unique: write to a name that no other writer of the same path uses.
    Yields:
        A name beside it with the same suffix. Nothing is there yet.
    """
    path = path.resolve()  # gives "." a name, and replaces what a link points to
    aside = path.with_name(f".partial-{uuid.uuid4().hex + '-' if unique else ''}{path.name}")
    _remove(aside)
    try:
        yield aside
        if path.is_dir() and aside.is_dir():
            shutil.rmtree(path)
        os.replace(aside, path)
    finally:
        _remove(aside)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Keeps a file or folder that is there from being replaced unasked.

    Raises:
        ExistsError: `path` is there, and either `overwrite` is not asked for or it is a folder.
    """
    if path.is_dir():
        raise ExistsError(f"{path} is a folder. Name a file.")
    if path.exists() and not overwrite:
        raise ExistsError(
            f"{path} is there already. Name another file, or pass overwrite (--overwrite)."
        )


def sha256_of(file: Path) -> str:
    """Checksum of a file's content, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a JSON object, whole or not at all."""
    with written_aside(path) as aside:
        text = json.dumps(values, indent=1, ensure_ascii=False)
        aside.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: of the file.
        remedy: what to do about a damaged one, a sentence for the error.
    Raises:
        DataError: the file is not one.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}. {remedy}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is damaged: it holds no JSON object. {remedy}")
    return values


def read_yaml(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a YAML mapping.

    Args:
        path: of the file.
        remedy: what to do about another kind of file, a sentence for the error.
    Raises:
        DataError: the file is not one.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}. {remedy}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} holds no YAML mapping. {remedy}")
    return values


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
