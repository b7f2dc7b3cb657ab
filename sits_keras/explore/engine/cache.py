"""What was computed once, on disk: arrays by what they were computed from.

An entry is a folder of `.npy` files with `entry.json`, which says what they are of and the CRC-32C
of each. It is written aside and renamed, so that it is there whole or not at all; one that was
damaged since is told, and made again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from sits_keras.errors import ConfigError, DataError
from sits_keras.files import read_json, write_json, written_aside

FORMAT = 1

_ENTRY = "entry.json"
_CHUNK = 2**22


class Cache:
    """A folder of entries.

    Args:
        folder: made where it is not there.
    Raises:
        ConfigError: it cannot be written to.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with written_aside(folder / "writable", unique=True) as aside:
                aside.touch()
            (folder / "writable").unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"Vectors cannot be kept in {folder}: {error.strerror}. Name another folder "
                "(--cache)."
            ) from error

    def get(
        self,
        facts: Mapping[str, Any],
        make: Callable[[Path], None],
        tell: Callable[[str], None],
    ) -> dict[str, np.ndarray]:
        """The arrays of an entry, by name, mapped into memory; made where they are not there.

        Args:
            facts: JSON values that tell the entry from all others.
            make: writes the arrays into a folder, as `<name>.npy`.
            tell: told of an entry that is damaged, in a sentence.
        """
        key = hashlib.sha256(json.dumps({"format": FORMAT, **facts}, sort_keys=True).encode())
        entry = self.folder / key.hexdigest()[:32]
        if entry.is_dir():
            try:
                return _read(entry)
            except (OSError, ValueError) as error:
                tell(f"{entry} was damaged and is made again: {' '.join(str(error).split())}")
        with written_aside(entry, unique=True) as aside:
            aside.mkdir()
            make(aside)
            sums = {file.name: _crc32c(file) for file in sorted(aside.glob("*.npy"))}
            write_json(aside / _ENTRY, {"facts": dict(facts), "crc32c": sums})
        return _read(entry)


def raster_facts(path: Path) -> dict[str, Any]:
    """What tells a raster's content from another's, without reading it: path, size and time.

    A checksum would be surer, and of a tile of a gigabyte would take longer than all else at a
    start; who writes other pixels of the same size into a file changes its time.
    """
    found = path.stat()
    return {"path": str(path.resolve()), "size": found.st_size, "changed": found.st_mtime_ns}


def _read(entry: Path) -> dict[str, np.ndarray]:
    sums = read_json(entry / _ENTRY, "").get("crc32c")
    if not isinstance(sums, dict) or not sums:
        raise DataError(f"{_ENTRY} lists no files")
    for name, expected in sums.items():
        if _crc32c(entry / name) != expected:
            raise DataError(f"{name} is not what was written")
    return {Path(name).stem: np.load(entry / name, mmap_mode="r") for name in sums}


def _crc32c(file: Path) -> int:
    checksum = google_crc32c.Checksum()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            checksum.update(chunk)
    return int.from_bytes(checksum.digest(), "big")
