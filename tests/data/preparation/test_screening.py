import datetime
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sits_keras.config import PrepareConfig
from sits_keras.data.preparation.screening import Coverage, rejection, spread_over_period

PAPER = PrepareConfig()
date_lists = st.sets(
    st.dates(datetime.date(2016, 1, 1), datetime.date(2024, 12, 31)), min_size=2, max_size=60
).map(sorted)


def days(*numbers):
    return [datetime.date(2020, 1, 1) + datetime.timedelta(number) for number in numbers]


def test_shares_of_a_granule():
    coverage = Coverage(pixels=200, valid=150, cloudy=30)
    assert coverage.complete == 0.75
    assert coverage.cloud == 0.2


def test_granule_without_a_valid_pixel_is_all_cloud():
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
def test_thresholds_of_the_paper(coverage, expected):
    assert rejection(coverage, PAPER) == expected


def test_cloud_is_a_share_of_the_valid_pixels():
    config = PrepareConfig(max_cloud=0.5, min_complete=0.0)
    assert rejection(Coverage(pixels=100, valid=10, cloudy=5), config) is None
    assert rejection(Coverage(pixels=100, valid=10, cloudy=6), config) == "cloud 60.00% > 50.00%"


def test_loosest_options_take_even_what_holds_no_data():
    assert rejection(Coverage(9, 0, 0), PrepareConfig(max_cloud=1.0, min_complete=0.0)) is None


@given(date_lists, st.integers(2, 20))
def test_chosen_dates_are_ascending_distinct_and_as_many_as_asked(dates, count):
    chosen = spread_over_period(dates, count)
    assert len(chosen) == min(count, len(dates))
    assert all(a < b for a, b in itertools.pairwise(chosen))


@given(date_lists, st.integers(2, 20))
def test_first_and_last_date_are_kept(dates, count):
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
def test_known_choices(dates, count, expected):
    assert spread_over_period(dates, count) == expected


def test_sentinel_2_every_five_days_gives_one_date_a_month():
    dates = days(*range(0, 365, 5))  # 73 dates, the last on day 360
    chosen = spread_over_period(dates, 13)
    assert [dates[index] for index in chosen] == days(*range(0, 361, 30))
