"""Memory-mapped access to the images of records (`docs/record_format.md`).

A crop of one date is read without the rest of its record.
"""

import gzip
import mmap
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.records import (
    HEAD,
    REWRITE,
    TAIL,
    Manifest,
    fields_of,
    find_features,
    masked_crc,
    read_varint,
)
from sits_keras.errors import DataError


class MappedBlock(NamedTuple):
    """Images of a record, mapped from its file.

    Attributes:
        name: File and number of the record, for messages.
        pixels: `(time, height * width)`; each entry holds the bytes of all bands of a pixel.
        height: Height in pixels.
        width: Width in pixels.
        content: `(bytes,)` uint8, the complete record.
        checksum: Masked CRC-32C of `content` that the file states.
    """

    name: str
    pixels: npt.NDArray[np.void]
    height: int
    width: int
    content: npt.NDArray[np.uint8]
    checksum: int

    def check(self) -> None:
        """Check the complete record against its checksum.

        Raises:
            DataError: The record has changed since it was written.
        """
        if masked_crc(self.content) != self.checksum:
            raise DataError(f"{self.name} has changed since it was written. {REWRITE}")


def map_blocks(manifest: Manifest) -> list[MappedBlock]:
    """Map every record, in order, reading only the positions of their images.

    Compressed shards are unpacked to temporary files, which last as long as the returned blocks.

    Args:
        manifest: Manifest of the records.

    Raises:
        DataError: A shard is damaged, or a record has too few dates or pixels for a pair.
        OSError: A shard cannot be opened, or there is no space to unpack it.
    """
    blocks: list[MappedBlock] = []
    for shard in manifest.shards:
        if not shard.records:
            continue
        path = manifest.folder / shard.file
        try:
            data = _map_file(path, manifest.compression)
            starts = list(_records(data))
            if len(starts) != shard.records:
                raise ValueError(f"it has {len(starts)} records, expected {shard.records}")
            for number, (start, stop) in enumerate(starts, start=1):
                name = f"Record {number} of {path}"
                blocks.append(_map_block(data, start, stop, len(manifest.bands), name))
        except (
            ValueError,
            LookupError,
            EOFError,
            FileNotFoundError,
            gzip.BadGzipFile,
            struct.error,
            zlib.error,
        ) as error:
            # A full disk, or missing permission, is not damage.
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} is damaged: {error}. {REWRITE}") from error
    return blocks


def _map_file(path: Path, compression: str) -> mmap.mmap:
    with path.open("rb") as file:
        if not compression:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with tempfile.TemporaryFile() as plain, gzip.open(file) as packed:
            shutil.copyfileobj(packed, plain, 2**20)
            plain.flush()
            return mmap.mmap(plain.fileno(), 0, access=mmap.ACCESS_READ)


def _records(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Return the start and end of each record."""
    at = 0
    while at < len(data):
        length, _ = HEAD.unpack_from(data, at)
        start = at + HEAD.size
        at = start + length + TAIL.size
        if at > len(data):
            raise ValueError("a record extends beyond the end of the file")
        yield start, start + length


def _map_block(data: mmap.mmap, start: int, stop: int, num_bands: int, name: str) -> MappedBlock:
    """Find the images of a `tf.train.Example` (see `records.serialize`)."""
    features = find_features(data, start, stop)
    ((_, *packed),) = fields_of(data, *features[b"shape"])
    height, width, bands = _varints(data, *packed)
    first, end = features[b"images"]
    # All dates have the same size, so the first entry of the list gives the positions of all.
    _, image, next_image = next(fields_of(data, first, end))
    num_dates, rest = divmod(end - first, next_image - first)
    if rest or next_image - image != 2 * height * width * bands or bands != num_bands:
        raise ValueError(f"{name} does not hold images of {height} x {width} x {num_bands}")
    if num_dates < 2 or min(height, width) < IMAGE_SIZE:
        raise DataError(
            f"{name} has {num_dates} dates of {height} x {width} pixels. Expected at least 2 of "
            f"{IMAGE_SIZE} x {IMAGE_SIZE}, to sample pairs from."
        )
    pixels: npt.NDArray[np.void] = np.ndarray(
        (num_dates, height * width),
        dtype=f"V{2 * bands}",
        buffer=data,
        offset=image,
        strides=(next_image - first, 2 * bands),
    )
    content = np.frombuffer(data, np.uint8, stop - start, start)
    return MappedBlock(name, pixels, height, width, content, *TAIL.unpack_from(data, stop))


def _varints(data: mmap.mmap, start: int, stop: int) -> Iterator[int]:
    view = memoryview(data)
    while start < stop:
        value, start = read_varint(view, start)
        yield value
