import gzip
import struct

import numpy as np
import pytest

from sits_keras.data.mapped_records import map_blocks
from sits_keras.data.records import Block, Manifest, read_blocks, serialize, write_shard
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError


def random_block(seed, num_dates, height, width, num_bands):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 65_536, (num_dates, height, width, num_bands)).astype(np.uint16)
    dates = tuple(f"2020-01-{day + 1:02d}" for day in range(num_dates))
    return serialize(Block("lac d'été" * seed, seed, Window(0, 0, height, width), dates), images)


def write(folder, *shards, num_bands=3, compression=""):
    written = [
        write_shard(folder / f"shard-{index:05d}.tfrecord", records, compression)
        for index, records in enumerate(shards)
    ]
    bands = tuple(f"B{index:02d}" for index in range(num_bands))
    return Manifest(folder, bands, compression, tuple(written), (), {}, {}, "")


@pytest.mark.parametrize("compression", ["", "GZIP"])
@pytest.mark.parametrize("num_bands", [1, 3, 13])
def test_map_blocks_mapped_pixels_are_those_of_the_records(tmp_path, num_bands, compression):
    manifest = write(
        tmp_path,
        [random_block(1, 2, 64, 64, num_bands), random_block(0, 31, 64, 65, num_bands)],
        [],
        [random_block(20, 3, 130, 67, num_bands)],
        num_bands=num_bands,
        compression=compression,
    )
    blocks = map_blocks(manifest)
    expected = [images for _, images in read_blocks(manifest)]
    assert len(blocks) == len(expected) == 3
    for block, images in zip(blocks, expected, strict=True):
        assert (block.height, block.width) == images.shape[1:3]
        pixels = np.ascontiguousarray(block.pixels).view("<u2").reshape(images.shape)
        np.testing.assert_array_equal(pixels, images)
        block.check()


def test_map_blocks_blocks_are_named_by_file_and_number(tmp_path):
    records = [random_block(seed, 2, 64, 64, 3) for seed in range(2)]
    names = [block.name for block in map_blocks(write(tmp_path, records[:1], records))]
    assert names == [
        f"Record 1 of {tmp_path / 'shard-00000.tfrecord'}",
        f"Record 1 of {tmp_path / 'shard-00001.tfrecord'}",
        f"Record 2 of {tmp_path / 'shard-00001.tfrecord'}",
    ]


@pytest.mark.parametrize("place", [20_000, -1])
def test_map_blocks_changed_byte_is_found(tmp_path, place):
    manifest = write(tmp_path, [random_block(1, 2, 64, 64, 3)])
    content = bytearray((tmp_path / "shard-00000.tfrecord").read_bytes())
    content[place] ^= 1
    (tmp_path / "shard-00000.tfrecord").write_bytes(content)
    (block,) = map_blocks(manifest)
    with pytest.raises(DataError, match=r"Record 1 of .*00000.tfrecord has changed since it was"):
        block.check()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[:7],
        lambda content: b"",
        lambda content: content + content,
        lambda content: b"\0" * len(content),
        lambda content: b"\xff" * len(content),
        lambda content: content[:12] + b"\x08" + content[13:],  # a number, not a message
        lambda content: content.replace(b"images", b"pixels"),
        lambda content: struct.pack("<QI", 0, 0) + bytes(4),  # an empty record
    ],
)
def test_map_blocks_damaged_shard_is_named(tmp_path, spoil):
    manifest = write(tmp_path, [random_block(1, 2, 64, 64, 3)])
    path = tmp_path / "shard-00000.tfrecord"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=r"shard-00000.tfrecord is damaged: .*Run the same"):
        map_blocks(manifest)


@pytest.mark.parametrize(
    "spoil", [lambda c: c[: len(c) // 2], lambda c: c[:30] + c[40:], gzip.compress]
)
def test_map_blocks_damaged_compressed_shard_is_named(tmp_path, spoil):
    manifest = write(tmp_path, [random_block(1, 2, 64, 64, 3)], compression="GZIP")
    path = tmp_path / "shard-00000.tfrecord"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=r"shard-00000.tfrecord is damaged: "):
        map_blocks(manifest)


def test_map_blocks_missing_shard_is_named(tmp_path):
    manifest = write(tmp_path, [random_block(1, 2, 64, 64, 3)])
    (tmp_path / "shard-00000.tfrecord").unlink()
    with pytest.raises(DataError, match=r"shard-00000.tfrecord is damaged: .*No such file"):
        map_blocks(manifest)


def test_map_blocks_number_of_records_not_of_manifest_raises(tmp_path):
    manifest = write(tmp_path, [random_block(seed, 2, 64, 64, 3) for seed in range(2)])
    (shard,) = manifest.shards
    with pytest.raises(DataError, match=r"is damaged: it has 2 records, expected 3\."):
        map_blocks(manifest._replace(shards=(shard._replace(records=3),)))


def test_map_blocks_number_of_bands_not_of_manifest_raises(tmp_path):
    manifest = write(tmp_path, [random_block(1, 2, 64, 64, 3)], num_bands=4)
    with pytest.raises(DataError, match=r"Record 1 of .* does not hold images of 64 x 64 x 4"):
        map_blocks(manifest)


@pytest.mark.parametrize("sizes", [(1, 64, 64), (2, 63, 64), (2, 64, 63)])
def test_map_blocks_record_too_small_for_a_pair_raises(tmp_path, sizes):
    manifest = write(tmp_path, [random_block(1, *sizes, 3)])
    dates, height, width = sizes
    with pytest.raises(DataError, match=rf"has {dates} dates of {height} x {width} pixels\. Expe"):
        map_blocks(manifest)
