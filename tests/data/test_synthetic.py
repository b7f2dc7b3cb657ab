import dataclasses
import datetime

import numpy as np
import pytest
from scipy import ndimage

from sits_keras.data.rasters.read import Grid, read_info, read_mask, read_stored
from sits_keras.data.sources.series import find_series
from sits_keras.data.synthetic import (
    GROUND,
    ROWS,
    SPECTRA,
    STATES,
    SUPPORTED_BANDS,
    TEXTURE,
    SyntheticSeries,
    make_series,
    write_series,
)
from sits_keras.errors import ConfigError

SIZE = 96
SEEDS = (0, 1, 2, 3)
CROPS = tuple(STATES.index(n) for n in ("bare_soil", "growing_crop", "ripe_crop", "stubble"))


def state(name):
    return STATES.index(name)


@pytest.fixture(scope="module")
def many():
    """A cloudless series per seed."""
    return [make_series(seed, height=SIZE, width=SIZE, num_cloudy=0) for seed in SEEDS]


@pytest.fixture(scope="module")
def cloudy():
    return make_series(5, height=SIZE, width=SIZE, num_dates=8, num_cloudy=6)


@pytest.fixture(scope="module")
def cleared():
    """The series of ``cloudy`` under a clear sky."""
    return make_series(5, height=SIZE, width=SIZE, num_dates=14, num_cloudy=0)


def assert_equal_series(one, other):
    for field in dataclasses.fields(SyntheticSeries):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def inner(mask):
    """Pixels whose neighbours are in the mask too, so that the point spread brings in nothing."""
    return ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=1)


def ndvi(image):
    """NDVI of an image in the default bands."""
    red, infrared = image[..., 2].astype(float), image[..., 3].astype(float)
    return (infrared - red) / (infrared + red)


# Reproducibility


def test_make_series_equal_arguments_give_equal_series():
    one = make_series(11, height=64, width=80, num_dates=3, num_cloudy=2)
    make_series(12, height=64, width=64, num_dates=2, num_cloudy=1)
    other = make_series(11, height=64, width=80, num_dates=3, num_cloudy=2)
    assert_equal_series(one, other)


def test_make_series_seeds_give_different_places(many):
    for index, one in enumerate(many):
        for other in many[:index]:
            assert one.dates != other.dates
            # Parcel ids mean nothing across places, but their borders do.
            edges = [np.diff(series.parcels, axis=0) != 0 for series in (one, other)]
            overlap = (edges[0] & edges[1]).sum() / (edges[0] | edges[1]).sum()
            assert overlap < 0.3
            assert (one.states[0] != other.states[0]).mean() > 0.3


def test_make_series_geometry_depends_on_seed_and_size_alone(many):
    other = make_series(
        SEEDS[0],
        height=SIZE,
        width=SIZE,
        num_dates=3,
        num_cloudy=2,
        start=datetime.date(2020, 6, 1),
        bands=("B11",),
    )
    np.testing.assert_array_equal(other.parcels, many[0].parcels)
    for name in ("water", "road", "town"):
        np.testing.assert_array_equal(
            other.states[0] == state(name), many[0].states[0] == state(name)
        )


# Shapes, types, dates


@pytest.mark.parametrize("bands", [("B02", "B03", "B04", "B08"), SUPPORTED_BANDS, ["B8A"]])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 101)])
def test_make_series_shapes_and_types(height, width, bands):
    series = make_series(3, height=height, width=width, num_dates=3, num_cloudy=1, bands=bands)
    assert series.images.shape == (4, height, width, len(bands))
    assert series.images.dtype == np.uint16
    assert series.images.min() >= 1
    assert series.clouds.shape == series.states.shape == (4, height, width)
    assert series.clouds.dtype == np.bool_
    assert series.states.dtype == np.uint8
    assert series.states.max() < len(STATES)
    assert series.parcels.shape == (height, width)
    assert series.parcels.dtype == np.int32
    ids = np.unique(series.parcels)
    np.testing.assert_array_equal(ids, np.arange(len(ids)))
    assert series.bands == tuple(bands)
    assert len(series.dates) == 4


def test_make_series_darkest_pixel_is_not_nodata(monkeypatch):
    monkeypatch.setitem(SPECTRA, "water", (-0.1,) * len(SUPPORTED_BANDS))
    assert make_series(2, height=SIZE, width=SIZE, num_dates=2).images.min() == 1


def test_make_series_series_is_frozen(cloudy):
    with pytest.raises(dataclasses.FrozenInstanceError):
        cloudy.images = cloudy.images


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_dates", [2, 12])
def test_make_series_dates_spread_irregularly_over_more_than_a_year(seed, num_dates):
    start = datetime.date(2019, 3, 3)
    dates = make_series(
        seed, height=64, width=64, num_dates=num_dates, num_cloudy=0, start=start
    ).dates
    steps = np.diff([day.toordinal() for day in dates])
    assert dates[0] == start
    assert len(dates) == num_dates
    assert (steps > 0).all()
    assert 400 <= steps.sum() <= 660
    assert num_dates == 2 or len(set(steps.tolist())) > 3


def test_make_series_many_dates_stay_distinct():
    series = make_series(0, height=64, width=64, num_dates=400, num_cloudy=0)
    assert len(set(series.dates)) == 400
    assert list(series.dates) == sorted(series.dates)


# Clouds


def test_make_series_pixels_outside_the_cloud_mask_are_those_of_a_clear_sky(cloudy, cleared):
    assert cloudy.dates == cleared.dates
    np.testing.assert_array_equal(cloudy.states, cleared.states)
    assert not cleared.clouds.any()
    altered = (cloudy.images != cleared.images).any(axis=-1)
    assert altered.any()
    assert not (altered & ~cloudy.clouds).any()


def test_make_series_cloud_mask_is_not_wider_than_the_clouds(cloudy, cleared):
    difference = np.abs(cloudy.images.astype(int) - cleared.images).max(axis=-1)
    assert (difference[cloudy.clouds] > 50).mean() > 0.9


def test_make_series_clouds_are_brighter_and_shadows_darker(cloudy, cleared):
    difference = (cloudy.images.astype(int) - cleared.images).mean(axis=-1)
    assert (difference > 2000).mean() > 0.03
    assert (difference < -100).mean() > 0.03


@pytest.mark.parametrize("seed", range(4))
def test_make_series_cover_of_cloudy_dates(seed):
    series = make_series(seed, height=64, width=90, num_dates=2, num_cloudy=5)
    cover = series.clouds.mean(axis=(1, 2))
    assert (cover == 0).sum() == 2
    assert ((cover > 0.1) & (cover < 0.6)).sum() == 5


def test_clear_dates_are_those_below_the_cloud_limit(cloudy):
    cover = cloudy.clouds.mean(axis=(1, 2))
    clear = cloudy.clear_dates()
    assert len(clear) == 8
    assert list(clear) == sorted(clear)
    assert all(cover[index] == 0 for index in clear)
    assert cloudy.clear_dates(1.0) == tuple(range(14))
    thinnest = cover[cover > 0].min()
    assert len(cloudy.clear_dates(thinnest)) == 9
    assert len(cloudy.clear_dates(thinnest - 1e-9)) == 8


# Truth


def test_changed_between_two_dates_compares_states(many):
    for series in many:
        expected = [
            [int(a) != int(b) for a, b in zip(*rows, strict=True)]
            for rows in zip(series.states[1], series.states[5], strict=True)
        ]
        changed = series.changed(1, 5)
        assert changed.dtype == np.bool_
        np.testing.assert_array_equal(changed, expected)
        np.testing.assert_array_equal(changed, series.changed(5, 1))
        assert 0.05 < changed.mean() < 0.9
        assert not series.changed(4, 4).any()


def test_breaks_are_the_first_dates_of_permanent_states(cloudy):
    found = cloudy.breaks()
    permanent = np.isin(cloudy.states, (state("clear_cut"), state("construction")))
    for date in range(len(cloudy.dates)):
        np.testing.assert_array_equal((found >= 0) & (found <= date), permanent[date])
    assert 0 < np.mean(found > 0) < 0.5
    assert len(np.unique(found)) >= 3  # none, the felling and the building


def test_changed_rejects_an_unknown_date(cloudy):
    with pytest.raises(IndexError):
        cloudy.changed(0, 14)


def test_make_series_parcel_has_one_state_at_a_time(many):
    for series in many:
        ids = series.parcels.ravel()
        for states in series.states:
            first = states.ravel()[np.unique(ids, return_index=True)[1]]
            np.testing.assert_array_equal(first[series.parcels], states)


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("seed", range(6))
def test_make_series_one_stand_is_felled_and_one_parcel_built_over_for_good(seed, size):
    series = make_series(seed, height=size, width=size, num_dates=2, num_cloudy=2)
    open_land = {state("grass"), *CROPS}
    for name, origin in (("clear_cut", {state("forest")}), ("construction", open_land)):
        there = series.states == state(name)
        assert not there[0].any()
        assert there[-1].sum() >= 40
        assert (there[1:] >= there[:-1]).all()
        assert len(np.unique(series.parcels[there[-1]])) == 1
        assert set(np.unique(series.states[0][there[-1]])) <= origin


def test_make_series_water_road_town_and_standing_forest_never_change(many):
    for series in many:
        for name in ("water", "road", "town"):
            there = series.states == state(name)
            assert there[0].any()
            assert (there == there[0]).all()
        forest = (series.states == state("forest")) | (series.states == state("clear_cut"))
        assert (forest == forest[0]).all()


def test_make_series_crops_follow_the_calendar():
    # Steps shorter than the shortest stage, so that no stage is skipped.
    series = make_series(4, height=128, width=128, num_dates=150, num_cloudy=0)
    steps = set(zip(series.states[:-1].ravel(), series.states[1:].ravel(), strict=True))
    bare, growing, ripe, stubble = CROPS
    moves = {(a, b) for a, b in steps if a != b and b in CROPS}
    assert moves == {(bare, growing), (growing, ripe), (ripe, stubble), (stubble, bare)} | {
        (growing, bare)  # beet
    }
    for day, states in zip(series.dates, series.states, strict=True):
        if day.month in (1, 2):  # winter crops are up, summer crops are not
            assert {bare, growing} <= set(np.unique(states)) & set(CROPS)
            assert not np.isin(states, (ripe, stubble)).any()


# Spectra


def test_make_series_ndvi_of_crops_and_water(many):
    seen = {"growing_crop": 0, "water": 0}
    for series in many:
        for image, states in zip(series.images, series.states, strict=True):
            index = ndvi(image)
            growing = inner(states == state("growing_crop"))
            water = inner(states == state("water"))
            if growing.sum() > 50:
                seen["growing_crop"] += 1
                assert np.median(index[growing]) > 0.6
                assert np.quantile(index[growing], 0.02) > 0.45
            if water.sum() > 50:
                seen["water"] += 1
                assert np.median(index[water]) < 0
            assert np.median(index[states == state("town")]) < 0.5
    assert seen["growing_crop"] > 30
    assert seen["water"] > 10


def test_make_series_forests_are_greener_in_summer(many):
    for series in many:
        infrared = {True: [], False: []}
        for day, image, states in zip(series.dates, series.images, series.states, strict=True):
            if day.month in (6, 7, 8, 12, 1, 2):
                value = image[..., 3][states == state("forest")].mean()
                infrared[day.month in (6, 7, 8)].append(value)
        assert min(infrared[True]) > 1.15 * max(infrared[False])


def test_make_series_bands_are_in_the_order_asked_for():
    series = make_series(
        2, height=SIZE, width=SIZE, num_dates=2, num_cloudy=0, bands=("B11", "B02", "B08")
    )
    swir, blue, infrared = np.moveaxis(series.images[0].astype(int), -1, 0)
    water = inner(series.states[0] == state("water"))
    assert water.sum() > 20
    assert (blue > infrared)[water].all()
    assert (infrared > swir)[water].mean() > 0.9
    bare = inner(series.states[0] == state("bare_soil"))
    assert np.median(swir[bare]) > np.median(infrared[bare]) > np.median(blue[bare])


def test_make_series_places_are_recognised_by_structure_rather_than_by_values(many):
    """Patches of all places: values find fewer of them again on other dates than outlines do."""
    num, cells = 32, SIZE // 32

    def patches(maps):
        tiles = maps.reshape(len(maps), cells, num, cells, num, -1).swapaxes(2, 3)
        return tiles.reshape(len(maps) * cells**2, -1)

    def outlines(date):
        logs = np.log(np.stack([s.images[date] for s in many]).astype(float))
        edges = np.hypot(*np.gradient(logs, axis=(1, 2))).sum(axis=-1) ** 0.5
        features = patches(edges)
        features -= features.mean(axis=1, keepdims=True)
        return features / np.linalg.norm(features, axis=1, keepdims=True)

    def values(date):
        return patches(np.stack([s.images[date] for s in many]).astype(float))

    truth = np.arange(len(SEEDS) * cells**2)
    by_outline, by_value = [], []
    for one in (0, 4, 8):
        for other in (2, 6, 10):
            similar = outlines(one) @ outlines(other).T
            distant = np.abs(values(one)[:, None] - values(other)[None]).mean(axis=-1)
            by_outline.append((similar.argmax(axis=1) == truth).mean())
            by_value.append((distant.argmin(axis=1) == truth).mean())
    assert np.mean(by_outline) > 0.85
    assert np.mean(by_value) < np.mean(by_outline) - 0.1


# Files


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A series with cloudy and clear dates, not square, and the folder that it is written to."""
    series = make_series(
        6, height=64, width=80, num_dates=2, num_cloudy=2, bands=("B11", "B02", "B08")
    )
    folder = tmp_path_factory.mktemp("synthetic") / "not" / "there" / "place"
    assert write_series(series, folder) == folder
    return series, folder


def test_write_series_written_series_is_found_with_its_dates(written):
    series, folder = written
    for source in (folder, folder.parent):
        (found,) = find_series([source])
        assert found.id == "place"
        assert [(one.date, one.image, one.mask.path) for one in found.granules] == [
            (date, f"{folder}/{date:%Y-%m-%d}.tif", f"{folder}/{date:%Y-%m-%d}_cloud.tif")
            for date in series.dates
        ]
    assert len(list(folder.iterdir())) == 2 * len(series.dates)


def test_write_series_written_series_reads_back_equal(written):
    series, folder = written
    covered = set()
    for date, image, clouds in zip(series.dates, series.images, series.clouds, strict=True):
        path, mask_path = folder / f"{date}.tif", folder / f"{date}_cloud.tif"
        np.testing.assert_array_equal(read_stored(path, series.bands), image)
        np.testing.assert_array_equal(read_stored(path, ("B08", "B11")), image[..., [2, 0]])
        np.testing.assert_array_equal(read_mask(mask_path), clouds)
        info = read_info(path)
        assert (set(info.dtypes), info.bands) == ({"uint16"}, series.bands)
        assert read_info(mask_path).dtypes == ("uint8",)
        covered.add(bool(clouds.any()))
    assert covered == {True, False}


def test_write_series_origin_sets_the_transform(written, tmp_path):
    series, folder = written
    name = f"{series.dates[0]}.tif"
    here = Grid(64, 80, "EPSG:32631", (10.0, 0.0, 600000.0, 0.0, -10.0, 5000000.0))
    assert {read_info(path).grid for path in folder.iterdir()} == {here}
    write_series(series, tmp_path, origin=(400000.0, 5200000.0))
    there = here._replace(transform=(10.0, 0.0, 400000.0, 0.0, -10.0, 5200000.0))
    assert read_info(tmp_path / name).grid == there


def test_write_series_rewritten_replaces_files_of_the_same_dates(written, tmp_path, listing):
    series, folder = written
    write_series(dataclasses.replace(series, images=series.images + 1), tmp_path)
    write_series(series, tmp_path)
    assert listing(tmp_path) == listing(folder)
    image = read_stored(tmp_path / f"{series.dates[-1]}.tif", series.bands)
    np.testing.assert_array_equal(image, series.images[-1])


# Errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"height": 63}, ["height", "64", "63"]),
        ({"width": 10}, ["width", "64", "10"]),
        ({"num_dates": 1}, ["num_dates", "2", "1"]),
        ({"num_cloudy": -1}, ["num_cloudy", "0", "-1"]),
        ({"seed": -3}, ["seed", "0", "-3"]),
        ({"bands": ("B02", "B99")}, [*SUPPORTED_BANDS, "B99"]),
        ({"bands": ("B02", "B02")}, [*SUPPORTED_BANDS, "('B02', 'B02')"]),
        ({"bands": ()}, [*SUPPORTED_BANDS, "()"]),
        ({"bands": "B02"}, [*SUPPORTED_BANDS, "'0'"]),
    ],
)
def test_make_series_arguments_out_of_range(arguments, said):
    with pytest.raises(ConfigError) as caught:
        make_series(**({"seed": 0} | arguments))
    assert all(part in str(caught.value) for part in said)


def test_make_series_smallest_arguments_are_accepted():
    series = make_series(0, height=64, width=64, num_dates=2, num_cloudy=0)
    assert len(series.dates) == 2


# Tables


def test_make_series_every_state_has_a_spectrum_and_a_texture():
    for table in (TEXTURE, ROWS, GROUND):
        assert len(table) == len(STATES)
    for spectrum in SPECTRA.values():
        assert len(spectrum) == len(SUPPORTED_BANDS)
