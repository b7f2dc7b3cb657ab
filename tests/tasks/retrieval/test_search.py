import matplotlib.image
import numpy as np
import pytest
from fake_series import BANDS, make_image, save, save_series

from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError
from sits_keras.tasks.retrieval.search import (
    find_windows,
    near_fraction,
    plot_matches,
    retrieve,
    sample_queries,
)
from sits_keras.tasks.series import open_image
from sits_keras.tasks.windows import raw_pixels


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(1, 3000, (height, width, 2)).astype(np.uint16)


def at(row, col):
    return Window(row, col, 64, 64)


def corner(images):
    """Encodes a window as its first pixel's first band, in stored values."""
    return images[:, 0, 0, :1] * 10_000


def gradient(height, width):
    """An image whose values are `1 + row + col`, so that windows are as alike as they are near."""
    return np.repeat(np.add(*np.indices((height, width)))[..., None] + 1, 2, axis=-1).astype("u2")


def test_find_windows_finds_windows_at_their_place():
    image = open_strips(noise(100, 130))
    queries = [at(36, 0), at(0, 66), at(8, 4)]  # two of them are shifted in at the far edges
    found = find_windows(raw_pixels, image, queries, image, stride=4)
    assert [(m.query, m.rank, m.window) for m in found] == [
        (i, 1, w) for i, w in enumerate(queries)
    ]
    assert [m.distance for m in found] == pytest.approx([0, 0, 0], abs=1e-6)


def test_find_windows_finds_moved_windows():
    image = noise(90, 90)
    searched = noise(120, 150, seed=1)
    searched[40:130, 60:150] = image[: 120 - 40]
    found = find_windows(
        raw_pixels, open_strips(image), [at(0, 4)], open_strips(searched), stride=4
    )
    assert found[0].window == at(40, 64)


def test_find_windows_returns_l1_distances():
    image = gradient(64, 100)
    queries = [at(0, 10)]
    found = find_windows(
        corner,
        open_strips(image),
        queries,
        open_strips(image),
        stride=36,
        num_matches=2,
        min_distance=0,
    )
    assert [(m.rank, m.window.col) for m in found] == [(1, 0), (2, 36)]
    assert [m.distance for m in found] == pytest.approx([10, 26], abs=1e-3)


@pytest.mark.parametrize(("min_distance", "stride"), [(0, 4), (10, 4), (32, 4), (32, 7), (40, 16)])
def test_find_windows_matches_keep_min_distance(min_distance, stride):
    image = open_strips(gradient(150, 170))
    found = find_windows(
        corner, image, [at(40, 40)], image, stride=stride, num_matches=6, min_distance=min_distance
    )
    assert [m.rank for m in found] == list(range(1, 7))
    distances = [m.distance for m in found]
    assert distances == sorted(distances)
    # All windows, nearest first; a match is the next that is far enough from those before.
    for index, match in enumerate(found):
        for other in found[:index]:
            rows, cols = (abs(np.subtract(match.window, other.window))[i] for i in (0, 1))
            assert max(rows, cols) >= min_distance
    kept = [(m.window.row, m.window.col) for m in found]
    for row in [*range(0, 87, stride), 86]:
        for col in [*range(0, 107, stride), 106]:
            distance = abs(row + col - 80)
            if distance < distances[-1] - 1e-3 and (row, col) not in kept:
                nearer = [m for m in found if m.distance <= distance + 1e-3]
                assert any(
                    max(abs(row - m.window.row), abs(col - m.window.col)) < min_distance
                    for m in nearer
                )


def test_find_windows_seed_orders_ties():
    image = open_strips(noise(200, 200))

    def found(seed):
        (match,) = find_windows(
            lambda images: np.zeros((len(images), 3)), image, [at(0, 0)], image, stride=8, seed=seed
        )
        return match.window[:2]

    assert found(0) == found(0)
    places = np.array([found(seed) for seed in range(12)])
    assert len(np.unique(places, axis=0)) > 6
    assert np.ptp(places, axis=0).min() > 60  # all over the image, not near the first


def test_find_windows_windows_without_data_are_not_found():
    image = noise(64, 192)
    searched = image.copy()
    searched[:, :64] = 0
    found = find_windows(
        raw_pixels, open_strips(image), [at(0, 0)], open_strips(searched), stride=64
    )
    assert found[0].window.col in (64, 128)
    with pytest.raises(DataError, match="the image has no window with data"):
        find_windows(raw_pixels, open_strips(image), [at(0, 0)], open_strips(image * 0))


@pytest.mark.parametrize("window", [at(37, 0), at(0, -1), Window(0, 0, 64, 65)])
def test_find_windows_query_outside_is_refused(window):
    image = open_strips(noise(100, 100))
    with pytest.raises(ConfigError, match=r"rows 0 to 36 and columns 0 to 36\. Received: row"):
        find_windows(raw_pixels, image, [window], image)


@pytest.mark.parametrize("wrong", [{"num_matches": 0}, {"min_distance": -1}])
def test_find_windows_number_out_of_range_is_refused(wrong):
    image = open_strips(noise(64, 64))
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        find_windows(raw_pixels, image, [at(0, 0)], image, **wrong)


# Draws


def test_sample_queries_samples_grid_without_replacement():
    image = open_strips(noise(80, 100))
    windows = sample_queries(image, 100, stride=8, seed=0)
    expected = {at(row, col) for row in (0, 8, 16) for col in (0, 8, 16, 24, 32, 36)}
    assert set(windows) == expected
    assert len(windows) == len(expected)
    some = [sample_queries(image, 5, stride=8, seed=seed) for seed in (0, 0, 1)]
    assert len(some[0]) == 5
    assert some[0] == some[1] != some[2]


def test_sample_queries_have_data():
    image = noise(64, 300)
    image[:, :200] = 0
    windows = sample_queries(open_strips(image), 8, stride=4)
    assert windows
    assert min(window.col for window in windows) >= 200 - 32
    image[:] = 0
    with pytest.raises(DataError, match="has data in half of its pixels"):
        sample_queries(open_strips(image), 8)


def test_sample_queries_zero_or_small_image_is_refused():
    with pytest.raises(ConfigError, match="num_queries must be at least 1"):
        sample_queries(open_strips(noise(64, 64)), 0)
    with pytest.raises(ConfigError, match="smaller than a window"):
        sample_queries(open_strips(noise(64, 60)), 1)


# What was found


def test_near_fraction_and_chance_match_hand_values():
    image = open_strips(noise(64, 192))
    queries = [at(0, 0), at(0, 128)]
    found = find_windows(raw_pixels, image, queries, image, stride=32)
    # Windows at 0, 32, 64, 96, 128: two are near to either query.
    assert near_fraction(queries, found, image.grid, 32) == (1.0, pytest.approx(2 / 5))
    swapped = [m._replace(query=1 - m.query) for m in found][::-1]
    assert near_fraction(queries, swapped, image.grid, 32)[0] == 0


def test_plot_matches_large_image_is_thinned(tmp_path):
    image = open_strips(np.full((64, 4000, 1), 800, np.uint16), ("B04",))
    found = find_windows(corner, image, [at(0, 0)], image, stride=64)
    path = plot_matches(image, [at(0, 0)], image, found, tmp_path / "a.png")
    height, width, _ = matplotlib.image.imread(path).shape
    assert width < 2000
    assert height < 300


# Series


def test_retrieve_finds_windows_of_a_raster_in_a_series(tmp_path):
    # Each date has noise of its own, and one is cloudy: the mean is nearer to the land than they.
    land = make_image(0, 100, 130).astype(int)
    rng = np.random.default_rng(1)
    dates = [np.clip(land + rng.normal(0, 1500, land.shape), 1, None) for _ in range(4)]
    dates[2][:] = 9000
    clouds = np.zeros((4, 100, 130), bool)
    clouds[2] = True
    folder = save_series(tmp_path / "lake", [one.astype(np.uint16) for one in dates], clouds)
    path = save(tmp_path / "land.tif", land.astype(np.uint16))
    places = [(36, 0), (0, 66), (8, 4)]
    options = {"at": places, "stride": 4, "bands": BANDS}
    done = retrieve(path, folder, tmp_path / "a.geojson", raw_pixels, **options)
    assert [match.window[:2] for match in done.matches] == places
    assert done.near_fraction == 1
    one_date = folder / "2020-01-01.tif"
    alone = retrieve(path, one_date, tmp_path / "b.geojson", raw_pixels, **options)
    for mean, one in zip(done.matches, alone.matches, strict=True):
        assert mean.distance < one.distance
    # The other way round, and several rasters in place of their folder.
    paths = [folder / f"2020-0{month}-01.tif" for month in (1, 2, 4)]
    back = retrieve(paths, path, tmp_path / "c.geojson", raw_pixels, **options)
    assert [match.window[:2] for match in back.matches] == places
    np.testing.assert_allclose(
        [one.distance for one in back.matches], [one.distance for one in done.matches], rtol=1e-5
    )


def test_sample_queries_of_series_have_clear_pixels(tmp_path):
    clouds = np.zeros((2, 100, 200), bool)
    clouds[:, :, 100:] = True
    images = [make_image(seed, 100, 200) for seed in range(2)]
    strips = open_image(save_series(tmp_path / "lake", images, clouds), BANDS)
    assert all(window.col <= 100 - 32 for window in sample_queries(strips, 20, stride=4))
