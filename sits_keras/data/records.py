"""TFRecords of blocks: schema, atomic writing of shards, parser, manifest.

The format is described in `docs/record_format.md`.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.data.radiometry import NODATA, QUANTIFICATION
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError, MissingError
from sits_keras.files import sha256_of, write_json, written_aside
from sits_keras.formats import PLAN_NAME as PLAN_NAME
from sits_keras.formats import RECORDS, read_format
from sits_keras.tensorflow_import import tf

FORMAT = RECORDS.name
FORMAT_VERSION = RECORDS.version
MANIFEST_NAME = RECORDS.file
_REWRITE = "Run the same `sits-keras prepare` again: it rewrites the shard."

Tensor = Any


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
    def files(self) -> list[str]:
        """Paths of the shards."""
        return [str(self.folder / shard.file) for shard in self.shards]


def serialize(block: Block, images: npt.NDArray[np.uint16]) -> bytes:
    """Return a record, a serialized `tf.train.Example`.

    Args:
        block: Description of the record.
        images: `(time, height, width, bands)` uint16 stored values.
    """

    def ints(values: Iterable[int]) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def strings(values: Iterable[bytes]) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    features = {
        "series": strings([block.series.encode()]),
        "patch": ints([block.patch]),
        "window": ints(block.window),
        "dates": strings(date.encode() for date in block.dates),
        "shape": ints(images.shape[1:]),
        "images": strings(image.astype("<u2").tobytes() for image in images),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def parse(serialized: Tensor) -> dict[str, Tensor]:
    """Parse a record, leaving its images as bytes (see `decode`).

    Args:
        serialized: Scalar string tensor.

    Returns:
        `series` string, `patch` int64, `window` (4,) int64, `dates` (time,) string, `shape` (3,)
        int64: height, width, bands; `images` (time,) string.
    """
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
    return tf.reshape(
        tf.io.decode_raw(images, tf.uint16, little_endian=True), tf.concat([[-1], shape], axis=0)
    )


def write_shard(path: Path, records: Iterable[bytes], compression: str) -> Shard:
    """Write a shard under a temporary name, and rename it once it is complete.

    The temporary name is unique: a cluster may give a shard to a second worker while the first,
    which it assumes to be dead, is still writing.

    Args:
        path: Output file.
        records: Serialized records.
        compression: `"GZIP"` or `""`.

    Raises:
        OSError: The disk is full or the folder is not writable; no partial file is left.
    """
    try:
        count = 0
        with written_aside(path, unique=True) as aside:
            with tf.io.TFRecordWriter(str(aside), compression) as writer:
                for record in records:
                    writer.write(record)
                    count += 1
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
            return describe_shard(aside, count)._replace(file=path.name)
    except tf.errors.OpError as error:
        raise OSError(f"{path} cannot be written: {error.message}") from error


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
            raise DataError(f"{path} has changed since it was written. {_REWRITE}")


def _check_size(path: Path, shard: Shard) -> None:
    if not path.is_file():
        raise DataError(f"{path} is missing, but is named in the manifest. {_REWRITE}")
    size = path.stat().st_size
    if size != shard.bytes:
        raise DataError(f"{path} has {size} bytes. Expected {shard.bytes}. {_REWRITE}")


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
    for serialized in tf.data.TFRecordDataset(manifest.files, manifest.compression):
        record = parse(serialized)
        block = Block(
            series=record["series"].numpy().decode(),
            patch=int(record["patch"]),
            window=Window(*(int(value) for value in record["window"])),
            dates=tuple(date.decode() for date in record["dates"].numpy()),
        )
        yield block, decode(record["images"], record["shape"]).numpy()
