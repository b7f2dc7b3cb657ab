import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.tiling import Window, sliding_offsets
from sits_keras.explore.engine.pixel_search import block_sums, find_pixels
from sits_keras.tasks.retrieval.search import find_windows
from sits_keras.tasks.windows.sliding import iterate_windows, raw_pixels


def search(queried, at, searched, stride, num_matches, min_distance, most=None):
    strips = open_strips(searched)
    rows, cols = (np.array(sliding_offsets(n, 64, stride)) for n in searched.shape[:2])
    share = np.stack(
        [one.valid_fraction for one in iterate_windows(raw_pixels, open_strips(searched), stride)]
    )
    row, col = at
    return find_pixels(
        queried[row : row + 64, col : col + 64],
        rows,
        cols,
        share,
        block_sums(strips, rows, cols),
        lambda row, col: searched[row : row + 64, col : col + 64],
        num_matches=num_matches,
        min_distance=min_distance,
        most=most,
    )


def smooth(seed, height, width):
    """A texture of two scales, so that near windows are alike."""
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
def test_it_finds_what_the_task_finds(seed, height, width, stride, num_matches, min_distance):
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


def test_it_compares_few_windows_where_images_are_alike():
    image = smooth(0, 320, 320)
    noise = np.random.default_rng(1).integers(0, 200, image.shape)
    (best,), compared = search(image, (101, 99), (image + noise).astype(np.uint16), 4, 1, 0)
    assert best.window[:2] == (100, 100)
    assert compared < 65 * 65 / 4


def test_it_compares_no_more_than_it_may():
    image, other = smooth(0, 200, 200), smooth(5, 200, 200)
    found, compared = search(image, (0, 0), other, 4, 3, 0, most=100)
    every, _ = search(image, (0, 0), other, 4, 3, 0)
    assert compared == 100
    assert len(found) == 3
    assert found[0].distance >= every[0].distance


def test_windows_without_data_are_not_found():
    image = smooth(0, 64, 200)
    searched = image.copy()
    searched[:, :140] = 0
    found, _ = search(image, (0, 0), searched, 4, 9, 0)
    assert {one.window.col for one in found} <= set(range(80, 140, 4))
    nothing, compared = search(image, (0, 0), np.zeros_like(image), 4, 9, 0)
    assert (nothing, compared) == ([], 0)


def test_sums_of_blocks_are_exact():
    image = np.full((64, 72, 1), 65_535, np.uint16)
    sums = block_sums(open_strips(image), [0], [0, 8])
    assert sums.shape == (8, 9, 1)
    assert (sums == 64 * 65_535).all()


@pytest.mark.parametrize("last", [64, 70])
def test_windows_that_are_shifted_in_have_blocks_of_their_own(last):
    image = smooth(2, 64, 64 + last)
    cols = sliding_offsets(64 + last, 64, 32)
    sums = block_sums(open_strips(image), [0], cols)
    lefts = sorted({col + 8 * i for col in cols for i in range(8)})
    expected = [
        [image[8 * i : 8 * i + 8, c : c + 8].sum(axis=(0, 1)) for c in lefts] for i in range(8)
    ]
    np.testing.assert_array_equal(sums, expected)
