import copy
import pickle

import numpy as np
import pytest

from sits_keras.data.rasters import rows as strips_module
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.rasters.rows import CommonStrips, open_strips, preview_step, thin
from sits_keras.errors import ConfigError, DataError, MissingError

BANDS = ("B02", "B03")


@pytest.fixture
def image():
    values = np.random.default_rng(0).integers(1, 5000, (150, 70, 2)).astype(np.uint16)
    values[20:30, :5] = 0
    return values


@pytest.fixture
def raster(image, tmp_path):
    grid = Grid(150, 70, "EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0))
    write_raster(tmp_path / "image.tif", image, BANDS, grid)
    return tmp_path / "image.tif"


@pytest.fixture
def reads(monkeypatch):
    """Counts the rows that are read; 40 at a time."""
    heights = []
    read = strips_module.read_stored

    def spy(path, bands, window):
        heights.append(window.height)
        return read(path, bands, window)

    monkeypatch.setattr(strips_module, "read_stored", spy)
    monkeypatch.setattr(strips_module, "_ROWS_AT_A_TIME", 40)
    return heights


@pytest.mark.parametrize("kind", ["raster", "array"])
def test_strips_read_any_rows_in_any_order(kind, image, raster, reads):
    strips = open_strips(raster if kind == "raster" else image, BANDS)
    assert (strips.bands, strips.grid[:2]) == (BANDS, (150, 70))
    for row, num_rows in ((0, 64), (8, 64), (8, 10), (86, 64), (3, 147), (0, 1), (149, 1)):
        np.testing.assert_array_equal(strips.read(row, num_rows), image[row : row + num_rows])


def test_raster_strips_read_each_row_once(raster, reads):
    strips = open_strips(raster)
    for row in range(0, 150 - 64 + 1, 2):
        assert strips.read(row, 64).shape == (64, 70, 2)
    assert reads[:3] == [64, 64, 64]  # to see that it holds what it should
    assert sum(reads[3:]) == 150
    assert max(reads[3:]) == 64


def test_strips_copy_reads_independently(raster, image, reads):
    strips = open_strips(raster)
    other = open_strips(raster)
    pair = CommonStrips(strips, [other]), CommonStrips(other, [strips])
    strips.read(100, 40)
    one, two = copy.deepcopy(pair)
    reads.clear()
    for row in (0, 40):
        np.testing.assert_array_equal(one.read(row, 40), image[row : row + 40])
        np.testing.assert_array_equal(two.read(row, 40), image[row : row + 40])
    assert reads == [40] * 4  # both strips of a pair share their reads
    strips.read(100, 40)
    assert reads == [40] * 4  # and leave the first ones where they were
    array = open_strips(image)
    assert copy.deepcopy(array) is array


def test_raster_strips_are_pickled_as_their_path(raster, image, monkeypatch):
    monkeypatch.chdir(raster.parent)
    strips = open_strips(raster.name)
    strips.read(0, 150)
    sent = pickle.dumps(strips)
    assert len(sent) < 2000
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(sent).read(3, 9), image[3:12])


def test_open_strips_bands_are_selected_by_name(image, raster):
    np.testing.assert_array_equal(open_strips(raster, ["B03"]).read(0, 9), image[:9, :, 1:])
    assert open_strips(str(raster)).bands == BANDS
    with pytest.raises(DataError, match=r"image\.tif has no band B08\. It has: B02, B03"):
        open_strips(raster, ["B02", "B08"])


def test_open_strips_of_a_missing_raster_names_it(tmp_path):
    with pytest.raises(MissingError, match=r"No file at .*none\.tif"):
        open_strips(tmp_path / "none.tif")


def test_array_strips_of_reflectance_return_stored_values():
    image = np.full((4, 3, 2), 0.25, np.float32)
    image[0, 0, 1] = np.nan
    image[1, 1] = 0.0  # dark, not missing
    stored = open_strips(image).read(0, 2)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored[0, 0], [0, 0])
    np.testing.assert_array_equal(stored[1, 1], [1, 1])
    np.testing.assert_array_equal(stored[0, 1], [2500, 2500])
    assert open_strips(image).bands == ("band 1", "band 2")


def test_array_strips_zero_in_any_band_is_missing_in_all():
    image = np.full((4, 3, 2), 7, np.uint16)
    image[2, 1, 0] = 0
    np.testing.assert_array_equal(open_strips(image).read(2, 1)[0], [[7, 7], [0, 0], [7, 7]])


def test_open_strips_of_other_arrays_is_refused():
    with pytest.raises(ConfigError, match=r"Received: uint8 of shape \(4, 4, 2\)"):
        open_strips(np.zeros((4, 4, 2), np.uint8))
    with pytest.raises(ConfigError, match=r"Received: uint16 of shape \(4, 4\)"):
        open_strips(np.zeros((4, 4), np.uint16))
    with pytest.raises(DataError, match="the image has 3 bands, expected 2: B02, B03"):
        open_strips(np.zeros((4, 4, 3), np.uint16), BANDS)


def test_common_strips_are_missing_in_all_if_missing_in_one(image):
    other = np.full((150, 70, 3), 9, np.uint16)
    other[25:50, 60:] = 0
    common = CommonStrips(open_strips(image, BANDS), [open_strips(other)])
    expected = image.copy()
    expected[25:50, 60:] = 0
    assert common.bands == BANDS
    np.testing.assert_array_equal(common.read(10, 60), expected[10:70])


def test_common_strips_read_other_images_once(raster, image, reads):
    common = CommonStrips(open_strips(image), [open_strips(raster)])
    first = common.read(0, 40)
    valid = common.valid(20, 40)
    assert reads
    reads.clear()
    np.testing.assert_array_equal(common.read(0, 40), first)
    np.testing.assert_array_equal(common.valid(20, 40), valid)
    np.testing.assert_array_equal(valid, common.read(20, 40)[..., 0] != 0)
    assert not reads


def test_thin_does_not_depend_on_the_parts():
    values = np.arange(23 * 11).reshape(23, 11)
    for step in (1, 2, 5):
        for height in (1, 4, 7, 23):
            parts = ((row, values[row : row + height]) for row in range(0, 23, height))
            np.testing.assert_array_equal(thin(parts, step), values[::step, ::step])


def test_preview_step_limits_the_size_to_800_px():
    assert preview_step(800, 64) == 1
    assert preview_step(64, 801) == 2
    assert preview_step(10_980, 10_980) == 14
