import fake_encoders
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.tiling import Window
from sits_keras.explore.engine.cache import Vectors, write_vectors
from sits_keras.explore.engine.state import (
    ThresholdScores,
    histogram,
    inside,
    keep_colours,
    look_up,
    map_place,
    segment_vectors,
    window_at,
)
from sits_keras.tasks.retrieval.search import find_windows
from sits_keras.tasks.segmentation.maps import segment
from sits_keras.tasks.windows.sliding import encode_at


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
        tmp_path, open_strips(image), fake_encoders.FilterEncoder(), 8, lambda share: None
    )
    return Vectors(8, **{file.stem: np.load(file) for file in tmp_path.glob("*.npy")})


@pytest.mark.parametrize("at", [(0, 80), (33, 41), (80, 80)])
@pytest.mark.parametrize(("num_matches", "min_distance"), [(1, 32), (5, 32), (9, 0)])
def test_a_click_finds_what_the_verb_finds(at, num_matches, min_distance, image, vectors):
    encoder, window = fake_encoders.FilterEncoder(), Window(*at, 64, 64)
    query = encode_at(encoder, open_strips(image), [window])
    found = look_up(query, vectors, num_matches, min_distance)
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
def test_a_click_chooses_the_window_around_it(point, expected):
    x, y = point
    assert window_at(x, y, 80, 100) == expected


def test_a_window_stays_inside():
    assert inside(-3, 500, 80, 100) == (0, 36)
    assert inside(7, 9, 80, 100) == (7, 9)


def test_a_window_is_told_by_its_middle_on_the_map():
    grid = Grid(100, 100, "EPSG:32631", (10.0, 0.0, 6e5, 0.0, -10.0, 5e6))
    assert map_place(8, 18, grid) == "600500, 4999600 in EPSG:32631"
    assert map_place(8, 18, grid._replace(crs="x" * 99)) == "600500, 4999600 in its CRS"
    assert map_place(8, 18, Grid(100, 100, None, None)) == ""


@given(st.integers(0, 2**20), st.integers(2, 60))
def test_f1_of_any_threshold_is_that_of_scikit_learn(seed, count):
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


def test_a_histogram_is_of_shares():
    shares, edges = histogram(np.array([0.0, 0.0, 1.0, 3.0]))
    assert (shares[0], shares.sum(), edges[0], edges[-1]) == (0.5, 1, 0, 3)


@pytest.mark.parametrize(("num_clusters", "stride"), [(3, 8), (4, 16)])
def test_segments_are_those_of_the_task(num_clusters, stride, image, vectors):
    found = segment_vectors(vectors, open_strips(image), num_clusters, stride, 16)
    labels, clusters = segment(
        image,
        fake_encoders.FilterEncoder(),
        num_clusters=num_clusters,
        stride=stride,
        fit_stride=16,
    )
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.clusters.centres, clusters.centres)
    filled = labels[labels > 0]
    np.testing.assert_allclose(
        found.shares, [(filled == k + 1).mean() for k in range(num_clusters)]
    )


CENTRES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def test_clusters_that_only_change_places_keep_their_colours():
    moved = CENTRES[[2, 0, 1]] + 0.5
    assert keep_colours(moved, CENTRES, [4, 5, 6], 10) == [6, 4, 5]


def test_a_further_cluster_takes_a_free_colour():
    more = np.insert(CENTRES + 0.1, 1, [[20, 20]], axis=0)
    assert keep_colours(more, CENTRES, [0, 1, 2], 10) == [0, 3, 1, 2]


def test_where_one_goes_the_others_stay():
    assert keep_colours(CENTRES[[0, 2]], CENTRES, [7, 8, 9], 10) == [7, 9]


def test_there_may_be_more_clusters_than_colours():
    colours = keep_colours(np.arange(8.0).reshape(4, 2), CENTRES, [0, 1, 2], 3)
    assert set(colours) == {0, 1, 2}
