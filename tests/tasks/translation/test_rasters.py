import numpy as np
import pytest
import rasterio

from sits_keras.config import ModelConfig
from sits_keras.data.rasters.read import Grid, read_info, read_stored, write_raster
from sits_keras.data.rasters.rows import open_strips
from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.tasks.translation.rasters import (
    blend_windows,
    read_crops,
    translate_raster,
)

BANDS = ("B04", "B08")
BAND_MAX = (0.5, 0.8)
UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)


class Echo:
    """Gives back what it is asked about: the place, or the date, or what lies between."""

    config = ModelConfig(bands=BANDS, band_max=BAND_MAX)

    def __init__(self, gives="place"):
        self.gives = gives

    def translate(self, place, date):
        return place if self.gives == "place" else date

    def sample(self, place, num_samples, seed):
        return np.stack([place - 0.01 * (seed + i) for i in range(num_samples)], axis=1)

    def interpolate(self, place, first, last, num_steps):
        np.testing.assert_array_equal(place, first)
        shares = np.linspace(0, 1, num_steps, dtype=np.float32)
        return np.stack([first * (1 - share) + last * share for share in shares], axis=1)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(1, 5000, (height, width, 2)).astype(np.uint16)


@pytest.fixture
def write(tmp_path):
    def write(name, values, bands=BANDS, crs="EPSG:32631", transform=UTM):
        grid = Grid(*values.shape[:2], crs, transform)
        write_raster(tmp_path / name, values, bands, grid)
        return tmp_path / name

    return write


def join(rows):
    rows = list(rows)
    starts = np.cumsum([0, *(one.values.shape[1] for one in rows[:-1])])
    assert [one.row for one in rows] == list(starts)
    return np.concatenate([one.values for one in rows], axis=1)


@pytest.mark.parametrize("size", [(64, 64), (64, 65), (127, 90), (130, 300)])
@pytest.mark.parametrize("stride", [32, 20, 64])
def test_blend_windows_identity_returns_image(size, stride):
    image = noise(*size)
    rows = blend_windows(
        lambda crops: crops[:, None], [open_strips(image)], BAND_MAX, stride=stride, batch_size=5
    )
    (values,) = join(rows)
    expected = image / (10_000 * np.array(BAND_MAX)) * 2 - 1
    np.testing.assert_allclose(values, expected, atol=2e-6)


def test_blend_windows_disagreeing_windows_leave_no_seam():
    # Each window is of one value, drawn at random.
    rng = np.random.default_rng(0)

    def disagree(crops):
        return np.broadcast_to(
            rng.uniform(-1, 1, (len(crops), 1, 1, 1, 1)), (len(crops), 1, *crops.shape[1:])
        )

    (values,) = join(blend_windows(disagree, [open_strips(noise(256, 256))], BAND_MAX))
    # Weights of one dimension change by at most pi / 64 a pixel, values by at most 2.
    assert np.abs(np.diff(values, axis=0)).max() < 2 * np.pi / 64
    assert np.abs(np.diff(values, axis=1)).max() < 2 * np.pi / 64
    assert np.ptp(values) > 0.5


def test_blend_windows_weights_of_neighbours_match_hand_value():
    # Two windows side by side, 0 and 1: at half a window's stride the blend is a squared sine.
    crops_seen = []

    def number(crops):
        values = np.arange(len(crops), dtype=np.float32)[:, None, None, None, None]
        crops_seen.append(crops.shape)
        return np.broadcast_to(values, (len(crops), 1, *crops.shape[1:]))

    (values,) = join(blend_windows(number, [open_strips(noise(64, 96))], BAND_MAX))
    assert crops_seen == [(2, 64, 64, 2)]
    expected = np.concatenate(
        [np.zeros(32), np.sin(np.pi * (np.arange(32) + 0.5) / 64) ** 2, np.ones(32)]
    )
    np.testing.assert_allclose(values[10, :, 0], expected, atol=1e-5)


def test_blend_windows_stride_out_of_range_or_small_image_is_refused():
    for stride in (0, 65):
        with pytest.raises(ConfigError, match=f"stride must be 1 to 64 px.* Received: {stride}"):
            next(blend_windows(Echo, [open_strips(noise(64, 64))], BAND_MAX, stride=stride))
    with pytest.raises(ConfigError, match=r"63 x 64 px, smaller than a window"):
        next(blend_windows(Echo, [open_strips(noise(63, 64))], BAND_MAX))


@pytest.mark.parametrize("gives", ["place", "date"])
def test_translate_raster_identity_returns_pixels_on_same_grid(gives, write, tmp_path):
    place, date = noise(130, 101), noise(130, 101, seed=1)
    out = tmp_path / "new" / "out.tif"
    translate_raster([write("a.tif", place), write("b.tif", date)], out, Echo(gives))
    np.testing.assert_array_equal(read_stored(out, BANDS), place if gives == "place" else date)
    info = read_info(out)
    assert info.grid == Grid(130, 101, "EPSG:32631", UTM)
    assert info.bands == BANDS
    assert set(info.dtypes) == {"uint16"}
    with rasterio.open(out) as opened:
        assert opened.nodata == 0
        assert opened.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_translate_raster_missing_data_of_either_is_kept(write, tmp_path):
    place, date = noise(300, 100), noise(300, 100, seed=1)
    place[:100] = 0  # whole windows, from the top
    place[150:155, 20:30] = 0
    date[200, 50, 1] = 0  # in one band
    out = tmp_path / "out.tif"
    translate_raster([write("a.tif", place), write("b.tif", date)], out, Echo())
    expected = place.copy()
    expected[200, 50] = 0
    np.testing.assert_array_equal(read_stored(out, BANDS), expected)


def test_translate_raster_without_georeferencing_writes_none(write, tmp_path):
    image = write("a.tif", noise(64, 80), crs=None, transform=None)
    translate_raster([image, image], tmp_path / "out.tif", Echo())
    assert read_info(tmp_path / "out.tif").grid == Grid(64, 80, None, None)


def test_translate_raster_selects_bands_by_name(write, tmp_path):
    image = np.concatenate([noise(64, 64), noise(64, 64, seed=1)], axis=-1)
    path = write("a.tif", image, bands=("B08", "B02", "B03", "B04"))
    translate_raster([path, path], tmp_path / "out.tif", Echo())
    np.testing.assert_array_equal(read_stored(tmp_path / "out.tif", BANDS), image[..., [3, 0]])


def test_translate_raster_samples_write_one_raster_each(write, tmp_path):
    place = noise(70, 70)
    outs = translate_raster(
        [write("a.tif", place)], tmp_path / "new.tif", Echo(), num_samples=3, seed=0
    )
    assert [out.name for out in outs] == ["new-1.tif", "new-2.tif", "new-3.tif"]
    for index, out in enumerate(outs):
        # 0.01 of a network value is half of that of the band's maximum.
        expected = np.maximum(place - 50.0 * index * np.array(BAND_MAX), 1)
        np.testing.assert_allclose(read_stored(out, BANDS), expected, atol=0.51)


def test_translate_raster_steps_go_from_first_to_last(write, tmp_path):
    first, last = noise(70, 90), noise(70, 90, seed=1)
    pair = [write("a.tif", first), write("b.tif", last)]
    outs = translate_raster(pair, tmp_path / "new.tif", Echo(), num_steps=3)
    np.testing.assert_array_equal(read_stored(outs[0], BANDS), first)
    np.testing.assert_allclose(
        read_stored(outs[1], BANDS), (first.astype(float) + last) / 2, atol=0.51
    )
    np.testing.assert_array_equal(read_stored(outs[2], BANDS), last)


def test_translate_raster_without_data_writes_nothing(write, tmp_path):
    path = write("a.tif", np.zeros((64, 64, 2), np.uint16))
    with pytest.raises(DataError, match=r"a\.tif and .*a\.tif have no pixel with data"):
        translate_raster([path, path], tmp_path / "out.tif", Echo())
    assert [one.name for one in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": noise(64, 65)}, "64 x 64 and 64 x 65 px"),
        ({"crs": "EPSG:32632"}, "EPSG:32631 and EPSG:32632"),
        ({"transform": (10.0, 0.0, 600_010.0, 0.0, -10.0, 5_000_000.0)}, "transform"),
    ],
)
def test_translate_raster_other_grid_is_refused(change, message, write, tmp_path):
    place = write("a.tif", noise(64, 64))
    date = write("b.tif", **{"values": noise(64, 64), **change})
    with pytest.raises(
        DataError, match=rf"a\.tif and .*b\.tif are not on the same grid: .*{message}"
    ):
        translate_raster([place, date], tmp_path / "out.tif", Echo())
    assert not (tmp_path / "out.tif").exists()


def test_translate_raster_missing_file_or_band_is_refused(write, tmp_path):
    path = write("a.tif", noise(64, 64), bands=("B02", "B08"))
    with pytest.raises(DataError, match="has no band B04"):
        translate_raster([path, path], tmp_path / "out.tif", Echo())
    with pytest.raises(MissingError, match=r"No file at .*b\.tif"):
        translate_raster([tmp_path / "b.tif", path], tmp_path / "out.tif", Echo())


def test_read_crops_defaults_to_middle():
    image = noise(100, 81)
    network = image / (10_000 * np.array(BAND_MAX)) * 2 - 1
    for at, row, col in ((None, 18, 8), ((0, 17), 0, 17), ((36, 0), 36, 0)):
        (crop,) = read_crops([image], Echo.config, at)
        np.testing.assert_allclose(crop, network[row : row + 64, col : col + 64], atol=1e-6)


@pytest.mark.parametrize("at", [(37, 0), (0, 18), (-1, 0)])
def test_read_crops_position_outside_is_refused(at):
    with pytest.raises(ConfigError, match=r"rows 0 to 36 and columns 0 to 17\. Received: "):
        read_crops([noise(100, 81)], Echo.config, at)


def test_read_crops_without_data_is_refused():
    with pytest.raises(
        DataError, match=r"has no data in the crop at 0,0\. Choose another position"
    ):
        read_crops([np.zeros((64, 64, 2), np.uint16)], Echo.config)


def test_read_crops_offset_in_one_image_is_reported(write):
    old = write("2021.tif", noise(64, 64))
    new = write("2022.tif", noise(64, 64) + np.uint16(1000))
    with pytest.warns(UserWarning, match=r"samples of \S+2022\.tif, but .* in \S+2021\.tif\. From"):
        read_crops([old, new], Echo.config)
