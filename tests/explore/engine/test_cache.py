import os

import numpy as np
import pytest

from sits_keras.errors import ConfigError
from sits_keras.explore.engine.cache import Cache, raster_facts

FACTS = {"kind": "test", "number": 1}


class Maker:
    """Writes an array, and counts how often."""

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


def test_an_entry_is_made_once_for_what_it_is_of(tmp_path, told):
    make = Maker()
    values = get(Cache(tmp_path / "new" / "cache"), make, told)
    assert isinstance(values, np.memmap)
    get(Cache(tmp_path / "new" / "cache"), make, told)
    assert make.count == 1
    get(Cache(tmp_path / "new" / "cache"), make, told, {**FACTS, "number": 2})
    assert (make.count, told) == (2, [])
    assert len(list((tmp_path / "new" / "cache").iterdir())) == 2  # and nothing half-written


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
def test_a_damaged_entry_is_told_and_made_again(damage, tmp_path, told):
    cache, make = Cache(tmp_path), Maker()
    get(cache, make, told)
    (entry,) = tmp_path.iterdir()
    damage(entry)
    get(cache, make, told)
    assert make.count == 2
    (line,) = told
    assert line.startswith(f"{entry} was damaged and is made again: ")
    get(cache, make, told)
    assert make.count == 2


def test_what_could_not_be_made_leaves_nothing(tmp_path, told):
    def fail(folder):
        np.save(folder / "values.npy", np.zeros(3))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Cache(tmp_path).get(FACTS, fail, told.append)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"kept in .*file/cache: Not a directory\. Name another"):
        Cache(tmp_path / "file" / "cache")


def test_a_raster_is_told_by_path_size_and_time(write, tmp_path):
    path = write(tmp_path / "a.tif")
    facts = raster_facts(path)
    assert facts == raster_facts(path.parent / "." / "a.tif")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert raster_facts(path) != facts
