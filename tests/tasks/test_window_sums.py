import numpy as np
import pytest

from sits_keras.data.tiling import sliding_offsets
from sits_keras.errors import ConfigError
from sits_keras.tasks.window_sums import check_stride, sum_over_windows


def rows_of(height, width, stride, values):
    """Windows whose values are given by a function of where they begin."""
    cols = np.array(sliding_offsets(width, 64, stride))
    for row in sliding_offsets(height, 64, stride):
        yield row, cols, np.array([values(row, col) for col in cols], float)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 90), (200, 131)])
@pytest.mark.parametrize("stride", [7, 32, 64])
def test_sum_over_windows_sums_covering_windows(height, width, stride):
    def values(row, col):
        return row + 1, col * 0.5, 1

    expected = np.zeros((height, width, 3))
    for row, cols, some in rows_of(height, width, stride, values):
        for col, one in zip(cols, some, strict=True):
            expected[row : row + 64, col : col + 64] += one
    parts = list(sum_over_windows(rows_of(height, width, stride, values), height, width))
    found = np.concatenate([part.spread(part.sums) for part in parts])
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert expected[..., 2].min() >= 1
    top = 0
    for part in parts:
        assert part.row == top
        assert part.num_rows <= 64
        top += part.num_rows
    assert top == height


def test_sum_over_windows_yields_finished_rows_early():
    rows = rows_of(200, 64, 32, lambda row, col: (1,))
    assert next(sum_over_windows(rows, 200, 64)).row == 0
    assert [row for row, _, _ in rows] == [64, 96, 128, 136]  # what is not read yet


@pytest.mark.parametrize("stride", [0, -1, 65])
def test_check_stride_out_of_range_is_refused(stride):
    with pytest.raises(ConfigError, match=f"must be 1 to 64 px.* Received: {stride}"):
        check_stride(stride)
    check_stride(1)
    check_stride(64)


def test_sum_over_windows_equal_values_give_equal_sums():
    # 0.1 + 0.2 + 0.3 - 0.1 - 0.2 - 0.3 is not 0.
    def values(row, col):
        return (0.1 * (col // 32 + 1) * (col < 96),)

    parts = sum_over_windows(rows_of(64, 300, 32, values), 64, 300)
    sums = np.concatenate([part.spread(part.sums) for part in parts])
    assert not sums[:, 128 + 32 :].any()


def test_equal_rows_spread_repeats_cells():
    one, *others = sum_over_windows(rows_of(70, 70, 32, lambda row, col: (1,)), 70, 70)
    # Windows begin in rows and columns 0 and 6.
    assert one.edges.tolist() == [0, 6, 64, 70]
    assert [(part.row, part.num_rows) for part in (one, *others)] == [(0, 6), (6, 58), (64, 6)]
    labels = one.spread(np.array([1, 2, 3], np.uint8))
    np.testing.assert_array_equal(labels, [[1] * 6 + [2] * 58 + [3] * 6] * 6)
    assert labels.dtype == np.uint8
