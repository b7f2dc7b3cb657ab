"""What was computed once, on disk: arrays by what they were computed from.

An entry is a folder of `.npy` files with `entry.json`, which says what they are of and the CRC-32C
of each. It is written aside and renamed, so that it is there whole or not at all; one that was
damaged since is told, and made again.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.rows import Strips
from sits_keras.data.tiling import sliding_offsets
from sits_keras.errors import ConfigError, DataError
from sits_keras.explore.engine.pixel_search import block_sums
from sits_keras.files import read_json, write_json, written_aside
from sits_keras.tasks.windows.sliding import Encoder, WindowRow, iterate_windows

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


STRIDES = (4, 8, 16, 32, 64)
"""Pixels from a window to the next that a raster may be explored at."""

MOST_WINDOWS = 20_000
"""Of a raster, where it is encoded densely: what a click compares in a tenth of a second."""

_MOST_EXACT = 4_000  # where each window is encoded alone, some thousand a second


class Vectors(NamedTuple):
    """What is kept of a raster's windows.

    Attributes:
        stride: pixels from a window to the next.
        rows, cols: where windows begin.
        features: `(rows, cols, num_features)` float32, NaN of windows without data; mapped into
            memory.
        valid_fraction, brightness: `(rows, cols)` float32, as in `tasks.windows.WindowRow`.
        blocks: sums of blocks of pixels (`raw.block_sums`).
    """

    stride: int
    rows: np.ndarray
    cols: np.ndarray
    features: np.ndarray
    valid_fraction: np.ndarray
    brightness: np.ndarray
    blocks: np.ndarray

    def window_rows(self, stride: int) -> Iterator[WindowRow]:
        """The windows at a multiple of their own stride, as `iterate_windows` has them."""
        grid = (int(self.rows[-1]) + IMAGE_SIZE, int(self.cols[-1]) + IMAGE_SIZE)
        rows, cols = (sliding_offsets(length, IMAGE_SIZE, stride) for length in grid)
        along = np.searchsorted(self.cols, cols)
        for row, index in zip(rows, np.searchsorted(self.rows, rows), strict=True):
            yield WindowRow(
                row,
                np.array(cols),
                self.features[index, along],
                self.valid_fraction[index, along],
                self.brightness[index, along],
            )


def choose_stride(grid: Grid, is_dense: bool) -> int:
    """The smallest stride at which a raster has no more windows than a click can compare."""
    most = MOST_WINDOWS if is_dense else _MOST_EXACT
    for stride in STRIDES:
        rows, cols = (len(sliding_offsets(length, IMAGE_SIZE, stride)) for length in grid[:2])
        if rows * cols <= most:
            return stride
    return STRIDES[-1]


def write_vectors(
    folder: Path,
    strips: Strips,
    encoder: Encoder,
    stride: int,
    advance: Callable[[float], None],
) -> None:
    """Encodes a raster's windows and writes what `Vectors` holds, but for the stride, as arrays.

    Args:
        folder: where to.
        strips: the raster.
        encoder: what to apply to each window.
        stride: pixels from a window to the next.
        advance: told which share is done, from time to time; what it raises ends the work.
    Raises:
        ConfigError: the raster is smaller than a window.
    """
    rows, cols = (sliding_offsets(length, IMAGE_SIZE, stride) for length in strips.grid[:2])
    share = np.zeros((len(rows), len(cols)), np.float32)
    brightness = np.zeros_like(share)
    features: np.memmap | None = None
    for index, row in enumerate(iterate_windows(encoder, strips, stride)):
        if features is None:
            features = np.lib.format.open_memmap(
                folder / "features.npy",
                mode="w+",
                dtype=np.float32,
                shape=(*share.shape, row.features.shape[1]),
            )
        features[index], share[index] = row.features, row.valid_fraction
        brightness[index] = row.brightness
        advance((index + 1) / len(rows))
    assert features is not None
    features.flush()
    arrays = {
        "rows": np.array(rows),
        "cols": np.array(cols),
        "valid_fraction": share,
        "brightness": brightness,
        "blocks": block_sums(strips, rows, cols),
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
