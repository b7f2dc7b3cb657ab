import numpy as np
import pytest

from sits_keras.data.radiometry import DISPLAY_MAX
from sits_keras.data.rasters.read import Grid, read_stored, write_raster
from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.tiling import Window
from sits_keras.explore.engine import sources as rasters
from sits_keras.explore.engine.sources import Raster, shown_shape
from sits_keras.tasks.windows.encoding import read_block

BANDS = ("B02", "B03", "B04", "B08")


@pytest.mark.parametrize("is_small", [True, False])
@pytest.mark.parametrize("place", [(0, 0), (10, 7), (36, 26)])
def test_a_window_has_the_surroundings_that_the_tasks_read(
    place, is_small, write, tmp_path, monkeypatch
):
    if not is_small:
        monkeypatch.setattr(rasters, "_SMALL", 0)
    path = write(tmp_path / "a.tif", (100, 90))
    row, col = place
    (expected,) = read_block([open_strips(path, BANDS)], [row], [col], (31, 47)).pixels
    found = Raster(path, BANDS).window(row, col, (31, 47))
    np.testing.assert_array_equal(found, expected)
    bare = Raster(path, BANDS).window(row, col)
    np.testing.assert_array_equal(bare, expected[31:95, 31:95])


def test_a_small_raster_is_read_once_until_it_changes(write, tmp_path):
    path = write(tmp_path / "a.tif", seed=1)
    raster = Raster(path, BANDS)
    before = raster.window(0, 0)
    write(path, seed=2)
    after = raster.window(0, 0)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, read_stored(path, BANDS))


def test_a_picture_is_true_colour_and_clear_without_data(tmp_path):
    pixels = np.full((64, 64, 4), 1100, np.uint16)
    pixels[..., 2] = 5000  # B04
    pixels[:4] = 0
    write_raster(tmp_path / "a.tif", pixels, BANDS, Grid(64, 64, None, None))
    picture = Raster(tmp_path / "a.tif", BANDS).picture()
    assert picture.shape == (64, 64, 4)
    grey = round(255 * 0.11 / DISPLAY_MAX)
    assert picture[10, 10].tolist() == [255, grey, grey, 255]
    assert picture[:4, :, 3].max() == 0
    one = Raster(tmp_path / "a.tif", ("B08",)).picture()
    assert one[10, 10].tolist() == [grey, grey, grey, 255]


def test_a_large_raster_is_decimated_while_it_is_read(write, tmp_path):
    path = write(tmp_path / "a.tif", (300, 200))
    raster = Raster(path, BANDS)
    whole = raster.picture()
    small = raster.picture(most=150)
    assert small.shape == (150, 100, 4)
    pixels = {tuple(one) for one in whole[:4, :4].reshape(-1, 4).tolist()}
    assert tuple(small[0, 0].tolist()) in pixels  # the nearest one, not a mean
    part = raster.picture(Window(100, 50, 60, 80), most=150)
    np.testing.assert_array_equal(part, whole[100:160, 50:130])


@pytest.mark.parametrize(
    ("sides", "expected"),
    [((100, 50), (100, 50)), ((2048, 1024), (1024, 512)), ((4, 10_240), (1, 1024))],
)
def test_pictures_have_at_most_so_many_rows_and_columns(sides, expected):
    assert shown_shape(Window(0, 0, *sides)) == expected
