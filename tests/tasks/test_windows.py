import numpy as np
import pytest

from sits_keras.data.raster import Grid, write_raster
from sits_keras.data.strips import open_strips
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError
from sits_keras.tasks.windows import encode_windows, iterate_windows, raw_pixels


def image_of_places(height, width):
    """An image whose only band holds `row * 1000 + col`."""
    rows, cols = np.indices((height, width))
    return (rows * 1000 + cols).astype(np.float32)[..., None]


def corners(images):
    """Encodes a window as its first and its last pixel."""
    return np.stack([images[:, 0, 0, 0], images[:, -1, -1, 0]], axis=1)


def test_raw_pixels_are_the_flattened_window():
    images = np.arange(2 * 3 * 3 * 2).reshape(2, 3, 3, 2)
    features = raw_pixels(images)
    assert features.shape == (2, 18)
    np.testing.assert_array_equal(features[1], np.arange(18, 36))


def test_windows_go_row_by_row_and_the_last_ones_are_shifted_in():
    features, windows = encode_windows(corners, image_of_places(70, 100), stride=16)
    assert windows == [Window(row, col, 64, 64) for row in (0, 6) for col in (0, 16, 32, 36)]
    expected = [(w.row * 1000 + w.col, (w.row + 63) * 1000 + w.col + 63) for w in windows]
    np.testing.assert_array_equal(features, expected)
    assert features.dtype == np.float32


def test_an_image_of_the_windows_size_has_one():
    features, windows = encode_windows(corners, image_of_places(64, 64), stride=8)
    assert windows == [Window(0, 0, 64, 64)]
    np.testing.assert_array_equal(features, [[0, 63_063]])


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_features_are_those_of_each_window_alone(batch_size):
    image = np.random.default_rng(0).uniform(size=(70, 100, 2)).astype(np.float32)
    sizes = []

    def encoder(images):
        sizes.append(len(images))
        return images.mean(axis=(1, 2))

    features, windows = encode_windows(encoder, image, 16, batch_size)
    assert sum(sizes) == len(windows) == 8
    assert max(sizes) == min(batch_size, 8)
    alone = [image[w.row : w.row + 64, w.col : w.col + 64].mean(axis=(0, 1)) for w in windows]
    np.testing.assert_allclose(features, alone, rtol=1e-6)


def test_an_image_smaller_than_a_window_is_refused():
    with pytest.raises(ConfigError, match="A window of 64 px does not fit into 63 px"):
        encode_windows(corners, image_of_places(100, 63), stride=16)


# Row by row


def mean_and_corner(images):
    return np.stack([images.mean(axis=(1, 2, 3)), images[:, 0, 0, 0]], axis=1)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 5000, (150, 100, 2)).astype(np.uint16)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
@pytest.mark.parametrize("stride", [16, 50])
def test_rows_of_windows_are_those_of_the_whole_image(stride, batch_size, image):
    sizes = []

    def encoder(images):
        sizes.append(len(images))
        return mean_and_corner(images)

    rows = list(iterate_windows(encoder, open_strips(image), stride, batch_size=batch_size))
    assert max(sizes) <= batch_size
    expected, windows = encode_windows(mean_and_corner, image.astype(np.float32) / 10_000, stride)
    assert [(row.row, col) for row in rows for col in row.cols] == [w[:2] for w in windows]
    np.testing.assert_allclose(np.concatenate([row.features for row in rows]), expected, rtol=1e-6)
    assert rows[0].features.dtype == np.float32
    assert rows[-1].row == 150 - 64
    for row in rows:
        np.testing.assert_array_equal(row.data_share, 1)
        np.testing.assert_allclose(row.brightness, row.features[:, 0], rtol=1e-6)


def test_a_raster_gives_what_its_array_gives(image, tmp_path):
    write_raster(tmp_path / "a.tif", image, ["x", "y"], Grid(150, 100, None, None))
    of_array = iterate_windows(raw_pixels, open_strips(image), 32)
    of_raster = iterate_windows(raw_pixels, open_strips(tmp_path / "a.tif"), 32)
    for one, other in zip(of_array, of_raster, strict=True):
        np.testing.assert_array_equal(one.features, other.features)


def test_windows_without_data_are_not_encoded(image):
    image[:100] = 0
    image[100:, 50:] = 0

    def encoder(images):
        assert images.any(axis=(1, 2, 3)).all()
        return images.max(axis=(1, 2))

    rows = list(iterate_windows(encoder, open_strips(image), 36))
    # Rows 0, 36, 72 and 86; columns 0 and 36. Data is in rows 100 to 149, columns 0 to 49.
    shares = np.array([row.data_share for row in rows])
    covered = np.array([0, 0, 36, 50])[:, None] * np.array([50, 14])
    np.testing.assert_allclose(shares, covered / 64**2, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(rows[1].features), True)
    assert np.isfinite(rows[2].features).all()
    # Brightness is of the pixels with data.
    np.testing.assert_allclose(rows[3].brightness[0], image[100:, :50].mean() / 10_000, rtol=1e-6)
    assert rows[0].brightness[0] == 0


def test_an_image_without_data_has_features_that_are_not_numbers():
    (row,) = iterate_windows(mean_and_corner, open_strips(np.zeros((64, 80, 1), np.uint16)), 16)
    assert row.features.shape == (2, 2)
    assert np.isnan(row.features).all()


def test_no_more_is_read_than_the_windows_at_hand_need(image):
    strips = open_strips(image)
    asked = []

    class Spy:
        name, grid, bands = strips.name, strips.grid, strips.bands

        def read(self, row, num_rows):
            asked.append((row, num_rows))
            return strips.read(row, num_rows)

    # Four windows a row, and a batch of eight: two rows of windows at a time.
    list(iterate_windows(mean_and_corner, Spy(), 16, batch_size=8))
    assert asked == [(0, 80), (32, 80), (64, 80), (86, 64)]


def test_a_progress_bar_counts_windows(image, capsys):
    list(iterate_windows(mean_and_corner, open_strips(image), 32, progress="encode"))
    shown = capsys.readouterr().err
    assert "encode: 100%" in shown
    assert "12/12" in shown  # rows 0, 32, 64 and 86; columns 0, 32 and 36
    list(iterate_windows(mean_and_corner, open_strips(image), 32))
    assert capsys.readouterr().err == ""


def test_the_image_that_is_too_small_is_named(tmp_path):
    write_raster(
        tmp_path / "a.tif", np.ones((63, 90, 1), np.uint16), ["x"], Grid(63, 90, None, None)
    )
    with pytest.raises(ConfigError, match=r"a\.tif is 63 x 90 px, smaller than a window of 64 x"):
        next(iterate_windows(raw_pixels, open_strips(tmp_path / "a.tif"), 32))
