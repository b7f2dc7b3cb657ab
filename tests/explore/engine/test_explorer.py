import numpy as np
import pytest
import rasterio

from sits_keras import DisentangledSITS, ModelConfig, hub
from sits_keras.data.rasters.points import Point
from sits_keras.data.rasters.read import Grid, read_info, write_raster
from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError
from sits_keras.explore.engine.calls import (
    ExploredModel,
    change_call,
    segmentation_call,
    translation_call,
)
from sits_keras.explore.engine.explorer import StoppedError
from sits_keras.hub.encoder import weights_sha256
from sits_keras.tasks.change.detection import detect_change, open_pair
from sits_keras.tasks.change.pixels import detect_pixel_change
from sits_keras.tasks.change.scores import score_change
from sits_keras.tasks.retrieval.search import find_windows
from sits_keras.tasks.series import open_image


def silent(text):
    pass


def test_explorer_vectors_are_computed_once_and_cached(explore, meadow):
    told = []
    explorer = explore(meadow)
    (place,) = explorer.places
    image = place.images[0]
    assert explorer.known_vectors(image) is None
    vectors = explorer.vectors(image, told.append)
    assert told[-1] == f"Encoding {image.label}: 100%"
    assert explorer.known_vectors(image) is vectors
    assert vectors.stride == 4
    told.clear()
    again = explore(meadow).vectors(image, told.append)
    np.testing.assert_array_equal(again.features, vectors.features)
    assert told == []


def test_explorer_vectors_of_another_stride_are_computed(explore, meadow):
    image = explore(meadow).places[0].images[0]
    assert explore(meadow, stride=16).vectors(image, silent).features.shape[:2] == (4, 6)
    assert explore(meadow, stride=32).vectors(image, silent).features.shape[:2] == (3, 4)


@pytest.mark.parametrize("stride", [0, 65])
def test_explorer_with_stride_out_of_range_raises(stride, explore, meadow):
    with pytest.raises(ConfigError, match=r"The stride is out of range\. Expected 1 to 64 px"):
        explore(meadow, stride=stride)


def test_find_by_features_equals_find_windows(explore, meadow, model):
    explorer = explore(meadow)
    first, *_, last = explorer.places[0].images
    explorer.vectors(last, silent)
    found = explorer.find_by_features(first, (11, 21), last, 5, 32)
    expected = find_windows(
        model.shared,
        open_strips(first.path, model.bands),
        [Window(11, 21, 64, 64)],
        open_strips(last.path, model.bands),
        stride=4,
        num_matches=5,
        min_distance=32,
        method="grid",
    )
    assert [one.window for one in found] == [one.window for one in expected]
    np.testing.assert_allclose(
        [one.distance for one in found], [one.distance for one in expected], rtol=1e-4
    )


def test_find_by_features_of_an_exact_model_equals_find_windows(explore, meadow):
    config = ModelConfig(width=1, shared_channels=2, exclusive_dim=3)
    encoder = hub.wrap(DisentangledSITS(config))
    explorer = explore(meadow, of=ExploredModel("run", "model", encoder, None, None), stride=16)
    first, *_, last = explorer.places[0].images
    explorer.vectors(last, silent)
    found = explorer.find_by_features(first, (48, 80), last, 3, 32)
    expected = find_windows(
        encoder,
        open_strips(first.path, config.bands),
        [Window(48, 80, 64, 64)],
        open_strips(last.path, config.bands),
        stride=16,
        num_matches=3,
        method="grid",
    )
    assert [one.window for one in found] == [one.window for one in expected]


def test_find_by_pixels_finds_a_window_in_its_own_image(explore, meadow):
    explorer = explore(meadow)
    image = explorer.places[0].images[0]
    explorer.vectors(image, silent)
    (match,) = explorer.find_by_pixels(image, (12, 20), image, 1, 32)
    assert (match.window[:2], match.distance) == ((12, 20), 0)


def test_explorer_change_equals_detect_change(explore, felled, model):
    explorer = explore(felled)
    before, after = explorer.places[0].images
    state = explorer.change(before, after, "exclusive", 16, silent)
    expected = detect_change(before.path, after.path, model.exclusive, stride=16)
    np.testing.assert_array_equal(state.distance, expected.map().distance)
    assert state.change.threshold == expected.threshold
    (scores, *_) = score_change({"exclusive": expected}, felled / "mask.tif")
    assert float(state.scores.f1(expected.threshold)) == pytest.approx(scores.f1)
    assert explorer.change(before, after, "exclusive", 16, silent) is state
    told = []
    again = explore(felled).change(before, after, "exclusive", 16, told.append)
    np.testing.assert_array_equal(again.distance, state.distance)
    assert told == []


def test_explorer_change_of_layers_equals_detect_pixel_change(explore, felled, model):
    explorer = explore(felled)
    before, after = explorer.places[0].images
    state = explorer.change(before, after, "layers", 16, silent)
    pair = open_pair(before.path, after.path, model.shared.bands)
    expected = detect_pixel_change(pair, "layers", [model.shared])
    np.testing.assert_array_equal(state.distance, expected.map().distance)
    assert state.change.threshold == expected.threshold
    assert explorer.change(before, after, "layers", 8, silent) is state


def test_explorer_steered_change_shows_what_is_exported(explore, felled, tmp_path):
    explorer = explore(felled)
    before, after = explorer.places[0].images
    points = [Point(30, 40, True), Point(90, 15, False)]
    told = []
    explorer.steered_change(before, after, points[:1], told.append)
    assert f"Encoding {before.label} and {after.label}" in told
    told.clear()
    shown = explorer.steered_change(before, after, points, told.append)
    assert told == []  # encoded once
    change_call(
        explorer.model,
        before.path,
        after.path,
        method="layers",
        stride=16,
        threshold="auto",
        mask=None,
        points=points,
    ).write(tmp_path)
    with rasterio.open(tmp_path / "change.tif") as source:
        np.testing.assert_array_equal(shown.distance, source.read(1))
        assert float(source.tags()["threshold"]) == shown.change.threshold == 0.5
    assert shown.scores is not None
    with pytest.raises(DataError, match="None of the 1 labelled points has data"):
        explorer.steered_change(before, after, [Point(500, 0, True)], silent)


def test_explorer_change_with_empty_mask_has_no_scores(explore, felled):
    explorer = explore(felled)
    (place,) = explorer.places
    grid = place.grid
    empty = felled.with_name("empty.tif")
    write_raster(empty, np.zeros((*grid[:2], 1), np.uint8), ["changed"], Grid(*grid))
    explorer.places[0] = place._replace(mask=empty)
    state = explorer.change(*place.images, "pixels", 32, silent)
    assert state.scores is None
    assert not state.reference.any()


def test_explorer_translate_and_sample_equal_model(explore, meadow, model):
    explorer = explore(meadow)
    first, *_, last = explorer.places[0].images
    crops, steps = explorer.translate(first, last, (5, 9))
    assert (crops.shape, steps.shape) == ((2, 64, 64, 4), (11, 64, 64, 4))
    expected = np.asarray(model.model.translate(crops[:1], crops[1:]))[0]
    np.testing.assert_allclose(steps[-1], expected, atol=1e-5)
    drawn = explorer.sample(first, (5, 9), 3, seed=1)
    expected = np.asarray(model.model.sample(crops[:1], 3, 1))[0]
    np.testing.assert_array_equal(drawn, expected)


def test_explorer_crops_without_data_raise(explore, tmp_path):
    pixels = np.zeros((64, 128, 4), np.uint16)
    pixels[:, 64:] = 1000
    path = tmp_path / "half.tif"
    write_raster(path, pixels, ("B02", "B03", "B04", "B08"), Grid(64, 128, None, None))
    explorer = explore(path)
    (image,) = explorer.places[0].images
    with pytest.raises(DataError, match=r"half\.tif has no data in the window at 0,0\. Choose"):
        explorer.crops([image], (0, 0))


def encode(explorer, first, last, folder):
    explorer.vectors(first, silent)


def compare(explorer, first, last, folder):
    explorer.change(first, last, "exclusive", 16, silent)


def generate(explorer, first, last, folder):
    explorer.translate(first, last, (0, 0))


def steer(explorer, first, last, folder):
    explorer.steered_change(first, last, [Point(3, 4, True)], silent)


def segment(explorer, first, last, folder):
    call = segmentation_call(explorer.model, first.path, num_clusters=3, min_region=4)
    call.write(folder)


def translate(explorer, first, last, folder):
    call = translation_call(
        explorer.model, "raster", first.path, last.path, at=(0, 0), num_samples=1, seed=0
    )
    call.write(folder)


def segments_that_are_exported(explorer, folder):
    """Segments of the first image, which equal those of the command that is exported."""
    image = explorer.places[0].images[0]
    shown = explorer.segments(image, 3, 4, silent)
    segmentation_call(explorer.model, image.path, num_clusters=3, min_region=4).write(folder)
    with rasterio.open(folder / "classes.tif") as source:
        np.testing.assert_array_equal(shown.preview, source.read(1))
    return shown


def test_explorer_segments_show_what_is_exported(explore, meadow, tmp_path):
    shown = segments_that_are_exported(explore(meadow), tmp_path)
    assert shown.num_pixels.sum() == np.count_nonzero(shown.preview)


def test_explorer_segments_of_raster_with_mask_show_what_is_exported(
    explore, make_meadow, tmp_path
):
    folder = make_meadow(tmp_path / "meadow", 112, 144)
    cloud = np.zeros((112, 144, 1), np.uint8)
    cloud[:40, 50:] = 1
    for mask in folder.glob("*_cloud.tif"):
        write_raster(mask, cloud, ["cloud"], read_info(mask).grid)
    shown = segments_that_are_exported(explore(folder), tmp_path)
    assert not shown.preview[:40, 50:].any()
    assert shown.preview[40:].all()


def test_explorer_segments_of_mean_show_what_is_exported(explore, meadow, tmp_path):
    explorer = explore(meadow)
    mean = explorer.places[0].mean
    shown = explorer.segments(mean, 3, 4, silent)
    segmentation_call(explorer.model, mean.path, num_clusters=3, min_region=4).write(tmp_path)
    with rasterio.open(tmp_path / "classes.tif") as source:
        np.testing.assert_array_equal(shown.preview, source.read(1))


def test_find_by_features_in_mean_equals_find_windows_of_series(explore, meadow, model):
    explorer = explore(meadow, stride=16)
    place = explorer.places[0]
    told = []
    explorer.vectors(place.mean, told.append)
    assert told[-1] == "Encoding mean of the clear dates: 100%"
    series, first = open_image(meadow, model.bands), open_strips(place.images[0].path, model.bands)
    options = {"stride": 16, "num_matches": 3, "method": "grid"}
    for query, strips in ((place.mean, series), (place.images[0], first)):
        found = explorer.find_by_features(query, (16, 32), place.mean, 3, 32)
        window = Window(16, 32, 64, 64)
        expected = find_windows(model.shared, strips, [window], series, **options)
        assert [one.window for one in found] == [one.window for one in expected]
        np.testing.assert_allclose(
            [one.distance for one in found], [one.distance for one in expected], rtol=1e-3
        )
    (match,) = explorer.find_by_pixels(place.mean, (16, 32), place.mean, 1, 32)
    assert (match.window[:2], match.distance) == ((16, 32), 0)
    told.clear()
    again = explore(meadow, stride=16).vectors(place.mean, told.append)
    np.testing.assert_array_equal(again.features, explorer.known_vectors(place.mean).features)
    assert told == []


@pytest.mark.parametrize("work", [encode, compare, steer, generate, segment, translate])
def test_explorer_stop_cancels_running_work(work, explore, meadow, tmp_path):
    explorer = explore(meadow)
    first, *_, last = explorer.places[0].images
    explorer.stop()
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(StoppedError):
        work(explorer, first, last, folder)
    assert list(folder.iterdir()) == list((tmp_path / "cache").iterdir()) == []


def test_missing_reason_of_module_names_missing_part(model):
    shared = ExploredModel("out/shared", "module", model.shared, None, None)
    exclusive = ExploredModel("out/exclusive", "module", None, model.exclusive, None)
    assert shared.bands == exclusive.bands == model.bands
    assert shared.missing_reason("shared") == exclusive.missing_reason("exclusive") == ""
    assert "needs the exclusive encoder. out/shared is a hub" in shared.missing_reason("exclusive")
    assert "needs the whole model. out/exclusive" in exclusive.missing_reason("model")
    with pytest.raises(ConfigError, match="needs the shared encoder"):
        exclusive.encoder("shared")
    with pytest.raises(ConfigError, match="needs the whole model"):
        shared.whole()


def test_change_methods_are_those_that_the_parts_suffice_for(model):
    shared = ExploredModel("out/shared", "module", model.shared, None, None)
    exclusive = ExploredModel("out/exclusive", "module", None, model.exclusive, None)
    assert shared.change_methods == ("layers", "pixels", "irmad")
    assert exclusive.change_methods == ("layers", "pixels", "irmad", "exclusive")
    assert model.change_methods == ("layers", "pixels", "irmad", "translation", "exclusive")


def test_weights_sha256_identifies_an_encoder(model):
    one, other = (weights_sha256(getattr(model, name)) for name in ("shared", "exclusive"))
    assert one != other
    assert one == weights_sha256(model.shared)
