import copy

import numpy as np
import pytest
import rasterio

from sits_keras.data.rasters.read import Grid, read_info, write_raster
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.tasks.change.detection import detect_change, open_pair, otsu_threshold

BANDS = ("B02", "B03", "B04", "B08")
UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)


def band_means(images):
    return images.mean(axis=(1, 2))


def constant(images):
    return np.ones((len(images), 5))


def land(height=192, width=192, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(1000, 1100, (height, width, 4)).astype(np.uint16)


def pair_of(height=192, width=192):
    """Two dates of a place, of which the square of rows 64 to 127 and columns 64 to 127 burned."""
    before, after = land(height, width, 0), land(height, width, 1)
    after[64:128, 64:128] += 3000
    return before, after


def save(path, values, crs="EPSG:32631", transform=UTM, bands=BANDS):
    write_raster(path, values, bands, Grid(*values.shape[:2], crs, transform))
    return path


@pytest.fixture
def rasters(tmp_path):
    before, after = pair_of()
    return save(tmp_path / "before.tif", before), save(tmp_path / "after.tif", after)


def test_open_pair_offset_in_one_image_is_reported(tmp_path):
    values = np.random.default_rng(0).integers(300, 3000, (192, 192, 4)).astype(np.uint16)
    before = save(tmp_path / "2021.tif", values)
    after = save(tmp_path / "2022.tif", values + np.uint16(1000))
    with pytest.warns(UserWarning, match=r"samples of \S+2022\.tif, but .* in \S+2021\.tif\. From"):
        open_pair(before, after, BANDS)


# Known answers


def test_detect_change_stride_64_gives_window_distances():
    before, after = pair_of()
    change = detect_change(before, after, band_means, stride=64)
    # 4 bands x 0.3 in the middle, next to nothing elsewhere.
    assert change.windows.distances[1, 1] == pytest.approx(1.2, abs=0.01)
    distance, changed = change.map()
    truth = np.zeros((192, 192), bool)
    truth[64:128, 64:128] = True
    np.testing.assert_array_equal(changed, truth)
    np.testing.assert_allclose(distance[64:128, 64:128], 1.2, atol=0.01)
    assert distance[~truth].max() < 0.01
    assert 0.01 < change.threshold < 1.19


def test_detect_change_overlapping_windows_are_averaged():
    before, after = pair_of()
    change = detect_change(before, after, band_means, stride=32)
    distance = change.map().distance
    # The fraction of the square in windows at 0, 32, ..., 128 is 0, 1/2, 1, 1/2, 0 on each axis.
    # Pixels of rows 64 to 95 are in windows at 32 and 64, of rows 32 to 63 in those at 0 and 32.
    assert distance[70, 70] == pytest.approx(1.2 * 0.75**2, abs=0.01)
    assert distance[40, 70] == pytest.approx(1.2 * 0.25 * 0.75, abs=0.01)
    assert distance[10, 10] == pytest.approx(0, abs=0.01)


def test_detect_change_last_windows_are_shifted_in():
    before, after = land(100, 70, 0), land(100, 70, 1)
    after[-10:, -3:] += 3000
    change = detect_change(before, after, band_means, stride=64)
    np.testing.assert_array_equal(change.windows.rows, [0, 36])
    np.testing.assert_array_equal(change.windows.cols, [0, 6])
    distance = change.map().distance
    assert distance.shape == (100, 70)
    assert distance[99, 69] == pytest.approx(1.2 * 30 / 64**2, abs=1e-3)


def test_detect_change_constant_features_find_nothing():
    change = detect_change(*pair_of(), constant)
    assert change.threshold == 0
    assert not change.map().changed.any()
    assert not change.map().distance.any()


def test_detect_change_given_threshold_is_used():
    change = detect_change(*pair_of(), band_means, stride=64, threshold=1.5)
    assert change.threshold == 1.5
    assert not change.map().changed.any()
    assert detect_change(*pair_of(), band_means, stride=64, threshold=0).map().changed.all()


def test_detect_change_floats_are_reflectance():
    before, after = (image / np.float32(10_000) for image in pair_of())
    of_floats = detect_change(before, after, band_means, stride=64)
    of_stored = detect_change(*pair_of(), band_means, stride=64)
    np.testing.assert_allclose(of_floats.map().distance, of_stored.map().distance, rtol=1e-6)


# Missing data


def test_detect_change_missing_data_of_either_is_nan():
    before, after = land(seed=0), land(seed=0)
    before[:20, :30] = 0
    after[50:90, 100:] = 0
    before[64:80, 40:50] += 3000
    change = detect_change(before, after, band_means, stride=64)
    distance, changed = change.map()
    missing = np.zeros((192, 192), bool)
    missing[:20, :30] = missing[50:90, 100:] = True
    np.testing.assert_array_equal(np.isnan(distance), missing)
    assert not changed[missing].any()
    # Data missing at one date are not a difference.
    assert distance[0, 100] == 0
    assert distance[150, 150] == 0
    assert distance[70, 45] > 0


def test_detect_change_windows_are_weighted_by_valid_fraction():
    before, after = land(64, 96, 0), land(64, 96, 0)
    after[:, :64] += 1000
    before[:, 64:] = 0
    change = detect_change(before, after, lambda images: images[:, :, 40:].mean((1, 2)), stride=32)
    first, second = change.windows.distances[0]
    np.testing.assert_allclose(change.windows.weights, [[1, 0.5]])
    expected = (first + 0.5 * second) / 1.5
    assert change.map().distance[3, 40] == pytest.approx(expected, rel=1e-6)


def test_detect_change_without_common_pixel_is_refused():
    before, after = pair_of()
    before[:100] = 0
    after[100:] = 0
    with pytest.raises(DataError, match="have no pixel with data in both"):
        detect_change(before, after, band_means)


# Otsu


def test_otsu_threshold_matches_hand_value():
    # 0, 0, 1 and 8, 9: of all ways to part them, the widest variance between is here.
    counts, edges = np.histogram([0, 0, 1, 8, 9], 10, (0, 10))
    assert otsu_threshold(counts, edges) == 5  # any of 2 to 8 is as good; the middle one


def test_otsu_threshold_maximises_variance():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(2, 1, 3000), rng.normal(7, 2, 800)])
    counts, edges = np.histogram(values, 200)

    def within(threshold):
        parts = values[values <= threshold], values[values > threshold]
        return sum(len(part) * part.var() for part in parts if len(part))

    found = otsu_threshold(counts, edges)
    best = edges[1 + np.argmin([within(edge) for edge in edges[1:-1]])]
    assert found == pytest.approx(best, abs=2 * (edges[1] - edges[0]))
    assert 3 < found < 6


# Files


def test_change_write_is_on_grid_of_image(rasters, tmp_path):
    change = detect_change(*rasters, band_means, stride=64)
    share = change.write(tmp_path / "new" / "change.tif")
    assert share == pytest.approx(1 / 9)
    path = tmp_path / "new" / "change.tif"
    info = read_info(path)
    assert info.bands == ("distance", "changed")
    assert info.grid == read_info(rasters[0]).grid
    with rasterio.open(path) as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        distance, changed = source.read()
        assert source.tags()["threshold"] == repr(change.threshold)
        # The square, by its coordinates.
        x, y = 600_000 + 10 * 64, 5_000_000 - 10 * 64
        inside, outside = source.sample([(x + 1, y - 1), (x - 1, y + 1)])
    assert (inside[1], outside[1]) == (1, 0)
    np.testing.assert_array_equal(distance, change.map().distance)
    np.testing.assert_array_equal(changed == 1, change.map().changed)


def test_change_write_missing_data_is_nan_in_both_bands(tmp_path):
    before, after = pair_of()
    after[3:5, 7:9] = 0
    paths = save(tmp_path / "a.tif", before), save(tmp_path / "b.tif", after)
    detect_change(*paths, band_means).write(tmp_path / "c.tif")
    with rasterio.open(tmp_path / "c.tif") as source:
        assert np.isnan(source.nodata)
        missing = np.isnan(source.read())
    assert missing[:, 3:5, 7:9].all()
    assert missing.sum() == 8


def test_change_write_without_georeferencing_writes_none(tmp_path):
    paths = [save(tmp_path / f"{i}.tif", one, None, None) for i, one in enumerate(pair_of())]
    detect_change(*paths, band_means).write(tmp_path / "c.tif")
    assert read_info(tmp_path / "c.tif").grid == Grid(192, 192, None, None)


def test_change_write_existing_map_is_kept(rasters, tmp_path):
    change = detect_change(*rasters, band_means)
    (tmp_path / "c.tif").write_text("mine")
    with pytest.raises(ExistsError, match="--overwrite"):
        change.write(tmp_path / "c.tif")
    assert (tmp_path / "c.tif").read_text() == "mine"
    change.write(tmp_path / "c.tif", overwrite=True)
    assert read_info(tmp_path / "c.tif").bands == ("distance", "changed")


# Bad input


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"crs": "EPSG:32632"}, "CRS EPSG:32631 and EPSG:32632"),
        (
            {"crs": None, "transform": None},
            r"CRS EPSG:32631 and none; transform \(10\.0.* and none",
        ),
        ({"transform": (10.0, 0.0, 600_010.0, 0.0, -10.0, 5e6)}, r"transform .*600010\.0"),
        ({"transform": (10.01, 0.0, 600_000.0, 0.0, -10.0, 5e6)}, r"transform .*10\.01"),
    ],
)
def test_detect_change_other_grid_is_refused(changes, expected, rasters, tmp_path):
    other = save(tmp_path / "other.tif", pair_of()[1], **changes)
    message = rf"before\.tif and .*other\.tif are not on the same grid: .*{expected}.*gdalwarp"
    with pytest.raises(DataError, match=message):
        detect_change(rasters[0], other, band_means)


def test_detect_change_other_size_is_refused(rasters, tmp_path):
    other = save(tmp_path / "other.tif", land(192, 191))
    with pytest.raises(DataError, match="size 192 x 192 and 192 x 191 px"):
        detect_change(rasters[0], other, band_means)
    with pytest.raises(DataError, match=r"the image and the image .*size 192 x 192 and 100 x 192"):
        detect_change(land(), land(100), band_means)


def test_detect_change_rounded_transform_is_same_grid(rasters, tmp_path):
    transform = (10.0, 0.0, 600_000.000001, 0.0, -10.0, 5_000_000.0)
    other = save(tmp_path / "other.tif", pair_of()[1], transform=transform)
    assert detect_change(rasters[0], other, band_means, stride=64).map().changed.sum() == 64**2


def test_detect_change_small_image_is_refused(tmp_path):
    path = save(tmp_path / "a.tif", land(63, 80))
    with pytest.raises(ConfigError, match=r"a\.tif is 63 x 80 px, smaller than a window of 64"):
        detect_change(path, path, band_means)


def test_detect_change_missing_band_is_refused(rasters, tmp_path):
    def encoder(images):
        return band_means(images)

    encoder.bands = ("B02", "B11")
    with pytest.raises(DataError, match=r"before\.tif has no band B11\. It has: B02, B03"):
        detect_change(*rasters, encoder)
    other = save(tmp_path / "o.tif", pair_of()[1], bands=("B02", "B03", "B04", "B8A"))
    with pytest.raises(DataError, match=r"o\.tif has no band B08"):
        detect_change(rasters[0], other, band_means)


def test_detect_change_selects_bands_by_name(rasters):
    def encoder(images):
        assert images.shape[1:] == (64, 64, 2)
        return band_means(images)

    encoder.bands = ("B08", "B02")
    change = detect_change(*rasters, encoder, stride=64)
    assert change.map().distance[90, 90] == pytest.approx(0.6, abs=0.01)


def test_detect_change_missing_raster_is_refused(rasters, tmp_path):
    with pytest.raises(MissingError, match=r"No file at .*none\.tif"):
        detect_change(rasters[0], tmp_path / "none.tif", band_means)


@pytest.mark.parametrize("threshold", [-1, float("nan"), float("inf"), "otsu", None])
def test_detect_change_invalid_threshold_is_refused(threshold):
    with pytest.raises(ConfigError, match="must be 'auto' or a number of at least 0"):
        detect_change(*pair_of(), band_means, threshold=threshold)


def test_detect_change_stride_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="must be 1 to 64 px"):
        detect_change(*pair_of(), band_means, stride=65)


# Clouds


def cloudy_scl(height=192, width=192, factor=1):
    """A scene classification: vegetation, and cloud in the first 40 rows."""
    scl = np.full((height // factor, width // factor, 1), 4, np.uint8)
    scl[: 40 // factor] = 9
    return scl


def save_mask(path, values, factor=1):
    transform = (UTM[0] * factor, 0.0, UTM[2], 0.0, UTM[4] * factor, UTM[5])
    write_raster(path, values, ["mask"], Grid(*values.shape[:2], "EPSG:32631", transform))
    return path


@pytest.mark.parametrize("factor", [1, 2])
def test_open_pair_mask_beside_an_image_is_missing_data_in_both(factor, rasters, tmp_path):
    save_mask(tmp_path / "after_SCL.tif", cloudy_scl(factor=factor), factor)
    pair = open_pair(*rasters)
    for image in (*pair, *copy.deepcopy(pair)):
        assert not image.read(10, 30).any()
        assert image.read(40, 152).all()
        assert not image.read(20, 40)[:20].any()
    distance = detect_change(*rasters, band_means, stride=64).map().distance
    assert np.isnan(distance[:40]).all()
    assert np.isfinite(distance[40:]).all()


def test_open_pair_given_masks_replace_those_beside_the_images(rasters, tmp_path):
    save_mask(tmp_path / "before_cloud.tif", np.ones((192, 192, 1), np.uint8))
    clear = save_mask(tmp_path / "clear.tif", np.zeros((192, 192, 1), np.uint8))
    cloud = np.zeros((192, 192, 1), np.uint8)
    cloud[:, 100:] = 1
    cloudy = save_mask(tmp_path / "clouds.tif", cloud)
    assert not open_pair(*rasters).valid(0, 192).any()
    assert open_pair(*rasters, clouds=[clear]).valid(0, 192).all()
    for masks in ([clear, cloudy], [cloudy, clear], [cloudy]):
        valid = open_pair(*rasters, clouds=masks).valid(0, 192)
        assert valid[:, :100].all()
        assert not valid[:, 100:].any()


def test_open_pair_mask_among_the_bands_is_used(rasters, tmp_path):
    after = rasters[1]
    values = np.concatenate([pair_of()[1], cloudy_scl()], axis=-1).astype(np.uint16)
    save(after, values, bands=(*BANDS, "SCL"))
    valid = open_pair(rasters[0], after, BANDS).valid(0, 192)
    assert not valid[:40].any()
    assert valid[40:].all()


def test_open_pair_masks_that_do_not_fit_are_refused(rasters, tmp_path):
    small = save_mask(tmp_path / "small_SCL.tif", cloudy_scl(100, 100))
    with pytest.raises(DataError, match="small_SCL"):
        open_pair(*rasters, clouds=[small])
    with pytest.raises(ConfigError, match="Received: 3"):
        open_pair(*rasters, clouds=[small] * 3)
    with pytest.raises(ConfigError, match="is for an array"):
        open_pair(*pair_of(), clouds=[small])
    with pytest.raises(MissingError, match="none"):
        open_pair(*rasters, clouds=[tmp_path / "none.tif"])
