import datetime
import itertools
import warnings

import numpy as np
import pytest
import rasterio
from conftest import UTM
from hypothesis import given
from hypothesis import strategies as st

from sits_keras.config import PrepareConfig
from sits_keras.data.preparation.pipeline import inspect
from sits_keras.data.preparation.screening import (
    Coverage,
    find_masks,
    mask_messages,
    rejection,
    spread_over_period,
)
from sits_keras.data.rasters.read import Grid, write_raster

PAPER = PrepareConfig()
date_lists = st.sets(
    st.dates(datetime.date(2016, 1, 1), datetime.date(2024, 12, 31)), min_size=2, max_size=60
).map(sorted)


def days(*numbers):
    return [datetime.date(2020, 1, 1) + datetime.timedelta(number) for number in numbers]


def test_coverage_fractions_are_of_all_and_of_valid_pixels():
    coverage = Coverage(pixels=200, valid=150, cloudy=30)
    assert coverage.complete == 0.75
    assert coverage.cloud == 0.2


def test_coverage_without_valid_pixel_is_all_cloud():
    assert Coverage(pixels=10, valid=0, cloudy=0).cloud == 1


@pytest.mark.parametrize(
    ("coverage", "expected"),
    [
        (Coverage(10_000, 10_000, 0), None),
        (Coverage(10_000, 8500, 0), None),
        (Coverage(10_000, 8499, 0), "complete 84.99% < 85.00%"),
        (Coverage(10_000, 5000, 0), "complete 50.00% < 85.00%"),
        (Coverage(10_000, 10_000, 200), None),
        (Coverage(10_000, 10_000, 201), "cloud 2.01% > 2.00%"),
        (Coverage(10_000, 10_000, 4210), "cloud 42.10% > 2.00%"),
        (Coverage(10_000, 9000, 181), "cloud 2.01% > 2.00%"),
        (Coverage(10_000, 9000, 180), None),
        (Coverage(10_000, 0, 0), "complete 0.00% < 85.00%"),
    ],
)
def test_rejection_thresholds_of_the_paper(coverage, expected):
    assert rejection(coverage, PAPER) == expected


def test_rejection_cloud_is_a_fraction_of_the_valid_pixels():
    config = PrepareConfig(max_cloud=0.5, min_complete=0.0)
    assert rejection(Coverage(pixels=100, valid=10, cloudy=5), config) is None
    assert rejection(Coverage(pixels=100, valid=10, cloudy=6), config) == "cloud 60.00% > 50.00%"


def test_rejection_loosest_options_pass_without_data():
    assert rejection(Coverage(9, 0, 0), PrepareConfig(max_cloud=1.0, min_complete=0.0)) is None


@given(date_lists, st.integers(2, 20))
def test_spread_over_period_dates_are_ascending_distinct_and_as_many_as_asked(dates, count):
    chosen = spread_over_period(dates, count)
    assert len(chosen) == min(count, len(dates))
    assert all(a < b for a, b in itertools.pairwise(chosen))


@given(date_lists, st.integers(2, 20))
def test_spread_over_period_keeps_first_and_last_date(dates, count):
    chosen = spread_over_period(dates, count)
    assert chosen[0] == 0
    assert chosen[-1] == len(dates) - 1


@pytest.mark.parametrize(
    ("dates", "count", "expected"),
    [
        (days(), 3, []),
        (days(5), 3, [0]),
        (days(0, 1, 2), 3, [0, 1, 2]),
        (days(0, 40, 100), 2, [0, 2]),
        # nearest to 0, 50, 100
        (days(0, 10, 45, 60, 100), 3, [0, 2, 4]),
        # nearest to 0, 33.3, 66.7, 100; the gap has no date, so its neighbours are taken
        (days(0, 1, 2, 97, 98, 100), 4, [0, 2, 3, 5]),
        # nearest to 25, 50 and 75 is each time the last but one: earlier ones must not use it up
        (days(0, 96, 97, 98, 99, 100), 5, [0, 1, 2, 3, 5]),
        (days(0, 30, 60, 90, 120, 150, 180, 210, 240), 3, [0, 4, 8]),
    ],
)
def test_spread_over_period_known_choices(dates, count, expected):
    assert spread_over_period(dates, count) == expected


def test_spread_over_period_every_five_days_gives_one_date_a_month():
    dates = days(*range(0, 365, 5))  # 73 dates, the last on day 360
    chosen = spread_over_period(dates, 13)
    assert [dates[index] for index in chosen] == days(*range(0, 361, 30))


BANDS = ("B02", "B03", "B04", "B08")


def land(brightness=1.0):
    """Digital numbers of squares of 8 pixels, reflectance 0.02 to 0.45."""
    squares = np.random.default_rng(0).uniform(200, 4500, (8, 8, 4)) * brightness
    return np.rint(np.kron(squares, np.ones((8, 8, 1)))).astype(np.uint16)


def messages_of(folder, dates, tags=None):
    """Warnings of `inspect` about a folder of dated images."""
    folder.mkdir()
    for day, values in dates.items():
        path = folder / f"{day}.tif"
        write_raster(path, values, BANDS, Grid(64, 64, "EPSG:32631", UTM))
        if tags:
            with rasterio.open(path, "r+") as raster:
                raster.scales, raster.offsets = (tags[0],) * 4, (tags[1],) * 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        rows = inspect([folder], progress=False)
    return rows, [str(one.message) for one in caught if one.category is UserWarning]


def test_inspect_plausible_values_cause_no_warning(tmp_path):
    snow = land() + np.uint16(8000)
    assert messages_of(tmp_path / "a", {"2020-01-01": land(), "2020-02-01": snow})[1] == []
    bright_desert = {f"2020-0{month}-01": land() + np.uint16(1500) for month in (1, 2)}
    assert messages_of(tmp_path / "b", bright_desert)[1] == []


@pytest.mark.parametrize("fill", [-9999, -10_000, 9.96921e36, np.float32(-3.4028235e38), 0, -1])
def test_inspect_undeclared_fill_value_is_missing_and_named(tmp_path, fill):
    reflectance = (land() / 10_000).astype(np.float32)
    half = reflectance.copy()
    half[:, :32] = fill
    dates = {"2020-01-01": reflectance, "2020-02-01": half}
    rows, (message,) = messages_of(tmp_path / "lake", dates)
    assert [row["complete"] for row in rows] == [1, 0.5]
    assert "2020-02-01.tif: 50.0% are such as " in message
    assert "2020-01-01" not in message
    assert "Declare the fill value (gdal_edit.py -a_nodata VALUE FILE)" in message


@pytest.mark.parametrize(
    ("values", "tags", "words"),
    [
        (land(0.4), (1e-4, -0.1), "(scale 0.0001, offset -0.1: the raster's own tags)"),
        ((land() / 10_000).astype(np.float32), (1e-4, 0.0), "100.0% of B02 (scale 0.0001"),
    ],
)
def test_inspect_values_clipped_at_zero_are_named_with_their_offset(tmp_path, values, tags, words):
    dates = dict.fromkeys(("2020-01-01", "2020-02-01"), values)
    _, (message,) = messages_of(tmp_path / "lake", dates, tags)
    assert "stored as 0.0001" in message
    assert "2020-01-01.tif: " in message
    assert "2020-02-01.tif: " in message
    assert words in message


def test_inspect_offset_instead_of_scale_is_reported(tmp_path):
    dates = dict.fromkeys(("2020-01-01", "2020-02-01"), land())
    rows, (message,) = messages_of(tmp_path / "lake", dates, (1e-4, -1000))
    assert rows[0]["complete"] == 0
    assert "offset -1000: the raster's own tags" in message


def test_inspect_integers_that_wrapped_around_are_reported(tmp_path):
    wrapped = land(0.4) - np.uint16(1000)
    _, messages = messages_of(tmp_path / "lake", {"2020-01-01": wrapped, "2020-02-01": land()})
    (message,) = [one for one in messages if "wrapped around" in one]
    assert "Reflectance is above 3" in message
    assert "2020-01-01.tif" in message


def test_inspect_percent_that_passes_is_reported(tmp_path):
    percent = (land(0.2) / 100).astype(np.float32)
    _, messages = messages_of(tmp_path / "lake", dict.fromkeys(("2020-01-01",), percent))
    assert any("Divide percent by 100" in one for one in messages)


def test_inspect_zeros_in_one_band_are_reported(tmp_path):
    lake = land()
    lake[:6, :, 3] = 0
    rows, (message,) = messages_of(tmp_path / "lake", {"2020-01-01": lake, "2020-02-01": land()})
    assert rows[0]["complete"] == pytest.approx(1 - 6 / 64)
    assert "0 in some bands, but not in all" in message


@pytest.mark.parametrize(
    "lifted", [("2022-02-01", "2022-03-01"), ("2019-01-01", "2021-01-01"), ("2020-06-01",)]
)
def test_inspect_dates_with_an_offset_are_named_in_any_order(tmp_path, lifted):
    days = sorted({"2018-01-01", "2020-01-01", "2023-01-01", *lifted})
    dates = {day: land(0.9) + np.uint16(1000 * (day in lifted)) for day in days}
    _, (message,) = messages_of(tmp_path / "lake", dates)
    assert f"lake: no reflectance is below 0.1 on {', '.join(lifted)}, but" in message
    assert "3 other dates" in message
    assert "state such a baseline" not in message


def test_inspect_haze_between_clouds_is_not_an_offset(tmp_path):
    clouds = np.ones((64, 64, 1), np.uint8)
    clouds[:8] = 0
    folder, grid = tmp_path / "lake", Grid(64, 64, "EPSG:32631", UTM)
    folder.mkdir()
    write_raster(folder / "2020-01-01.tif", land(0.9), BANDS, grid)
    write_raster(folder / "2020-02-01.tif", land(0.9) + np.uint16(1000), BANDS, grid)
    write_raster(folder / "2020-02-01_cloud.tif", clouds, ["cloud"], grid)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        inspect([folder], progress=False)


def masked(folder, dates, names, mask_file=None):
    """Rows and warnings of `inspect` about images whose last bands are masks."""
    folder.mkdir()
    for day, masks in dates.items():
        grid = Grid(64, 64, "EPSG:32631", UTM)
        bands = [np.full((64, 64, 1), value, np.uint16) for value in masks]
        values = np.concatenate([land(), *bands], axis=-1)
        write_raster(folder / f"{day}.tif", values, (*BANDS, *names), grid)
        if mask_file is not None:
            write_raster(folder / f"{day}_cloud.tif", mask_file, ("cloud",), grid)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        rows = inspect([folder], progress=False)
    return rows, [str(one.message) for one in caught if one.category is UserWarning]


def test_inspect_empty_qa60_of_the_known_period_is_not_a_mask(tmp_path):
    dates = {"2021-06-01": [0], "2021-07-01": [1024], "2022-06-01": [0], "2023-06-01": [0]}
    rows, messages = masked(tmp_path / "lake", dates, ["QA60"])
    assert [row["mask"] for row in rows] == ["QA60", "QA60", "none", "none"]
    assert [row["cloud"] for row in rows] == [0, 1, 0, 0]
    (message,) = messages
    assert "the cloud mask is empty on 2022-06-01, 2023-06-01" in message


@pytest.mark.parametrize(
    "names", [("MSK_CLASSI_OPAQUE", "MSK_CLASSI_CIRRUS"), ("msk_classi_opaque",)]
)
def test_inspect_classification_bands_are_a_mask(tmp_path, names):
    dates = {"2023-06-01": [0] * len(names), "2023-07-01": [1] + [0] * (len(names) - 1)}
    rows, messages = masked(tmp_path / "pond", dates, names)
    assert [(row["mask"], row["cloud"]) for row in rows] == [("MSK_CLASSI", 0), ("MSK_CLASSI", 1)]
    assert messages == []


@pytest.mark.parametrize("name", ["scl", "SCL"])
def test_inspect_scene_classification_in_any_case_is_a_mask(tmp_path, name):
    rows, _ = masked(tmp_path / "lake", {"2023-06-01": [4], "2023-07-01": [9]}, [name])
    assert [(row["mask"], row["cloud"]) for row in rows] == [("SCL", 0), ("SCL", 1)]


def test_inspect_scene_classification_without_content_is_not_a_mask(tmp_path):
    rows, messages = masked(tmp_path / "lake", {"2023-06-01": [0], "2023-07-01": [4]}, ["SCL"])
    assert [row["mask"] for row in rows] == ["none", "SCL"]
    assert [row["complete"] for row in rows] == [1, 1]
    assert "the cloud mask is empty on 2023-06-01" in messages[0]


def test_inspect_interpolated_scene_classification_is_refused(tmp_path):
    rows, _ = masked(tmp_path / "lake", {"2023-06-01": [12], "2023-07-01": [4]}, ["SCL"])
    assert "It was interpolated or scaled" in rows[0]["kept"]
    assert rows[1]["mask"] == "SCL"


def test_inspect_mask_of_the_user_counts_beside_a_band(tmp_path):
    mask = np.zeros((64, 64, 1), np.uint8)
    mask[:32] = 1
    dates = {"2023-06-01": [4], "2023-07-01": [9]}
    rows, _ = masked(tmp_path / "lake", dates, ["SCL"], mask)
    assert [(row["mask"], row["cloud"]) for row in rows] == [("mask+SCL", 0.5), ("mask+SCL", 1)]


def test_inspect_band_like_a_mask_is_reported(tmp_path):
    rows, messages = masked(tmp_path / "lake", {"2023-06-01": [1], "2023-07-01": [1]}, ["CLM"])
    assert [row["mask"] for row in rows] == ["none", "none"]
    assert any("bands CLM look like cloud masks, but are not read" in one for one in messages)


def test_find_masks_prefers_the_scene_classification():
    names = ("B02", None, "QA60", "scl", "MSK_CLASSI_CIRRUS")
    assert find_masks(names) == ({"SCL": (4,)}, ())
    assert find_masks((*names[:3], "x", names[4]))[0] == {"MSK_CLASSI": (5,), "QA60": (3,)}


@pytest.mark.parametrize(
    ("cloudy", "reported"),
    [
        ("11000", True),
        ("10100", False),
        ("00000", True),
        ("0000", False),
        ("11100", False),
        ("111110000", True),
    ],
)
def test_mask_messages_masks_that_mark_nothing_from_a_day_on_are_reported(cloudy, reported):
    dates = [
        (datetime.date(2020, 1, day), "mask", Coverage(100, 100, 30 * int(one)))
        for day, one in enumerate(cloudy, start=1)
    ]
    assert bool(mask_messages("lake", dates, ())) is reported


@pytest.mark.parametrize(
    ("source", "count", "reported"), [("mask", 5, True), ("QA60", 5, True), ("mask", 4, False)]
)
def test_mask_messages_masks_that_never_mark_anything_are_reported(source, count, reported):
    dates = [
        (datetime.date(2020, 1, day), source, Coverage(100, 100, 0)) for day in range(1, count + 1)
    ]
    assert bool(mask_messages("lake", dates, ())) is reported
    clear = [(date, "SCL", coverage) for date, _, coverage in dates]
    assert not mask_messages("lake", clear, ())
