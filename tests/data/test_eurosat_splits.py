import numpy as np
import pytest

from sits_keras.data.eurosat import (
    LISTS,
    LabelledImages,
    sample_fraction,
    split_images,
    split_listed,
    split_longitude,
    split_spatial,
    split_stratified,
)
from sits_keras.errors import ConfigError, DataError

LABELS = np.repeat([0, 1, 2], [100, 50, 10])


def test_split_stratified_fifth_of_each_class_is_tested_on():
    train, test = split_stratified(LABELS, seed=0)
    assert np.bincount(LABELS[test]).tolist() == [20, 10, 2]
    assert np.bincount(LABELS[train]).tolist() == [80, 40, 8]
    assert sorted([*train, *test]) == list(range(160))
    assert (np.diff(train) > 0).all()


def test_split_stratified_split_is_the_seeds():
    one, same, other = (split_stratified(LABELS, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.test, same.test)
    assert not np.array_equal(one.test, other.test)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 0, 1], "A class has one image\\. Expected at least two"),
        ([0, 0, 1, 1], "4 images of 2 classes are too few to hold out 20% with every class"),
    ],
)
def test_split_stratified_too_few_images_to_split_are_reported(labels, message):
    with pytest.raises(DataError, match=message):
        split_stratified(np.array(labels), seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, float("nan")])
def test_split_stratified_fraction_out_of_range_is_reported(share):
    with pytest.raises(ConfigError, match=r"test_fraction must be in \(0, 1\)"):
        split_stratified(LABELS, seed=0, test_fraction=share)
    with pytest.raises(ConfigError, match=r"test_fraction must be in \(0, 0\.5\]"):
        split_spatial(LABELS, ["a"] * 160, seed=0, test_fraction=share)


def places(num_cells):
    """Cells of 600 images, each with all of three classes, of different sizes."""
    rng = np.random.default_rng(0)
    return np.tile([0, 1, 2], 200), [f"cell {n}" for n in rng.integers(0, num_cells, 600)]


def test_split_spatial_no_cell_is_trained_on_and_tested_on():
    labels, cells = places(30)
    for seed in range(3):
        train, test = split_spatial(labels, cells, seed=seed)
        assert sorted([*train, *test]) == list(range(600))
        assert not {cells[i] for i in train} & {cells[i] for i in test}
        assert 0.15 < len(test) / 600 < 0.25
        assert np.bincount(labels[test]).min() > 25  # 40 where classes keep their shares


def test_split_spatial_spatial_split_is_the_seeds():
    one, same, other = (split_spatial(*places(30), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.test, same.test)
    assert not np.array_equal(one.test, other.test)


@pytest.mark.parametrize(
    ("labels", "cells", "message"),
    [
        ([0, 1] * 5, None, "these have no georeferencing. Use GeoTIFF chips with a CRS"),
        ([0, 1] * 6, list("aabbccddaabb"), "requires images in at least 5 cells of 100 km"),
        ([0, 0, 0, 1, 1, 1], list("abcdef"), "No spatial split has every class"),
        ([0] * 10 + [1] * 2, [*"abcdefghij", "k", "k"], "No spatial split has every class"),
    ],
)
def test_split_spatial_places_that_cannot_be_split_are_reported(labels, cells, message):
    with pytest.raises(DataError, match=message):
        split_spatial(np.array(labels), cells, seed=0)


def test_sample_fraction_fraction_is_taken_of_each_class():
    indices = np.arange(0, 160, 2)
    taken = sample_fraction(LABELS, indices, 0.1, seed=0)
    # Of 50, 25 and 5: the smallest class keeps one.
    assert np.bincount(LABELS[taken]).tolist() == [5, 2, 1]
    assert set(taken) <= set(indices)
    np.testing.assert_array_equal(sample_fraction(LABELS, indices, 1.0, seed=0), indices)


def test_sample_fraction_fraction_is_the_seeds_and_holds_the_smaller_ones():
    indices = np.arange(160)
    tenth = sample_fraction(LABELS, indices, 0.1, seed=3)
    np.testing.assert_array_equal(tenth, sample_fraction(LABELS, indices, 0.1, seed=3))
    assert not np.array_equal(tenth, sample_fraction(LABELS, indices, 0.1, seed=4))
    assert set(tenth) < set(sample_fraction(LABELS, indices, 0.5, seed=3))


def test_sample_fraction_fraction_too_small_is_reported():
    with pytest.raises(
        ConfigError,
        match=r"fraction=0\.01 of 160 images is less than one image for each of 3 classes",
    ):
        sample_fraction(LABELS, np.arange(160), 0.01, seed=0)
    for fraction in (0.0, 1.5, -1.0):
        with pytest.raises(ConfigError, match=r"fraction must be in \(0, 1\]"):
            sample_fraction(LABELS, np.arange(160), fraction, seed=0)


# By longitude


def test_split_longitude_tests_on_the_easternmost_fifth():
    longitudes = np.random.default_rng(0).permutation(160) / 10 - 8
    train, test = split_longitude(LABELS, longitudes)
    assert len(test) == 32
    assert longitudes[train].max() < longitudes[test].min()
    assert sorted([*train, *test]) == list(range(160))
    assert (np.diff(test) > 0).all()


def test_split_longitude_of_a_class_in_the_east_alone_raises():
    with pytest.raises(DataError, match="1 classes lie in the east alone"):
        split_longitude(np.array([0] * 8 + [1] * 2), np.arange(10.0))


def test_split_longitude_without_positions_states_the_remedy():
    with pytest.raises(DataError, match=r"requires the position .*eurosat-spatial-test\.txt"):
        split_longitude(LABELS, None)


FILES = [f"2750/{'AB'[index % 2]}/{'AB'[index % 2]}_{index}.tif" for index in range(10)]


@pytest.fixture
def lists(tmp_path):
    """The published lists, which name JPEGs: 0 and 1 are to test on, 9 is not listed."""
    parts = {"test": (0, 1), "val": (2, 3), "train": range(4, 9)}
    for part, indices in parts.items():
        names = [f"{FILES[index].split('/')[-1].removesuffix('.tif')}.jpg" for index in indices]
        (tmp_path / f"eurosat-spatial-{part}.txt").write_text("\n".join(names) + "\n")
    return tmp_path


def test_split_listed_is_that_of_the_published_lists(lists):
    labels = np.arange(10) % 2
    train, test = split_listed(labels, FILES, lists)
    assert test.tolist() == [0, 1]
    assert train.tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert split_listed(labels, [f"other/{index}.png" for index in range(10)], lists) is None
    (lists / LISTS["test"][0]).unlink()
    assert split_listed(labels, FILES, lists) is None


def make_images(folder, longitudes):
    return LabelledImages(
        values=np.zeros((10, 64, 64, 1), np.uint16),
        labels=np.arange(10) % 2,
        classes=("A", "B"),
        files=tuple(FILES),
        bands=("B04",),
        unit=1e-4,
        clipped_at=None,
        cells=None,
        sha256="",
        longitudes=longitudes,
        folder=folder,
    )


def test_split_images_by_longitude_prefers_the_lists_to_positions(lists, tmp_path_factory):
    longitudes = np.arange(10.0)
    images = make_images(lists, longitudes)
    assert split_images(images, "longitude", 0).test.tolist() == [0, 1]
    images = make_images(tmp_path_factory.mktemp("no lists"), longitudes)
    assert split_images(images, "longitude", 0).test.tolist() == [8, 9]
    chosen = images.select(np.array([9, 0, 3, 1, 2]))
    assert chosen.longitudes.tolist() == [9, 0, 3, 1, 2]
    with pytest.raises(ConfigError, match=r"'spatial' or 'longitude'. Received: 'random'"):
        split_images(images, "random", 0)
