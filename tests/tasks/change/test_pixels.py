"""Change at pixel resolution, and its steering by labelled points."""

import json

import numpy as np
import pytest
import rasterio
from sklearn.metrics import average_precision_score

from sits_keras import tasks
from sits_keras.data.radiometry import to_network
from sits_keras.data.rasters.points import Point, read_points, write_points
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.tasks.change import pixels
from sits_keras.tasks.change.clicks import ClickedChange, fit_logistic
from sits_keras.tasks.change.detection import open_pair
from sits_keras.tasks.change.maps import used_parts
from sits_keras.tasks.change.pixels import (
    PixelChange,
    RowStore,
    calibrate,
    detect_pixel_change,
    detect_translation_change,
    robust_scale,
)
from sits_keras.tasks.change.scores import score_change

BANDS = ("B02", "B03", "B04", "B08")
GRID = Grid(120, 140, "EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0))


def detect(burnt, method, layered, **options) -> PixelChange:
    pair = open_pair(*burnt[:2], BANDS, any_size=True)
    return detect_pixel_change(pair, method, layered[:1], **options)


@pytest.mark.parametrize("method", ["layers", "pixels", "irmad", "irmad smoothed"])
def test_detect_pixel_change_finds_the_burn_and_not_the_season(method, burnt, layered):
    distance, changed = detect(burnt, method, layered).map()
    mask = burnt[2]
    assert average_precision_score(mask.ravel(), distance.ravel()) > 0.9
    assert changed[mask].mean() > 0.85
    assert changed[~mask].mean() < 0.15


def test_detect_pixel_change_does_not_depend_on_blocks_and_tiles(burnt, layered, monkeypatch):
    whole = detect(burnt, "layers", layered)
    monkeypatch.setattr(pixels, "_ROWS", 17)
    monkeypatch.setattr(
        pixels,
        "iterate_tiles",
        lambda layers, image, tile_side=32, **options: tasks_tiles(layers, image, tile_side),
    )
    parts = detect(burnt, "layers", layered)
    np.testing.assert_allclose(parts.map().distance, whole.map().distance, atol=2e-3)
    assert parts.threshold == pytest.approx(whole.threshold, rel=2e-2)


def tasks_tiles(layers, image, tile_side):
    from sits_keras.tasks.layers import iterate_tiles

    return iterate_tiles(layers, image, tile_side)


def test_detect_pixel_change_statistics_of_large_scenes_are_of_a_sample(
    burnt, layered, monkeypatch
):
    whole = detect(burnt, "layers", layered).map().distance
    monkeypatch.setattr(pixels, "_MAX_SAMPLES", 4000)
    monkeypatch.setattr(pixels, "_SAMPLE_TILE", 32)
    monkeypatch.setattr(pixels, "_MAX_TILES", 5)
    sampled = detect(burnt, "layers", layered).map().distance
    assert np.corrcoef(whole.ravel(), sampled.ravel())[0, 1] > 0.97


def test_detect_pixel_change_missing_data_is_nan_and_not_change(burnt, layered):
    before, after, mask = burnt
    before = before.copy()
    before[90:, :30] = 0
    for method in ("layers", "pixels", "irmad"):
        distance, changed = detect((before, after, mask), method, layered).map()
        assert np.isnan(distance[90:, :30]).all()
        assert np.isfinite(distance[:90]).all()
        assert not changed[90:, :30].any()
        assert changed[85:90, :30].mean() < 0.2  # nor at its edge


def test_detect_pixel_change_of_equal_images_finds_nothing(burnt, layered):
    before = burnt[0]
    for method in ("layers", "pixels", "irmad"):
        assert not detect((before, before, None), method, layered).map().changed.any()


def test_detect_pixel_change_invalid_input_is_refused(burnt, layered):
    with pytest.raises(ConfigError, match="method must be one of 'layers'"):
        detect(burnt, "magic", layered)
    with pytest.raises(ConfigError, match="Expected a HubEncoder"):
        detect(burnt, "layers", [np.mean])
    empty = np.zeros((40, 40, 4), np.uint16)
    with pytest.raises(DataError, match="too few pixels"):
        detect((empty, empty), "pixels", layered)


def test_pixel_change_has_percentiles_and_a_false_alarm_rate(burnt, layered):
    change = detect(burnt, "pixels", layered)
    distance = change.map().distance
    bands = change.values(distance)
    assert bands.shape == (120, 140, 3)
    expected = (distance.ravel() < distance[50, 60]).mean() * 100
    assert bands[50, 60, 2] == pytest.approx(expected, abs=0.3)
    low, high = (change.calibration.false_alarm_rate(d) for d in np.quantile(distance, (0.5, 0.9)))
    assert low == pytest.approx(0.5, abs=0.01)
    assert high < 0.2


def test_calibrate_recovers_a_log_normal_distribution():
    rng = np.random.default_rng(0)
    unchanged = np.exp(rng.normal(0.3, 0.5, 20_000))
    found = calibrate(unchanged)
    assert found.log_mean == pytest.approx(0.3, abs=0.02)
    assert found.log_deviation == pytest.approx(0.5, abs=0.02)
    limit = float(np.exp(0.3 + 0.5 * 2.326))
    assert found.false_alarm_rate(limit) == pytest.approx(0.01, abs=2e-3)
    assert (unchanged > limit).mean() == pytest.approx(0.01, abs=3e-3)
    assert found.false_alarm_rate(0) == 1


def test_robust_scale_matches_hand_values():
    centre, scale = robust_scale(np.array([[1.0, 0], [2, 0], [3, 0], [4, 0], [100, 0]]))
    assert centre.tolist() == [3, 0]
    np.testing.assert_allclose(scale, [1.4826 + 1e-6, 1e-6])


@pytest.mark.parametrize("rows_at_a_time", [256, 7])
def test_raggedness_matches_hand_values(rows_at_a_time, monkeypatch):
    monkeypatch.setattr(pixels, "_ROWS", rows_at_a_time)
    image = np.full((20, 20, 4), 1000, np.uint16)
    chess = (np.add.outer(np.arange(20), np.arange(20)) % 2).astype(np.float32)
    half = np.zeros((20, 20), np.float32)
    half[:, :10] = 1

    def raggedness(values, image=image):
        pair = open_pair(image, image, BANDS, any_size=True)
        store = RowStore(20, 20)
        store.write(0, values)
        return pixels._raggedness(pair, store)

    # Of 760 pairs of neighbours, half would differ at random places.
    assert raggedness(half) == pytest.approx(20 / 380)
    assert raggedness(chess) == pytest.approx(760 / 380)
    assert raggedness(np.ones((20, 20), np.float32)) == 1
    # Neighbours without data do not count: 18 rows are left, with 18 * 19 + 17 * 20 pairs.
    missing = image.copy()
    missing[:2] = 0
    assert raggedness(half, missing) == pytest.approx(18 / (682 / 2))


def test_row_store_returns_written_rows():
    store = RowStore(5, 3)
    values = np.arange(15, dtype=np.float32).reshape(5, 3)
    store.write(2, values[2:])
    store.write(0, values[:2])
    np.testing.assert_array_equal(store.read(1, 3), values[1:4])


def test_map_change_writes_three_bands_and_its_threshold(burnt, layered, tmp_path):
    out, picture = tmp_path / "change.tif", tmp_path / "change.png"
    done = tasks.map_change(burnt[:2], out, layered[0], mask=burnt[2], picture=picture)
    assert done.scores[0].method == "layers"
    assert done.scores[0].f1 > 0.85
    assert {"IR-MAD", "centred difference, smoothed"} <= {one.method for one in done.scores}
    assert picture.is_file()
    with rasterio.open(out) as source:
        assert source.descriptions == ("distance", "changed", "percentile")
        distance, changed, percentile = source.read()
        tags = source.tags()
    assert float(tags["threshold"]) == done.change.threshold
    assert tags["method"] == "layers"
    assert 0 <= float(tags["false_alarm_rate"]) <= 1
    np.testing.assert_array_equal(changed, distance > done.change.threshold)
    assert 0 <= percentile.min() <= percentile.max() <= 100
    given = tasks.map_change(burnt[:2], out, layered[0], threshold=0.5, overwrite=True)
    assert given.change.threshold == 0.5


def test_score_change_adds_baselines_and_measures(burnt, layered):
    change = detect(burnt, "layers", layered)
    scores = {one.method: one for one in score_change({"layers": change}, burnt[2])}
    assert list(scores) == [
        "layers",
        "image difference",
        "change vector",
        "centred difference, smoothed",
        "IR-MAD",
        "IR-MAD, smoothed",
        "loss of NDVI (knows the direction)",
    ]
    one = scores["layers"]
    truth, found = burnt[2], change.map().changed
    assert one.precision == pytest.approx(truth[found].mean())
    assert one.recall == pytest.approx(found[truth].mean())
    assert one.f1 <= one.best_f1 <= 1
    assert one.auc > 0.95


def test_clicked_change_fit_corrects_unsupervised_map(burnt, layered):
    before, after, mask = burnt
    after = after.copy()
    decoy = np.s_[75:110, 20:60]  # as strong a change, of another kind, that is not wanted
    after[decoy] = (after[decoy] * np.array([1.6, 1.6, 1.7, 1.1])).astype(np.uint16)
    prior = detect((before, after, mask), "layers", layered)
    clicked = ClickedChange(prior, layered)
    inside = [Point(35, 45, True), Point(50, 70, True), Point(58, 80, True), Point(40, 60, True)]
    outside = [
        Point(80, 30, False),
        Point(100, 50, False),
        Point(5, 5, False),
        Point(90, 40, False),
    ]
    better = clicked.fit([*inside, *outside])
    first = average_precision_score(mask.ravel(), prior.map().distance.ravel())
    probability, changed = better.map()
    assert average_precision_score(mask.ravel(), probability.ravel()) > first + 0.1
    assert better.threshold == 0.5
    assert changed[decoy].mean() < changed[mask].mean()
    assert 0 <= probability.min() <= probability.max() <= 1


def test_clicked_change_fit_agreeing_points_keep_order(burnt, layered):
    prior = detect(burnt, "layers", layered)
    clicked = ClickedChange(prior, layered).fit([Point(45, 60, True), Point(5, 5, False)])
    before = average_precision_score(burnt[2].ravel(), prior.map().distance.ravel())
    after = average_precision_score(burnt[2].ravel(), clicked.map().distance.ravel())
    assert after > before - 0.01


def test_clicked_change_fit_without_memory_gives_same_map(burnt, layered, monkeypatch):
    from sits_keras.tasks.change import clicks

    prior = detect(burnt, "layers", layered)
    points = [Point(45, 60, True), Point(5, 5, False), Point(500, 5, True)]
    kept = ClickedChange(prior, layered).fit(points).map().distance
    monkeypatch.setattr(clicks, "_IN_MEMORY", 0)
    np.testing.assert_allclose(
        ClickedChange(prior, layered).fit(points).map().distance, kept, atol=1e-5
    )
    with pytest.raises(DataError, match="None of the 1 labelled points"):
        ClickedChange(prior, layered).fit([Point(500, 5, True)])


def test_fit_logistic_without_information_changes_nothing():
    weights, offset = fit_logistic(np.zeros((2, 3)), np.array([1.0, 0.0]), np.array([3.0, -3.0]))
    np.testing.assert_allclose(weights, 0, atol=1e-6)
    assert offset == pytest.approx(0, abs=1e-4)


def test_map_change_with_labels_writes_probabilities(burnt, layered, tmp_path):
    labels = tmp_path / "points.geojson"
    paths = []
    for name, image in zip(("a", "b"), burnt[:2], strict=True):
        paths.append(tmp_path / f"{name}.tif")
        write_raster(paths[-1], image, BANDS, GRID)
    points = [Point(45, 60, True), Point(5, 5, False), Point(119, 139, False)]
    write_points(labels, points, GRID)
    assert read_points(labels, GRID) == points
    done = tasks.map_change(paths, tmp_path / "out.tif", layered, labels=labels, mask=burnt[2])
    assert done.scores[0].method == "clicks"
    assert done.change.threshold == 0.5
    with pytest.raises(ConfigError, match="Labels steer"):
        tasks.map_change(paths, tmp_path / "no.tif", layered[1], labels=labels, method="exclusive")


def test_translation_distance_compares_both_places_at_one_date(small_model, burnt):
    before, after, _ = (one[:64, :64] for one in burnt)
    before = before.copy()
    before[:5, :7] = 0
    pair = open_pair(before, after, BANDS)
    distance = detect_translation_change(pair, small_model).map().distance
    x, y = (to_network(one.read(0, 64), small_model.config.band_max)[None] for one in pair)
    translate = small_model.translate
    expected = (
        np.abs(translate(x, x) - translate(y, x)) + np.abs(translate(x, y) - translate(y, y))
    )[0].mean(axis=-1) / 2
    assert np.isnan(distance[:5, :7]).all()
    np.testing.assert_allclose(distance[5:], expected[5:], atol=1e-5)
    same = detect_translation_change(open_pair(before, before, BANDS), small_model)
    assert not same.map().changed.any()


def test_map_change_translation_without_model_is_refused(small_model, burnt, layered, tmp_path):
    out = tmp_path / "out.tif"
    done = tasks.map_change(burnt[:2], out, small_model, method="translation", mask=burnt[2])
    assert done.scores[0].method == "translation"
    assert np.isfinite(done.scores[0].average_precision)
    with pytest.raises(ConfigError, match="Expected a whole model"):
        tasks.map_change(burnt[:2], tmp_path / "no.tif", layered[0], method="translation")
    empty = np.zeros((70, 64, 4), np.uint16)
    with pytest.raises(DataError, match="no pixel with data in both"):
        detect_translation_change(open_pair(empty, empty, BANDS), small_model)


def test_used_parts_each_method_uses_its_parts():
    all_parts = ("shared", "exclusive", "model")
    assert used_parts("layers", all_parts) == ("shared",)
    assert used_parts("layers", all_parts, with_labels=True) == ("shared", "exclusive")
    assert used_parts("layers", ("exclusive",), with_labels=True) == ("exclusive",)
    assert used_parts("exclusive", ("shared",)) == ("exclusive",)
    assert used_parts("translation", all_parts) == ("model",)


def test_points_without_crs_are_in_pixels(tmp_path):
    path = tmp_path / "points.geojson"
    grid = Grid(50, 60, None, None)
    write_points(path, [Point(3, 7, True)], grid)
    (feature,) = json.loads(path.read_text())["features"]
    assert feature["geometry"]["coordinates"] == [7.5, 3.5]
    assert read_points(path, grid) == [Point(3, 7, True)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a GeoJSON collection"),
        ('{"features": [{"geometry": null}]}', "not a GeoJSON collection"),
        ('{"features": []}', "at least one point"),
        (
            '{"features": [{"geometry": {"type": "Point", "coordinates": [1, 2]}, '
            '"properties": {"changed": "maybe"}}]}',
            r"Received: \['maybe'\]",
        ),
    ],
)
def test_read_points_invalid_file_is_refused(content, message, tmp_path):
    path = tmp_path / "points.geojson"
    with pytest.raises(MissingError, match="labelled points"):
        read_points(path, GRID)
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_points(path, GRID)
