import numpy as np
import pytest

from sits_keras import DisentangledSITS
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError
from sits_keras.tasks.translation import draw_crops, measure_translation

BAND_MAX = (0.3, 0.3, 0.4, 0.6)


class KnownModel:
    """Is wrong by numbers that are known, and remembers what it was asked."""

    def __init__(self):
        self.translated = []
        self.reconstructed = []

    def translate(self, shared_from, exclusive_from):
        self.translated.append((shared_from[0, 0, 0, 0], exclusive_from[0, 0, 0, 0]))
        return exclusive_from + 0.5

    def autoencode(self, images):
        wrong = np.zeros_like(images)
        wrong[:, :32] = -1  # in half of the pixels
        return images + wrong

    def reconstruct_series(self, series, shared_from):
        self.reconstructed.append((len(series), shared_from))
        # By 0.3 and 0.1 in the first two dates, by nothing in the others.
        wrong = np.zeros_like(series)
        wrong[0], wrong[1] = 0.3, -0.1
        return series + wrong


def crop_of(*values):
    """A crop with a date of each value."""
    return np.stack([np.full((64, 64, 4), value, np.float32) for value in values])


def image_of_places(height, width):
    rows, cols = np.indices((height, width))
    return np.repeat((rows * 100 + cols + 1)[..., None], 4, axis=-1).astype(np.uint16)


# Scores


def test_scores_are_mean_and_deviation_of_the_absolute_difference():
    scores = measure_translation(KnownModel(), [crop_of(0, 0.2), crop_of(0.2, 0)])
    assert scores.translation == pytest.approx((0.5, 0), abs=1e-6)
    assert scores.autoencoding == pytest.approx((0.5, 0.5), abs=1e-6)
    assert scores.time_series == pytest.approx((0.2, 0.1), abs=1e-6)
    assert scores.unchanged == pytest.approx((0.2, 0), abs=1e-6)


def test_the_deviation_is_over_all_crops():
    # |x - y| is 0.2 in one crop and 0.6 in another.
    scores = measure_translation(KnownModel(), [crop_of(0, 0.2), crop_of(0, 0.6)])
    assert scores.unchanged == pytest.approx((0.4, 0.2), abs=1e-6)


def test_crops_of_more_dates_weigh_more_in_the_time_series():
    # 0.3, 0.1 of two dates and 0.3, 0.1, 0, 0 of four: mean 0.8 / 6, mean square 0.2 / 6.
    scores = measure_translation(KnownModel(), [crop_of(0, 0), crop_of(0, 0, 0, 0)])
    mean = 0.8 / 6
    deviation = (0.2 / 6 - mean**2) ** 0.5
    assert scores.time_series == pytest.approx((mean, deviation), abs=1e-6)


def test_two_different_dates_are_chosen_and_the_first_gives_the_place():
    model = KnownModel()
    measure_translation(model, [crop_of(0, 1, 2)] * 30)
    pairs = {(int(x), int(y)) for x, y in model.translated}
    assert pairs == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}
    assert model.reconstructed == [(3, int(x)) for x, _ in model.translated]


def test_the_seed_chooses_the_dates():
    def chosen(seed):
        model = KnownModel()
        measure_translation(model, [crop_of(0, 1, 2)] * 10, seed=seed)
        return model.translated

    assert chosen(0) == chosen(0)
    assert chosen(0) != chosen(1)


def test_scores_of_a_real_model(tiny_config):
    model = DisentangledSITS(tiny_config.model)
    crop = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 4)).astype(np.float32)
    scores = measure_translation(model, [crop])
    first, second = np.random.default_rng(0).choice(2, 2, replace=False)
    x, y = crop[first][None], crop[second][None]
    error = np.abs(np.asarray(model.translate(x, y)) - y)
    assert scores.translation == pytest.approx((error.mean(), error.std()), rel=1e-5)
    error = np.abs(np.asarray(model.autoencode(x)) - x)
    assert scores.autoencoding == pytest.approx((error.mean(), error.std()), rel=1e-5)


def test_no_crops_are_told():
    with pytest.raises(DataError, match="Expected at least one crop"):
        measure_translation(KnownModel(), [])


# Crops


def test_crops_are_network_values():
    stored = np.zeros((2, 64, 64, 4), np.uint16)
    stored[0] = [1500, 3000, 1000, 9000]
    (crop,) = draw_crops([stored], 1, BAND_MAX, seed=0)
    assert crop.dtype == np.float32
    # 2 * reflectance / maximum - 1, clipped.
    np.testing.assert_allclose(crop[0, 5, 7], [0, 1, -0.5, 1], atol=1e-6)
    np.testing.assert_array_equal(crop[1], -1)


def test_crops_lie_anywhere_in_the_image_and_hold_all_dates():
    image = image_of_places(70, 66)
    crops = draw_crops([np.stack([image, image + 1])], 200, (0.8,) * 4, seed=0)
    places = set()
    for crop in crops:
        stored = np.rint((crop + 1) / 2 * 8000).astype(int)
        row, col = divmod(stored[0, 0, 0, 0] - 1, 100)
        window = Window(row, col, 64, 64)
        expected = image[window.row : window.row + 64, window.col : window.col + 64]
        np.testing.assert_array_equal(stored, np.stack([expected, expected + 1]))
        places.add((row, col))
    assert places == {(row, col) for row in range(7) for col in range(3)}


def test_every_series_is_drawn():
    series = [np.full((2, 64, 64 + 10 * i, 4), 100 * i, np.uint16) for i in range(1, 4)]
    crops = draw_crops(series, 30, (1.0,) * 4, seed=0)
    drawn = [round(float((crop[0, 0, 0, 0] + 1) / 2 * 10_000)) for crop in crops]
    assert set(drawn) == {100, 200, 300}


def test_the_seed_chooses_the_crops():
    series = [image_of_places(80, 80)[None]]
    one, same, other = (draw_crops(series, 3, BAND_MAX, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_series_to_draw_from_are_needed():
    with pytest.raises(DataError, match="Expected at least one series"):
        draw_crops([], 1, BAND_MAX, seed=0)


def test_a_series_smaller_than_a_crop_is_refused():
    series = [np.ones((2, 64, 64, 4), np.uint16), np.ones((2, 64, 63, 4), np.uint16)]
    with pytest.raises(DataError, match=r"at least 64 x 64 pixels.* \(2, 64, 63, 4\)"):
        draw_crops(series, 1, BAND_MAX, seed=0)
