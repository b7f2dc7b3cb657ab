import math

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from sits_keras.data.radiometry import (
    MIN_REFLECTANCE,
    FillFinder,
    is_missing,
    network_gain,
    pixels_to_stored,
    reflectance_from_network,
    reflectance_to_network,
    to_network,
    to_stored,
    true_colour,
    values_to_stored,
)
from sits_keras.data.rasters.read import read_stored
from sits_keras.errors import DataError

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
def test_to_stored_valid_reflectance_is_in_ten_thousandths_from_1_to_65535(reflectance, stored):
    result = to_stored(np.array([reflectance]), np.array([True]))
    assert result.dtype == np.uint16
    assert result == [stored]


def test_to_stored_invalid_value_becomes_0():
    reflectance = np.array([0.5, np.nan, np.inf, -9999.0])
    np.testing.assert_array_equal(to_stored(reflectance, np.zeros(4, bool)), np.zeros(4))


def test_to_stored_quantification_is_the_value_of_reflectance_1():
    assert to_stored(np.array([1.0]), np.array([True]), quantification=1000) == [1000]


@given(st.integers(1, 65_535))
def test_to_stored_inverts_division_by_ten_thousand(value):
    assert to_stored(np.array([value / 10_000]), np.array([True])) == [value]


def test_network_gain_takes_the_band_maximum_to_1():
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
def test_to_network_is_linear_by_band_and_clipped(stored, expected):
    values = to_network(np.array([[stored]], np.uint16), BAND_MAX)
    assert values.dtype == np.float32
    assert values.shape == (1, 1, 2)
    np.testing.assert_allclose(values[0, 0], expected, atol=1e-6)


def test_reflectance_to_network_scales_and_clips():
    values = reflectance_to_network(np.array([[0.0, 0.15, 0.9], [0.1, 0.3, -0.2]]), (0.4, 0.3, 0.6))
    np.testing.assert_allclose(values, [[-1, 0, 1], [-0.5, 1, -1]], atol=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"), [((-1, -1), (0, 0)), ((0, 0.5), (0.15, 0.45)), ((1, 1), (0.3, 0.6))]
)
def test_reflectance_from_network_inverts_the_scaling(values, expected):
    reflectance = reflectance_from_network(np.array(values, np.float32), BAND_MAX)
    assert reflectance.dtype == np.float32
    np.testing.assert_allclose(reflectance, expected, atol=1e-7)


@given(st.integers(0, 3000), st.integers(0, 6000))
def test_reflectance_from_network_inverts_to_network_within_range(first, second):
    stored = np.array([first, second], np.uint16)
    reflectance = reflectance_from_network(to_network(stored, BAND_MAX), BAND_MAX)
    np.testing.assert_allclose(reflectance * 10_000, stored, atol=0.01)


def test_true_colour_equals_hand_computed_values():
    # Reflectance 0.15, 0.0, 0.2, 0.6; the display's white is 0.275.
    shown = true_colour(
        np.array([0.0, -1.0, 0.0, 1.0]), ("B02", "B03", "B04", "B08"), (0.3, 0.3, 0.4, 0.6)
    )
    np.testing.assert_allclose(shown, [0.2 / 0.275, 0, 0.15 / 0.275], rtol=1e-6)


def test_true_colour_finds_red_green_and_blue_by_name():
    values = np.full((2, 64, 64, 3), -1.0)
    values[..., 0] = 1.0
    shown = true_colour(values, ("B04", "B03", "B02"), (0.4, 0.3, 0.3))
    assert shown.shape == (2, 64, 64, 3)
    np.testing.assert_array_equal(shown[0, 0, 0], [1, 0, 0])


@pytest.mark.parametrize("bands", [("B08",), ("B08", "B04", "B03")])
def test_true_colour_without_the_three_colours_is_grey(bands):
    values = np.full((64, 64, len(bands)), -1.0)
    values[..., 0] = -0.5
    shown = true_colour(values, bands, (0.6,) * len(bands))
    np.testing.assert_allclose(shown[3, 4], [0.15 / 0.275] * 3, rtol=1e-6)


FILLS = {
    "uint16": (0, 65_535),
    "int16": (0, -1, -9999, -10_000, -32_768),
    "uint32": (0, 65_535),
    "int32": (0, -1, -9999, -10_000, -32_768, 65_535),
    "float32": (0, -1, -9999, -10_000, -3.4028235e38, 9.96921e36, 1e20, 65_535, math.nan, math.inf),
    "float64": (0, -1, -9999, -1.7976931348623157e308, 9.96921e36, 65_535, math.nan, -math.inf),
}
SCALES = {"i": ((1e-4, 0.0), (1e-4, -0.1), (2e-4, 0.05)), "f": ((1.0, 0.0), (1e-4, -0.1))}


@st.composite
def rasters(draw):
    """Values of two bands with a fill value in some pixels, and the true reflectance."""
    dtype = np.dtype(draw(st.sampled_from(sorted(FILLS))))
    kind = "f" if dtype.kind == "f" else "i"
    scale, offset = draw(st.sampled_from(SCALES[kind]))
    fill = draw(st.sampled_from(FILLS[dtype.name]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reflectance = rng.uniform(draw(st.sampled_from((-0.2, 0.0, 0.3))), 1.8, (5, 6, 2))
    values = (reflectance - offset) / scale
    if kind == "i":
        # 0 in one band is no data, and an unsigned integer has no negative values.
        low = 1 if dtype.kind == "u" else np.iinfo(dtype).min
        values = np.clip(np.rint(values), low, np.iinfo(dtype).max)
        values[values == 0] = 1
        values[values == fill] += 1
    values = values.astype(dtype)
    missing = rng.random((5, 6)) < draw(st.sampled_from((0.0, 0.3, 1.0)))
    truth = values.astype(np.float64) * scale + offset
    values[missing] = fill
    return values, missing, truth, (scale, offset), fill if draw(st.booleans()) else None


@pytest.fixture(scope="module")
def raster_path(tmp_path_factory):
    return tmp_path_factory.mktemp("property") / "2020-01-01.tif"


@settings(max_examples=150, deadline=None)
@given(raster=rasters())
def test_read_stored_invents_and_loses_no_pixel_for_any_dtype_fill_scale_and_offset(
    raster_path, raster
):
    values, missing, truth, (scale, offset), nodata = raster
    height, width, count = values.shape
    raster_path.unlink(missing_ok=True)
    with rasterio.open(
        raster_path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype=values.dtype,
        nodata=nodata,
        crs="EPSG:32631",
        transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as target:
        target.scales, target.offsets = (scale,) * count, (offset,) * count
        target.write(np.moveaxis(values, -1, 0))
    stored = read_stored(raster_path, ("B02", "B03"))
    np.testing.assert_array_equal(stored == 0, np.broadcast_to(missing[..., None], stored.shape))
    expected = np.clip(truth * 10_000, 1, 65_535)
    np.testing.assert_allclose(stored[~missing], expected[~missing], atol=0.51)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("fill", [-9999, -10_000, -32_768, -3.4028235e38, 9.96921e36, np.nan])
def test_is_missing_fill_value_is_missing_in_any_dtype(dtype, fill):
    if np.dtype(dtype).kind == "i" and not abs(fill) <= 32_768:
        pytest.skip("an integer cannot hold it")
    scale = 1e-4 if np.dtype(dtype).kind == "i" else 1.0
    assert is_missing(np.array([fill], dtype), scale).tolist() == [True]


def test_is_missing_bound_is_the_lowest_reflectance_of_atmospheric_correction():
    values = np.array([MIN_REFLECTANCE - 0.01, MIN_REFLECTANCE + 0.01, 0.0, 1.5])
    assert is_missing(values).tolist() == [True, False, False, False]
    digital = np.array([-1501, -1499, 0], np.int16)
    assert is_missing(digital, 1e-4, -0.1).tolist() == [True, False, False]


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_fill_finder_zero_in_all_bands_is_missing_in_any_dtype(dtype):
    fill = FillFinder(1, 3)
    for band in ([0, 0, 5], [0, 7, 0]):
        fill.add(np.array([band], dtype))
    assert fill.missing.tolist() == [[True, False, False]]
    assert fill.some_zero.tolist() == [[True, True, True]]
    assert fill.example() == 0


def test_fill_finder_single_band_may_be_saturated():
    fill = FillFinder(1, 3)
    fill.add(np.array([[65_535, 0, 5]], np.uint16))
    assert fill.missing.tolist() == [[False, True, False]]


def test_pixels_to_stored_missing_band_makes_the_pixel_missing():
    pixels = np.array([[[0.1, 0.2], [0.1, np.nan], [-9999, 0.2], [0, 0], [0, 0.2]]], np.float32)
    assert pixels_to_stored(pixels, "image").tolist() == [
        [[1000, 2000], [0, 0], [0, 0], [1, 1], [1, 2000]]
    ]


@pytest.mark.parametrize("scale", [0.0, -1e-4, math.nan, math.inf])
def test_values_to_stored_impossible_scale_is_refused(scale):
    with pytest.raises(DataError, match=r"lake\.tif has the scale .* Expected a scale above 0"):
        values_to_stored(np.ones((1, 1), np.uint16), np.ones((1, 1), bool), "lake.tif", scale, 0)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_values_to_stored_64_bit_integers_do_not_wrap_around(dtype):
    numbers = np.array([1, 2500, np.iinfo(dtype).max], dtype)
    stored = values_to_stored(numbers, np.ones(3, bool), "lake.tif", 1e-4, 0.1)
    assert stored.tolist() == [1001, 3500, 65_535]
