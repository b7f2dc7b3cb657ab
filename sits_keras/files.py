"""Output files and folders that are complete or absent, checks of outputs, JSON and YAML."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from sits_keras.errors import ConfigError, DataError, ExistsError, OutputError


@contextlib.contextmanager
def written_aside(path: Path, unique: bool = False) -> Iterator[Path]:
    """Write to a temporary path that is renamed on success and removed otherwise.

    Args:
        path: Final path of a file or folder. An existing file is replaced atomically; an existing
            folder is replaced by a folder, not atomically.
        unique: Use a temporary name that no other writer of the same path uses.

    Yields:
        A path in the same folder with the same suffix, which does not exist yet.
    """
    path = path.resolve()  # gives "." a name, and follows links
    aside = path.with_name(f".partial-{uuid.uuid4().hex + '-' if unique else ''}{path.name}")
    _remove(aside)
    try:
        yield aside
        if path.is_dir() and aside.is_dir():
            shutil.rmtree(path)
        os.replace(aside, path)
    finally:
        _remove(aside)


def refuse_existing(path: Path, overwrite: bool, sources: Iterable[Path | str] = ()) -> None:
    """Raise if a file exists or is not writable, before the work is done.

    Args:
        path: Output file.
        overwrite: Accept an existing file.
        sources: Input files, which `path` must not overwrite.

    Raises:
        ExistsError: `path` exists and `overwrite` is not set, or it is a folder or an input file.
        OutputError: `path` cannot be written.
    """
    if path.is_dir():
        raise ExistsError(f"{path} is a folder. Expected the name of a file.")
    if path.exists():
        if any(Path(one).exists() and path.samefile(one) for one in sources):
            raise ExistsError(f"{path} is also an input. Name another output file.")
        if not overwrite:
            raise ExistsError(
                f"{path} already exists. Name another file, or pass overwrite (--overwrite)."
            )
    check_creatable(path)


def check_suffix(path: Path, name: str, *suffixes: str) -> None:
    """Check the suffix of a file to write.

    Args:
        path: The file.
        name: Its name in the message, such as "OUT".
        *suffixes: Suffixes to accept, in lower case.

    Raises:
        ConfigError: If the path has none of them.
    """
    if path.suffix.lower() not in suffixes:
        shown = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}" if suffixes[1:] else suffixes[0]
        raise ConfigError(f"{name} must end in {shown}. Received: {path}.")


def check_creatable(path: Path) -> None:
    """Raise if a file or folder cannot be created, before the work is done; write nothing.

    Parent folders do not have to exist. An existing file or folder at `path` is not checked.

    Args:
        path: Output file or folder.

    Raises:
        OutputError: A parent is a file or is not writable, or its disk is full.
    """
    folder = next(one for one in path.resolve().parents if os.path.lexists(one))
    _check_writable(folder, path)


def check_folder(path: Path) -> None:
    """Raise if files cannot be written into a folder, which does not have to exist.

    Args:
        path: Output folder.

    Raises:
        OutputError: As in `check_creatable`.
    """
    if path.exists():
        _check_writable(path, path)
    else:
        check_creatable(path)


def check_space(path: Path, folder: Path, num_bytes: int = 0) -> None:
    """Raise if a disk does not have enough free space.

    Args:
        path: Output, for the message.
        folder: Existing folder on the disk.
        num_bytes: Maximum size of the output in bytes; 0 if unknown.

    Raises:
        OutputError: Less space is free, or none.
    """
    free = shutil.disk_usage(folder).free
    if free < max(num_bytes, 1):
        needed = f"up to {num_bytes / 1e6:,.1f} MB are needed, and " if num_bytes else ""
        raise OutputError(
            f"{path} cannot be written: {needed}{free / 1e6:,.1f} MB are free on the disk of "
            f"{folder}. Free some space, or name another path."
        )


def _check_writable(folder: Path, path: Path) -> None:
    if not folder.is_dir():
        raise OutputError(f"{path} cannot be written: {folder} is a file. Expected a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{path} cannot be written: the folder {folder} is not writable. Change its "
            "permissions, or name another path."
        )
    check_space(path, folder)


def sha256_of(file: Path) -> str:
    """Return the SHA-256 checksum of a file, as hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON object; the file is complete or absent."""
    with written_aside(path) as aside:
        text = json.dumps(values, indent=1, ensure_ascii=False)
        aside.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: JSON file, in UTF-8, UTF-16 or UTF-32 with or without a byte order mark.
        remedy: What to do about a damaged file, a sentence for the error.

    Returns:
        The object.

    Raises:
        DataError: The file does not contain a JSON object.
    """
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}. {remedy}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} does not contain a JSON object. {remedy}")
    return values


def read_yaml(path: Path, remedy: str) -> dict[str, Any]:
    """Read a YAML mapping.

    Args:
        path: YAML file.
        remedy: What to do about another kind of file, a sentence for the error.

    Returns:
        The mapping.

    Raises:
        DataError: The file does not contain a YAML mapping.
    """
    try:
        values = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}. {remedy}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} does not contain a YAML mapping. {remedy}")
    return values


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
