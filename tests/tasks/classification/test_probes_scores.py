import matplotlib.image
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix

from sits_keras.errors import DataError
from sits_keras.tasks.classification.probes import plot_confusion, score, wilson_interval


def test_score_equals_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    result = score(labels, predicted, 4)
    assert result.accuracy == accuracy_score(labels, predicted)
    np.testing.assert_array_equal(result.confusion, confusion_matrix(labels, predicted))
    assert result.num_test == 200
    assert (result.low, result.high) == wilson_interval(result.accuracy, 200)


def test_score_missing_class_has_row_and_column():
    result = score(np.array([0, 2]), np.array([2, 2]), 4)
    assert result.confusion.tolist() == [[0, 0, 1, 0], [0] * 4, [0, 0, 1, 0], [0] * 4]


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        # Newcombe (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_interval_matches_published_values(right, count, low, high):
    interval = wilson_interval(right / count, count)
    assert interval == pytest.approx((low, high), abs=5e-5)


def test_score_without_images_is_refused():
    with pytest.raises(DataError, match="at least one image to test on"):
        score(np.array([], int), np.array([], int), 3)


def test_plot_confusion_writes_matrix(tmp_path):
    path = plot_confusion(np.array([[9, 1], [0, 0]]), ["Forest", "River"], tmp_path / "a.png")
    picture = matplotlib.image.imread(path)
    assert picture.shape[0] > 200
    # The fraction 0.9 is dark blue and covers more pixels than text or frame.
    dark = (picture[..., 2] > 0.4) & (picture[..., 0] < 0.2)
    assert dark.mean() > 0.05
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]
