import numpy as np
import pytest
from fake_encoders import FilterEncoder

from sits_keras.errors import ConfigError, DataError
from sits_keras.tasks.retrieval.distances import l1_distances
from sits_keras.tasks.retrieval.table_2 import measure_recall
from sits_keras.tasks.windows import raw_pixels


def image_of(features):
    """An image of windows that lie side by side, each with its features as its bands.

    Stored values: ten for a feature of 1, and one more, for 0 is no data.
    """
    features = (10 * np.asarray(features) + 1).round().astype(np.uint16)
    return np.repeat(np.repeat(features[None], 64, axis=0), 64, axis=1)


def bands_of(images):
    """The encoder that says what `image_of` was given."""
    return np.rint(images[:, 0, 0] * 10_000)


def constant(images):
    return np.zeros((len(images), 5))


def noise(height, width, dates):
    image = np.random.default_rng(1).uniform(size=(height, width, 2)).astype(np.float32)
    return np.stack([image] * dates)


def test_measure_recall_identical_dates_find_every_window():
    # 80 px and stride 8: offsets 0, 8, 16 on both axes.
    recall = measure_recall(raw_pixels, [noise(80, 80, dates=3)], num_queries=4, stride=8)
    assert recall[:3] == (1, 1, 1)
    assert recall.chance == pytest.approx(1 / 9)
    assert recall.chance_at_5 == pytest.approx(5 / 9)
    assert recall.num_queries == 6 * 4  # six ordered pairs of three dates
    assert recall.num_windows == 3 * 9
    assert recall.num_series == 1
    assert recall.error is None


@pytest.mark.parametrize(("num_queries", "seed"), [(64, 0), (4, 0), (1, 3)])
def test_measure_recall_constant_features_give_chance(num_queries, seed):
    # 160 px and stride 48: offsets 0, 48, 96, of which none is within 32 px of another.
    recall = measure_recall(
        constant, [noise(160, 160, dates=3)], num_queries=num_queries, stride=48, seed=seed
    )
    assert recall[:3] == pytest.approx((1 / 9, 5 / 9, 1 / 9))
    assert recall[3:6] == pytest.approx(recall[:3])


def test_measure_recall_ties_count_by_expected_rank():
    # Of four windows, two are alike: each of those is found half of the time.
    image = image_of([[1.0], [1.0], [2.0], [3.0]])
    recall = measure_recall(bands_of, [np.stack([image] * 2)], stride=64)
    assert recall.at_1 == (0.5 + 0.5 + 1 + 1) / 4
    assert recall.at_5 == recall.chance_at_5 == 1


def test_measure_recall_at_5_counts_five_nearest():
    # Seven windows in a row; the others of the second date lie nearer to the query by design.
    first = image_of([[10.0 * i] for i in range(7)])
    second = image_of([[10.0 * i] for i in (6, 5, 4, 3, 2, 1, 0)])
    # The i-th has its own at |6 - 2i| places in value: nearer are those within that, by hand:
    # i = 0: 60 away, all six nearer; 1: 40, five nearer (0 to 4); 2: 20 away, nearer are 1, 0, 1
    # (2, 1 and 3) and as near are 0 and 4; 3: none.
    recall = measure_recall(bands_of, [np.stack([first, second])], stride=64)
    # Rank 7: 0. Value 10 against own 50: others 0..40 and 60 are 10, 0, 10, 20, 30 and 50 away, so
    # five nearer: 0. Value 20 against own 40: 20 away; 10, 20, 30 nearer, 0 as near: at 5 sure.
    assert recall.at_1 == 1 / 7
    assert recall.at_5 == 3 / 7


def test_measure_recall_near_is_euclidean_within_32_px():
    # Windows at 0, 32 and 64 px; every window is found one place to the right, the last at the
    # first, and the other way about in the second date.
    first = image_of(np.arange(128)[:, None])[:, ::64]
    second = first.copy()
    second[:, [0, 32, 64]] = first[:, [64, 0, 32]]
    recall = measure_recall(bands_of, [np.stack([first, second])], stride=32)
    # 0 is found at 32, 32 at 64 (both near), 64 at 0 (not); back, 64 at 64 and so on.
    assert recall.at_1 == 0
    assert recall.near == 4 / 6
    assert recall.chance_near == pytest.approx((2 + 3 + 2) / 9)


def test_measure_recall_error_is_over_series():
    found = np.stack([image_of([[1.0], [2.0]])] * 2)
    lost = np.stack([image_of([[1.0], [2.0]]), image_of([[2.0], [1.0]])])
    recall = measure_recall(bands_of, [found, found, lost], stride=64)
    assert recall.at_1 == pytest.approx(2 / 3)
    # Of equally many queries each: the standard error of 1, 1, 0.
    assert recall.error == pytest.approx(np.std([1, 1, 0], ddof=1) / np.sqrt(3))


def test_measure_recall_non_finite_features_are_refused():
    with pytest.raises(DataError, match="NaN or infinite"):
        measure_recall(lambda images: images[:, 0, 0] * np.nan, [noise(64, 64, dates=2)])


def test_measure_recall_same_seed_samples_same_queries():
    series = [noise(100, 100, dates=2)]
    half = np.stack([series[0][0], series[0][1][::-1]])  # a date upside down

    def measure(encoder, seed):
        return measure_recall(encoder, [half], num_queries=2, stride=8, seed=seed)

    seeds = range(8)
    recalls = [measure(raw_pixels, seed) for seed in seeds]
    assert recalls == [measure(lambda images: 2 * raw_pixels(images), s) for s in seeds]
    assert len(set(recalls)) > 1


def test_measure_recall_permuted_windows_give_chance():
    places = np.arange(40.0)[:, None]
    rng = np.random.default_rng(0)
    recalls = []
    for _ in range(20):
        moved = image_of(places[rng.permutation(40)])
        recalls.append(measure_recall(bands_of, [np.stack([image_of(places), moved])], stride=64))
    assert np.mean([one.at_1 for one in recalls]) == pytest.approx(1 / 40, abs=0.012)
    assert np.mean([one.at_5 for one in recalls]) == pytest.approx(5 / 40, abs=0.04)


@pytest.mark.parametrize("num_features", [1, 5, 1000])
def test_l1_distances_match_definition(num_features):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(7, num_features)), rng.normal(size=(3, num_features))
    expected = np.abs(one[:, None] - other).sum(axis=-1)
    np.testing.assert_allclose(l1_distances(one, other), expected)


def test_measure_recall_swapped_windows_are_not_found():
    places = np.array([[1.0], [2.0], [3.0], [4.0]])
    moved = image_of(np.roll(places, 1, axis=0))
    swapped = image_of(places[[1, 0, 2, 3]])
    for other, expected in ((moved, 0.0), (swapped, 0.5)):
        recall = measure_recall(bands_of, [np.stack([image_of(places), other])], stride=64)
        assert recall.at_1 == expected
        assert recall.chance == 0.25


def test_measure_recall_matches_hand_value():
    first = image_of([[0.0], [1.0], [2.0], [3.0]])
    second = image_of([[0.4], [2.6], [2.1], [0.9]])
    # First in second: 0 to 0.4, right; 1 to 0.9, wrong; 2 to 2.1, right; 3 to 2.6, wrong.
    # Second in first: 0.4 to 0, right; 2.6 to 3, wrong; 2.1 to 2, right; 0.9 to 1, wrong.
    recall = measure_recall(bands_of, [np.stack([first, second])], stride=64)
    assert (recall.at_1, recall.chance, recall.num_queries) == (4 / 8, 1 / 4, 8)


def test_measure_recall_uses_l1_distance():
    first = image_of([[0.0, 0.0], [100.0, 100.0]])
    second = image_of([[0.0, 5.0], [3.0, 3.0]])
    # From (0, 0) to its own place 5, to the other 6; by L2 it would be 5 and 4.2. From (100, 100)
    # to its own 194, to the other 195. From (0, 5) to its own 5. From (3, 3) to its own 194.
    recall = measure_recall(bands_of, [np.stack([first, second])], stride=64)
    assert recall.at_1 == 3 / 4


def test_measure_recall_searches_own_series_only():
    large = np.stack([image_of([[1.0], [2.0], [3.0], [4.0]])] * 2)
    small = np.stack([image_of([[1.0]])] * 2)
    recall = measure_recall(bands_of, [large, small], stride=64)
    # Eight queries among four windows, two among one.
    assert recall.at_1 == 1.0
    assert recall.num_queries == 10
    assert recall.chance == pytest.approx((8 / 4 + 2 / 1) / 10)


def test_measure_recall_series_of_one_date_is_skipped():
    both = np.stack([image_of([[1.0], [2.0]])] * 2)
    recall = measure_recall(bands_of, [both, both[:1]], stride=64)
    assert (recall.at_1, recall.chance, recall.num_queries) == (1.0, 0.5, 4)
    assert recall.num_series == 1


@pytest.mark.parametrize("series", [[], [noise(64, 64, dates=1)]], ids=["none", "one date"])
def test_measure_recall_without_pairs_of_dates_is_refused(series):
    with pytest.raises(DataError, match="at least one series of two or more dates"):
        measure_recall(raw_pixels, series)


def test_measure_recall_zero_queries_is_refused():
    with pytest.raises(ConfigError, match="num_queries must be at least 1"):
        measure_recall(raw_pixels, [noise(64, 64, dates=2)], num_queries=0)


def test_measure_recall_small_image_is_refused():
    with pytest.raises(ConfigError, match="does not fit"):
        measure_recall(raw_pixels, [noise(64, 60, dates=2)])


def test_measure_recall_windows_without_data_are_not_found():
    image = image_of([[1.0], [2.0], [3.0]])
    other = image.copy()
    other[:, 64:128] = 0
    recall = measure_recall(bands_of, [np.stack([image, other])], stride=64)
    # The one in the middle is not there to be found, nor does it find itself.
    assert recall.at_1 == 4 / 6


@pytest.mark.parametrize("mode", ["exact", "dense"])
def test_measure_recall_modes_give_same_scores(mode):
    series = (noise(90, 101, dates=2) * 4000 + 1).astype(np.uint16)
    series[1, 30:40] = 7
    encoder = FilterEncoder()
    recall = measure_recall(encoder, [series], num_queries=9, stride=8, mode=mode)
    assert recall == measure_recall(encoder, [series], num_queries=9, stride=8)
    assert recall.chance < recall.at_1 < 1
    with pytest.raises(ConfigError, match="does not support dense mode"):
        measure_recall(raw_pixels, [series], mode="dense")
