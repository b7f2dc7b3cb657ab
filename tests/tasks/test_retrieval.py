import numpy as np
import pytest

from sits_keras.errors import ConfigError, DataError
from sits_keras.tasks.retrieval import measure_recall
from sits_keras.tasks.windows import raw_pixels


def image_of(features):
    """An image of windows that lie side by side, each with its features as its bands."""
    features = np.asarray(features, np.float32)
    return np.repeat(np.repeat(features[None], 64, axis=0), 64, axis=1)


def bands_of(images):
    """The encoder that says what `image_of` was given."""
    return images[:, 0, 0]


def constant(images):
    return np.zeros((len(images), 5))


def noise(height, width, dates):
    image = np.random.default_rng(1).uniform(size=(height, width, 2)).astype(np.float32)
    return np.stack([image] * dates)


def test_where_all_dates_are_alike_every_window_is_found():
    # 80 px and stride 8: offsets 0, 8, 16 on both axes.
    recall = measure_recall(raw_pixels, [noise(80, 80, dates=3)], num_queries=4, stride=8)
    assert recall.at_1 == 1.0
    assert recall.chance == pytest.approx(1 / 9)
    assert recall.num_queries == 6 * 4  # six ordered pairs of three dates


def test_an_encoder_of_constants_gives_chance_where_all_windows_are_looked_up():
    # All windows are as near, so that the first is taken: found once in nine.
    recall = measure_recall(constant, [noise(80, 80, dates=2)], num_queries=64, stride=8)
    assert recall.at_1 == pytest.approx(1 / 9)
    assert recall.chance == pytest.approx(1 / 9)
    assert recall.num_queries == 2 * 9


def test_an_encoder_of_constants_finds_the_first_window_where_it_is_drawn():
    rng = np.random.default_rng(3)
    draws = [rng.choice(9, 4, replace=False) for _ in range(6)]
    found = sum(0 in draw for draw in draws)
    recall = measure_recall(constant, [noise(80, 80, dates=3)], num_queries=4, stride=8, seed=3)
    assert recall.at_1 == pytest.approx(found / 24)


def test_the_same_seed_draws_the_same_queries_for_every_encoder():
    series = [noise(80, 80, dates=2)]

    def measure(encoder, seed):
        return measure_recall(encoder, series, num_queries=2, stride=8, seed=seed)

    seeds = range(8)
    recalls = [measure(constant, seed) for seed in seeds]
    assert recalls == [measure(lambda images: np.ones((len(images), 2)), s) for s in seeds]
    assert len(set(recalls)) > 1


def test_windows_that_change_places_are_not_found():
    places = np.array([[1.0], [2.0], [3.0], [4.0]])
    moved = image_of(np.roll(places, 1, axis=0))
    swapped = image_of(places[[1, 0, 2, 3]])
    for other, expected in ((moved, 0.0), (swapped, 0.5)):
        recall = measure_recall(bands_of, [np.stack([image_of(places), other])], stride=64)
        assert recall.at_1 == expected
        assert recall.chance == 0.25


def test_by_hand():
    first = image_of([[0.0], [1.0], [2.0], [3.0]])
    second = image_of([[0.4], [2.6], [2.1], [0.9]])
    # First in second: 0 to 0.4, right; 1 to 0.9, wrong; 2 to 2.1, right; 3 to 2.6, wrong.
    # Second in first: 0.4 to 0, right; 2.6 to 3, wrong; 2.1 to 2, right; 0.9 to 1, wrong.
    recall = measure_recall(bands_of, [np.stack([first, second])], stride=64)
    assert recall == (4 / 8, 1 / 4, 8)


def test_the_distance_is_l1():
    first = image_of([[0.0, 0.0], [100.0, 100.0]])
    second = image_of([[0.0, 5.0], [3.0, 3.0]])
    # From (0, 0) to its own place 5, to the other 6; by L2 it would be 5 and 4.2. From (100, 100)
    # to its own 194, to the other 195. From (0, 5) to its own 5. From (3, 3) to its own 194.
    recall = measure_recall(bands_of, [np.stack([first, second])], stride=64)
    assert recall.at_1 == 3 / 4


def test_places_are_looked_up_in_their_own_series_only():
    large = np.stack([image_of([[1.0], [2.0], [3.0], [4.0]])] * 2)
    small = np.stack([image_of([[1.0]])] * 2)
    recall = measure_recall(bands_of, [large, small], stride=64)
    # Eight queries among four windows, two among one.
    assert recall.at_1 == 1.0
    assert recall.num_queries == 10
    assert recall.chance == pytest.approx((8 / 4 + 2 / 1) / 10)


def test_a_series_of_one_date_adds_nothing():
    both = np.stack([image_of([[1.0], [2.0]])] * 2)
    assert measure_recall(bands_of, [both, both[:1]], stride=64) == (1.0, 0.5, 4)


@pytest.mark.parametrize("series", [[], [noise(64, 64, dates=1)]], ids=["none", "one date"])
def test_nothing_to_look_up_is_told(series):
    with pytest.raises(DataError, match="at least one series of two or more dates"):
        measure_recall(raw_pixels, series)


def test_no_queries_are_refused():
    with pytest.raises(ConfigError, match="num_queries must be at least 1"):
        measure_recall(raw_pixels, [noise(64, 64, dates=2)], num_queries=0)


def test_an_image_smaller_than_a_window_is_refused():
    with pytest.raises(ConfigError, match="does not fit"):
        measure_recall(raw_pixels, [noise(64, 60, dates=2)])
