import numpy as np
import pytest

from sits_keras import DisentangledSITS
from sits_keras.config import ModelConfig
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError
from sits_keras.tasks.translation.table_1 import (
    measure_translation,
    sample_crops,
    translate_all,
    translation_table,
)

BAND_MAX = (0.3, 0.3, 0.4, 0.6)


class KnownModel:
    """Is wrong by numbers that are known, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def combine(self, shared_from, exclusive_from, place_of, date_of):
        self.asked.append(len(date_of))
        # By as much as the place's value at the date that gives it, in half of the pixels.
        images = exclusive_from[date_of].copy()
        images[:, :32] += shared_from[place_of][:, :32]
        return images


def crop_of(*values):
    """A crop with a date of each value."""
    return np.stack([np.full((64, 64, 4), value, np.float32) for value in values])


def image_of_places(height, width):
    rows, cols = np.indices((height, width))
    return np.repeat((rows * 100 + cols + 1)[..., None], 4, axis=-1).astype(np.uint16)


# Scores


def test_measure_translation_gives_mean_and_deviation_of_absolute_difference():
    # Wrong by the value of the date that gives the place, 0.2 or -0.2, in half of the pixels.
    scores = measure_translation(KnownModel(), [crop_of(-0.2, 0.2)] * 3)
    for row in (scores.translation, scores.autoencoding, scores.time_series):
        assert row == pytest.approx((0.1, 0.1), abs=1e-6)
    assert scores.unchanged == pytest.approx((0.4, 0), abs=1e-6)


def test_measure_translation_rows_use_their_dates():
    class Asymmetric:
        def combine(self, shared_from, exclusive_from, place_of, date_of):
            # Right where place and date are of one image, else wrong by their difference.
            return 2 * exclusive_from[date_of] - shared_from[place_of]

    scores = measure_translation(Asymmetric(), [crop_of(0, 0.2), crop_of(0.3, 0.5)])
    assert scores.translation == pytest.approx((0.2, 0), abs=1e-6)
    assert scores.autoencoding == pytest.approx((0, 0), abs=1e-6)
    assert scores.time_series == pytest.approx((0.1, 0.1), abs=1e-6)
    assert scores.unchanged == pytest.approx((0.2, 0), abs=1e-6)


def test_measure_translation_deviation_is_over_all_crops():
    # |x - y| is 0.2 in one crop and 0.6 in another.
    scores = measure_translation(KnownModel(), [crop_of(0, 0.2), crop_of(0, 0.6)])
    assert scores.unchanged == pytest.approx((0.4, 0.2), abs=1e-6)


def test_measure_translation_time_series_is_weighted_by_dates():
    # Wrong by 0.2 in half of two images, and by 0.6 in half of four.
    scores = measure_translation(KnownModel(), [crop_of(0.2, 0.2), crop_of(*[0.6] * 4)])
    assert scores.time_series.mean == pytest.approx((2 * 0.1 + 4 * 0.3) / 6, abs=1e-6)
    assert scores.translation.mean == pytest.approx((0.1 + 0.3) / 2, abs=1e-6)


def test_measure_translation_samples_two_dates_first_gives_place():
    class Recorder(KnownModel):
        def combine(self, shared_from, exclusive_from, place_of, date_of):
            self.asked += [int(image[0, 0, 0]) for image in shared_from]
            return exclusive_from[date_of]

    model = Recorder()
    measure_translation(model, [crop_of(0, 1, 2)] * 30)
    assert set(model.asked) == {0, 1, 2}
    rng = np.random.default_rng(0)
    assert model.asked == [rng.choice(3, 2, replace=False)[0] for _ in range(30)]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_measure_translation_is_independent_of_batch_size(batch_size):
    rng = np.random.default_rng(0)
    crops = [rng.uniform(-1, 1, (2 + i % 3, 64, 64, 4)).astype(np.float32) for i in range(7)]
    expected = measure_translation(KnownModel(), crops, batch_size=1000)
    model = KnownModel()
    scores = measure_translation(model, iter(crops), batch_size=batch_size)
    np.testing.assert_allclose(scores, expected, rtol=1e-9)
    assert sum(model.asked) == sum(map(len, crops))
    assert len(model.asked) == {1: 7, 3: 5, 64: 1}[batch_size]


def test_measure_translation_seed_selects_dates():
    crops = [crop_of(0, 1, 4)] * 10
    scores = [measure_translation(KnownModel(), crops, seed=seed).unchanged for seed in (0, 0, 1)]
    assert scores[0] == scores[1]
    assert scores[0] != scores[2]


def test_measure_translation_real_model_matches_its_methods(tiny_config):
    model = DisentangledSITS(tiny_config.model)
    crop = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 4)).astype(np.float32)
    scores = measure_translation(model, [crop])
    first, second = np.random.default_rng(0).choice(2, 2, replace=False)
    x, y = crop[first][None], crop[second][None]
    error = np.abs(np.asarray(model.translate(x, y)) - y)
    assert scores.translation == pytest.approx((error.mean(), error.std()), rel=1e-5)
    error = np.abs(np.asarray(model.autoencode(x)) - x)
    assert scores.autoencoding == pytest.approx((error.mean(), error.std()), rel=1e-5)


def test_measure_translation_crop_of_one_date_is_refused():
    with pytest.raises(DataError, match=r"two or more dates\. Received a crop of one date"):
        measure_translation(KnownModel(), [crop_of(0, 1), crop_of(0)])


def test_translation_table_has_column_for_each_set():
    places = {
        "trained on": [np.stack([np.full((70, 70, 4), v, np.uint16) for v in (1000, 2000)])],
        "held out": [np.stack([np.full((64, 64, 4), v, np.uint16) for v in (1000, 4000)])],
    }

    class Model(KnownModel):
        config = ModelConfig(band_max=(1.0,) * 4)

    table = translation_table(Model(), places, num_crops=3)
    assert list(table) == ["trained on", "held out"]
    # 2 * reflectance - 1: 0.1 and 0.2 are 0.2 apart, 0.1 and 0.4 are 0.6.
    assert table["trained on"].unchanged == pytest.approx((0.2, 0), abs=1e-6)
    assert table["held out"].unchanged == pytest.approx((0.6, 0), abs=1e-6)


def test_translate_all_takes_every_place_to_every_date():
    places = np.stack([np.full((64, 64, 4), v, np.float32) for v in (0.1, 0.2)])
    dates = np.stack([np.full((64, 64, 4), v, np.float32) for v in (0.3, 0.5, 0.7)])
    grid = translate_all(KnownModel(), places, dates)
    assert grid.shape == (2, 3, 64, 64, 4)
    np.testing.assert_allclose(grid[:, :, 0, 0, 0], [[0.4, 0.6, 0.8], [0.5, 0.7, 0.9]], atol=1e-6)


def test_measure_translation_without_crops_is_refused():
    with pytest.raises(DataError, match="Expected at least one crop"):
        measure_translation(KnownModel(), [])


# Crops


def test_sample_crops_returns_network_values():
    stored = np.zeros((2, 64, 64, 4), np.uint16)
    stored[0] = [1500, 3000, 1000, 9000]
    (crop,) = sample_crops([stored], 1, BAND_MAX, seed=0)
    assert crop.dtype == np.float32
    # 2 * reflectance / maximum - 1, clipped.
    np.testing.assert_allclose(crop[0, 5, 7], [0, 1, -0.5, 1], atol=1e-6)
    np.testing.assert_array_equal(crop[1], -1)


def test_sample_crops_covers_image_and_all_dates():
    image = image_of_places(70, 66)
    crops = sample_crops([np.stack([image, image + 1])], 200, (0.8,) * 4, seed=0)
    places = set()
    for crop in crops:
        stored = np.rint((crop + 1) / 2 * 8000).astype(int)
        row, col = divmod(stored[0, 0, 0, 0] - 1, 100)
        window = Window(row, col, 64, 64)
        expected = image[window.row : window.row + 64, window.col : window.col + 64]
        np.testing.assert_array_equal(stored, np.stack([expected, expected + 1]))
        places.add((row, col))
    assert places == {(row, col) for row in range(7) for col in range(3)}


def test_sample_crops_samples_every_series():
    series = [np.full((2, 64, 64 + 10 * i, 4), 100 * i, np.uint16) for i in range(1, 4)]
    crops = sample_crops(series, 30, (1.0,) * 4, seed=0)
    drawn = [round(float((crop[0, 0, 0, 0] + 1) / 2 * 10_000)) for crop in crops]
    assert set(drawn) == {100, 200, 300}


def test_sample_crops_seed_selects_crops():
    series = [image_of_places(80, 80)[None]]
    one, same, other = (sample_crops(series, 3, BAND_MAX, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_sample_crops_without_series_is_refused():
    with pytest.raises(DataError, match="Expected at least one series"):
        sample_crops([], 1, BAND_MAX, seed=0)


def test_sample_crops_small_series_is_refused():
    series = [np.ones((2, 64, 64, 4), np.uint16), np.ones((2, 64, 63, 4), np.uint16)]
    with pytest.raises(DataError, match=r"at least 64 x 64 pixels.* \(2, 64, 63, 4\)"):
        sample_crops(series, 1, BAND_MAX, seed=0)
