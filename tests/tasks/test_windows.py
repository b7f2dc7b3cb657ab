import numpy as np
import pytest

from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError
from sits_keras.tasks.windows import encode_windows, raw_pixels


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
