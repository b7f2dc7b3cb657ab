import fake_encoders
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.tiling import Window, sliding_offsets
from sits_keras.explore.engine.analysis import (
    ThresholdScores,
    assign_colours,
    clip_window,
    find_by_features,
    find_by_pixels,
    histogram,
    map_position,
    window_around,
)
from sits_keras.explore.engine.cache import Vectors, block_sums, write_vectors
from sits_keras.tasks.retrieval.search import find_windows
from sits_keras.tasks.windows import encode_at, iterate_windows, raw_pixels


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    coarse = rng.integers(1, 3000, (9, 9, 2)).repeat(16, 0).repeat(16, 1)
    values = (coarse + rng.integers(0, 200, coarse.shape)).astype(np.uint16)
    values[:80, :80] = 0
    return values


@pytest.fixture
def vectors(image, tmp_path):
    write_vectors(
        tmp_path, open_strips(image), fake_encoders.FilterEncoder(), 8, lambda fraction: None
    )
    return Vectors(8, **{file.stem: np.load(file) for file in tmp_path.glob("*.npy")})


@pytest.mark.parametrize("at", [(0, 80), (33, 41), (80, 80)])
@pytest.mark.parametrize(("num_matches", "min_distance"), [(1, 32), (5, 32), (9, 0)])
def test_find_by_features_equals_find_windows(at, num_matches, min_distance, image, vectors):
    encoder, window = fake_encoders.FilterEncoder(), Window(*at, 64, 64)
    query = encode_at(encoder, open_strips(image), [window])
    found = find_by_features(query, vectors, num_matches, min_distance)
    expected = find_windows(
        encoder,
        open_strips(image),
        [window],
        open_strips(image),
        stride=8,
        num_matches=num_matches,
        min_distance=min_distance,
    )
    assert found == expected


@pytest.mark.parametrize(
    ("point", "expected"),
    [((50.2, 40.9), (8, 18)), ((0, 0), (0, 0)), ((99.9, 79.9), (16, 36)), ((-5, 200), (16, 0))],
)
def test_window_around_click_is_centred(point, expected):
    x, y = point
    assert window_around(x, y, 80, 100) == expected


def test_clip_window_is_within_raster():
    assert clip_window(-3, 500, 80, 100) == (0, 36)
    assert clip_window(7, 9, 80, 100) == (7, 9)


def test_map_position_is_centre_of_window():
    grid = Grid(100, 100, "EPSG:32631", (10.0, 0.0, 6e5, 0.0, -10.0, 5e6))
    assert map_position(8, 18, grid) == "600500, 4999600 in EPSG:32631"
    assert map_position(8, 18, grid._replace(crs="x" * 99)) == "600500, 4999600 in its CRS"
    assert map_position(8, 18, Grid(100, 100, None, None)) == ""


@given(st.integers(0, 2**20), st.integers(2, 60))
def test_threshold_scores_f1_equals_scikit_learn(seed, count):
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, 8, count) / 4  # with ties
    truth = rng.random(count) < 0.4
    truth[:2] = False, True
    scores = ThresholdScores(distances, truth)
    thresholds = np.linspace(-0.25, 2.25, 11)
    expected = [f1_score(truth, distances > one, zero_division=0) for one in thresholds]
    np.testing.assert_allclose(scores.f1(thresholds), expected)
    at, best = scores.best()
    assert best == pytest.approx(f1_score(truth, distances > at, zero_division=0))
    above = [one for t, one in zip(thresholds, expected, strict=True) if t >= distances.min()]
    assert best >= max(above) - 1e-12


def test_histogram_is_of_fractions():
    shares, edges = histogram(np.array([0.0, 0.0, 1.0, 3.0]))
    assert (shares[0], shares.sum(), edges[0], edges[-1]) == (0.5, 1, 0, 3)


CENTRES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def test_assign_colours_follows_permuted_clusters():
    moved = CENTRES[[2, 0, 1]] + 0.5
    assert assign_colours(moved, CENTRES, [4, 5, 6], 10) == [6, 4, 5]


def test_assign_colours_gives_a_new_cluster_a_free_colour():
    more = np.insert(CENTRES + 0.1, 1, [[20, 20]], axis=0)
    assert assign_colours(more, CENTRES, [0, 1, 2], 10) == [0, 3, 1, 2]


def test_assign_colours_keeps_colours_when_a_cluster_goes():
    assert assign_colours(CENTRES[[0, 2]], CENTRES, [7, 8, 9], 10) == [7, 9]


def test_assign_colours_repeats_colours_when_there_are_too_few():
    colours = assign_colours(np.arange(8.0).reshape(4, 2), CENTRES, [0, 1, 2], 3)
    assert set(colours) == {0, 1, 2}


def search(queried, at, searched, stride, num_matches, min_distance, max_compared=None):
    strips = open_strips(searched)
    rows, cols = (np.array(sliding_offsets(n, 64, stride)) for n in searched.shape[:2])
    fraction = np.stack(
        [row.valid_fraction for row in iterate_windows(raw_pixels, open_strips(searched), stride)]
    )
    features = np.zeros((*fraction.shape, 1), np.float32)
    blocks = block_sums(strips, rows, cols)
    row, col = at
    return find_by_pixels(
        queried[row : row + 64, col : col + 64],
        Vectors(stride, rows, cols, features, fraction, fraction, blocks),
        lambda row, col: searched[row : row + 64, col : col + 64],
        num_matches=num_matches,
        min_distance=min_distance,
        max_compared=max_compared,
    )


def smooth(seed, height, width):
    """Texture of two scales, so that near windows are similar."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(500, 3000, (height // 16 + 1, width // 16 + 1, 2))
    image = coarse.repeat(16, 0).repeat(16, 1)[:height, :width]
    return (image + rng.integers(0, 300, image.shape)).astype(np.uint16)


@settings(max_examples=15)
@given(
    st.integers(0, 2**20),
    st.integers(64, 110),
    st.integers(64, 110),
    st.sampled_from([4, 7, 16]),
    st.integers(1, 4),
    st.sampled_from([0, 8, 32]),
)
def test_find_by_pixels_equals_find_windows(seed, height, width, stride, num_matches, min_distance):
    queried, searched = smooth(seed, height, width), smooth(seed + 1, height, width)
    at = (height - 64, (width - 64) // 2)
    found, _ = search(queried, at, searched, stride, num_matches, min_distance)
    expected = find_windows(
        raw_pixels,
        open_strips(queried),
        [Window(*at, 64, 64)],
        open_strips(searched),
        stride=stride,
        num_matches=num_matches,
        min_distance=min_distance,
    )
    assert [one[:3] for one in found] == [one[:3] for one in expected]
    np.testing.assert_allclose(
        [one.distance for one in found], [one.distance for one in expected], rtol=1e-6
    )


def test_find_by_pixels_compares_few_windows_of_similar_images():
    image = smooth(0, 320, 320)
    noise = np.random.default_rng(1).integers(0, 200, image.shape)
    (best,), compared = search(image, (101, 99), (image + noise).astype(np.uint16), 4, 1, 0)
    assert best.window[:2] == (100, 100)
    assert compared < 65 * 65 / 4


def test_find_by_pixels_compares_at_most_max_compared():
    image, other = smooth(0, 200, 200), smooth(5, 200, 200)
    found, compared = search(image, (0, 0), other, 4, 3, 0, max_compared=100)
    every, _ = search(image, (0, 0), other, 4, 3, 0)
    assert compared == 100
    assert len(found) == 3
    assert found[0].distance >= every[0].distance


def test_find_by_pixels_skips_windows_without_data():
    image = smooth(0, 64, 200)
    searched = image.copy()
    searched[:, :140] = 0
    found, _ = search(image, (0, 0), searched, 4, 9, 0)
    assert {one.window.col for one in found} <= set(range(80, 140, 4))
    nothing, compared = search(image, (0, 0), np.zeros_like(image), 4, 9, 0)
    assert (nothing, compared) == ([], 0)
