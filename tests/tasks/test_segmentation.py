import warnings

import numpy as np
import pytest
import rasterio

from sits_keras import hub
from sits_keras.config import ModelConfig
from sits_keras.data.rasters.read import Grid, read_info, write_raster
from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.synthetic import make_series
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.hub.layers import LayerEncoder
from sits_keras.model import DisentangledSITS
from sits_keras.tasks.layers import encode_pixels
from sits_keras.tasks.segmentation import maps, pixels, windows
from sits_keras.tasks.segmentation.clusters import (
    Clusters,
    class_colours,
    nearest_cluster,
    read_clusters,
)
from sits_keras.tasks.segmentation.maps import merge_regions, segment, segment_raster
from sits_keras.tasks.segmentation.windows import fit_clusters, label_rows

BANDS = ("B02", "B03", "B04", "B08")
UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)


def band_means(images):
    return images.mean(axis=(1, 2))


def land():
    """Water, wood, field and town in quarters of 128 px, from dark to bright."""
    values = np.array([[[200, 150, 100, 50], [300, 500, 300, 3000]]])
    values = np.concatenate([values, [[[900, 1200, 1600, 2600], [2500, 2500, 2600, 2800]]]])
    image = values.repeat(128, axis=0).repeat(128, axis=1)
    noise = np.random.default_rng(0).integers(0, 40, image.shape)
    return (image + noise).astype(np.uint16)


QUARTERS = np.array([[1, 2], [3, 4]], np.uint8).repeat(128, axis=0).repeat(128, axis=1)


def save(path, values, crs="EPSG:32631", transform=UTM, bands=BANDS):
    write_raster(path, values, bands, Grid(*values.shape[:2], crs, transform))
    return path


def segment_windows(image, encoder, **options):
    return segment(image, encoder, method="windows", min_region=1, **options)


# Windows: known answers


def test_windows_of_quarters_orders_clusters_by_brightness():
    labels, clusters = segment_windows(land(), band_means, num_clusters=4, stride=64, fit_stride=64)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, QUARTERS)
    assert clusters.num_samples == 16
    means = land().reshape(2, 128, 2, 128, 4).mean(axis=(1, 3, 4)).ravel() / 10_000
    np.testing.assert_allclose(clusters.brightness, means, rtol=1e-5)
    assert list(clusters.classes()) == [1, 2, 3, 4]
    assert clusters.classes()[4].name.startswith("cluster 4: band 1 0.252, band 2 0.25")


def test_segment_border_is_where_window_majority_changes():
    # Two halves; windows at 0, 8, ..., 192 turn from left to right at column 128.
    image = np.concatenate([np.full((64, 128, 1), 500), np.full((64, 128, 1), 2000)], axis=1)
    labels, _ = segment_windows(image.astype(np.uint16), band_means, num_clusters=2)
    assert (labels[:, :120] == 1).all()
    assert (labels[:, 136:] == 2).all()


def test_label_rows_takes_majority_of_windows():
    centres = np.array([[0.0], [1.0]], np.float32)
    clusters = Clusters("windows", ("B02",), centres, np.zeros((2, 1)), 2)
    # Windows at 0, 32 and 64: of cluster 2, 1, 1.
    image = np.full((64, 128, 1), 7, np.uint16)
    answers = iter([1.0, 0.0, 0.0])

    def encoder(images):
        return np.array([[next(answers)] for _ in images], np.float32)

    ((_, labels),) = label_rows(open_strips(image), encoder, clusters, 32)
    # One window alone at both ends; two and two between: as many votes for 1 as for 2, then 1.
    np.testing.assert_array_equal(labels[0], [2] * 32 + [1] * 96)


def test_segment_constant_features_gives_one_class():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn tells that windows are all alike
        labels, clusters = segment_windows(
            land(), lambda images: np.ones((len(images), 2)), stride=32
        )
    assert len(np.unique(labels)) == len(clusters.spectra) == 1


def test_fit_clusters_same_seed_gives_same_centres():
    noise = np.random.default_rng(1).integers(1, 5000, (96, 128, 2)).astype(np.uint16)

    def centres(seed):
        strips = open_strips(noise)
        return fit_clusters(strips, band_means, num_clusters=5, stride=8, seed=seed).centres

    np.testing.assert_array_equal(centres(0), centres(0))
    assert not np.array_equal(centres(0), centres(1))


def test_fit_clusters_many_windows_are_sampled(monkeypatch):
    monkeypatch.setattr(windows, "_MOST_FITTED", 200)
    clusters = fit_clusters(open_strips(land()), band_means, num_clusters=4, stride=8)
    assert 150 < clusters.num_samples < 250  # of 625
    assert segment_windows(land(), band_means, num_clusters=4, stride=64)[0][0, 0] == 1


# Missing data


def test_segment_pixels_without_data_have_no_class():
    image = land()
    image[:128, :100] = 0
    labels, clusters = segment_windows(image, band_means, num_clusters=4, stride=32, fit_stride=32)
    np.testing.assert_array_equal(labels == 0, image[..., 0] == 0)
    assert clusters.num_samples == 49 - 3 * 2  # of which six are wholly in the hole


def test_segment_image_without_data_is_refused():
    with pytest.raises(DataError, match="the image has no data: every pixel is nodata"):
        segment_windows(np.zeros((64, 64, 4), np.uint16), band_means)


# Files


def test_segment_raster_writes_map_on_grid_of_image(tmp_path):
    image = land()
    image[130, 5] = 0
    path = save(tmp_path / "in.tif", image)
    out = tmp_path / "new" / "out.tif"
    written = segment_raster(
        path, out, band_means, method="windows", num_clusters=4, stride=64, fit_stride=64
    )
    expected = QUARTERS.copy()
    expected[130, 5] = 0
    assert read_info(out).grid == read_info(path).grid
    assert read_info(out).bands == ("cluster",)
    with rasterio.open(out) as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.nodata == 0
        np.testing.assert_array_equal(source.read(1), expected)
        colours = source.colormap(1)
        assert [colours[i][:3] for i in (1, 2, 3, 4)] == class_colours(4)
        # The corner where the four meet, by its coordinates.
        x, y = 600_000 + 1280, 5_000_000 - 1280
        around = [(x - 1, y + 1), (x + 1, y + 1), (x - 1, y - 1), (x + 1, y - 1)]
        assert [int(value[0]) for value in source.sample(around)] == [1, 2, 3, 4]
    names = (tmp_path / "new" / "out.tif.aux.xml").read_text()
    assert "cluster 4: NDVI 0.04; B02 0.252, B03 0.252, B04 0.262, B08 0.282" in names
    assert read_clusters(tmp_path / "new" / "out.clusters.json").classes()[4].name in names
    np.testing.assert_array_equal(written.preview, expected)  # small enough to be whole


def test_segment_raster_large_map_returns_thinned_preview(tmp_path):
    image = land().repeat(7, axis=1)  # 1,792 px: every third
    path = save(tmp_path / "in.tif", image)
    written = segment_raster(
        path, tmp_path / "out.tif", band_means, method="windows", num_clusters=4, stride=64
    )
    with rasterio.open(tmp_path / "out.tif") as source:
        np.testing.assert_array_equal(written.preview, source.read(1)[::3, ::3])


def test_segment_raster_without_georeferencing_writes_none(tmp_path):
    path = save(tmp_path / "in.tif", land(), None, None)
    segment_raster(path, tmp_path / "out.tif", band_means, method="windows", num_clusters=4)
    assert read_info(tmp_path / "out.tif").grid == Grid(256, 256, None, None)


def test_segment_raster_existing_output_is_kept(tmp_path):
    (tmp_path / "out.tif").write_text("mine")
    path = save(tmp_path / "in.tif", land())
    with pytest.raises(ExistsError, match="--overwrite"):
        segment_raster(path, tmp_path / "out.tif", band_means)


# Bad input


def test_fit_clusters_fewer_windows_than_clusters_is_refused():
    with pytest.raises(ConfigError, match="has 4 windows with data at a stride of 64 px, fewer"):
        segment_windows(land()[:128, :128], band_means, num_clusters=5, fit_stride=64)


@pytest.mark.parametrize("num_clusters", [1, 255])
def test_fit_clusters_number_out_of_range_is_refused(num_clusters):
    with pytest.raises(
        ConfigError, match=f"must be 2 to 254. Received: num_clusters={num_clusters}"
    ):
        segment_windows(land(), band_means, num_clusters=num_clusters)


def test_segment_stride_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="must be 1 to 64 px"):
        segment_windows(land(), band_means, stride=65)
    with pytest.raises(ConfigError, match="stride must be at least 1"):
        segment_windows(land(), band_means, fit_stride=0)


def test_segment_raster_small_missing_or_other_raster_is_refused(tmp_path):
    out = tmp_path / "out.tif"
    small = save(tmp_path / "small.tif", land()[:63])
    with pytest.raises(ConfigError, match=r"small\.tif is 63 x 256 px"):
        segment_raster(small, out, band_means, method="windows")
    with pytest.raises(MissingError, match=r"No file at .*none\.tif"):
        segment_raster(tmp_path / "none.tif", out, band_means)

    def encoder(images):
        return band_means(images)

    encoder.bands = ("B02", "B11")
    path = save(tmp_path / "in.tif", land())
    with pytest.raises(DataError, match=r"in\.tif has no band B11"):
        segment_raster(path, out, encoder)
    assert not out.exists()


def test_class_colours_are_distinct_up_to_ten():
    assert len(set(class_colours(10))) == 10
    assert class_colours(12)[10:] == class_colours(2)


# Layers: pixel resolution


@pytest.fixture(scope="module")
def encoder():
    config = ModelConfig(width=2, shared_channels=3, exclusive_dim=5, padding="context")
    return hub.wrap(DisentangledSITS(config), "shared")


def test_pixels_of_quarters_follow_the_land_to_the_pixel(encoder):
    labels, clusters = segment(land(), encoder, num_clusters=4)
    assert clusters.num_samples == 20_000
    # An untrained encoder sees across the edges, so a few pixels there may differ.
    assert np.mean(labels == QUARTERS) > 0.97
    inner = np.arange(256) % 128
    inside = (np.abs(inner - 63.5) < 40)[:, None] & (np.abs(inner - 63.5) < 40)
    np.testing.assert_array_equal(labels[inside], QUARTERS[inside])


def test_pixels_get_the_cluster_nearest_to_their_features(encoder):
    image = make_series(1, height=64, width=80, num_dates=2, num_cloudy=0).images[0]
    labels, clusters = segment(image, encoder, num_clusters=5, min_region=1)
    features = np.concatenate(
        [image / np.float32(10_000), encode_pixels([encoder], image, pixels.LAYERS)], axis=-1
    )
    sample = pixels.sample_pixels(
        open_strips(image, encoder.bands), LayerEncoder(encoder, pixels.LAYERS), seed=0
    )
    standardised = (features - sample.offset) / sample.scale
    expected = nearest_cluster(clusters.centres, standardised.reshape(-1, features.shape[-1])) + 1
    assert np.mean(labels.ravel() == expected) > 0.999  # rounding decides between equal ones
    assert set(np.unique(labels)) == {1, 2, 3, 4, 5}


def test_pixels_in_tiles_give_the_same_map(encoder, monkeypatch):
    image = make_series(2, height=100, width=150, num_dates=2, num_cloudy=0).images[1]
    whole, _ = segment(image, encoder, num_clusters=6)
    monkeypatch.setattr(pixels, "TILE_SIDE", 64)
    monkeypatch.setattr(maps, "_PIXELS_AT_A_TIME", 150 * 64)
    tiled, _ = segment(image, encoder, num_clusters=6)
    assert np.mean(whole == tiled) > 0.999


def test_pixels_without_data_have_no_class_and_do_not_count(encoder):
    image = land()
    image[:100, :130] = 0
    image[200, 200, 3] = 0  # missing in one band
    labels, clusters = segment(image, encoder, num_clusters=3)
    np.testing.assert_array_equal(labels == 0, (image == 0).any(axis=-1))
    assert (clusters.spectra > 0).all()
    with pytest.raises(DataError, match="the image has no data: every pixel is nodata"):
        segment(np.zeros((64, 64, 4), np.uint16), encoder)


def test_spectra_are_means_of_the_pixels_of_the_map(encoder):
    image = make_series(3, height=64, width=64, num_dates=2, num_cloudy=0).images[0]
    labels, clusters = segment(image, encoder, num_clusters=4)
    for value, spectrum in enumerate(clusters.spectra, start=1):
        mean = image[labels == value].mean(axis=0) / 10_000
        np.testing.assert_allclose(spectrum, mean, rtol=1e-6)
    assert (np.diff(clusters.brightness) > 0).all()


def test_cluster_whose_regions_are_all_merged_is_not_in_the_map(encoder, monkeypatch):
    known = np.where(QUARTERS == 2, 3, QUARTERS)
    known[60:63, 60:63] = 2  # nine pixels
    monkeypatch.setattr(maps, "label_pixels", lambda *_: iter([(Window(0, 0, 256, 256), known)]))
    labels, clusters = segment(land(), encoder, num_clusters=4, min_region=9)
    assert len(clusters.spectra) == len(clusters.centres) == 4
    assert sorted(np.bincount(labels.ravel())[1:])[:2] == [9, 128**2 - 9]
    labels, clusters = segment(land(), encoder, num_clusters=4, min_region=10)
    assert len(clusters.spectra) == len(clusters.centres) == 3
    # Renumbered by the brightness of their pixels: the field of 2 and 3 has become one.
    np.testing.assert_array_equal(np.unique(labels), [1, 2, 3])
    assert np.count_nonzero(labels == 1) == 128**2


def test_plain_function_has_no_layers():
    with pytest.raises(ConfigError, match="For a function of windows, pass method='windows'"):
        segment(land(), band_means)


# Regions


def test_merge_regions_gives_small_ones_to_the_nearest():
    labels = np.ones((12, 20), np.uint8)
    labels[:, 10:] = 2
    labels[2:4, 2:4] = 3  # four pixels in 1
    labels[5, 8] = labels[6, 9] = 3  # two that touch at a corner
    labels[9:12, 17:20] = 4  # nine in a corner of 2
    ((row, merged),) = merge_regions(labels, 5)
    assert row == 0
    expected = np.ones((12, 20), np.uint8)
    expected[:, 10:] = 2
    expected[9:12, 17:20] = 4
    np.testing.assert_array_equal(merged, expected)
    ((_, merged),) = merge_regions(labels, 2)
    np.testing.assert_array_equal(merged, labels)
    ((_, merged),) = merge_regions(labels, 10)
    assert set(np.unique(merged)) == {1, 2}


def test_merge_regions_does_not_depend_on_rows_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (50, 16), np.uint8).repeat(6, axis=0).repeat(6, axis=1)
    labels[rng.random(labels.shape) < 0.2] = 4
    whole = np.concatenate([part for _, part in merge_regions(labels, 30)])
    monkeypatch.setattr(maps, "_PIXELS_AT_A_TIME", 96 * 64)
    parts = list(merge_regions(labels, 30))
    assert len(parts) == 5
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), whole)
    np.testing.assert_array_equal(whole == 0, labels == 0)


def test_merge_regions_far_from_any_large_one_are_kept():
    labels = np.zeros((8, 200), np.uint8)
    labels[:, :50] = 1
    labels[4, 55] = labels[4, 190] = 2
    ((_, merged),) = merge_regions(labels, 16)
    assert (merged[4, 55], merged[4, 190]) == (1, 2)


# The same clusters on other images


def test_segment_raster_like_gives_other_images_the_same_classes(encoder, tmp_path):
    image = land()
    first = save(tmp_path / "a.tif", image)
    second = save(tmp_path / "b.tif", np.ascontiguousarray(image[::-1]))
    done = segment_raster(first, tmp_path / "a-map.tif", encoder, num_clusters=4)
    file = tmp_path / "a-map.clusters.json"
    again = segment_raster(second, tmp_path / "b-map.tif", encoder, like=file)
    assert not (tmp_path / "b-map.clusters.json").exists()
    assert np.mean(again.preview == QUARTERS[::-1]) > 0.97
    assert again.clusters.classes() == done.clusters.classes() == read_clusters(file).classes()
    # Light and season that the whole image shares make no difference.
    bright = save(tmp_path / "bright.tif", (image * 1.3 + 200).astype(np.uint16))
    third = segment_raster(bright, tmp_path / "c-map.tif", encoder, like=file)
    assert np.mean(third.preview == QUARTERS) > 0.9
    # The same image has the same map, and the same bytes.
    segment_raster(first, tmp_path / "again.tif", encoder, like=file)
    assert (tmp_path / "again.tif").read_bytes() == (tmp_path / "a-map.tif").read_bytes()
    names = [(tmp_path / f"{name}.tif.aux.xml").read_text() for name in ("again", "a-map", "b-map")]
    assert len(set(names)) == 1


def test_segment_raster_like_of_windows_applies_their_centres(tmp_path):
    path = save(tmp_path / "in.tif", land())
    options = {"method": "windows", "stride": 64}
    segment_raster(path, tmp_path / "a.tif", band_means, num_clusters=4, **options)
    like = tmp_path / "a.clusters.json"
    segment_raster(path, tmp_path / "b.tif", band_means, like=like, **options)
    with rasterio.open(tmp_path / "b.tif") as source:
        np.testing.assert_array_equal(source.read(1), QUARTERS)


def test_segment_raster_like_that_does_not_fit_is_refused(encoder, tmp_path):
    path, out = save(tmp_path / "in.tif", land()), tmp_path / "out.tif"
    segment_raster(path, tmp_path / "a.tif", encoder, num_clusters=2)
    like = tmp_path / "a.clusters.json"
    other = hub.wrap(DisentangledSITS(ModelConfig(width=1, padding="context")), "shared")
    with pytest.raises(ConfigError, match="found with another encoder"):
        segment_raster(path, out, other, like=like)
    with pytest.raises(ConfigError, match="Received: both"):
        segment_raster(path, out, encoder, like=like, num_clusters=3)
    with pytest.raises(ConfigError, match="clusters are of method 'layers'"):
        segment_raster(path, out, encoder, like=like, method="windows")
    with pytest.raises(MissingError, match=r"No file at .*none\.json"):
        segment_raster(path, out, encoder, like=tmp_path / "none.json")
    with pytest.raises(ExistsError, match="is also an input"):
        segment_raster(path, path, encoder, like=like, overwrite=True)
    assert not out.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"sits_keras clusters"', '"other"', "is not a file of clusters"),
        ('"version": 1', '"version": 2', "is not a file of clusters"),
        ('"centre"', '"middle"', "is damaged: 'centre'"),
        ('"layers"', '"pixels"', "do not fit together"),
        ('"B08"', '"B08", "B11"', "do not fit together"),
    ],
)
def test_read_clusters_of_damaged_file_is_refused(old, new, message, encoder, tmp_path):
    path = save(tmp_path / "in.tif", land()[:64, :64])
    segment_raster(path, tmp_path / "a.tif", encoder, num_clusters=2)
    file = tmp_path / "a.clusters.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=message):
        read_clusters(file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_region": 0}, "must be 1 to 1000 px. Received: min_region=0"),
        ({"min_region": 1001}, "min_region=1001"),
        ({"method": "pixels"}, "must be 'layers' or 'windows'. Received: 'pixels'"),
        ({"num_clusters": 1}, "must be 2 to 254"),
    ],
)
def test_segment_argument_out_of_range_is_refused(options, message, encoder):
    with pytest.raises(ConfigError, match=message):
        segment(land(), encoder, **options)


# Series


def test_segment_raster_of_series_averages_its_dates(encoder, tmp_path):
    image = land()
    folder = tmp_path / "lake"
    folder.mkdir()
    for month, change in ((1, -40), (2, 0), (3, 40)):
        values = np.clip(image.astype(int) + change, 1, None).astype(np.uint16)
        cloud = np.zeros((256, 256, 1), np.uint8)
        if month == 2:
            values[:64] = 9000
            cloud[:64] = 1
        save(folder / f"2020-0{month}-01.tif", values)
        save(folder / f"2020-0{month}-01_cloud.tif", cloud, bands=["cloud"])
    picture = tmp_path / "lake.png"
    done = segment_raster(folder, tmp_path / "lake.tif", encoder, num_clusters=4, picture=picture)
    with rasterio.open(tmp_path / "lake.tif") as source:
        labels = source.read(1)
    # Away from the borders, which layers blur.
    inner = np.zeros((256, 256), bool)
    for row in (0, 128):
        for col in (0, 128):
            inner[row + 30 : row + 98, col + 30 : col + 98] = True
    assert (labels == QUARTERS)[inner].mean() > 0.99
    assert done.clusters.brightness[-1] == pytest.approx(0.26, abs=0.01)
    assert picture.is_file()


def test_segment_raster_by_windows_leaves_out_cloudy_date(encoder, tmp_path):
    image = land()
    (tmp_path / "lake").mkdir()
    for month, values in ((1, image), (2, image[::-1])):
        save(tmp_path / "lake" / f"2020-0{month}-01.tif", values)
        cloud = np.full((256, 256, 1), month - 1, np.uint8)
        save(tmp_path / "lake" / f"2020-0{month}-01_cloud.tif", cloud, bands=["cloud"])
    options = {"num_clusters": 4, "method": "windows", "stride": 16}
    one_date = tmp_path / "lake" / "2020-01-01.tif"
    for source, name in ((tmp_path / "lake", "a.tif"), (one_date, "b.tif")):
        segment_raster(source, tmp_path / name, encoder, **options)
    with rasterio.open(tmp_path / "a.tif") as one, rasterio.open(tmp_path / "b.tif") as two:
        np.testing.assert_array_equal(one.read(1), two.read(1))
