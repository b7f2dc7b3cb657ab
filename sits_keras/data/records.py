"""TFRecords of blocks: schema, atomic writing of shards, parser, manifest.

The format is described in `docs/record_format.md`.
"""

import contextlib
import gzip
import hashlib
import json
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt

from sits_keras import tensorflow_import
from sits_keras.data.radiometry import NODATA, QUANTIFICATION
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError, MissingError
from sits_keras.files import sha256_of, write_json, written_aside
from sits_keras.formats import PLAN_NAME as PLAN_NAME
from sits_keras.formats import RECORDS, read_format

FORMAT = RECORDS.name
FORMAT_VERSION = RECORDS.version
MANIFEST_NAME = RECORDS.file
_CALLS_AHEAD = 1  # that wait for a thread while it is busy
_HASHED_BYTES = 2**20  # of a file, in one call of a thread
REWRITE = "Run the same `sits-keras prepare` again: it rewrites the shard."
"""Remedy for a damaged shard, the end of an error message."""


Tensor = Any
Buffer = Any  # bytes, a memoryview, an array, a memory map


class Block(NamedTuple):
    """Content of one record: a part of a patch, at several dates.

    Attributes:
        series: Name of the series.
        patch: Index of the patch in the series' raster.
        window: Window of the block in the raster.
        dates: ISO dates, ascending.
    """

    series: str
    patch: int
    window: Window
    dates: tuple[str, ...]


class Shard(NamedTuple):
    """Manifest entry of one file of records."""

    file: str
    records: int
    bytes: int
    sha256: str


class Manifest(NamedTuple):
    """Content of a folder of records.

    Attributes:
        folder: Path of the folder.
        bands: Band names, in the order of the last axis.
        compression: `"GZIP"` or `""`.
        shards: Files of records, in order.
        series: A dictionary for each series: id, crs, transform, dates, rejected dates, blocks.
        skipped: Reason for each series that was left out, by name.
        options: Options of the preparation.
        inputs: Checksum of the sources and options that the records were made from.
    """

    folder: Path
    bands: tuple[str, ...]
    compression: str
    shards: tuple[Shard, ...]
    series: tuple[dict[str, Any], ...]
    skipped: dict[str, str]
    options: dict[str, Any]
    inputs: str

    @property
    def num_records(self) -> int:
        """Number of records in all shards."""
        return sum(shard.records for shard in self.shards)

    @property
    def content_sha256(self) -> str:
        """Checksum of what the records contain.

        It covers the checksums of the shards and the rest of the manifest except `inputs`, so it
        does not change if records are prepared again from copies of their sources.
        """
        values = {k: v for k, v in self._asdict().items() if k not in ("folder", "inputs")}
        values["shards"] = [shard._asdict() for shard in self.shards]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def files(self) -> list[str]:
        """Paths of the shards."""
        return [str(self.folder / shard.file) for shard in self.shards]


HEAD = struct.Struct("<QI")
"""Header of a record in a file: its length and the checksum of the length."""

TAIL = struct.Struct("<I")
"""Footer of a record in a file: the checksum of the record."""


def masked_crc(content: Buffer) -> int:
    """Return the checksum of TFRecord files: CRC-32C, rotated, plus a constant."""
    crc: int = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def serialize(block: Block, images: Sequence[npt.NDArray[np.uint16]]) -> bytes:
    """Return a record, a serialized `tf.train.Example`.

    The bytes are those of `SerializeToString(deterministic=True)`, written without TensorFlow and
    without its copies of the images.

    Args:
        block: Description of the record.
        images: `(height, width, bands)` uint16 stored values of each date.
    """

    def ints(values: Iterable[int]) -> bytes:
        return _field(3, _field(1, b"".join(map(_varint, values))))

    def strings(values: Iterable[str]) -> bytes:
        return _field(1, b"".join(_field(1, value.encode()) for value in values))

    # The images are joined once, into the record: they are nearly all of it.
    head = _head(1, images[0].nbytes)
    body: list[Buffer] = []
    for image in images:
        body += [head, np.ascontiguousarray(image, "<u2").data.cast("B")]
    size = len(images) * (len(head) + images[0].nbytes)
    feature = _head(1, size)
    entry = _field(1, b"images") + _head(2, len(feature) + size) + feature
    before = _field(1, _field(1, b"dates") + _field(2, strings(block.dates)))
    after = b"".join(
        _field(1, _field(1, name) + _field(2, value))
        for name, value in (  # in the order of their names
            (b"patch", ints([block.patch])),
            (b"series", strings([block.series])),
            (b"shape", ints(images[0].shape)),
            (b"window", ints(block.window)),
        )
    )
    before += _head(1, len(entry) + size) + entry
    return b"".join([_head(1, len(before) + size + len(after)), before, *body, after])


def _field(number: int, content: bytes) -> bytes:
    """Return a field of a protocol buffer that holds some bytes."""
    return _head(number, len(content)) + content


def _head(number: int, length: int) -> bytes:
    """Return the tag and the length that precede the bytes of a field."""
    return bytes([number << 3 | 2]) + _varint(length)


def _varint(value: int) -> bytes:
    """Return a number of seven bits a byte, lowest first."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def fields_of(data: Buffer, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Find the fields of a message whose fields are all strings.

    Args:
        data: Bytes that contain the message.
        start: First byte of the message.
        stop: Byte after its last one.

    Yields:
        Number, start and end of each field.

    Raises:
        ValueError: The bytes are not of a record that this package wrote.
    """
    view = memoryview(data)
    while start < stop:
        tag, at = read_varint(view, start)
        length, at = read_varint(view, at)
        start = at + length
        if tag & 7 != 2 or start > stop:
            raise ValueError(f"byte {at} is not of a record that this package wrote")
        yield tag >> 3, at, start


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, lowest first.

    Args:
        data: Bytes that contain it.
        at: Its first byte.

    Returns:
        The number, and the position behind it.
    """
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
        shift += 7


def parse(serialized: Tensor) -> dict[str, Tensor]:
    """Parse a record, leaving its images as bytes (see `decode`).

    Args:
        serialized: Scalar string tensor.

    Returns:
        `series` string, `patch` int64, `window` (4,) int64, `dates` (time,) string, `shape` (3,)
        int64: height, width, bands; `images` (time,) string.
    """
    tf = tensorflow_import.tf
    features: dict[str, Tensor] = tf.io.parse_single_example(
        serialized,
        {
            "series": tf.io.FixedLenFeature([], tf.string),
            "patch": tf.io.FixedLenFeature([], tf.int64),
            "window": tf.io.FixedLenFeature([4], tf.int64),
            "dates": tf.io.RaggedFeature(tf.string),
            "shape": tf.io.FixedLenFeature([3], tf.int64),
            "images": tf.io.RaggedFeature(tf.string),
        },
    )
    return features


def decode(images: Tensor, shape: Tensor) -> Tensor:
    """Decode the images of a record, or some of them.

    Args:
        images: `(time,)` string, from `parse`.
        shape: `(3,)` int64, from `parse`.

    Returns:
        `(time, height, width, bands)` uint16 stored values.
    """
    tf = tensorflow_import.tf
    return tf.reshape(
        tf.io.decode_raw(images, tf.uint16, little_endian=True), tf.concat([[-1], shape], axis=0)
    )


def write_shard(path: Path, records: Iterable[bytes], compression: str) -> Shard:
    """Write a shard under a temporary name, and rename it once it is complete.

    Args:
        path: Output file.
        records: Serialized records.
        compression: `"GZIP"` or `""`.

    Raises:
        OSError: The disk is full or the folder is not writable; no partial file is left.
    """
    return begin_shard(path, records, compression)()


def begin_shard(
    path: Path, records: Iterable[bytes], compression: str, num_threads: int = 1
) -> Callable[[], Shard]:
    """Write the records of a shard under a temporary name.

    With several threads, one writes each record while the next ones are made, and another one
    computes the checksum of what is written. The temporary name is unique: a cluster may give a
    shard to a second worker while the first, which it assumes to be dead, is still writing.

    Args:
        path: See `write_shard`.
        records: See `write_shard`.
        compression: See `write_shard`.
        num_threads: Number of cores for threads. With 1 everything is done in this thread.

    Returns:
        A function that waits until the disk has the file, renames it, and returns its manifest
        entry. It must be called, and may be called in another thread.

    Raises:
        OSError: As in `write_shard`; the function may raise it too.
    """
    with contextlib.ExitStack() as stack:
        aside = stack.enter_context(written_aside(path, unique=True))
        hashing = stack.enter_context(_Calls(num_threads > 1))
        output = _ShardWriter(aside, path, compression, hashing)
        stack.enter_context(contextlib.closing(output))
        with _Calls(num_threads > 1) as writing:
            for record in records:
                writing.submit(output.write, record)
        unfinished = stack.pop_all()

    def finish() -> Shard:
        with unfinished:
            output.finish()
        return Shard(path.name, output.num_records, output.num_bytes, output.digest.hexdigest())

    return finish


class _Calls(contextlib.AbstractContextManager["_Calls"]):
    """Context in which calls are made in order. Leaving it waits for all.

    Args:
        in_thread: Make them in a thread, for which few calls may wait; or at once.
    """

    def __init__(self, in_thread: bool) -> None:
        self._executor = ThreadPoolExecutor(1) if in_thread else None
        self._waiting: deque[Future[object]] = deque()

    def submit(self, function: Callable[..., object], *args: object) -> None:
        if self._executor is None:
            function(*args)
            return
        self._waiting.append(self._executor.submit(function, *args))
        self.wait(_CALLS_AHEAD)

    def wait(self, num_left: int = 0) -> None:
        """Wait until no more than some calls wait; an error of a call is raised here."""
        while len(self._waiting) > num_left:
            self._waiting.popleft().result()

    def __exit__(self, error: object, *details: object) -> None:
        with self._executor or contextlib.nullcontext():
            if error is None:
                self.wait()


class _ShardWriter:
    """Writes a TFRecord file, and computes its checksum from what it writes.

    Its bytes are those of `tf.io.TFRecordWriter`.

    Args:
        aside: File to write.
        path: Its name in messages.
        compression: `"GZIP"` or `""`.
        hashing: Calls that compute the checksum.
    """

    def __init__(self, aside: Path, path: Path, compression: str, hashing: _Calls):
        self._path, self._hashing = path, hashing
        self._zlib = None
        if compression:
            self._zlib = zlib.compressobj(wbits=zlib.MAX_WBITS | 16, memLevel=9)
        self.digest = hashlib.sha256()
        self._unhashed: list[bytes] = []
        self._num_unhashed = 0
        self.num_records = self.num_bytes = 0
        with self._errors():
            self._file = aside.open("xb")

    def write(self, record: bytes) -> None:
        length = struct.pack("<Q", len(record))
        with self._errors():
            for part in (
                HEAD.pack(len(record), masked_crc(length)),
                record,
                TAIL.pack(masked_crc(record)),
            ):
                self._write(self._zlib.compress(part) if self._zlib else part)
        self.num_records += 1

    def finish(self) -> None:
        """Write buffered bytes to the disk, and complete the checksum."""
        with self._errors():
            if self._zlib:
                self._write(self._zlib.flush())
            self._file.flush()
            os.fsync(self._file.fileno())
        self._hash()
        self._hashing.wait()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a file that is not finished, and is removed
            self._file.close()

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._unhashed.append(content)
        self._num_unhashed += len(content)
        self.num_bytes += len(content)
        if self._num_unhashed >= _HASHED_BYTES:
            if hasattr(os, "posix_fadvise"):
                # Linux begins to write the pages to the disk, so that `finish` waits less.
                start = self.num_bytes - self._num_unhashed
                os.posix_fadvise(
                    self._file.fileno(), start, self._num_unhashed, os.POSIX_FADV_DONTNEED
                )
            self._hash()

    def _hash(self) -> None:
        self._hashing.submit(lambda parts: [*map(self.digest.update, parts)], self._unhashed)
        self._unhashed, self._num_unhashed = [], 0

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(f"{self._path} cannot be written: {error.strerror or error}") from error


def read_records(path: Path, compression: str) -> Iterator[bytes]:
    """Read the records of a shard, and check them against their checksums.

    Args:
        path: The shard.
        compression: `"GZIP"` or `""`.

    Yields:
        Each record, serialized.

    Raises:
        DataError: The shard is truncated or damaged.
    """
    number = 0
    try:
        with gzip.open(path) if compression else path.open("rb") as file:
            while head := file.read(HEAD.size):
                number += 1
                length, checksum = HEAD.unpack(head)
                if masked_crc(head[:8]) != checksum:
                    raise ValueError(f"the length of record {number} has changed")
                record = file.read(length)
                if masked_crc(record) != TAIL.unpack(file.read(TAIL.size))[0]:
                    raise ValueError(f"record {number} has changed")
                yield record
    except (ValueError, EOFError, gzip.BadGzipFile, struct.error, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}. {REWRITE}") from error


def series_of(record: bytes) -> str:
    """Return the name of the series of a serialized record.

    Raises:
        ValueError: The bytes are not of a record that this package wrote.
    """
    features = find_features(record, 0, len(record))
    _, start, stop = next(fields_of(record, *features[b"series"]))
    return record[start:stop].decode()


def find_features(data: Buffer, start: int, stop: int) -> dict[bytes, tuple[int, int]]:
    """Find the features of a `tf.train.Example` (see `serialize`).

    Args:
        data: Bytes that contain it.
        start: First byte of the example.
        stop: Byte after its last one.

    Returns:
        Start and end of each feature's list of values, by its name.

    Raises:
        ValueError: The bytes are not of a record that this package wrote.
    """
    view, features = memoryview(data), {}
    ((_, *example),) = fields_of(view, start, stop)
    for _, *entry in fields_of(view, *example):
        (_, *key), (_, *feature) = fields_of(view, *entry)
        ((_, first, end),) = fields_of(view, *feature)
        features[bytes(view[slice(*key)])] = first, end
    return features


def describe_shard(path: Path, num_records: int) -> Shard:
    """Return a shard's manifest entry, with the checksum of its file."""
    return Shard(path.name, num_records, path.stat().st_size, sha256_of(path))


def write_manifest(manifest: Manifest) -> None:
    """Write `manifest.json` into the manifest's folder, which completes the folder."""
    write_json(
        manifest.folder / MANIFEST_NAME,
        {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "bands": list(manifest.bands),
            "quantification": QUANTIFICATION,
            "nodata": NODATA,
            "compression": manifest.compression,
            "shards": [shard._asdict() for shard in manifest.shards],
            "series": list(manifest.series),
            "skipped": manifest.skipped,
            "options": manifest.options,
            "inputs": manifest.inputs,
        },
    )


def read_manifest(folder: Path | str, check_shards: bool = True) -> Manifest:
    """Read the manifest of a folder of records, and check that its shards have the right size.

    Args:
        folder: Folder of records.
        check_shards: Whether to check the shards.

    Returns:
        The manifest, as `prepare` returned it.

    Raises:
        MissingError: The folder or its manifest does not exist.
        DataError: The manifest is damaged or has another format, or a shard is missing or
            truncated.

    Examples:
        >>> from sits_keras.data import read_manifest
        >>> read_manifest("records").num_records  # doctest: +SKIP
        25
    """
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    if not path.is_file():
        if not folder.is_dir():
            raise MissingError(f"No folder at {folder}. Expected a folder of records.")
        hint = (
            "Its preparation is not finished: run the same `sits-keras prepare` again."
            if (folder / PLAN_NAME).is_file()
            else "Create one with `sits-keras prepare`."
        )
        raise MissingError(
            f"{folder} is not a folder of records: it has no {MANIFEST_NAME}. {hint}"
        )
    values = read_format(folder, RECORDS)
    try:
        manifest = Manifest(
            folder=folder,
            bands=tuple(values["bands"]),
            compression=values["compression"],
            shards=tuple(Shard(**shard) for shard in values["shards"]),
            series=tuple(values["series"]),
            skipped=values["skipped"],
            options=values["options"],
            inputs=values["inputs"],
        )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({type(error).__name__}: {error}). {RECORDS.remedy}"
        ) from error
    if check_shards:
        for shard in manifest.shards:
            _check_size(folder / shard.file, shard)
    return manifest


def verify(manifest: Manifest) -> None:
    """Check every shard against its checksum.

    Raises:
        DataError: A shard is missing, or its bytes have changed since it was written.
    """
    for shard in manifest.shards:
        path = manifest.folder / shard.file
        _check_size(path, shard)
        if describe_shard(path, shard.records).sha256 != shard.sha256:
            raise DataError(f"{path} has changed since it was written. {REWRITE}")


def _check_size(path: Path, shard: Shard) -> None:
    if not path.is_file():
        raise DataError(f"{path} is missing, but is named in the manifest. {REWRITE}")
    size = path.stat().st_size
    if size != shard.bytes:
        raise DataError(f"{path} has {size} bytes. Expected {shard.bytes}. {REWRITE}")


def select_bands(bands: Sequence[str], wanted: Sequence[str], where: Path) -> list[int]:
    """Return the zero-based positions of some bands among those of some records.

    Args:
        bands: Bands of the records.
        wanted: Bands to find.
        where: Path of the records, for the message.

    Raises:
        DataError: A band is not among them.
    """
    missing = [band for band in wanted if band not in bands]
    if missing:
        raise DataError(f"{where} has no band {', '.join(missing)}. It has: {', '.join(bands)}.")
    return [list(bands).index(band) for band in wanted]


def read_blocks(manifest: Manifest) -> Iterator[tuple[Block, npt.NDArray[np.uint16]]]:
    """Read every record, in order.

    Args:
        manifest: Manifest of the records.

    Yields:
        Description of a record, and its `(time, height, width, bands)` uint16 stored values.
    """
    tf = tensorflow_import.tf
    for serialized in tf.data.TFRecordDataset(manifest.files, manifest.compression):
        record = parse(serialized)
        block = Block(
            series=record["series"].numpy().decode(),
            patch=int(record["patch"]),
            window=Window(*(int(value) for value in record["window"])),
            dates=tuple(date.decode() for date in record["dates"].numpy()),
        )
        yield block, decode(record["images"], record["shape"]).numpy()
