from pathlib import Path

import pytest

from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.explore.engine.sources import find_places

BANDS = ("B02", "B03", "B04", "B08")


def test_files_of_one_grid_are_dates_of_one_place(write, tmp_path):
    files = [write(tmp_path / name) for name in ("2021.tif", "2020.tif")]
    wide = write(tmp_path / "wide.tif", (64, 80))
    first, second = find_places([*files, wide], BANDS)
    assert first.name == "2021 and 1 more"
    assert [(one.label, one.path) for one in first.images] == [
        ("2020", files[1]),
        ("2021", files[0]),
    ]
    assert (second.name, [one.label for one in second.images]) == ("wide", ["wide"])
    assert second.grid[:2] == (64, 80)
    assert {one.mask for one in (first, second)} == {None}


def test_files_of_one_name_are_told_by_their_paths(write, tmp_path):
    files = [write(tmp_path / name / "image.tif") for name in ("a", "b")]
    (place,) = find_places(files, BANDS)
    assert [one.label for one in place.images] == [str(file) for file in files]


def test_a_folder_of_dates_and_one_of_a_change(meadow, felled):
    first, second = find_places([meadow, felled], BANDS)
    assert (first.name, len(first.images), first.mask) == ("meadow", 4, None)
    assert [one.place for one in first.images] == ["meadow"] * 4
    assert first.images[0].path == meadow / f"{first.images[0].label}.tif"
    assert [one.label for one in second.images] == ["before", "after"]
    assert second.mask == felled / "mask.tif"


def test_folders_may_be_of_different_crs_and_files_not(write, tmp_path):
    paths = [
        write(tmp_path / "a" / "2020-01-01.tif", crs="EPSG:32631"),
        write(tmp_path / "b" / "2020-01-01.tif", crs="EPSG:32632"),
    ]
    assert len(find_places([path.parent for path in paths], BANDS)) == 2
    with pytest.raises(DataError, match=r"different CRS: EPSG:32631 and EPSG:32632\. Give"):
        find_places(paths, BANDS)
    bare = write(tmp_path / "bare.tif", crs=None)
    with pytest.raises(DataError, match="different CRS: EPSG:32631 and none"):
        find_places([paths[0], bare], BANDS)


def test_dates_of_a_folder_are_of_one_grid(write, tmp_path):
    write(tmp_path / "2020-01-01.tif")
    write(tmp_path / "2020-02-01.tif", (64, 65))
    with pytest.raises(DataError, match="not on the same grid: size 64 x 64 and 64 x 65 px"):
        find_places([tmp_path], BANDS)


def test_what_cannot_be_explored_is_told(write, tmp_path):
    with pytest.raises(MissingError, match=r"Nothing at .*nowhere\. Expected a raster, or"):
        find_places([tmp_path / "nowhere"], BANDS)
    (tmp_path / "text.tif").write_text("not a raster")
    with pytest.raises(DataError, match=r"text\.tif cannot be read"):
        find_places([tmp_path / "text.tif"], BANDS)
    with pytest.raises(ConfigError, match="smaller than a window of 64 x 64"):
        find_places([write(tmp_path / "small.tif", (63, 90))], BANDS)
    with pytest.raises(DataError, match="has no band B08"):
        find_places([write(tmp_path / "rgb.tif", bands=("B02", "B03", "B04"))], BANDS)
    write(tmp_path / "split" / "2020-01-01_B02.tif", bands=("B02",))
    with pytest.raises(ConfigError, match="has a file for each band"):
        find_places([tmp_path / "split"], BANDS)


def test_a_mask_belongs_to_the_place_of_its_grid(write, tmp_path, meadow):
    files = [write(tmp_path / name) for name in ("a.tif", "b.tif")]
    mask = write(tmp_path / "mask.tif", bands=("changed",))
    first, second = find_places([*files, meadow], BANDS, mask)
    assert (first.mask, second.mask) == (mask, None)
    other: Path = write(tmp_path / "other.tif", (70, 70), bands=("changed",))
    with pytest.raises(DataError, match=r"other\.tif is on the grid of none of the rasters: 70 x"):
        find_places(files, BANDS, other)
