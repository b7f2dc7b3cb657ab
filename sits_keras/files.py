"""Files and folders that are there whole or not at all."""

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


def refuse_existing(path: Path, overwrite: bool, sources: Iterable[Path | str] = ()) -> None:
    """Sees that a file can be written, before the work is done: it is not there, nor is its place
    one where nothing can be (`check_place`).

    Args:
        path: of the file.
        overwrite: it may be there, and is replaced.
        sources: files that are read, none of which it may replace.
    Raises:
        ExistsError: `path` is there, and either `overwrite` is not asked for, or it is a folder or
            one of the sources.
        OutputError: it cannot be written.
    """
    if path.is_dir():
        raise ExistsError(f"{path} is a folder. Name a file.")
    if path.exists():
        if any(Path(one).exists() and path.samefile(one) for one in sources):
            raise ExistsError(f"{path} is a file that is read. Name another file to write.")
        if not overwrite:
            raise ExistsError(
                f"{path} is there already. Name another file, or pass overwrite (--overwrite)."
            )
    check_place(path)


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


def check_place(path: Path) -> None:
    """Sees that a file or folder can be made, before the work is done. Nothing is written.

    Folders on the way to it need not be there yet; what is there already is not looked at.

    Raises:
        OutputError: what should be its folder is a file, or may not be written to, or its disk is
            full.
    """
    folder = next(one for one in path.resolve().parents if os.path.lexists(one))
    _check_writable(folder, path)


def check_folder(path: Path) -> None:
    """Sees that files can be written into a folder, which need not be there yet.

    Raises:
        OutputError: as `check_place`.
    """
    if path.exists():
        _check_writable(path, path)
    else:
        check_place(path)


def check_space(path: Path, folder: Path, num_bytes: int = 0) -> None:
    """Sees that a disk has room.

    Args:
        path: what will be written, for the message.
        folder: one on that disk.
        num_bytes: what it may take; 0 where that is not known.
    Raises:
        OutputError: less is free, or nothing.
    """
    free = shutil.disk_usage(folder).free
    if free < max(num_bytes, 1):
        needed = f"it takes up to {num_bytes / 1e6:,.1f} MB, and " if num_bytes else ""
        raise OutputError(
            f"{path} cannot be written: {needed}{free / 1e6:,.1f} MB are free on the disk of "
            f"{folder}. Free some, or name another place."
        )


def _check_writable(folder: Path, path: Path) -> None:
    if not folder.is_dir():
        raise OutputError(f"{path} cannot be written: {folder} is a file. Expected a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{path} cannot be written: the folder {folder} may not be written to. Change its "
            "permissions, or name another place."
        )
    check_space(path, folder)


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
