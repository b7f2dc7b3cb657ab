import datetime
import json
from typing import Any

import numpy as np
import pytest
import rasterio
from fake_series import save_series

from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.errors import ConfigError, DataError, ExistsError
from sits_keras.tasks.classification.classifier import Classifier
from sits_keras.tasks.classification.predict import classify_raster, iterate_chips, map_classes

BANDS = ("B04", "B08")
CLASSES = ("Water", "Forest", "Town")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)


def classifier_by(probabilities: Any, bands=BANDS, classes=CLASSES) -> Classifier:
    return Classifier(
        lambda images: probabilities(np.asarray(images)),
        {"classes": list(classes), "bands": list(bands)},
    )


def by_level(images):
    """Water, forest or town by the mean of B08: 0.05, 0.15 or 0.25."""
    level = images[..., 1].mean(axis=(1, 2))
    closeness = -np.abs(level[:, None] - [0.05, 0.15, 0.25]) * 100
    return np.exp(closeness) / np.exp(closeness).sum(axis=1, keepdims=True)


def scene(levels, size=64):
    """Blocks of one B08 each, stored values; B04 is something else."""
    blocks = np.kron(np.array(levels), np.ones((size, size)))
    return np.stack([np.full_like(blocks, 777), blocks], axis=-1).astype(np.uint16)


def read(path):
    with rasterio.open(path) as source:
        return source.read(1)


@pytest.mark.parametrize("stride", [64, 32, 8])
def test_classify_raster_uniform_blocks_are_exact(stride, tmp_path):
    image = scene([[500, 2500], [1500, 500]])
    fractions = classify_raster(image, tmp_path / "a.tif", classifier_by(by_level), stride=stride)
    values = read(tmp_path / "a.tif")
    assert values.dtype == np.uint8
    assert values.shape == (128, 128)
    if stride == 64:
        np.testing.assert_array_equal(values, np.kron([[1, 3], [2, 1]], np.ones((64, 64))))
        assert fractions == {"Water": 0.5, "Forest": 0.25, "Town": 0.25}
    # Of a corner, only windows of its own block have a say.
    assert [values[0, 0], values[0, -1], values[-1, 0], values[-1, -1]] == [1, 3, 2, 1]
    assert sum(fractions.values()) == pytest.approx(1)


@pytest.mark.parametrize("stride", [16, 30, 64])
def test_classify_raster_averages_covering_windows(stride, tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 3000, (150, 201, 2)).astype(np.uint16)
    image[:80, :90] = 0  # no data in any window at the upper left

    def probabilities(images):
        # Anything that differs from window to window.
        parts = images[:, ::16, ::16, :].reshape(len(images), -1) * 50
        parts = np.stack([np.sin(parts * k).sum(axis=1) for k in (1, 2, 3)], axis=1)
        return np.exp(parts) / np.exp(parts).sum(axis=1, keepdims=True)

    classify_raster(image, tmp_path / "a.tif", classifier_by(probabilities), stride=stride)
    votes = np.zeros((150, 201, 3))
    for row in sorted({*range(0, 87, stride), 86}):
        for col in sorted({*range(0, 138, stride), 137}):
            crop = image[row : row + 64, col : col + 64]
            share = (crop[..., 0] != 0).mean()
            if share:
                reflectance = crop[None].astype(np.float32) / 10_000
                votes[row : row + 64, col : col + 64] += share * probabilities(reflectance)[0]
    expected = np.where(image[..., 0] != 0, votes.argmax(axis=-1) + 1, 0)
    values = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(values, expected)
    assert len(np.unique(values)) >= 3


def test_classify_raster_writes_grid_classes_and_colours(tmp_path):
    path = tmp_path / "scene.tif"
    write_raster(
        path, scene([[500, 2500]])[..., ::-1], BANDS[::-1], Grid(64, 128, "EPSG:32632", UTM)
    )
    classify_raster(path, tmp_path / "map.tif", classifier_by(by_level), stride=64)
    with rasterio.open(path) as source, rasterio.open(tmp_path / "map.tif") as target:
        assert (target.crs, target.transform) == (source.crs, source.transform)
        assert target.shape == source.shape
        assert target.nodata == 0
        assert target.descriptions == ("class",)
        assert target.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert target.colormap(1)[2][:3] == (26, 102, 46)  # EuroSAT's class Forest
        np.testing.assert_array_equal(target.read(1)[:, [0, 63, 64, 127]], [[1, 1, 3, 3]] * 64)
    text = (tmp_path / "map.tif.aux.xml").read_text()
    assert "<Category>no data</Category><Category>Water</Category>" in text


def test_classify_raster_without_georeferencing_writes_none(tmp_path):
    path = tmp_path / "scene.tif"
    write_raster(path, scene([[500]]), BANDS, Grid(64, 64, None, None))
    classify_raster(path, tmp_path / "map.tif", classifier_by(by_level))
    with rasterio.open(tmp_path / "map.tif") as target:
        assert target.crs is None
        assert target.transform.is_identity


def test_classify_raster_invalid_input_writes_nothing(tmp_path):
    classifier = classifier_by(by_level)
    cases = [
        (scene([[500]])[:63], {}, ConfigError, "the image is 63 x 64 px, smaller than a window"),
        (scene([[500]]) * 0, {}, DataError, "the image has no data in B04, B08"),
        (scene([[500]])[..., :1], {}, DataError, "has 1 bands, expected 2: B04, B08"),
        (scene([[500]]), {"stride": 65}, ConfigError, "The stride must be 1 to 64 px"),
        (scene([[500]]), {"stride": 0}, ConfigError, "Received: 0"),
    ]
    for image, options, kind, message in cases:
        with pytest.raises(kind, match=message):
            classify_raster(image, tmp_path / "a.tif", classifier, **options)
        assert not list(tmp_path.iterdir())


def test_map_classes_have_distinct_colours():
    classes = map_classes(["Forest", "X", "Y"])
    assert [one.name for one in classes.values()] == ["no data", "Forest", "X", "Y"]
    assert list(classes) == [0, 1, 2, 3]
    assert len({one.colour for one in classes.values()}) == 4
    with pytest.raises(ConfigError, match=r"at most 255 classes in a map\. Received: 256"):
        map_classes([str(n) for n in range(256)])


@pytest.mark.parametrize("target", ["set", "set.zip"])
def test_iterate_chips_yields_class_of_each_chip(target, write_chips, tmp_path):
    def redness(images):
        red = images[..., 0].mean(axis=(1, 2)) / 0.275
        return np.stack([red, 1 - red], axis=1)

    colours = {"Dark": (51, 0, 0), "Bright": (204, 0, 0)}
    path = write_chips(tmp_path / target, colours, count=3, noise=0)
    classifier = classifier_by(redness, bands=("B04", "B02"), classes=("red", "other"))
    told = list(iterate_chips(classifier, path, batch_size=4))
    assert [chip.file for chip in told] == [
        f"2750/{name}/{name}_{n}.jpg" for name in ("Bright", "Dark") for n in (1, 2, 3)
    ]
    assert [chip.label for chip in told] == ["red"] * 3 + ["other"] * 3
    assert [chip.probability for chip in told] == pytest.approx([0.8] * 6, abs=0.01)
    json.dumps(told)


# Series


def test_classify_raster_of_series_averages_probabilities_of_clear_dates(tmp_path):
    # The second date shows a town under the clouds of the left half, and in the right half water,
    # where the others show forest.
    dates = [scene([[500, 1500]]), scene([[2500, 500]]), scene([[500, 1500]])]
    clouds = np.zeros((3, 64, 128), bool)
    clouds[1, :, :64] = True
    folder = save_series(tmp_path / "lake", dates, clouds, names=BANDS)
    classifier = classifier_by(by_level)
    fractions = classify_raster(folder, tmp_path / "a.tif", classifier, stride=64)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), np.kron([[1, 2]], np.ones((64, 64))))
    assert fractions == {"Water": 0.5, "Forest": 0.5, "Town": 0}
    picture = tmp_path / "a.png"
    paths = [folder / f"2020-0{month}-01.tif" for month in (3, 1)]
    classify_raster(paths, tmp_path / "b.tif", classifier, stride=64, picture=picture)
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), read(tmp_path / "a.tif"))
    assert picture.is_file()
    with pytest.raises(ExistsError, match="is also an input"):
        classify_raster(paths, paths[0], classifier, overwrite=True)


def test_classify_raster_of_series_has_no_class_where_no_date_is_clear(tmp_path):
    clouds = np.zeros((2, 64, 128), bool)
    clouds[:, :, 100:] = True
    dates = [scene([[500, 1500]])] * 2
    folder = save_series(tmp_path / "lake", dates, clouds, names=BANDS)
    classify_raster(folder, tmp_path / "a.tif", classifier_by(by_level), stride=32)
    values = read(tmp_path / "a.tif")
    assert (values[:, :100] > 0).all()
    assert (values[:, 100:] == 0).all()
    dark = save_series(tmp_path / "dark", dates, np.ones((2, 64, 128), bool), names=BANDS)
    with pytest.raises(DataError, match="has no data in B04, B08"):
        classify_raster(dark, tmp_path / "b.tif", classifier_by(by_level))
    assert not (tmp_path / "b.tif").exists()


def test_classify_raster_uses_dates_of_period_only(tmp_path):
    levels = [np.full((64, 64, 4), level, np.uint16) for level in (500, 2500)]
    folder = save_series(tmp_path / "lake", levels, np.zeros((2, 64, 64), bool))
    classifier = classifier_by(by_level)
    dates = [datetime.date(2020, month, 1) for month in (1, 2)]
    found = [
        classify_raster(folder, tmp_path / f"{date}.tif", classifier, first=date, last=date)
        for date in dates
    ]
    expected = [
        classify_raster(folder / f"{date}.tif", tmp_path / f"b{date}.tif", classifier)
        for date in dates
    ]
    assert found == expected
    assert found[0] != found[1]
    with pytest.raises(ConfigError, match="Only a series takes"):
        classify_raster(levels[0], tmp_path / "c.tif", classifier, newest=True)
