import zipfile

import numpy as np
import pytest

from sits_keras.data.eurosat import read_labelled
from sits_keras.errors import ConfigError, DataError

RGB = ("B04", "B03", "B02")
RGBN = ("B02", "B03", "B04", "B08")


@pytest.mark.parametrize("target", ["set", "set.zip"])
def test_read_labelled_classes_are_the_names_of_the_folders(target, write_chips, tmp_path):
    colours = {"River": (20, 80, 160), "Forest": (30, 60, 20), "Annual": (9, 9, 9)}
    images = read_labelled(write_chips(tmp_path / target, colours, count=2), RGB)
    assert images.classes == ("Annual", "Forest", "River")
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.files[2] == "2750/Forest/Forest_1.jpg"
    assert images.values.shape == (6, 64, 64, 3)
    assert images.values.dtype == np.uint8
    assert images.cells is None
    means = images.values[::2].mean(axis=(1, 2))
    np.testing.assert_allclose(means, [colours[name] for name in images.classes], atol=2)


def test_read_labelled_255_is_a_reflectance_of_0_275(picture, write_chips, tmp_path):
    path = write_chips(tmp_path / "set", {"A": (0, 0, 0), "B": (255, 255, 255)}, count=1, noise=0)
    images = read_labelled(path, RGB)
    reflectance = images.reflectance(slice(None))
    assert reflectance.dtype == np.float32
    np.testing.assert_allclose(reflectance[:, 3, 4, 1], [0, 0.275], rtol=1e-6)
    assert images.clipped_at == 0.275


def test_read_labelled_digital_numbers_are_reflectance_by_10000(write_chips, tmp_path):
    images = read_labelled(write_chips(tmp_path / "set.zip", count=2, kind="tif"), RGBN)
    reflectance = images.reflectance(np.array([1]))
    np.testing.assert_allclose(reflectance[0, 0, 0], [0.0201, 0.0301, 0.0401, 0.0801], rtol=1e-5)
    assert images.values.dtype == np.uint16
    assert images.clipped_at is None


def test_read_labelled_image_lies_in_a_square_of_100_km(write_chips, tmp_path):
    images = read_labelled(write_chips(tmp_path / "set", count=3, kind="tif"), RGBN)
    # Chip n begins at x = 100,000 n + 5,000, y = 5,050,000 and is 640 m a side.
    assert images.cells == tuple(f"EPSG:32632 {n} 50" for _ in range(2) for n in range(3))


def test_read_labelled_checksum_does_not_depend_on_packing(write_chips, tmp_path):
    one = read_labelled(write_chips(tmp_path / "set.zip"), RGB)
    same = read_labelled(write_chips(tmp_path / "set", prefix="elsewhere/"), RGB)
    other = read_labelled(write_chips(tmp_path / "other", count=3), RGB)
    assert one.sha256 == same.sha256 != other.sha256
    renamed = tmp_path / "set" / "elsewhere" / "River"
    renamed.rename(renamed.with_name("Lake"))
    assert read_labelled(tmp_path / "set", RGB).sha256 != one.sha256


def test_read_labelled_limit_samples_before_decoding(write_chips, tmp_path):
    path = write_chips(tmp_path / "set", count=20)
    for index in range(5):
        extra = path / "2750/River" / f"More_{index}.jpg"
        extra.write_bytes((path / "2750/River/River_1.jpg").read_bytes())
    every = read_labelled(path, RGB)
    some = read_labelled(path, RGB, limit=9, seed=1)
    assert some.classes == every.classes
    assert np.bincount(some.labels).tolist() == [4, 5]  # 20 and 25 chips
    assert set(some.files) < set(every.files)
    chosen = [every.files.index(file) for file in some.files]
    np.testing.assert_array_equal(some.values, every.values[chosen])
    assert read_labelled(path, RGB, limit=9, seed=1).files == some.files
    assert read_labelled(path, RGB, limit=9, seed=2).files != some.files
    assert read_labelled(path, RGB, limit=45).sha256 == every.sha256 != some.sha256
    for file in set(every.files) - set(some.files):
        (path / file).write_bytes(b"damaged")
    np.testing.assert_array_equal(read_labelled(path, RGB, limit=9, seed=1).values, some.values)
    with pytest.raises(ConfigError, match=r"at least 2, one chip for each class .* limit=1\."):
        read_labelled(path, RGB, limit=1)


def test_read_labelled_some_are_selected(write_chips, tmp_path):
    images = read_labelled(write_chips(tmp_path / "set", count=3, kind="tif"), ("B01",))
    some = images.select(np.array([5, 0]))
    assert some.labels.tolist() == [1, 0]
    assert some.values[:, 0, 0, 0].tolist() == [102, 100]
    assert some.files == (images.files[5], images.files[0])
    assert some.cells == ("EPSG:32632 2 50", "EPSG:32632 0 50")


def test_read_labelled_one_class_is_not_enough(write_chips, tmp_path):
    path = write_chips(tmp_path / "set", {"Forest": (1, 2, 3)})
    with pytest.raises(DataError, match=r"has one class only, Forest\. Expected at least two"):
        read_labelled(path, RGB)


@pytest.mark.parametrize("target", ["set", "set.zip"])
def test_read_labelled_empty_class_folder_is_reported(target, write_chips, tmp_path):
    path = write_chips(tmp_path / target)
    if target == "set":
        (path / "2750" / "SeaLake").mkdir()
        (path / "not_a_class").mkdir()  # beside the root, not beside the classes
    else:
        with zipfile.ZipFile(path, "a") as archive:
            archive.mkdir("2750/SeaLake")
            archive.mkdir("not_a_class")
    with pytest.raises(DataError, match=r"a class folder without chips: 2750/SeaLake\. Remove it"):
        read_labelled(path, RGB)


def test_read_labelled_chips_without_a_class_are_reported(write_chips, picture, tmp_path):
    path = write_chips(tmp_path / "set", prefix="")
    (path / "stray.jpg").write_bytes(picture(np.zeros((64, 64, 3))))
    with pytest.raises(DataError, match=r"chips outside of class folders, such as stray\.jpg"):
        read_labelled(path, RGB)


def test_read_labelled_classes_in_several_places_are_reported(write_chips, tmp_path):
    write_chips(tmp_path / "set", prefix="train/")
    write_chips(tmp_path / "set", prefix="test/")
    with pytest.raises(
        DataError, match=r"contains class folders in several folders: test, train\. "
    ):
        read_labelled(tmp_path / "set", RGB)
    assert len(read_labelled(tmp_path / "set" / "train", RGB).labels) == 8


def test_read_labelled_damaged_picture_is_named(write_chips, tmp_path):
    path = write_chips(tmp_path / "set.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("2750/River/River_9.jpg", b"no picture")
    with pytest.raises(DataError, match=r"set\.zip, 2750/River/River_9\.jpg, cannot be read"):
        read_labelled(path, RGB)


def test_read_labelled_bands_that_a_picture_does_not_show_are_reported(write_chips, tmp_path):
    with pytest.raises(ConfigError, match="Received: B08"):
        read_labelled(write_chips(tmp_path / "set.zip"), RGBN)


@pytest.fixture(scope="module")
def real_bands(real_data):
    return read_labelled(real_data / "eurosat" / "EuroSATallBands_subset.zip", RGBN)


def test_read_labelled_real_13_bands(real_bands):
    assert len(real_bands.classes) == 10
    assert np.bincount(real_bands.labels).tolist() == [32] * 10
    assert len(set(real_bands.cells)) == 150
    by_class = {
        name: real_bands.reflectance(real_bands.labels == index).mean(axis=(0, 1, 2))
        for index, name in enumerate(real_bands.classes)
    }
    # In the near infrared water is dark, and vegetation brighter than in red.
    assert by_class["SeaLake"][3] < 0.1 < by_class["Forest"][3]
    assert by_class["Pasture"][3] > 2 * by_class["Pasture"][2]


def test_read_labelled_real_pictures_are_brightened_bands(real_data, real_bands, tmp_path):
    names = [name.split("/tif/")[1].replace(".tif", ".jpg") for name in real_bands.files[::20]]
    # A few of the 27,000, in an archive of their own.
    with (
        zipfile.ZipFile(real_data / "eurosat" / "EuroSAT.zip") as source,
        zipfile.ZipFile(tmp_path / "some.zip", "w") as target,
    ):
        for name in names:
            target.writestr(f"2750/{name}", source.read(f"2750/{name}"))
    pictures = read_labelled(tmp_path / "some.zip", RGB)
    assert [name.removeprefix("2750/") for name in pictures.files] == names
    shown = pictures.reflectance(slice(None))
    measured = real_bands.reflectance(slice(None, None, 20))[..., [2, 1, 0]]
    difference = shown - np.clip(measured, 0, 0.275)
    assert np.abs(difference).mean() < 0.004
    assert abs(difference.mean()) < 0.001
