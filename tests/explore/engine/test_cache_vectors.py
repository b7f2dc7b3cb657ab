import fake_encoders
import numpy as np
import pytest

from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.rows import open_strips
from sits_keras.explore.engine.cache import Vectors, choose_stride, write_vectors
from sits_keras.tasks.windows.sliding import iterate_windows


@pytest.mark.parametrize(
    ("size", "is_dense", "stride"),
    [
        ((128, 128), True, 4),
        ((1024, 1024), True, 8),
        ((10_980, 10_980), True, 64),
        ((128, 128), False, 4),
        ((1024, 1024), False, 16),
    ],
)
def test_a_raster_has_as_many_windows_as_a_click_compares(size, is_dense, stride):
    assert choose_stride(Grid(*size, None, None), is_dense) == stride


@pytest.fixture
def image():
    values = np.random.default_rng(0).integers(1, 3000, (101, 131, 2)).astype(np.uint16)
    values[:80, :80] = 0  # some windows without data
    return values


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_kept_windows_are_those_of_the_tasks(stride, image, tmp_path):
    encoder = fake_encoders.FilterEncoder()
    shares = []
    write_vectors(tmp_path, open_strips(image), encoder, 8, shares.append)
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in tmp_path.glob("*.npy")}
    vectors = Vectors(8, **arrays)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    expected = list(iterate_windows(encoder, open_strips(image), stride))
    found = list(vectors.window_rows(stride))
    assert [one.row for one in found] == [one.row for one in expected]
    for one, other in zip(found, expected, strict=True):
        for name in ("cols", "features", "valid_fraction", "brightness"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert np.isnan(found[0].features[0]).all()


def test_work_is_given_up_where_its_progress_raises(image, tmp_path):
    def stop(share):
        raise StopIteration(share)

    with pytest.raises(StopIteration):
        write_vectors(tmp_path, open_strips(image), fake_encoders.FilterEncoder(), 8, stop)
