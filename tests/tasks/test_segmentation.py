import warnings

import numpy as np
import pytest
import rasterio

from sits_keras.data.rasters.read import Grid, read_info, write_raster
from sits_keras.data.rasters.rows import open_strips
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.tasks import segmentation
from sits_keras.tasks.segmentation import (
    Clusters,
    class_colours,
    fit_clusters,
    label_rows,
    segment,
    segment_raster,
)

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


# Known answers


def test_segment_quarters_orders_clusters_by_brightness():
    labels, clusters = segment(land(), band_means, num_clusters=4, stride=64, fit_stride=64)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, QUARTERS)
    assert clusters.num_windows == 16
    means = land().reshape(2, 128, 2, 128, 4).mean(axis=(1, 3, 4)).ravel() / 10_000
    np.testing.assert_allclose(clusters.brightness, means, rtol=1e-5)
    assert list(clusters.classes()) == [1, 2, 3, 4]
    assert clusters.classes()[4].name == "cluster 4, reflectance 0.262"


def test_segment_border_is_where_window_majority_changes():
    # Two halves; windows at 0, 8, ..., 192 turn from left to right at column 128.
    image = np.concatenate([np.full((64, 128, 1), 500), np.full((64, 128, 1), 2000)], axis=1)
    labels, _ = segment(image.astype(np.uint16), band_means, num_clusters=2)
    assert (labels[:, :120] == 1).all()
    assert (labels[:, 136:] == 2).all()


def test_label_rows_takes_majority_of_windows():
    clusters = Clusters(np.array([[0.0], [1.0]], np.float32), np.array([0.0, 1.0]), 2)
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
        labels, clusters = segment(land(), lambda images: np.ones((len(images), 2)), stride=32)
    assert len(np.unique(labels)) == 1
    assert np.isfinite(clusters.brightness).sum() == 1


def test_fit_clusters_same_seed_gives_same_centres():
    noise = np.random.default_rng(1).integers(1, 5000, (96, 128, 2)).astype(np.uint16)

    def centres(seed):
        return fit_clusters(noise, band_means, num_clusters=5, stride=8, seed=seed).centres

    np.testing.assert_array_equal(centres(0), centres(0))
    assert not np.array_equal(centres(0), centres(1))


def test_fit_clusters_many_windows_are_sampled(monkeypatch):
    monkeypatch.setattr(segmentation, "_MOST_FITTED", 200)
    clusters = fit_clusters(land(), band_means, num_clusters=4, stride=8)
    assert 150 < clusters.num_windows < 250  # of 625
    assert segment(land(), band_means, num_clusters=4, stride=64)[0][0, 0] == 1


# Missing data


def test_segment_pixels_without_data_have_no_class():
    image = land()
    image[:128, :100] = 0
    labels, clusters = segment(image, band_means, num_clusters=4, stride=32, fit_stride=32)
    np.testing.assert_array_equal(labels == 0, image[..., 0] == 0)
    assert clusters.num_windows == 49 - 3 * 2  # of which six are wholly in the hole


def test_segment_image_without_data_is_refused():
    with pytest.raises(DataError, match="the image has no data: every pixel is nodata"):
        segment(np.zeros((64, 64, 4), np.uint16), band_means)


# Files


def test_segment_raster_writes_map_on_grid_of_image(tmp_path):
    image = land()
    image[130, 5] = 0
    path = save(tmp_path / "in.tif", image)
    out = tmp_path / "new" / "out.tif"
    written = segment_raster(path, out, band_means, num_clusters=4, stride=64, fit_stride=64)
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
    assert "cluster 4, reflectance 0.262" in names
    np.testing.assert_array_equal(written.preview, expected)  # small enough to be whole


def test_segment_raster_large_map_returns_thinned_preview(tmp_path):
    image = land().repeat(7, axis=1)  # 1,792 px: every third
    path = save(tmp_path / "in.tif", image)
    written = segment_raster(path, tmp_path / "out.tif", band_means, num_clusters=4, stride=64)
    with rasterio.open(tmp_path / "out.tif") as source:
        np.testing.assert_array_equal(written.preview, source.read(1)[::3, ::3])


def test_segment_raster_without_georeferencing_writes_none(tmp_path):
    path = save(tmp_path / "in.tif", land(), None, None)
    segment_raster(path, tmp_path / "out.tif", band_means, num_clusters=4, stride=64)
    assert read_info(tmp_path / "out.tif").grid == Grid(256, 256, None, None)


def test_segment_raster_existing_output_is_kept(tmp_path):
    (tmp_path / "out.tif").write_text("mine")
    path = save(tmp_path / "in.tif", land())
    with pytest.raises(ExistsError, match="--overwrite"):
        segment_raster(path, tmp_path / "out.tif", band_means)


# Bad input


def test_fit_clusters_fewer_windows_than_clusters_is_refused():
    with pytest.raises(ConfigError, match="has 4 windows with data at a stride of 64 px, fewer"):
        segment(land()[:128, :128], band_means, num_clusters=5, fit_stride=64)


@pytest.mark.parametrize("num_clusters", [1, 255])
def test_fit_clusters_number_out_of_range_is_refused(num_clusters):
    with pytest.raises(
        ConfigError, match=f"must be 2 to 254. Received: num_clusters={num_clusters}"
    ):
        segment(land(), band_means, num_clusters=num_clusters)


def test_segment_stride_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="must be 1 to 64 px"):
        segment(land(), band_means, stride=65)
    with pytest.raises(ConfigError, match="stride must be at least 1"):
        segment(land(), band_means, fit_stride=0)


def test_segment_raster_small_missing_or_other_raster_is_refused(tmp_path):
    out = tmp_path / "out.tif"
    small = save(tmp_path / "small.tif", land()[:63])
    with pytest.raises(ConfigError, match=r"small\.tif is 63 x 256 px"):
        segment_raster(small, out, band_means)
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
