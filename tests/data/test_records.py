import errno
import gzip
import hashlib
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from sits_keras.data.records import (
    Block,
    Manifest,
    Shard,
    begin_shard,
    decode,
    describe_shard,
    parse,
    read_blocks,
    read_manifest,
    read_records,
    select_bands,
    serialize,
    verify,
    write_manifest,
    write_shard,
)
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError, MissingError

BLOCK = Block("prés-31UFS", 2, Window(122, 64, 3, 5), ("2020-01-01", "2020-02-29"))
# The first value tells the byte order, the last the sign.
IMAGES = np.concatenate([[0x0102], np.arange(2, 2 * 3 * 5 * 4), [65_535]]).astype(np.uint16)
IMAGES = IMAGES.reshape(2, 3, 5, 4)


@pytest.fixture
def records(tmp_path):
    """A manifest of two shards, with one record and with two."""
    folder = tmp_path / "records"
    folder.mkdir()
    shards = tuple(
        write_shard(folder / f"shard-0000{index}.tfrecord", [serialize(BLOCK, IMAGES)] * count, "")
        for index, count in enumerate((1, 2))
    )
    manifest = Manifest(
        folder=folder,
        bands=("B02", "B03", "B04", "B08"),
        compression="",
        shards=shards,
        series=({"id": BLOCK.series, "dates": list(BLOCK.dates), "blocks": 3},),
        skipped={"grey": "0 of 5 dates pass, 2 are needed"},
        options={"dates": 12},
        inputs="f00d",
    )
    write_manifest(manifest)
    return manifest


def edit_manifest(folder, **values):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")


def drop_from_manifest(folder, key):
    path = folder / "manifest.json"
    values = json.loads(path.read_text("utf-8"))
    del values[key]
    path.write_text(json.dumps(values), "utf-8")


def cut_in_half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_serialize_parsed_record_equals_the_original():
    record = parse(serialize(BLOCK, IMAGES))
    assert record["series"].numpy().decode() == "prés-31UFS"
    assert record["patch"].numpy() == 2
    assert record["window"].numpy().tolist() == [122, 64, 3, 5]
    assert record["dates"].numpy().tolist() == [b"2020-01-01", b"2020-02-29"]
    assert record["shape"].numpy().tolist() == [3, 5, 4]
    assert record["images"].shape == (2,)


def test_serialize_decoded_images_equal_the_originals():
    record = parse(serialize(BLOCK, IMAGES))
    images = decode(record["images"], record["shape"])
    assert images.dtype == tf.uint16
    np.testing.assert_array_equal(images, IMAGES)


def test_serialize_images_of_some_dates_decode_alone():
    record = parse(serialize(BLOCK, IMAGES))
    np.testing.assert_array_equal(decode(record["images"][1:], record["shape"]), IMAGES[1:])


def test_serialize_arrays_of_any_layout_and_byte_order_make_the_same_record():
    turned = np.asfortranarray(IMAGES.astype(">u2"))
    assert serialize(BLOCK, turned) == serialize(BLOCK, IMAGES)


def test_serialize_pixels_are_stored_as_little_endian_sixteen_bits():
    assert b"\x02\x01\x02\x00\x03\x00" in serialize(BLOCK, IMAGES)


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_serialize_reader_without_this_package_agrees(tmp_path, read_plainly, compression):
    other = BLOCK._replace(series="lake", patch=0, dates=("2021-05-05",))
    path = tmp_path / "shard.tfrecord"
    write_shard(path, [serialize(BLOCK, IMAGES), serialize(other, IMAGES[:1] + 7)], compression)
    first, second = read_plainly([path], compression)
    assert first[:4] == ("prés-31UFS", 2, (122, 64, 3, 5), ("2020-01-01", "2020-02-29"))
    np.testing.assert_array_equal(first.images, IMAGES)
    assert second[:4] == ("lake", 0, (122, 64, 3, 5), ("2021-05-05",))
    np.testing.assert_array_equal(second.images, IMAGES[:1] + 7)


def test_serialize_reader_of_the_documented_schema_agrees():
    schema = {
        "series": tf.io.FixedLenFeature([], tf.string),
        "patch": tf.io.FixedLenFeature([], tf.int64),
        "window": tf.io.FixedLenFeature([4], tf.int64),
        "dates": tf.io.VarLenFeature(tf.string),
        "shape": tf.io.FixedLenFeature([3], tf.int64),
        "images": tf.io.VarLenFeature(tf.string),
    }
    features = tf.io.parse_single_example(serialize(BLOCK, IMAGES), schema)
    pixels = tf.io.decode_raw(tf.sparse.to_dense(features["images"]), tf.uint16)
    assert set(features) == set(parse(serialize(BLOCK, IMAGES)))
    np.testing.assert_array_equal(tf.reshape(pixels, (2, 3, 5, 4)), IMAGES)


def test_write_shard_shard_is_described_by_its_bytes(tmp_path):
    path = tmp_path / "shard-00003.tfrecord"
    shard = write_shard(path, [b"one", b"two"], "")
    content = path.read_bytes()
    assert shard == Shard(
        "shard-00003.tfrecord", 2, len(content), hashlib.sha256(content).hexdigest()
    )
    assert describe_shard(path, 2) == shard
    # A record's frame is 8 bytes of length and twice 4 of checksum.
    assert shard.bytes == 2 * (3 + 16)


def test_write_shard_shard_has_its_name_only_once_it_is_complete(tmp_path, listing):
    seen = []

    def produce():
        yield b"one"
        seen.extend(listing(tmp_path))

    write_shard(tmp_path / "shard.tfrecord", produce(), "")
    assert len(seen) == 1
    assert seen[0] != "shard.tfrecord"
    assert listing(tmp_path) == ["shard.tfrecord"]


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("error", [DataError("no such band"), KeyboardInterrupt()], ids=repr)
def test_begin_shard_generator_that_raises_leaves_nothing_behind(
    tmp_path, listing, error, num_threads
):
    def produce():
        yield b"one"
        raise error

    with pytest.raises(type(error)):
        begin_shard(tmp_path / "shard.tfrecord", produce(), "", num_threads)
    assert listing(tmp_path) == []


def test_write_shard_generator_that_raises_leaves_the_old_shard(tmp_path, listing):
    path = tmp_path / "shard.tfrecord"
    before = write_shard(path, [b"old"], "")

    def produce():
        yield b"new"
        raise DataError("no such band")

    with pytest.raises(DataError):
        write_shard(path, produce(), "")
    assert listing(tmp_path) == ["shard.tfrecord"]
    assert describe_shard(path, 1) == before


def test_write_shard_shard_that_cannot_be_written_is_an_os_error_that_names_it(tmp_path):
    path = tmp_path / "nowhere" / "shard.tfrecord"
    with pytest.raises(OSError, match=r"shard.tfrecord cannot be written: .*No such file"):
        write_shard(path, [b"one"], "")


def test_write_shard_full_disk_is_an_os_error_that_leaves_nothing(tmp_path, listing, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"shard.tfrecord cannot be written: No space left"):
        write_shard(tmp_path / "shard.tfrecord", [b"one"], "")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("compression", ["", "GZIP"])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_begin_shard_bytes_are_those_of_tensorflow(tmp_path, compression, num_threads):
    records = [serialize(BLOCK, IMAGES)] * 3 + [b""]
    with tf.io.TFRecordWriter(str(tmp_path / "expected"), compression) as writer:
        for record in records:
            writer.write(record)
    begin_shard(tmp_path / "shard.tfrecord", records, compression, num_threads)()
    assert (tmp_path / "shard.tfrecord").read_bytes() == (tmp_path / "expected").read_bytes()
    assert list(read_records(tmp_path / "shard.tfrecord", compression)) == records


@pytest.mark.parametrize("patch", [0, 127, 128, 70_000])
@pytest.mark.parametrize("num_dates", [1, 2])
def test_serialize_bytes_are_those_of_tensorflow(patch, num_dates):
    def ints(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def strings(values):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    block = BLOCK._replace(patch=patch, dates=BLOCK.dates[:num_dates])
    images = np.repeat(IMAGES[:num_dates], 20, axis=1)[:, :, ::-1]
    feature = {
        "series": strings([block.series.encode()]),
        "patch": ints([block.patch]),
        "window": ints(block.window),
        "dates": strings(date.encode() for date in block.dates),
        "shape": ints(images.shape[1:]),
        "images": strings(image.astype("<u2").tobytes() for image in images),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    assert serialize(block, images) == example.SerializeToString(deterministic=True)


@pytest.mark.parametrize("compression", ["", "GZIP"])
@pytest.mark.parametrize("damage", ["cut", "length", "content", "checksum"])
def test_read_records_damage_is_found(tmp_path, compression, damage):
    path = tmp_path / "shard.tfrecord"
    write_shard(path, [serialize(BLOCK, IMAGES)], compression)
    content = bytearray(gzip.decompress(path.read_bytes()) if compression else path.read_bytes())
    if damage == "cut":
        del content[-1:]
    else:
        content[{"length": 0, "content": 20, "checksum": -1}[damage]] ^= 1
    path.write_bytes(gzip.compress(content) if compression else content)
    with pytest.raises(DataError, match=r"shard\.tfrecord is damaged"):
        list(read_records(path, compression))


def test_read_manifest_equals_written_manifest(records):
    assert read_manifest(records.folder) == records
    assert read_manifest(str(records.folder)) == records


def test_read_manifest_manifest_counts_records_and_names_files(records):
    assert records.num_records == 3
    assert records.files == [
        str(records.folder / "shard-00000.tfrecord"),
        str(records.folder / "shard-00001.tfrecord"),
    ]


def test_read_manifest_states_how_to_read_the_pixels(records):
    values = json.loads((records.folder / "manifest.json").read_text("utf-8"))
    assert values["format"] == "sits_keras records"
    assert values["version"] == 1
    assert values["quantification"] == 10_000
    assert values["nodata"] == 0
    assert values["bands"] == ["B02", "B03", "B04", "B08"]


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_read_blocks_blocks_are_read_in_the_order_in_which_they_were_written(records, compression):
    other = BLOCK._replace(series="lake", patch=0, dates=("2021-05-05",))
    path = records.folder / "shard-00002.tfrecord"
    written = [(BLOCK, IMAGES), (other, IMAGES[1:])]
    shard = write_shard(path, [serialize(*one) for one in written], compression)
    read = list(read_blocks(records._replace(shards=(shard,), compression=compression)))
    assert [block for block, _ in read] == [BLOCK, other]
    for (_, images), (_, expected) in zip(read, written, strict=True):
        assert images.dtype == np.uint16
        np.testing.assert_array_equal(images, expected)


def test_read_blocks_blocks_of_every_shard_are_read(records):
    assert len(list(read_blocks(records))) == 3


def test_read_manifest_missing_folder_raises(tmp_path):
    with pytest.raises(MissingError, match=r"No folder at .*nowhere"):
        read_manifest(tmp_path / "nowhere")


def test_read_manifest_folder_that_holds_no_records(tmp_path):
    with pytest.raises(MissingError, match=r"has no manifest.json. Create one with"):
        read_manifest(tmp_path)


def test_read_manifest_preparation_that_was_not_finished(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(MissingError, match="is not finished: run the same `sits-keras prepare`"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is damaged: "),
        (b"{", "is damaged: "),
        (b"[1, 2]", "does not contain a JSON object"),
        (b'"text"', "does not contain a JSON object"),
        (b'{"format": "\xff"}', "is damaged: "),
    ],
    ids=repr,
)
def test_read_manifest_manifest_that_is_no_json_object(records, content, problem):
    (records.folder / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"manifest.json {problem}.*--overwrite"):
        read_manifest(records.folder)


@pytest.mark.parametrize("values", [{"format": "else"}, {"version": None}], ids=str)
def test_read_manifest_manifest_of_another_format_or_version(records, values):
    edit_manifest(records.folder, **values)
    with pytest.raises(DataError, match=r"Expected 'sits_keras records', version 1\. .*overwrite"):
        read_manifest(records.folder)


def test_read_manifest_manifest_of_newer_version(records):
    edit_manifest(records.folder, version=2)
    expected = r"is of version 2, .*Expected version 1\. Update the package"
    with pytest.raises(DataError, match=expected):
        read_manifest(records.folder)


@pytest.mark.parametrize(
    "key", ["bands", "compression", "shards", "series", "skipped", "options", "inputs"]
)
def test_read_manifest_manifest_that_lacks_a_key(records, key):
    drop_from_manifest(records.folder, key)
    with pytest.raises(DataError, match=rf"manifest.json is damaged \(KeyError: '{key}'\)"):
        read_manifest(records.folder)


@pytest.mark.parametrize("shards", [5, ["shard-00000.tfrecord"], [{"file": "x"}]], ids=str)
def test_read_manifest_manifest_with_a_shard_that_is_none(records, shards):
    edit_manifest(records.folder, shards=shards)
    with pytest.raises(DataError, match=r"manifest.json is damaged \(TypeError"):
        read_manifest(records.folder)


def test_read_manifest_shard_that_is_missing(records):
    (records.folder / "shard-00001.tfrecord").unlink()
    with pytest.raises(DataError, match=r"shard-00001.tfrecord is missing, but is named"):
        read_manifest(records.folder)


def test_read_manifest_shard_that_was_truncated_in_half(records):
    path = records.folder / "shard-00001.tfrecord"
    cut_in_half(path)
    sizes = f"has {path.stat().st_size} bytes. Expected {records.shards[1].bytes}"
    with pytest.raises(DataError, match=f"shard-00001.tfrecord {sizes}"):
        read_manifest(records.folder)


def test_read_manifest_without_shards_is_read(records):
    (records.folder / "shard-00001.tfrecord").unlink()
    assert read_manifest(records.folder, check_shards=False) == records


def test_read_manifest_whole_records_verify(records):
    verify(records)


@pytest.mark.parametrize("position", [0, -1, 100])
def test_verify_catches_a_flipped_bit(records, position):
    path = records.folder / "shard-00001.tfrecord"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert read_manifest(records.folder) == records
    with pytest.raises(DataError, match=r"shard-00001.tfrecord has changed since it was written"):
        verify(records)


def test_verify_catches_a_shard_that_went_missing(records):
    (records.folder / "shard-00000.tfrecord").unlink()
    with pytest.raises(DataError, match=r"shard-00000.tfrecord is missing"):
        verify(records)


def test_select_bands_bands_are_selected_by_name_in_any_order(tmp_path):
    bands = ("B02", "B03", "B04", "B08")
    assert select_bands(bands, ("B08", "B02"), tmp_path) == [3, 0]
    assert select_bands(bands, bands, tmp_path) == [0, 1, 2, 3]


def test_select_bands_unknown_bands_are_named(tmp_path):
    with pytest.raises(DataError, match=r"has no band B11, B12. It has: B02, B03\."):
        select_bands(("B02", "B03"), ("B03", "B11", "B12"), tmp_path)
