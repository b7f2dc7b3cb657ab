import datetime
import os
from pathlib import Path

import pytest

from sits_keras.data.sources.granules import CloudMask
from sits_keras.data.sources.series import find_series, read_sources, select_series
from sits_keras.errors import ConfigError, DataError, MissingError


@pytest.fixture
def touch(tmp_path):
    """Makes empty files below `tmp_path`, and returns that."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def ids(series):
    return [one.id for one in series]


def test_find_series_in_a_folder_of_rasters_sorts_by_date(touch):
    folder = touch("lake/2020-03-01.tif", "lake/2019-12-31.tif", "lake/2020-01-15.tif") / "lake"
    (series,) = find_series([folder])
    assert series.id == "lake"
    assert [(granule.date, granule.image) for granule in series.granules] == [
        (datetime.date(2019, 12, 31), str(folder / "2019-12-31.tif")),
        (datetime.date(2020, 1, 15), str(folder / "2020-01-15.tif")),
        (datetime.date(2020, 3, 1), str(folder / "2020-03-01.tif")),
    ]


def test_find_series_in_a_folder_of_folders_sorts_by_name(touch):
    root = touch("b/2020-01-01.tif", "a/2020-01-01.tif", "a/2020-02-01.tif")
    assert [(one.id, len(one.granules)) for one in find_series([root])] == [("a", 2), ("b", 1)]


def test_find_series_in_several_sources_returns_all(touch):
    root = touch("many/c/2020-01-01.tif", "many/a/2020-01-01.tif", "b/2020-01-01.tif")
    assert ids(find_series([root / "many", str(root / "b")])) == ["a", "b", "c"]


def test_find_series_in_the_working_folder_has_its_name(touch, monkeypatch):
    monkeypatch.chdir(touch("lake/2020-01-01.tif") / "lake")
    assert ids(find_series(["."])) == ["lake"]


def test_find_series_joins_a_mask_with_the_image_of_its_date(touch):
    folder = touch("2020-01-01.tif", "2020-01-01_cloud.tif", "2020-02-01.tif")
    (series,) = find_series([folder])
    assert [granule.mask for granule in series.granules] == [
        CloudMask("mask", str(folder / "2020-01-01_cloud.tif")),
        None,
    ]


@pytest.mark.parametrize("suffix", ["tif", "tiff", "TIF", "TIFF", "Tif"])
def test_find_series_takes_all_suffixes_of_geotiff(touch, suffix):
    folder = touch(f"2020-01-01.{suffix}", f"2020-01-01_cloud.{suffix}")
    (granule,) = find_series([folder])[0].granules
    assert granule.image == str(folder / f"2020-01-01.{suffix}")
    assert granule.mask.path == str(folder / f"2020-01-01_cloud.{suffix}")


def test_find_series_ignores_other_files_and_folders(touch):
    root = touch("a/2020-01-01.tif", "a/readme.txt", "docs/readme.txt", "a/deep/2020-01-01.tif")
    (root / "a" / "2021-01-01.tif").mkdir()
    (series,) = find_series([root])
    assert [Path(granule.image).name for granule in series.granules] == ["2020-01-01.tif"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("2017-13-45.tif", "is not named by its date. Expected"),
        ("2019-02-29.tif", "is not named by its date. Expected"),
        ("2020-1-1.tif", "is not named by its date. Expected"),
        ("2020-01-01_clouds.tif", "looks like a mask. Expected"),
        ("x2020-01-01.tif", "is not named by its date. Expected"),
        ("2020-01-01_B99.tif", "names B99, not a band of Sentinel-2. Expected"),
        ("B04.tif", "is not named by its date. Expected"),
    ],
)
def test_find_series_with_an_unreadable_name_says_why(touch, name, reason):
    folder = touch("2020-01-01.tif", name)
    with pytest.raises(DataError, match=reason) as error:
        find_series([folder])
    assert str(error.value).startswith(str(folder / name))


def test_find_series_lists_every_problem_of_a_folder(touch):
    folder = touch(
        "2020-01-01.tif",
        "2020-01-01-v2.tif",
        "B04.tif",
        "2020-02-01_cloud.tif",
        "2020-03-01_2020-03-31.tif",
    )
    with pytest.raises(DataError, match=r"has 4 problems\. \(1\) ") as error:
        find_series([folder])
    for words in ("same date, 2020-01-01", "B04.tif is not named", "a mask without", "2020-03-31"):
        assert words in str(error.value)


def test_find_series_takes_leap_days(touch):
    (series,) = find_series([touch("2020-02-29.tif")])
    assert series.granules[0].date == datetime.date(2020, 2, 29)


def test_find_series_with_a_mask_without_an_image_is_refused(touch):
    folder = touch("2020-01-01.tif", "2020-02-01_cloud.tif")
    with pytest.raises(DataError, match=r"2020-02-01_cloud.tif is a mask without an image"):
        find_series([folder])


@pytest.mark.parametrize("kind", ["", "_cloud", "_B02"])
def test_find_series_with_a_date_twice_is_refused(touch, kind):
    folder = touch(f"2020-01-01{kind}.tif", f"2020-01-01{kind}.tiff")
    with pytest.raises(DataError, match="are of the same date") as error:
        find_series([folder])
    assert f"2020-01-01{kind}.tif " in str(error.value)
    assert f"2020-01-01{kind}.tiff " in str(error.value)


def test_find_series_with_two_series_of_one_name_is_refused(touch):
    root = touch("x/lake/2020-01-01.tif", "y/lake/2020-01-01.tif")
    with pytest.raises(DataError, match="Two series are named lake") as error:
        find_series([root / "x", root / "y"])
    assert str(root / "x" / "lake") in str(error.value)
    assert str(root / "y" / "lake") in str(error.value)


@pytest.mark.parametrize("name", ["nowhere", "2020-01-01.tif"])
def test_find_series_of_a_missing_or_other_source_is_refused(touch, name):
    source = touch("2020-01-01.tif") / name
    with pytest.raises((DataError, MissingError), match=f"{name}.* Expected Sentinel-2 products"):
        find_series([source])


def test_find_series_in_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"No image series found in .* Found: -\.$"):
        find_series([tmp_path])


def test_find_series_without_series_lists_the_folder(touch):
    folder = touch(*(f"{name}.nc" for name in "abcdefg"))
    with pytest.raises(DataError, match=r"Found: a.nc, b.nc, c.nc, d.nc, e.nc and 2 more"):
        find_series([folder])


def test_find_series_without_a_source_is_refused():
    with pytest.raises(ConfigError, match="No source is given"):
        find_series([])


@pytest.fixture
def four_series(touch):
    return find_series([touch(*(f"{name}/2020-01-01.tif" for name in ("a-1", "a-2", "b-1", "c")))])


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), ["a-1", "a-2", "b-1", "c"]),
        (("a-*",), (), ["a-1", "a-2"]),
        (("?-1", "c"), (), ["a-1", "b-1", "c"]),
        ((), ("a-*",), ["b-1", "c"]),
        (("a-*", "c"), ("*-2",), ["a-1", "c"]),
        ((), ("nothing-like-it",), ["a-1", "a-2", "b-1", "c"]),
        (("c",), ("C",), ["c"]),
    ],
)
def test_select_series_by_shell_patterns(four_series, include, exclude, expected):
    assert ids(select_series(four_series, include, exclude)) == expected


def test_select_series_with_a_pattern_that_matches_nothing_is_refused(four_series):
    with pytest.raises(DataError, match=r"No series matches 'd\*'. Available: a-1, a-2, b-1, c\."):
        select_series(four_series, include=["a-1", "d*"])


def test_select_series_that_leaves_nothing_is_refused(four_series):
    with pytest.raises(DataError, match=r"Every series is excluded. Available: a-1, a-2, b-1, c"):
        select_series(four_series, include=["a-*"], exclude=["a*"])


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_find_series_takes_linked_rasters(touch):
    root = touch("store/scene.tif")
    (root / "lake").mkdir()
    (root / "lake" / "2020-01-01.tif").symlink_to(root / "store" / "scene.tif")
    assert ids(find_series([root / "lake"])) == ["lake"]


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_find_series_names_a_linked_folder_by_its_link(touch):
    root = touch("a/stack/2020-01-01.tif", "b/stack/2020-01-01.tif")
    (root / "in").mkdir()
    for name, store in (("lake", "a"), ("wood", "b")):
        (root / "in" / name).symlink_to(root / store / "stack")
    assert ids(find_series([root / "in"])) == ["lake", "wood"]


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_find_series_keeps_a_broken_link_to_a_raster(touch):
    root = touch("2020-01-01.tif")
    (root / "2020-02-01.tif").symlink_to(root / "gone.tif")
    (series,) = find_series([root])
    assert len(series.granules) == 2  # reading it says what is wrong


@pytest.mark.parametrize(
    "name",
    [
        "lake/._2020-01-01.tif",
        "lake/.partial-2020-02-01.tif",
        "lake/2020-01-01.tif.part",
        "@eaDir/2020-01-01.tif",
        ".snapshot/2020-01-01.tif",
        "__MACOSX/2020-01-01.tif",
        "._search.json",
    ],
)
def test_find_series_passes_over_hidden_files(touch, name):
    root = touch("lake/2020-01-01.tif", name)
    (series,) = find_series([root])
    assert (series.id, len(series.granules)) == ("lake", 1)


def test_select_series_compares_letters_however_they_are_composed(touch):
    composed, decomposed = "\u00e9t\u00e9", "e\u0301te\u0301"
    series = find_series([touch(f"{decomposed}/2020-01-01.tif", "lake/2020-01-01.tif")])
    for pattern in (composed, decomposed):
        assert ids(select_series(series, include=[pattern])) == [composed]
        assert ids(select_series(series, exclude=[pattern])) == ["lake"]


def test_find_series_lists_every_source_that_cannot_be_read(touch):
    root = touch("a/summer.tif", "b/winter.tif", "c/2020-01-01.tif")
    with pytest.raises(DataError, match=r"2 errors in the sources: \(1\) .*\. \(2\) "):
        find_series([root])
    unread = []
    assert ids(read_sources(root, unread=unread)) == ["c"]
    assert [one.series for one in unread] == ["a", "b"]
    assert "summer.tif is not named by its date" in str(unread[0].error)
    with pytest.raises(DataError, match="2 errors in the sources"):
        read_sources(root)
    with pytest.raises(DataError, match="is not named by its date"):
        read_sources(root / "a", unread=[])


def test_find_series_given_twice_is_read_once(touch):
    root = touch("lake/2020-01-01.tif")
    (series,) = find_series([root, root / "lake", f"{root}/lake/", root / "lake" / ".." / "lake"])
    assert (series.id, len(series.granules)) == ("lake", 1)
