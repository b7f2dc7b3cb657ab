import hashlib
import shutil

import numpy as np
import pytest

from sits_keras.errors import DataError, MissingError
from sits_keras.tasks.evaluation.context import checksum, list_datasets, read_places

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture
def data(tmp_path, tiny_series):
    shutil.copytree(tiny_series, tmp_path / "data" / "series")
    for file in ("eurosat/EuroSAT.zip", "eurosat/notes.txt", "scenes/x.tif", "change/p/mask.tif"):
        path = tmp_path / "data" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.encode())
    (tmp_path / "data/change/without-mask").mkdir()
    return tmp_path / "data"


def test_list_datasets_lists_all_kinds(data):
    datasets = list_datasets(data, ["b*"])
    assert datasets.held_out == ("b",)
    assert datasets.trained_on == ("a",)
    assert datasets.archives == (data / "eurosat/EuroSAT.zip",)
    assert datasets.scenes == (data / "scenes/x.tif",)
    assert datasets.pairs == (data / "change/p",)
    assert datasets.files("pairs") == [data / "change/p/mask.tif"]
    assert [file.parent.name for file in datasets.files("series")] == ["b"] * 3 + ["a"] * 3


def test_list_datasets_hidden_files_are_left_out(data):
    (data / "change/p/.DS_Store").write_bytes(b"")
    (data / "series/a/.cache").mkdir()
    (data / "series/a/.cache/x.tif").write_bytes(b"")
    datasets = list_datasets(data, ["b*"])
    assert datasets.files("pairs") == [data / "change/p/mask.tif"]
    assert not any(".cache" in file.parts for file in datasets.files("series"))


def test_list_datasets_missing_kinds_are_empty(data):
    for name in ("series", "eurosat", "change"):
        shutil.rmtree(data / name)
    datasets = list_datasets(data, [])
    assert datasets[1:] == ((), (), (), (data / "scenes/x.tif",), ())


def test_list_datasets_missing_folder_or_pattern_is_refused(data, tmp_path):
    with pytest.raises(MissingError, match="No folder at"):
        list_datasets(tmp_path / "nothing", [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        MissingError, match=r"does not contain data to evaluate on\. Expected series"
    ):
        list_datasets(tmp_path / "empty", [])
    with pytest.raises(DataError, match=r"matches 'c\*'\. Found: a, b"):
        list_datasets(data, ["a", "c*"])


def test_read_places_reads_whole_places_and_reuses_records(data, tmp_path, tiny_series):
    datasets = list_datasets(data, ["b"])
    (place,) = read_places(datasets, datasets.held_out, BANDS[::-1], tmp_path / "records", False)
    assert place.id == "b"
    assert place.dates == ("2020-01-01", "2020-02-01", "2020-03-01")
    from sits_keras.data.rasters.read import read_stored

    expected = read_stored(tiny_series / "b" / "2020-02-01.tif", BANDS[::-1])
    np.testing.assert_array_equal(place.images[1], expected)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "records").glob("*.tfrecord")}
    read_places(datasets, datasets.held_out, BANDS[::-1], tmp_path / "records", False)
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_checksum_depends_on_names_and_contents(data, tmp_path):
    files = [data / "scenes/x.tif", data / "eurosat/EuroSAT.zip"]
    lines = [
        f"{name}\0{hashlib.sha256(name.encode()).hexdigest()}\n"
        for name in ("eurosat/EuroSAT.zip", "scenes/x.tif")
    ]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert checksum(files, data) == {"sha256": expected, "files": 2, "bytes": 31}
    files[0].write_bytes(b"other")
    assert checksum(files, data)["sha256"] != expected
