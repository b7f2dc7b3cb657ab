import os

import fake_encoders
import numpy as np
import pytest

from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.tiling import sliding_offsets
from sits_keras.errors import ConfigError
from sits_keras.explore.engine.cache import (
    Cache,
    Vectors,
    block_sums,
    choose_stride,
    raster_facts,
    write_vectors,
)
from sits_keras.tasks.windows import iterate_windows

FACTS = {"kind": "test", "number": 1}


class Maker:
    """Writer of an array, which counts its calls."""

    def __init__(self):
        self.count = 0

    def __call__(self, folder):
        self.count += 1
        np.save(folder / "values.npy", np.arange(1000.0))


@pytest.fixture
def told():
    return []


def get(cache, make, told, facts=FACTS):
    found = cache.get(facts, make, told.append)
    assert list(found) == ["values"]
    np.testing.assert_array_equal(found["values"], np.arange(1000.0))
    return found["values"]


def test_cache_get_makes_an_entry_once(tmp_path, told):
    make = Maker()
    values = get(Cache(tmp_path / "new" / "cache"), make, told)
    assert isinstance(values, np.memmap)
    get(Cache(tmp_path / "new" / "cache"), make, told)
    assert make.count == 1
    get(Cache(tmp_path / "new" / "cache"), make, told, {**FACTS, "number": 2})
    assert (make.count, told) == (2, [])
    assert len(list((tmp_path / "new" / "cache").iterdir())) == 2  # and nothing partial


def cut(entry):
    os.truncate(entry / "values.npy", 4000)


def flip(entry):
    content = bytearray((entry / "values.npy").read_bytes())
    content[5000] ^= 1
    (entry / "values.npy").write_bytes(content)


def remove(entry):
    (entry / "values.npy").unlink()


def unlist(entry):
    (entry / "entry.json").write_text("{}")


def garble(entry):
    (entry / "entry.json").write_text("{")


@pytest.mark.parametrize("damage", [cut, flip, remove, unlist, garble])
def test_cache_get_reports_and_recomputes_a_damaged_entry(damage, tmp_path, told):
    cache, make = Cache(tmp_path), Maker()
    get(cache, make, told)
    (entry,) = tmp_path.iterdir()
    damage(entry)
    get(cache, make, told)
    assert make.count == 2
    (line,) = told
    assert line.startswith(f"The cache entry {entry} is damaged and is recomputed: ")
    get(cache, make, told)
    assert make.count == 2


def test_cache_get_leaves_nothing_after_an_error(tmp_path, told):
    def fail(folder):
        np.save(folder / "values.npy", np.zeros(3))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Cache(tmp_path).get(FACTS, fail, told.append)
    assert list(tmp_path.iterdir()) == []


def test_cache_in_an_unwritable_folder_raises(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"Cannot write the cache .*file/cache: Not a directory\. Ch"
    ):
        Cache(tmp_path / "file" / "cache")


def test_raster_facts_change_with_the_file_time(write, tmp_path):
    path = write(tmp_path / "a.tif")
    facts = raster_facts(path)
    assert facts == raster_facts(path.parent / "." / "a.tif")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert raster_facts(path) != facts


@pytest.mark.parametrize(
    ("size", "is_dense", "stride"),
    [
        ((128, 128), True, 4),
        ((1024, 1024), True, 8),
        ((10_980, 10_980), True, 64),
        ((128, 128), False, 4),
        ((1024, 1024), False, 16),
    ],
)
def test_choose_stride_is_the_smallest_that_a_click_can_compare(size, is_dense, stride):
    assert choose_stride(Grid(*size, None, None), is_dense) == stride


@pytest.fixture
def image():
    values = np.random.default_rng(0).integers(1, 3000, (101, 131, 2)).astype(np.uint16)
    values[:80, :80] = 0  # some windows without data
    return values


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_window_rows_equal_iterate_windows(stride, image, tmp_path):
    encoder = fake_encoders.FilterEncoder()
    fractions = []
    write_vectors(tmp_path, open_strips(image), encoder, 8, fractions.append)
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in tmp_path.glob("*.npy")}
    vectors = Vectors(8, **arrays)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    expected = list(iterate_windows(encoder, open_strips(image), stride))
    found = list(vectors.window_rows(stride))
    assert [one.row for one in found] == [one.row for one in expected]
    for one, other in zip(found, expected, strict=True):
        for name in ("cols", "features", "valid_fraction", "brightness"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert np.isnan(found[0].features[0]).all()


def test_write_vectors_ends_when_on_progress_raises(image, tmp_path):
    def stop(fraction):
        raise StopIteration(fraction)

    with pytest.raises(StopIteration):
        write_vectors(tmp_path, open_strips(image), fake_encoders.FilterEncoder(), 8, stop)


def test_block_sums_are_exact():
    image = np.full((64, 72, 1), 65_535, np.uint16)
    sums = block_sums(open_strips(image), [0], [0, 8])
    assert sums.shape == (8, 9, 1)
    assert (sums == 64 * 65_535).all()


@pytest.mark.parametrize("last", [64, 70])
def test_block_sums_include_shifted_windows(last):
    image = np.random.default_rng(2).integers(1, 3000, (64, 64 + last, 2)).astype(np.uint16)
    cols = sliding_offsets(64 + last, 64, 32)
    sums = block_sums(open_strips(image), [0], cols)
    lefts = sorted({col + 8 * i for col in cols for i in range(8)})
    expected = [
        [image[8 * i : 8 * i + 8, c : c + 8].sum(axis=(0, 1)) for c in lefts] for i in range(8)
    ]
    np.testing.assert_array_equal(sums, expected)
