import json
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import rasterio
from fake_series import make_image, save_series

from sits_keras.data.rasters.read import Grid, read_info, write_raster
from sits_keras.errors import ConfigError, DataError, ExistsError
from sits_keras.tasks.embedding import windows
from sits_keras.tasks.embedding.rasters import embed_raster
from sits_keras.tasks.embedding.windows import FeaturePreview, centred_offsets

BANDS = ("B02", "B03", "B04", "B08")
UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)


def save(path, values, crs="EPSG:32631", transform=UTM):
    write_raster(path, values, BANDS[: values.shape[2]], Grid(*values.shape[:2], crs, transform))
    return path


def places(height, width):
    """An image of two bands: the row and the column of each pixel, and 1 (for 0 is no data)."""
    return (np.indices((height, width)).transpose(1, 2, 0) + 1).astype(np.uint16)


def corner(images):
    """Says where a window of `places` begins."""
    return np.rint(images[:, 0, 0, :2] * 10_000) - 1


def corner_pixel(images):
    """Returns the first pixel of a window."""
    return images[:, 0, 0]


@pytest.fixture
def raster(tmp_path):
    return save(tmp_path / "in.tif", places(150, 100))


def read(path):
    """A map's values, and what it says of them."""
    with rasterio.open(path) as source:
        names = ("crs", "transform", "shape", "height", "width", "descriptions", "scales", "nodata")
        facts = {name: getattr(source, name) for name in names}
        facts |= {"dtype": source.dtypes[0], "layout": source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"]}
        return np.moveaxis(source.read(), 0, -1), SimpleNamespace(**facts)


def test_centred_offsets_are_shifted_in_at_the_ends():
    # Centres 16, 48, 80, 112, 144 of 150 px: 144 - 32 reaches over the end, and so does 16.
    assert centred_offsets(150, 32) == [0, 16, 48, 80, 86]
    assert centred_offsets(64, 16) == [0, 0, 0, 0]
    assert centred_offsets(200, 100) == [18, 118]
    assert centred_offsets(70, 5) == [0] * 7 + [5] + [6] * 6


@pytest.mark.parametrize("stride", [7, 16, 32, 100])
def test_embed_raster_pixel_holds_window_on_its_centre(stride, raster, tmp_path):
    done = embed_raster(raster, tmp_path / "out.tif", corner, stride=stride)
    values, source = read(tmp_path / "out.tif")
    assert source.layout == "COG"
    assert source.crs == rasterio.CRS.from_epsg(32631)
    assert source.transform[:6] == (10 * stride, 0, 600_000, 0, -10 * stride, 5_000_000)
    assert source.shape == (-(-150 // stride), -(-100 // stride))
    assert source.descriptions == ("feature 0", "feature 1")
    for row in range(source.height):
        for col in range(source.width):
            wanted = (row * stride + stride // 2 - 32, col * stride + stride // 2 - 32)
            expected = np.clip(wanted, 0, (150 - 64, 100 - 64))
            np.testing.assert_array_equal(values[row, col], expected)
    assert done.num_features == 2
    assert done.num_windows == len({tuple(one) for one in values.reshape(-1, 2)})


def test_embed_raster_shape_keeps_its_position(tmp_path):
    image = np.full((256, 256, 1), 1000, np.uint16)
    image[96:160, 32:96] = 9000  # one window: its centre is at row 128, column 64
    path = save(tmp_path / "in.tif", image)
    embed_raster(path, tmp_path / "out.tif", lambda images: images.mean(axis=(1, 2)), stride=16)
    values, source = read(tmp_path / "out.tif")
    found = np.argwhere(values[..., 0] >= values.max() - 0.02)
    row, col = found.mean(axis=0) + 0.5
    x, y = 600_000 + source.transform.a * col, 5_000_000 + source.transform.e * row
    assert x == pytest.approx(600_000 + 640)
    assert y == pytest.approx(5_000_000 - 1280)


def test_embed_raster_windows_without_data_are_nodata(tmp_path):
    image = places(192, 128)
    image[:128] = 0
    path = save(tmp_path / "in.tif", image)
    done = embed_raster(path, tmp_path / "out.tif", corner, stride=64)
    values, source = read(tmp_path / "out.tif")
    assert np.isnan(source.nodata)
    np.testing.assert_array_equal(np.isnan(values[..., 0]), [[True] * 2, [True] * 2, [False] * 2])
    assert done.num_windows == 2
    embed_raster(path, tmp_path / "out.parquet", corner, stride=64)
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet")["row"].to_pylist() == [128, 128]


@pytest.mark.parametrize("name", ["out.tif", "out.parquet"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_embed_raster_image_without_data_is_refused(name, dtype, tmp_path):
    path = save(tmp_path / "in.tif", np.zeros((70, 64, 2), np.uint16))
    with pytest.raises(DataError, match=r"in\.tif has no data: every pixel is nodata"):
        embed_raster(path, tmp_path / name, corner, dtype=dtype)
    assert [one.name for one in tmp_path.iterdir()] == ["in.tif"]


# int8


def signed(images):
    """Three features: one to 1.27, one to -2.54, and one that is always 0."""
    share = images[:, 0, 0, 0] * 10_000 / 87
    return np.stack([share * 1.27, share * -2.54, share * 0], axis=1)


def test_embed_raster_int8_has_scale_for_each_band(raster, tmp_path):
    # The windows begin in rows 0 to 86, so that the first band's corners are 1 to 87.
    done = embed_raster(raster, tmp_path / "out.tif", signed, stride=16, dtype="int8")
    embed_raster(raster, tmp_path / "float.tif", signed, stride=16)
    values, source = read(tmp_path / "out.tif")
    expected, _ = read(tmp_path / "float.tif")
    assert source.dtype == "int8"
    assert source.nodata == -128
    np.testing.assert_allclose(source.scales, [0.01, 0.02, 1.0], rtol=1e-6)
    np.testing.assert_allclose(done.scales, source.scales, rtol=1e-6)
    assert done.clipped_fraction == 0
    assert (values[..., 0].max(), values[..., 1].min()) == (127, -127)
    restored = values * np.array(source.scales)
    assert np.abs(restored - expected).max() <= 0.01 + 1e-6  # half of the larger scale
    assert not restored[..., 2].any()


def test_embed_raster_int8_out_of_range_is_clipped_and_counted(raster, tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "_MOST_SAMPLED", 1)  # the first window alone
    done = embed_raster(raster, tmp_path / "out.tif", signed, stride=32, dtype="int8")
    values, source = read(tmp_path / "out.tif")
    np.testing.assert_allclose(source.scales[0], 1.27 / 87 / 127, rtol=1e-6)
    assert set(np.unique(values)) == {-127, 0, 127}
    # Rows 0, 16, 48, 80 and 86, of which all but the first are beyond, in two features of three.
    assert done.clipped_fraction == pytest.approx(4 / 5 * 2 / 3)


def test_embed_raster_int8_table_holds_scales(raster, tmp_path):
    embed_raster(raster, tmp_path / "out.parquet", signed, stride=16, dtype="int8")
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    scale = json.loads(table.schema.field("features").metadata[b"scale"])
    np.testing.assert_allclose(scale, [0.01, 0.02, 1.0], rtol=1e-6)
    values = np.array(table["features"].to_pylist())
    assert (values[:, 0].max(), values[:, 1].min()) == (127, -127)


# Tables


def test_embed_raster_table_has_row_for_each_window(raster, tmp_path):
    done = embed_raster(raster, tmp_path / "new" / "out.parquet", corner, stride=32)
    table = pyarrow.parquet.read_table(tmp_path / "new" / "out.parquet")
    found = list(zip(table["row"].to_pylist(), table["col"].to_pylist(), strict=True))
    assert found == [(row, col) for row in (0, 32, 64, 86) for col in (0, 32, 36)]
    np.testing.assert_array_equal(table["features"].to_pylist(), found)
    assert set(table["valid_fraction"].to_pylist()) == {1.0}
    assert done == (12, 2, None, 0.0)


# Bad input


def test_embed_raster_existing_output_is_kept(raster, tmp_path):
    (tmp_path / "out.tif").write_text("mine")
    with pytest.raises(ExistsError, match="--overwrite"):
        embed_raster(raster, tmp_path / "out.tif", corner)
    embed_raster(raster, tmp_path / "out.tif", corner, overwrite=True)
    assert len(read_info(tmp_path / "out.tif").bands) == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("out.csv", {}, r"must end in \.tif, \.tiff or \.parquet\. Received: .*out\.csv"),
        ("out.tif", {"stride": 0}, r"stride must be at least 1 px\. Received: 0"),
        ("out.tif", {"dtype": "uint8"}, r"must be 'float32' or 'int8'\. Received: 'uint8'"),
    ],
)
def test_embed_raster_invalid_option_is_refused(name, options, message, raster, tmp_path):
    with pytest.raises(ConfigError, match=message):
        embed_raster(raster, tmp_path / name, corner, **options)


@pytest.mark.parametrize("name", ["out.tif", "out.parquet"])
def test_embed_raster_small_raster_is_refused(name, tmp_path):
    path = save(tmp_path / "in.tif", places(100, 63))
    with pytest.raises(ConfigError, match=r"in\.tif is 100 x 63 px, smaller than a window"):
        embed_raster(path, tmp_path / name, corner)


def test_embed_raster_missing_band_is_refused(raster, tmp_path):
    def encoder(images):
        return corner(images)

    encoder.bands = ("B03", "B08")
    with pytest.raises(DataError, match=r"in\.tif has no band B08"):
        embed_raster(raster, tmp_path / "out.tif", encoder)


def test_embed_raster_without_georeferencing_writes_none(tmp_path):
    path = save(tmp_path / "in.tif", places(70, 64), None, None)
    embed_raster(path, tmp_path / "out.tif", corner, stride=16)
    assert read_info(tmp_path / "out.tif").grid == Grid(5, 4, None, None)


def test_feature_preview_shows_principal_components_and_missing_data():
    preview = FeaturePreview(2, 3)
    # One component carries all variance; the third pixel of the first row has no data.
    lines = np.array([[[0, 0], [1, 2], [np.nan, np.nan]], [[2, 4], [3, 6], [4, 8]]], np.float32)
    for row, line in enumerate(lines):
        preview.add(row, line)
    image = preview.colours()
    assert image.shape == (2, 3, 3)
    np.testing.assert_array_equal(image[0, 2], 1)
    first = image[..., 0][np.isfinite(lines[..., 0])]
    assert (np.diff(first) > 0).all()
    assert (first[0], first[-1]) == (0, 1)
    np.testing.assert_array_equal(image[0, :2, 2], 0.5)  # there are two components only


def test_feature_preview_of_a_large_map_is_thinned():
    preview = FeaturePreview(300, 600)
    for row in range(300):
        preview.add(row, np.full((600, 4), row, np.float32))
    assert preview.colours().shape == (100, 200, 3)


# Series


def test_embed_windows_of_series_are_means_of_clear_dates(tmp_path):
    images = [make_image(seed, 100, 130) for seed in range(3)]
    clouds = np.zeros((3, 100, 130), bool)
    clouds[1] = True
    folder = save_series(tmp_path / "lake", images, clouds)
    options = {"stride": 16, "bands": BANDS}
    for number, image in enumerate(images):
        embed_raster(image, tmp_path / f"{number}.tif", corner_pixel, **options)
    picture = tmp_path / "lake.png"
    done = embed_raster(folder, tmp_path / "lake.tif", corner_pixel, picture=picture, **options)
    assert done.num_windows == 4 * 6
    one, _, three, mean = (read(tmp_path / f"{name}.tif")[0] for name in (0, 1, 2, "lake"))
    np.testing.assert_allclose(mean, (one + three) / 2, rtol=1e-5)
    assert picture.is_file()
    table = embed_raster(folder, tmp_path / "lake.parquet", corner_pixel, **options)
    assert table.num_windows == 4 * 6
