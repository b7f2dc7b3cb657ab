"""Vectors and changes that were computed once, kept on disk.

An entry is a folder of `.npy` files with an `entry.json`, which states what the arrays belong to
and the CRC-32C of each file. An entry is written to a temporary name and renamed, so that it is
complete or absent; an entry that was damaged later is reported and recomputed.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.rows import Strips
from sits_keras.data.tiling import sliding_offsets
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import read_json, write_json, written_aside
from sits_keras.tasks.windows import Encoder, WindowRow, iterate_windows

FORMAT = 2

_ENTRY = "entry.json"
_CHUNK = 2**22  # bytes read at once for a checksum
_BLOCK = 8  # px
_INSIDE = _BLOCK * np.arange(IMAGE_SIZE // _BLOCK)


class Cache:
    """A folder of entries.

    Args:
        folder: Folder of the entries, created if it is missing.

    Raises:
        ConfigError: The folder is not writable.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with written_aside(folder / "writable", unique=True) as temporary:
                temporary.touch()
            (folder / "writable").unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"Cannot write the cache {folder}: {error.strerror}. Choose another folder with "
                "--cache."
            ) from error

    def get(
        self,
        facts: Mapping[str, Any],
        make: Callable[[Path], None],
        on_progress: Callable[[str], None],
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of an entry, which is made if it is missing or damaged.

        Args:
            facts: JSON values that identify the entry.
            make: Function that writes the arrays into a folder, as `<name>.npy`.
            on_progress: Function that receives a sentence about a damaged entry.

        Returns:
            Arrays by name, mapped into memory.
        """
        key = hashlib.sha256(json.dumps({"format": FORMAT, **facts}, sort_keys=True).encode())
        entry = self.folder / key.hexdigest()[:32]
        if entry.is_dir():
            try:
                return _read(entry)
            except (OSError, ValueError) as error:
                reason = " ".join(str(error).split())
                on_progress(f"The cache entry {entry} is damaged and is recomputed: {reason}")
        with written_aside(entry, unique=True) as temporary:
            temporary.mkdir()
            make(temporary)
            checksums = {file.name: _crc32c(file) for file in sorted(temporary.glob("*.npy"))}
            write_json(temporary / _ENTRY, {"facts": dict(facts), "crc32c": checksums})
        return _read(entry)


def raster_facts(path: Path) -> dict[str, Any]:
    """Return what identifies the content of a raster without reading it: path, size and time.

    A checksum would be safer, and takes longer than the rest of a start for a tile of a gigabyte.
    Writing other pixels of the same size into a file changes its time.
    """
    status = path.stat()
    return {"path": str(path.resolve()), "size": status.st_size, "changed": status.st_mtime_ns}


def _read(entry: Path) -> dict[str, npt.NDArray[Any]]:
    checksums = read_json(entry / _ENTRY, "").get("crc32c")
    if not isinstance(checksums, dict) or not checksums:
        raise DataError(f"{_ENTRY} lists no files")
    for name, expected in checksums.items():
        if _crc32c(entry / name) != expected:
            raise DataError(f"{name} does not have its checksum")
    return {Path(name).stem: np.load(entry / name, mmap_mode="r") for name in checksums}


def _crc32c(file: Path) -> int:
    checksum = google_crc32c.Checksum()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            checksum.update(chunk)
    return int.from_bytes(checksum.digest(), "big")


STRIDES = (4, 8, 16, 32, 64)
"""Strides that are chosen from for a raster, in pixels."""

MAX_WINDOWS = 20_000
"""Maximum number of windows of a densely encoded raster: a click compares them in 0.1 s."""

_MAX_EXACT = 4_000  # where each window is encoded alone, some thousand a second


class Vectors(NamedTuple):
    """Features of the windows of a raster.

    Attributes:
        stride: Distance between windows, in pixels.
        rows: `(rows,)`, first row of the windows.
        cols: `(cols,)`, first column of the windows.
        features: `(rows, cols, num_features)` float32, NaN for windows without data.
        valid_fraction: `(rows, cols)` float32, as in `tasks.windows.WindowRow`.
        brightness: `(rows, cols)` float32, as in `tasks.windows.WindowRow`.
        blocks: Sums of blocks of pixels (`block_sums`).
    """

    stride: int
    rows: npt.NDArray[np.integer]
    cols: npt.NDArray[np.integer]
    features: npt.NDArray[np.float32]
    valid_fraction: npt.NDArray[np.float32]
    brightness: npt.NDArray[np.float32]
    blocks: npt.NDArray[np.float32]

    def window_rows(self, stride: int) -> Iterator[WindowRow]:
        """Yield the windows at a multiple of their stride, as `iterate_windows` does."""
        grid = (int(self.rows[-1]) + IMAGE_SIZE, int(self.cols[-1]) + IMAGE_SIZE)
        rows, cols = (sliding_offsets(length, IMAGE_SIZE, stride) for length in grid)
        across = np.searchsorted(self.cols, cols)
        for row, index in zip(rows, np.searchsorted(self.rows, rows), strict=True):
            yield WindowRow(
                row,
                np.array(cols),
                self.features[index, across],
                self.valid_fraction[index, across],
                self.brightness[index, across],
            )


def choose_stride(grid: Grid, is_dense: bool) -> int:
    """Return the smallest stride at which a click can compare all windows of a raster.

    Args:
        grid: Grid of the raster.
        is_dense: The model encodes the raster as a whole, not each window alone.
    """
    max_windows = MAX_WINDOWS if is_dense else _MAX_EXACT
    for stride in STRIDES:
        rows, cols = (len(sliding_offsets(length, IMAGE_SIZE, stride)) for length in grid[:2])
        if rows * cols <= max_windows:
            return stride
    return STRIDES[-1]


def write_vectors(
    folder: Path,
    strips: Strips,
    encoder: Encoder,
    stride: int,
    on_progress: Callable[[float], None],
) -> None:
    """Encode the windows of a raster and write the arrays of `Vectors`.

    Args:
        folder: Existing folder to write to.
        strips: Raster.
        encoder: Encoder to apply to each window.
        stride: Distance between windows, in pixels.
        on_progress: Function that receives the fraction done. An exception that it raises ends the
            work.

    Raises:
        ConfigError: The raster is smaller than a window.
    """
    rows, cols = (sliding_offsets(length, IMAGE_SIZE, stride) for length in strips.grid[:2])
    fraction = np.zeros((len(rows), len(cols)), np.float32)
    brightness = np.zeros_like(fraction)
    features: np.memmap[Any, np.dtype[np.float32]] | None = None
    for index, row in enumerate(iterate_windows(encoder, strips, stride)):
        if features is None:
            features = np.lib.format.open_memmap(
                folder / "features.npy",
                mode="w+",
                dtype=np.float32,
                shape=(*fraction.shape, row.features.shape[1]),
            )
        features[index], fraction[index] = row.features, row.valid_fraction
        brightness[index] = row.brightness
        on_progress((index + 1) / len(rows))
    assert features is not None
    features.flush()
    arrays = {
        "rows": np.array(rows),
        "cols": np.array(cols),
        "valid_fraction": fraction,
        "brightness": brightness,
        "blocks": block_sums(strips, rows, cols),
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)


def block_sums(strips: Strips, rows: Sequence[int], cols: Sequence[int]) -> npt.NDArray[np.float32]:
    """Sum the blocks of 8 x 8 pixels that windows consist of.

    Args:
        strips: Raster.
        rows: First rows of the windows, in ascending order.
        cols: First columns of the windows, in ascending order.

    Returns:
        `(block rows, block columns, bands)` float32, exact, at the offsets of `block_offsets`.
    """
    tops, lefts = (block_offsets(np.array(starts)) for starts in (rows, cols))
    table = np.empty((len(tops), len(lefts), len(strips.bands)), np.float32)
    for index, top in enumerate(tops):
        line = strips.read(int(top), _BLOCK).sum(axis=0, dtype=np.int64).cumsum(axis=0)
        line = np.insert(line, 0, 0, axis=0)
        table[index] = line[lefts + _BLOCK] - line[lefts]
    return table


def block_offsets(starts: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Return the offsets of the blocks of windows, each once, in ascending order."""
    return np.unique(starts[:, None] + _INSIDE)


def block_bounds(
    query: npt.NDArray[np.uint16],
    rows: npt.NDArray[np.integer],
    cols: npt.NDArray[np.integer],
    blocks: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """Return a lower bound of the L1 distance between a query and each window.

    The distance of two windows is at least the distance of their blocks' sums.

    Args:
        query: `(64, 64, bands)` stored values.
        rows: First rows of the windows.
        cols: First columns of the windows.
        blocks: Result of `block_sums` for these windows.

    Returns:
        `(rows, cols)` float64, in stored values.
    """
    count = IMAGE_SIZE // _BLOCK
    bands = query.shape[-1]
    wanted = query.reshape(count, _BLOCK, count, _BLOCK, bands).sum(axis=(1, 3), dtype=np.int64)
    down = np.searchsorted(block_offsets(rows), rows[:, None] + _INSIDE)
    across = np.searchsorted(block_offsets(cols), cols[:, None] + _INSIDE)
    bounds = np.zeros((len(rows), len(cols)))
    for i in range(count):
        for j in range(count):
            sums = blocks[np.ix_(down[:, i], across[:, j])]
            bounds += np.abs(sums - wanted[i, j].astype(np.float32)).sum(axis=-1)
    return bounds
