import dataclasses
import datetime
import shutil

import numpy as np
import pytest
import rasterio

from sits_keras import hub
from sits_keras.config import ModelConfig
from sits_keras.data.rasters.read import read_info
from sits_keras.data.sources.series import read_sources
from sits_keras.data.synthetic import STATES, make_series, write_series
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.model import DisentangledSITS
from sits_keras.tasks.change import series
from sits_keras.tasks.change.series import (
    choose_threshold,
    find_steps,
    map_breaks,
    season_design,
)

# Known answers


def noise_of(shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def test_find_steps_finds_date_and_length_of_each_step():
    features = noise_of((12, 5, 3))
    features[4:, 0] += (2, 0, 0)
    features[9:, 1] += (0, 3, -4)
    features[2:, 2] -= 1
    found = find_steps(features, np.ones((12, 5), bool), np.ones((12, 1)))
    assert found.first[:3].tolist() == [4, 9, 2]
    np.testing.assert_allclose(found.magnitude[:3], [2, 5, 3**0.5], rtol=0.1)
    assert found.strength[:3].min() > 100 > 10 * found.strength[3:].max() / 2
    assert not found.recovered.any()


def test_find_steps_strength_is_the_f_statistic_of_regression():
    features = noise_of((10, 1, 2), seed=3)
    features[6:, 0] += 0.3
    start = datetime.date(2020, 1, 1)
    dates = [start + datetime.timedelta(days=47 * i) for i in range(10)]
    design = season_design(dates, "harmonic")
    found = find_steps(features, np.ones((10, 1), bool), design)
    first = int(found.first[0])
    step = (np.arange(10) >= first).astype(float)[:, None]

    def left(columns):
        fitted = columns @ np.linalg.lstsq(columns, features[:, 0], rcond=None)[0]
        return np.square(features[:, 0] - fitted).sum()

    without, with_step = left(design), left(np.concatenate([design, step], axis=1))
    expected = (without - with_step) / (with_step / (10 - 3 - 1))
    assert found.strength[0] == pytest.approx(expected, rel=0.05)  # a ridge makes it a bit less


def test_find_steps_passes_over_cloudy_dates():
    features, clear = noise_of((12, 2, 2)), np.ones((12, 2), bool)
    features[5:] += 2
    features[[1, 5, 8]] = 50  # cloud
    clear[[1, 5, 8]] = False
    found = find_steps(features, clear, np.ones((12, 1)))
    assert found.first.tolist() == [6, 6]
    np.testing.assert_allclose(found.magnitude, 2 * 2**0.5, rtol=0.1)


def test_find_steps_needs_two_clear_dates_on_both_sides():
    features, clear = noise_of((8, 3, 2)), np.ones((8, 3), bool)
    features[1:, 0] += 5  # one date before
    features[7:, 1] += 5  # one date after
    clear[2:, 2] = False
    found = find_steps(features, clear, np.ones((8, 1)))
    assert found.first[0] >= 2
    assert found.first[1] <= 6
    assert (found.first[2], found.strength[2], found.magnitude[2]) == (-1, 0, 0)


def test_find_steps_with_a_season_ignores_the_yearly_cycle():
    dates = [datetime.date(2019, 1, 1) + datetime.timedelta(days=30 * i) for i in range(37)]
    angle = 2 * np.pi * np.array([(date - dates[0]).days for date in dates]) / 365.25
    features = noise_of((37, 2, 2))
    features += 3 * np.cos(angle + 1)[:, None, None].astype(np.float32)
    features[20:, 0] += 1
    clear = np.ones((37, 2), bool)
    with_season = find_steps(features, clear, season_design(dates))
    without = find_steps(features, clear, season_design(dates, "none"))
    assert with_season.first[0] == 20
    assert with_season.strength[0] > 300 > 30 * with_season.strength[1]
    assert without.strength[0] < 10


def test_find_steps_recovered_pixels_are_marked():
    features = noise_of((20, 3, 2))
    features[6:, :2] += 2
    features[6:, 0] *= np.linspace(1, 0, 14)[:, None].astype(np.float32)
    found = find_steps(features, np.ones((20, 3), bool), np.ones((20, 1)))
    assert found.recovered.tolist()[:2] == [True, False]


def test_season_design_fits_a_cycle_from_two_years_on():
    start = datetime.date(2020, 3, 1)
    short = [start, start + datetime.timedelta(days=700)]
    long = [start, start + datetime.timedelta(days=731)]
    assert season_design(short).tolist() == [[1], [1]]
    assert season_design(short, "harmonic").shape == season_design(long).shape == (2, 3)
    assert season_design(long, "none").shape == (2, 1)


def test_choose_threshold_equals_median_plus_deviations():
    values = np.exp(np.random.default_rng(0).normal(2, 0.4, 20_000))
    expected = np.exp(2 + 2.5 * 0.4)
    assert choose_threshold([values[:5000], values[5000:]]) == pytest.approx(expected, rel=0.05)
    # A fifth of the pixels with breaks hardly raise it.
    with_breaks = np.concatenate([values, np.full(5000, 500.0), np.zeros(9999)])
    assert choose_threshold([with_breaks]) < 1.6 * expected
    assert choose_threshold([np.full(50, 2.0)]) == choose_threshold([np.zeros(3)]) == 10


# Maps

SQUARE = slice(24, 56), slice(32, 64)


@pytest.fixture(scope="module")
def encoder():
    return hub.wrap(DisentangledSITS(ModelConfig(width=2, padding="context")), "shared")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A wood that is felled in a square on the ninth of 16 dates, and its truth."""
    truth = make_series(200, height=80, width=96, num_dates=13, num_cloudy=3)
    rng = np.random.default_rng(0)
    gain = rng.uniform(0.85, 1.15, (16, 1, 1, 1))
    images = gain * (1000 + 300 * rng.random((80, 96, 4))) + rng.normal(0, 10, (16, 80, 96, 4))
    images[8:, SQUARE[0], SQUARE[1]] *= (1.5, 1.4, 1.7, 0.5)
    images[truth.clouds] = 9000
    states = np.full((16, 80, 96), STATES.index("forest"), np.uint8)
    states[8:, SQUARE[0], SQUARE[1]] = STATES.index("clear_cut")
    truth = dataclasses.replace(truth, images=images.astype(np.uint16), states=states)
    return truth, write_series(truth, tmp_path_factory.mktemp("series") / "place")


@pytest.fixture(scope="module")
def written(place, encoder, tmp_path_factory):
    out = tmp_path_factory.mktemp("maps") / "breaks.tif"
    return map_breaks(place[1], out, encoder, picture=out.with_suffix(".png")), out


def test_map_breaks_finds_the_felled_square(place, written):
    truth, folder = place
    done, out = written
    with rasterio.open(out) as source:
        assert source.descriptions == series.BANDS
        assert source.tags()["season"] == "none"
        found, magnitude, recovered, num_clear, strength = source.read()
    assert read_info(out).grid == read_info(folder / f"{truth.dates[0]}.tif").grid
    np.testing.assert_array_equal(num_clear, (~truth.clouds).sum(axis=0))
    codes = [date.year * 1000 + date.timetuple().tm_yday for date in truth.dates]
    assert set(np.unique(found)) <= {0, *codes}
    np.testing.assert_array_equal(found > 0, strength > done.threshold)
    is_true = truth.breaks() >= 0
    hit = is_true & (found > 0)
    assert hit.sum() > 0.95 * is_true.sum()
    assert np.mean(found[~is_true] > 0) < 0.05  # a few beside the square, which layers see
    # Rank among a pixel's clear dates of the break, and of the first clear date after the true one.
    rank = (~truth.clouds).cumsum(axis=0)
    index = np.searchsorted(codes, found[hit])
    late = np.take_along_axis(rank, np.maximum(truth.breaks(), 0)[None], axis=0)[0][hit]
    cloudy = np.take_along_axis(truth.clouds, np.maximum(truth.breaks(), 0)[None], axis=0)[0][hit]
    error = np.abs(rank[index, *np.nonzero(hit)] - late - cloudy)
    assert np.median(error) == 0
    assert np.mean(error <= 1) > 0.95
    assert (magnitude[hit] > 0).all()
    assert set(np.unique(recovered)) <= {0, 1}
    assert done.changed_fraction == pytest.approx(np.mean(found > 0))
    assert sum(done.fractions) == pytest.approx(done.changed_fraction)
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_map_breaks_in_tiles_gives_the_same_map(place, written, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(series, "_FEATURE_BYTES", 1)
    out = tmp_path / "tiled.tif"
    map_breaks(place[1], out, encoder)
    with rasterio.open(out) as tiled, rasterio.open(written[1]) as whole:
        one, other = tiled.read(), whole.read()
    # The scene is sampled at other pixels.
    assert np.mean(one[0] == other[0]) > 0.97
    assert np.corrcoef(one[4].ravel(), other[4].ravel())[0, 1] > 0.95


def test_map_breaks_same_seed_gives_same_bytes(place, written, encoder, tmp_path):
    map_breaks([place[1]], tmp_path / "again.tif", encoder)
    assert (tmp_path / "again.tif").read_bytes() == written[1].read_bytes()


def test_map_breaks_given_threshold_and_missing_data_are_applied(place, encoder, tmp_path):
    truth, folder = place
    copy = tmp_path / "place"
    shutil.copytree(folder, copy)
    for date in truth.dates:
        with rasterio.open(copy / f"{date}.tif", "r+") as image:
            values = image.read()
            values[:, :10, :10] = 0
            image.write(values)
    done = map_breaks(copy, tmp_path / "out.tif", encoder, threshold=1e9)
    assert (done.threshold, done.changed_fraction, done.recovered_fraction) == (1e9, 0, 0)
    with rasterio.open(tmp_path / "out.tif") as source:
        bands = source.read()
    np.testing.assert_array_equal(np.isnan(bands[0, :10, :10]), True)
    assert np.isfinite(bands[:, 20:, 20:]).all()
    assert not bands[0, 20:, 20:].any()


def test_series_tiles_offset_of_some_dates_is_reported(encoder, tmp_path):
    truth = make_series(0, height=64, width=64, num_dates=4, num_cloudy=0)
    images = np.random.default_rng(0).integers(300, 3000, truth.images.shape).astype(np.uint16)
    images[2:] += 1000
    write_series(dataclasses.replace(truth, images=images), tmp_path / "lake")
    (lake,) = read_sources(tmp_path / "lake")
    with (
        pytest.warns(UserWarning, match=rf"no reflectance is below 0\.1 on {truth.dates[2]}, "),
        series.SeriesTiles(lake.granules, encoder),
    ):
        pass


# Bad input


def test_map_breaks_of_other_sources_is_refused(place, encoder, tmp_path, tiny_series):
    out = tmp_path / "out.tif"
    with pytest.raises(DataError, match=r"Expected one series\. Received: 2: a, b\."):
        map_breaks(tiny_series, out, encoder)
    with pytest.raises(DataError, match=r"a has 3 dates\. Expected at least 4\. For two dates"):
        map_breaks(tiny_series / "a", out, encoder)
    with pytest.raises(MissingError):
        map_breaks(tmp_path / "none", out, encoder)
    date = place[0].dates[0]
    with pytest.raises(ExistsError, match="is also an input"):
        map_breaks(place[1], place[1] / f"{date}.tif", encoder, overwrite=True)
    copy = tmp_path / "place"
    shutil.copytree(place[1], copy)
    other = make_series(1, height=64, width=64, num_dates=2, num_cloudy=0)
    write_series(other, tmp_path / "other")
    shutil.copy(tmp_path / "other" / f"{other.dates[0]}.tif", copy / f"{place[0].dates[3]}.tif")
    shutil.copy(
        tmp_path / "other" / f"{other.dates[0]}_cloud.tif",
        copy / f"{place[0].dates[3]}_cloud.tif",
    )
    with pytest.raises(DataError, match="are not on the same grid"):
        map_breaks(copy, out, encoder)
    assert not out.exists()


def test_map_breaks_of_cloudy_dates_is_refused(place, encoder, tmp_path):
    copy = tmp_path / "place"
    shutil.copytree(place[1], copy)
    for date in place[0].dates[2:]:
        with rasterio.open(copy / f"{date}_cloud.tif", "r+") as mask:
            mask.write(np.ones((1, 80, 96), np.uint8))
    with pytest.raises(DataError, match="has 2 dates with at least 100 clear pixels"):
        map_breaks(copy, tmp_path / "out.tif", encoder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"season": "yearly"}, "season must be 'auto', 'none' or 'harmonic'. Received: 'yearly'"),
        ({"threshold": -1}, "must be 'auto' or a number of at least 0. Received: -1"),
        ({"threshold": "high"}, "Received: 'high'"),
    ],
)
def test_map_breaks_argument_out_of_range_is_refused(options, message, encoder, tmp_path):
    with pytest.raises(ConfigError, match=message):
        map_breaks("none", tmp_path / "out.tif", encoder, **options)
