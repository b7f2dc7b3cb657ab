import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sits_keras.data.tiling import (
    Window,
    grid_windows,
    patch_windows,
    reflect,
    sliding_offsets,
    sliding_windows,
    split_evenly,
)
from sits_keras.errors import ConfigError

lengths = st.integers(1, 5000)
sides = st.integers(1, 100)


def times_covered(windows: list[Window], height: int, width: int) -> np.ndarray:
    counts = np.zeros((height, width), int)
    for window in windows:
        assert min(window) >= 0
        assert window.row + window.height <= height
        assert window.col + window.width <= width
        rows = slice(window.row, window.row + window.height)
        counts[rows, window.col : window.col + window.width] += 1
    return counts


@given(lengths, st.integers(1, 1500))
def test_split_evenly_parts_follow_each_other_from_end_to_end(length, largest):
    parts = split_evenly(length, largest)
    ends = [offset + size for offset, size in parts]
    assert [offset for offset, _ in parts] == [0, *ends[:-1]]
    assert ends[-1] == length


@given(lengths, st.integers(1, 1500))
def test_split_evenly_parts_are_within_largest_and_equal_to_within_a_pixel(length, largest):
    sizes = [size for _, size in split_evenly(length, largest)]
    assert max(sizes) <= largest
    assert max(sizes) - min(sizes) <= 1


@given(lengths, st.integers(1, 1500))
def test_split_evenly_parts_are_as_few_as_can_be(length, largest):
    num_parts = len(split_evenly(length, largest))
    assert (num_parts - 1) * largest < length <= num_parts * largest


@given(st.integers(1, 64), st.integers(0, 200), lengths)
def test_split_evenly_parts_hold_a_crop_where_largest_is_twice_the_crop(crop, extra, length):
    assume(length >= crop)
    assert min(size for _, size in split_evenly(length, 2 * crop + extra)) >= crop


@pytest.mark.parametrize(
    ("length", "largest", "expected"),
    [
        (64, 128, [(0, 64)]),
        (128, 128, [(0, 128)]),
        (129, 128, [(0, 64), (64, 65)]),
        (10, 4, [(0, 3), (3, 3), (6, 4)]),
        (3, 1, [(0, 1), (1, 1), (2, 1)]),
        (
            1098,
            128,
            [(index * 122, 122) for index in range(9)],
        ),
    ],
)
def test_split_evenly_gives_known_parts(length, largest, expected):
    assert split_evenly(length, largest) == expected


@pytest.mark.parametrize("values", [{"length": 0}, {"largest": 0}, {"largest": -3}])
def test_split_evenly_below_one_pixel_raises(values):
    name, value = next(iter(values.items()))
    with pytest.raises(ConfigError, match=rf"{name} must be at least 1 .*{name}={value}"):
        split_evenly(**{"length": 5, "largest": 5, **values})


@given(sides, sides, st.integers(3, 120))
def test_grid_windows_cover_every_pixel_once(height, width, largest):
    windows = grid_windows(height, width, largest)
    np.testing.assert_array_equal(times_covered(windows, height, width), 1)


@given(sides, sides, st.integers(3, 120))
def test_grid_windows_are_within_largest_and_even(height, width, largest):
    windows = grid_windows(height, width, largest)
    for side in ([w.height for w in windows], [w.width for w in windows]):
        assert max(side) <= largest
        assert max(side) - min(side) <= 1


def test_grid_windows_go_row_by_row():
    assert grid_windows(200, 129, 128) == [
        Window(0, 0, 100, 64),
        Window(0, 64, 100, 65),
        Window(100, 0, 100, 64),
        Window(100, 64, 100, 65),
    ]


@given(lengths, st.integers(1, 300), st.integers(1, 300))
def test_sliding_offsets_go_up_to_the_very_end_by_strides_at_most(length, size, stride):
    assume(length >= size)
    offsets = sliding_offsets(length, size, stride)
    assert offsets[0] == 0
    assert offsets[-1] == length - size
    assert all(0 < b - a <= stride for a, b in itertools.pairwise(offsets))


@given(lengths, st.integers(1, 300), st.integers(1, 300))
def test_sliding_offsets_only_the_last_sliding_offset_may_leave_the_stride(length, size, stride):
    assume(length >= size)
    assert all(offset % stride == 0 for offset in sliding_offsets(length, size, stride)[:-1])


@pytest.mark.parametrize(
    ("length", "size", "stride", "expected"),
    [
        (64, 64, 32, [0]),
        (128, 64, 32, [0, 32, 64]),
        (100, 64, 32, [0, 32, 36]),
        (65, 64, 500, [0, 1]),
        (5, 2, 1, [0, 1, 2, 3]),
    ],
)
def test_sliding_offsets_known_sliding_offsets(length, size, stride, expected):
    assert sliding_offsets(length, size, stride) == expected


def test_sliding_offsets_line_shorter_than_a_window_is_refused():
    with pytest.raises(ConfigError, match="64 px does not fit into 63 px"):
        sliding_offsets(63, 64, 8)


@pytest.mark.parametrize("name", ["length", "size", "stride"])
def test_sliding_offsets_below_one_pixel_raises(name):
    with pytest.raises(ConfigError, match=rf"{name} must be at least 1 .*{name}=0"):
        sliding_offsets(**{"length": 9, "size": 3, "stride": 2, name: 0})


def test_sliding_windows_go_row_by_row_and_reach_the_far_corner():
    assert sliding_windows(5, 7, 3, 3) == [
        Window(0, 0, 3, 3),
        Window(0, 3, 3, 3),
        Window(0, 4, 3, 3),
        Window(2, 0, 3, 3),
        Window(2, 3, 3, 3),
        Window(2, 4, 3, 3),
    ]


@given(st.integers(8, 60), st.integers(8, 60), st.integers(1, 8))
def test_sliding_windows_leave_no_pixel_out_where_the_stride_is_within_the_window(
    height, width, stride
):
    assert times_covered(sliding_windows(height, width, 8, stride), height, width).min() >= 1


@given(st.integers(64, 700), st.integers(64, 700), st.integers(128, 300))
def test_patch_windows_patches_cover_a_raster_once_and_each_holds_a_crop(height, width, size):
    covered = np.zeros((height, width), int)
    for row, col, rows, cols in patch_windows(height, width, size, 64):
        assert 64 <= rows <= size
        assert 64 <= cols <= size
        covered[row : row + rows, col : col + cols] += 1
    assert (covered == 1).all()


def test_patch_windows_patches_lie_on_the_tiles_of_a_file():
    windows = patch_windows(10_980, 10_980, 1024, 64)
    assert len(windows) == 11 * 11
    assert all(w.row % 1024 == w.col % 1024 == 0 for w in windows)
    assert windows[10] == (0, 10_240, 1024, 740)


def test_patch_windows_papers_25_patches_are_those_in_the_middle_of_a_tile():
    windows = patch_windows(10_980, 10_980, 1024, 64, central=5)
    assert len(windows) == 25
    assert (windows[0], windows[-1]) == ((3072, 3072, 1024, 1024), (7168, 7168, 1024, 1024))


@given(st.integers(1, 4), st.integers(0, 127), st.integers(0, 127))
def test_patch_windows_central_patches_are_as_near_to_the_middle_as_the_grid_allows(
    central, more, others
):
    height, width = 512 + more, 768 + others
    windows = patch_windows(height, width, 128, 64, central)
    assert len(windows) == central**2
    for offset, length in ((windows[0].row, height), (windows[0].col, width)):
        assert offset % 128 == 0
        assert abs(offset + central * 64 - length / 2) <= 64


def test_patch_windows_too_many_central_patches_are_refused():
    with pytest.raises(ConfigError, match="11 x 11 patches of 1024 px do not fit into 10980 x 109"):
        patch_windows(10_980, 10_980, 1024, 64, central=11)


@pytest.mark.parametrize(("before", "length", "after"), [(0, 64, 0), (31, 64, 47), (9, 4, 20)])
def test_reflect_places_beyond_the_ends_are_reflected_as_numpy_pads(before, length, after):
    places = reflect(np.arange(-before, length + after), length)
    padded = np.pad(np.arange(length), (before, after), mode="reflect")
    np.testing.assert_array_equal(places, padded)
