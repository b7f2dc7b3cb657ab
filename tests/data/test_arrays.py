import numpy as np
import pytest

from sits_keras.data import array_pairs
from sits_keras.data.radiometry import to_network
from sits_keras.errors import ConfigError, DataError

# Bands that say where a pixel is from: `1 +` series, date, row and column.
BANDS = ("series", "date", "row", "col")
BAND_MAX = (0.1,) * 4


def coded(series, num_dates, height, width):
    axes = np.meshgrid([series], range(num_dates), range(height), range(width), indexing="ij")
    return 1 + np.stack([axis[0] for axis in axes], axis=-1).astype(np.uint16)


SERIES = (coded(0, 2, 64, 100), coded(1, 5, 80, 64), coded(2, 3, 70, 66))


def batches(num_steps, series=SERIES, **options):
    """`(steps, 2, batch, side, side, 4)`: series, date, row and column of each pixel of a pair."""
    options = {"batch_size": 8, "seed": 0, "bands": BANDS, "band_max": BAND_MAX, **options}
    pairs = array_pairs(series, num_steps=num_steps, **options)
    images = np.array([[np.asarray(image) for image in pair] for pair in pairs], np.float64)
    return np.rint((images + 1) / 2 * 1000).astype(int) - 1


def test_array_pairs_batch_is_two_float_images_of_one_shape():
    ((x, y),) = array_pairs(
        SERIES, 3, seed=0, bands=BANDS, band_max=BAND_MAX, context=(1, 2), num_steps=1
    )
    for image in (x, y):
        assert tuple(image.shape) == (3, 67, 67, 4)
        assert "float32" in str(image.dtype)


def test_array_pairs_images_are_network_values_of_stored_values():
    band_max = (0.01, 0.01, 0.0064, 0.0032)
    series = coded(0, 2, 64, 64)
    pairs = array_pairs(
        series, 4, seed=0, bands=BANDS, band_max=band_max, augment=False, num_steps=1
    )
    expected = to_network(series, band_max)
    for x, y in zip(*(np.asarray(image) for image in next(iter(pairs))), strict=True):
        first = int(not np.allclose(x, expected[0], atol=1e-6))
        np.testing.assert_allclose(x, expected[first], atol=1e-6)
        np.testing.assert_allclose(y, expected[1 - first], atol=1e-6)


@pytest.mark.parametrize("augment", [False, True])
def test_array_pairs_pair_is_one_window_at_two_dates(augment):
    x, y = np.moveaxis(batches(6, augment=augment), 1, 0)
    np.testing.assert_array_equal(x[..., [0, 2, 3]], y[..., [0, 2, 3]])
    for images in (x, y):
        assert (images[..., :2] == images[..., :1, :1, :2]).all()  # of one series and one date
        rows, cols = images[..., 2], images[..., 3]
        for axes in (rows, cols):
            assert (np.ptp(axes, axis=(-2, -1)) == 63).all()
    assert (x[..., 0, 0, 1] != y[..., 0, 0, 1]).all()


def test_array_pairs_large_crops_show_one_place_at_two_dates():
    series = (coded(0, 2, 140, 128), coded(1, 3, 130, 150))
    wide = batches(4, series, crop_size=128, context=(5, 3))
    assert wide.shape[3:5] == (136, 136)
    x, y = np.moveaxis(wide[..., 5:-3, 5:-3, :], 1, 0)
    np.testing.assert_array_equal(x[..., [0, 2, 3]], y[..., [0, 2, 3]])
    for axes in (x[..., 2], x[..., 3]):
        assert (np.ptp(axes, axis=(-2, -1)) == 127).all()
    assert (x[..., 0, 0, 1] != y[..., 0, 0, 1]).all()


def test_array_pairs_series_smaller_than_crop_raises():
    with pytest.raises(DataError, match=r"128 x 128 pixels\. Received: 2 dates, 64 x 100 pixels"):
        array_pairs(SERIES, seed=0, bands=BANDS, band_max=BAND_MAX, crop_size=128)


def test_array_pairs_every_series_date_and_corner_is_sampled_and_none_beyond():
    images = batches(60, augment=False)[:, :, :, 0, 0]
    for index, one in enumerate(SERIES):
        mine = images[images[..., 0] == index]
        num_dates, height, width, _ = one.shape
        assert set(mine[:, 1]) == set(range(num_dates))
        assert (mine[:, 2].min(), mine[:, 2].max()) == (0, height - 64)
        assert mine[:, 3].min() == 0
        assert width - 64 - 2 <= mine[:, 3].max() <= width - 64


def test_array_pairs_series_are_sampled_by_their_area():
    counts = np.bincount(batches(100)[:, 0, :, 0, 0, 0].ravel(), minlength=3)
    areas = np.array([one.shape[1] * one.shape[2] for one in SERIES])
    expected = areas / areas.sum()
    np.testing.assert_allclose(counts / counts.sum(), expected, atol=4 * (0.25 / 800) ** 0.5)


def test_array_pairs_all_eight_symmetries_are_sampled():
    corners = batches(20, coded(0, 2, 64, 64))[:, 0, :, [0, 0], [0, 63], 2:]
    assert len(np.unique(corners.transpose(1, 2, 0, 3).reshape(-1, 4), axis=0)) == 8


def test_array_pairs_context_is_around_the_crop_and_reflected_at_edges():
    before, after = 5, 3
    plain = batches(6, augment=False)
    wide = batches(6, augment=False, context=(before, after))
    np.testing.assert_array_equal(wide[..., before:-after, before:-after, :], plain)
    for image in wide.reshape(-1, *wide.shape[3:]):
        series, date = image[0, 0, :2]
        padded = np.pad(
            SERIES[series][date], ((before, after), (before, after), (0, 0)), mode="reflect"
        )
        row, col = image[before, before, 2:]
        np.testing.assert_array_equal(image, padded[row : row + 72, col : col + 72] - 1.0)


def test_array_pairs_rotated_crop_has_its_own_context():
    plain = batches(6, seed=3)
    wide = batches(6, seed=3, context=(5, 3))
    np.testing.assert_array_equal(wide[..., 5:-3, 5:-3, :], plain)
    # Rows and columns change in steps of one, also where they are reflected.
    for axis in (-3, -2):
        assert (np.abs(np.diff(wide[..., 2:], axis=axis)).max() == 1).all()


def test_array_pairs_context_beyond_a_whole_series_is_reflected_again():
    image = batches(1, coded(0, 2, 64, 64), augment=False, context=(150, 0))[0, 0, 0]
    expected = np.pad(np.arange(64), (150, 0), mode="reflect")
    np.testing.assert_array_equal(image[:, 0, 2], expected)


def test_array_pairs_stream_is_a_function_of_seed_and_step():
    whole = batches(5, seed=4)
    np.testing.assert_array_equal(batches(2, seed=4, start_step=3), whole[3:])
    assert (batches(5, seed=5) != whole).any()
    assert len({batch.tobytes() for batch in whole}) == 5


def test_array_pairs_without_num_steps_does_not_end():
    pairs = array_pairs(SERIES, 2, seed=0, bands=BANDS, band_max=BAND_MAX)
    assert sum(1 for _ in zip(range(30), pairs, strict=False)) == 30


def test_array_pairs_no_steps_are_none():
    assert not list(array_pairs(SERIES, 2, seed=0, bands=BANDS, band_max=BAND_MAX, num_steps=0))


def test_array_pairs_reflectance_equals_stored_values():
    stored = np.random.default_rng(0).integers(1, 6000, (2, 70, 70, 4)).astype(np.uint16)
    reflectance = (stored / 10_000).astype(np.float32)
    stored[0, :, :, 1], reflectance[0, :, :, 1] = 0, np.nan  # missing
    for one, other in zip(
        *(array_pairs(series, 2, seed=0, num_steps=2) for series in (stored, reflectance)),
        strict=True,
    ):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ([], r"at least one series\. Received none"),
        ([np.zeros((2, 64, 64), np.uint16)], r"Series 0 must have shape .*\(2, 64, 64\)"),
        ([SERIES[0], SERIES[1][..., :3]], r"Series 1 must have shape .*, 4\), bands series, date"),
        ([SERIES[0][:1]], r"Series 0 must have at least 2 dates .* Received: 1 dates, 64 x 100"),
        ([SERIES[0][:, :, :63]], r"64 x 64 pixels\. Received: 2 dates, 64 x 63 pixels"),
        ([SERIES[0].astype(np.uint8)], r"uint16 stored values .* Received: uint8"),
        (
            [SERIES[0].astype(float)],
            r"Series 0 holds reflectance up to 100\. Expected",
        ),
    ],
)
def test_array_pairs_invalid_series_is_refused(series, message):
    with pytest.raises(DataError, match=message):
        array_pairs(series, seed=0, bands=BANDS, band_max=BAND_MAX)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be in \[1, 2\*\*31\)\. Received: batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"context": (3, -2)}, "context=-2"),
        ({"start_step": -1}, "start_step=-1"),
        ({"crop_size": 96}, r"crop_size must be a multiple of 64\. Received: crop_size=96"),
        ({"num_steps": 2**31}, "num_steps=2147483648"),
        ({"band_max": (0.1,)}, "a tuple of 4 reflectances"),
        ({"band_max": ()}, "No default band_max is known for series"),
    ],
)
def test_array_pairs_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        array_pairs(SERIES, **{"seed": 0, "bands": BANDS, "band_max": BAND_MAX, **options})
