import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sits_keras.data.radiometry import (
    network_gain,
    reflectance_from_network,
    to_network,
    to_stored,
    true_colour,
)

# Stored values 0, 1500, 3000 of a band that ends at 0.3; 0, 3000, 6000 of one that ends at 0.6.
BAND_MAX = (0.3, 0.6)


@pytest.mark.parametrize(
    ("reflectance", "stored"),
    [
        (0.25, 2500),
        (1.0, 10_000),
        (0.12344, 1234),
        (0.12346, 1235),
        (6.5535, 65_535),
        (9.0, 65_535),
        (0.0, 1),
        (-0.02, 1),
        (0.00004, 1),
    ],
)
def test_valid_reflectance_is_stored_in_ten_thousandths_from_1_to_65535(reflectance, stored):
    result = to_stored(np.array([reflectance]), np.array([True]))
    assert result.dtype == np.uint16
    assert result == [stored]


def test_what_is_not_valid_is_stored_as_0_whatever_it_is():
    reflectance = np.array([0.5, np.nan, np.inf, -9999.0])
    np.testing.assert_array_equal(to_stored(reflectance, np.zeros(4, bool)), np.zeros(4))


def test_quantification_is_the_stored_value_of_reflectance_1():
    assert to_stored(np.array([1.0]), np.array([True]), quantification=1000) == [1000]


@given(st.integers(1, 65_535))
def test_stored_values_come_back_from_reflectance(value):
    assert to_stored(np.array([value / 10_000]), np.array([True])) == [value]


def test_gain_takes_the_band_maximum_to_1():
    gain = network_gain(BAND_MAX)
    assert gain.dtype == np.float32
    np.testing.assert_allclose(gain, [2 / 3000, 2 / 6000], rtol=1e-6)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ((1500, 3000), (0.0, 0.0)),
        ((3000, 6000), (1.0, 1.0)),
        ((750, 4500), (-0.5, 0.5)),
        ((3001, 65_535), (1.0, 1.0)),
        ((0, 0), (-1.0, -1.0)),
    ],
)
def test_network_values_are_linear_by_band_and_clipped(stored, expected):
    values = to_network(np.array([[stored]], np.uint16), BAND_MAX)
    assert values.dtype == np.float32
    assert values.shape == (1, 1, 2)
    np.testing.assert_allclose(values[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"), [((-1, -1), (0, 0)), ((0, 0.5), (0.15, 0.45)), ((1, 1), (0.3, 0.6))]
)
def test_network_values_are_reflectance_again(values, expected):
    reflectance = reflectance_from_network(np.array(values, np.float32), BAND_MAX)
    assert reflectance.dtype == np.float32
    np.testing.assert_allclose(reflectance, expected, atol=1e-7)


@given(st.integers(0, 3000), st.integers(0, 6000))
def test_stored_values_within_the_range_come_back_from_network_values(first, second):
    stored = np.array([first, second], np.uint16)
    reflectance = reflectance_from_network(to_network(stored, BAND_MAX), BAND_MAX)
    np.testing.assert_allclose(reflectance * 10_000, stored, atol=0.01)


def test_true_colour_by_hand():
    # Reflectance 0.15, 0.0, 0.2, 0.6; the display's white is 0.275.
    shown = true_colour(
        np.array([0.0, -1.0, 0.0, 1.0]), ("B02", "B03", "B04", "B08"), (0.3, 0.3, 0.4, 0.6)
    )
    np.testing.assert_allclose(shown, [0.2 / 0.275, 0, 0.15 / 0.275], rtol=1e-6)


def test_true_colour_takes_red_green_and_blue_by_name_and_clips():
    values = np.full((2, 64, 64, 3), -1.0)
    values[..., 0] = 1.0
    shown = true_colour(values, ("B04", "B03", "B02"), (0.4, 0.3, 0.3))
    assert shown.shape == (2, 64, 64, 3)
    np.testing.assert_array_equal(shown[0, 0, 0], [1, 0, 0])


@pytest.mark.parametrize("bands", [("B08",), ("B08", "B04", "B03")])
def test_without_the_three_colours_the_first_band_is_grey(bands):
    values = np.full((64, 64, len(bands)), -1.0)
    values[..., 0] = -0.5
    shown = true_colour(values, bands, (0.6,) * len(bands))
    np.testing.assert_allclose(shown[3, 4], [0.15 / 0.275] * 3, rtol=1e-6)
