import datetime
import warnings

import numpy as np
import pytest
from fake_series import BANDS, make_image, save, save_series

from sits_keras import hub
from sits_keras.config import ModelConfig
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError
from sits_keras.hub.layers import LayerEncoder, LayerGrid
from sits_keras.model import DisentangledSITS
from sits_keras.tasks import averages
from sits_keras.tasks.averages import iterate_averages
from sits_keras.tasks.layers import encode_pixels
from sits_keras.tasks.series import open_series


@pytest.fixture(scope="module")
def encoder() -> hub.HubEncoder:
    model = DisentangledSITS(
        ModelConfig(width=1, shared_channels=2, exclusive_dim=3, padding="context")
    )
    return hub.wrap(model)


@pytest.fixture(scope="module")
def layers(encoder) -> LayerEncoder:
    return LayerEncoder(encoder, (1, 2, 3, 4))


def pixels_of(average) -> np.ndarray:
    tile = average.tile
    found = [tile.upsample(index, cells) for index, cells in enumerate(tile.cells)]
    return np.concatenate(found, axis=-1)


def test_averages_of_one_image_are_its_layers(encoder, layers):
    image = make_image(0)
    series = open_series(image, BANDS)
    (average,) = iterate_averages(layers, series, series.windows())
    expected = encode_pixels([encoder], image, (1, 2, 3, 4))
    np.testing.assert_allclose(pixels_of(average), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(average.reflectance, image / 1e4, rtol=1e-6)
    assert (average.num_dates == 1).all()


def test_averages_of_clear_dates_are_means(encoder, layers, tmp_path):
    images = [make_image(seed) for seed in (1, 2, 3)]
    clouds = [np.zeros((48, 64), bool)] * 3
    series = open_series(save_series(tmp_path / "lake", images, clouds), BANDS)
    assert series.dates == tuple(datetime.date(2020, month, 1) for month in (1, 2, 3))
    (average,) = iterate_averages(layers, series, series.windows())
    expected = np.mean([encode_pixels([encoder], one, (1, 2, 3, 4)) for one in images], axis=0)
    np.testing.assert_allclose(pixels_of(average), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(average.reflectance, np.mean(images, axis=0) / 1e4, rtol=1e-5)


def test_averages_leave_out_clouds_and_missing_data(encoder, layers, tmp_path):
    images = [make_image(1), make_image(2)]
    cloud = np.zeros((48, 64), bool)
    cloud[:, :20] = True
    images[1][:, 40:] = 0
    folder = save_series(tmp_path / "lake", images, [np.zeros_like(cloud), cloud])
    series = open_series(folder, BANDS)
    (average,) = iterate_averages(layers, series, series.windows())
    expected = np.ones((48, 64))
    expected[:, 20:40] = 2
    np.testing.assert_array_equal(average.num_dates, expected)
    np.testing.assert_allclose(average.reflectance[:, :20], images[0][:, :20] / 1e4, rtol=1e-6)
    # Cells of layer 1 see a few pixels: far from the clear part, they are those of the first date.
    first = encode_pixels([encoder], images[0], (1,))
    found = average.tile.upsample(0, average.tile.cells[0])
    np.testing.assert_allclose(found[:, :16], first[:, :16], rtol=0, atol=1e-6)


def test_clear_fraction_counts_the_pixels_that_a_cell_sees():
    # A cell of 2 px that sees one pixel more on each side, in a window of 4 x 4 px with a margin
    # of 8: cell 0 of the window sees pixels -1 to 2, of which column 2 is cloudy.
    grid = LayerGrid("shared 1", 2, 1, 1, 3)
    clear = np.ones((20, 20), bool)
    clear[:, 8 + 2] = False
    sums = np.zeros((21, 21), np.int64)
    sums[1:, 1:] = clear.cumsum(axis=0).cumsum(axis=1)
    fraction = averages._clear_fraction(grid, sums, 8, (6, 6))
    np.testing.assert_allclose(fraction[0], [1, 1, 0.75, 0.75, 1, 1])


def test_averages_weight_cells_by_fourth_power_of_clear_fraction(layers, tmp_path):
    images = [make_image(1), make_image(2)]
    cloud = np.zeros((48, 64), bool)
    cloud[:, 32:] = True
    folder = save_series(tmp_path / "lake", images, [np.zeros_like(cloud), cloud])
    series = open_series(folder, BANDS)
    (both,) = iterate_averages(layers, series, series.windows())
    alone = []
    for image in images:
        one = open_series(image, BANDS)
        (average,) = iterate_averages(layers, one, one.windows())
        alone.append(average.tile.cells[3])
    grid = layers.grids[3]
    seen = np.arange(-grid.before, grid.stride + grid.after) + 16  # of the second cell
    fraction = (seen < 32).mean()
    expected = (alone[0][3, 3] + fraction**4 * alone[1][3, 3]) / (1 + fraction**4)
    np.testing.assert_allclose(both.tile.cells[3][3, 3], expected, rtol=1e-4, atol=1e-6)


def test_averages_do_not_depend_on_windows(layers, tmp_path):
    clouds = [np.random.default_rng(seed).random((48, 64)) < 0.3 for seed in (5, 6)]
    folder = save_series(tmp_path / "lake", [make_image(1), make_image(2)], clouds)
    series = open_series(folder, BANDS)
    (whole,) = iterate_averages(layers, series, series.windows())
    windows = series.windows(side=16)
    expected = pixels_of(whole)
    for window, average in zip(windows, iterate_averages(layers, series, windows), strict=True):
        row, col, height, width = window
        part = expected[row : row + height, col : col + width]
        np.testing.assert_allclose(pixels_of(average), part, rtol=0, atol=1e-5)


def test_spread_is_the_mean_deviation_of_projected_numbers(layers, tmp_path):
    flat = [np.full((16, 16, 4), value, np.uint16) for value in (1000, 3000, 3000)]
    clouds = [np.zeros((16, 16), bool) for _ in flat]
    clouds[2][0, 0] = True  # so that the third date does not count in the first block
    series = open_series(save_series(tmp_path / "lake", flat, clouds), BANDS)

    def project(tile, reflectance):
        means = reflectance.reshape(4, 4, 4, 4, 4).mean(axis=(1, 3))
        return np.stack([means[..., 0], 3 * means[..., 0]], axis=-1)

    (average,) = iterate_averages(layers, series, series.windows(), project)
    assert average.spread.shape == (4, 4)
    # 0.1 and 0.3, of deviation 0.1: times 1 and 3 a mean of 0.2.
    assert average.spread[0, 0] == pytest.approx(0.2, rel=1e-4)
    three = np.std([0.1, 0.3, 0.3])
    np.testing.assert_allclose(average.spread.ravel()[1:], 2 * three, rtol=1e-4)


def test_open_series_places_scenes_of_one_grid(tmp_path):
    left, right = make_image(1, 20, 30), make_image(2, 24, 30)
    paths = [
        save(tmp_path / "2020-01-01_a" / "2020-01-01.tif", left),
        save(tmp_path / "2020-01-01_b" / "2020-01-01.tif", right, offset=(-8, 20)),
    ]
    series = open_series(paths, BANDS)
    assert series.grid[:2] == (28, 50)
    assert series.grid.transform[2::3] == (600_000, 5_000_080)
    assert len(series.acquisitions) == 1
    stored, clear = series.read(0, Window(0, 0, 28, 50))
    np.testing.assert_array_equal(stored[8:, :30], left)  # the first one counts
    np.testing.assert_array_equal(stored[:24, 30:], right[:, 10:])
    assert clear.sum() == 20 * 30 + 24 * 30 - 16 * 10


def test_open_series_refuses_scenes_between_pixels(tmp_path):
    paths = [
        save(tmp_path / "a.tif", make_image(1)),
        save(tmp_path / "b.tif", make_image(2), offset=(0, 3.5)),
    ]
    with pytest.raises(DataError, match=r"a\.tif and .*b\.tif are not on one grid"):
        open_series(paths, BANDS)


def test_open_series_keeps_dates_of_period(tmp_path):
    images = [make_image(seed) for seed in (1, 2, 3)]
    clouds = [np.zeros((48, 64), bool)] * 3
    folder = save_series(tmp_path / "lake", images, clouds)
    day = datetime.date(2020, 2, 1)
    assert open_series(folder, BANDS, period=(day, None)).dates[0] == day
    assert open_series(folder, BANDS, period=(None, day)).dates[-1] == day
    with pytest.raises(DataError, match="no date from 2021-01-01 to the last"):
        open_series(folder, BANDS, period=(datetime.date(2021, 1, 1), None))


def test_open_series_without_masks_warns(tmp_path):
    folder = save_series(tmp_path / "lake", [make_image(1), make_image(2)])
    with pytest.warns(UserWarning, match="2 of 2 scenes of .*lake have no cloud mask"):
        open_series(folder, BANDS)


@pytest.mark.filterwarnings("error")
def test_open_series_of_files_uses_masks_beside_them(tmp_path):
    images = [make_image(seed) for seed in (1, 2)]
    clouds = [np.random.default_rng(seed).random((48, 64)) < 0.3 for seed in (5, 6)]
    folder = save_series(tmp_path / "lake", images, clouds)
    window = Window(0, 0, 48, 64)
    rasters = [folder / f"2020-0{month}-01.tif" for month in (1, 2)]
    for paths in (rasters, sorted(folder.glob("*.tif"))):  # as a shell names them
        series = open_series(paths, BANDS)
        assert len(series.acquisitions) == 2
        for index, cloud in enumerate(clouds):
            np.testing.assert_array_equal(series.read(index, window)[1], ~cloud)


def test_open_series_unlikely_values_are_reported(tmp_path):
    old, new = make_image(0), make_image(1) + np.uint16(1000)
    wrapped = make_image(2) - np.uint16(1000)
    save_series(tmp_path / "lake", [old, new, wrapped])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_series(tmp_path / "lake", BANDS)
    messages = [str(one.message) for one in caught]
    assert any("2020-03-01.tif: " in one and "wrapped around" in one for one in messages)
    assert any("no reflectance is below 0.1 on 2020-02-01, but" in one for one in messages)
