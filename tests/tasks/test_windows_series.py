"""Features of windows of a series, averaged over its dates."""

import copy
import datetime
import pickle

import numpy as np
import pytest
import rasterio
from fake_encoders import FilterEncoder
from fake_series import BANDS, make_image, save, save_series

from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.tiling import Window, reflect
from sits_keras.errors import ConfigError, DataError
from sits_keras.tasks import embed_raster, retrieve, segment_raster, series, windows
from sits_keras.tasks.series import open_image
from sits_keras.tasks.windows import encode_at, iterate_windows, read_and_encode

SHAPE = (104, 138)
SIDE = 64 + 3 + 5


@pytest.fixture
def images() -> list[np.ndarray]:
    return [make_image(seed, *SHAPE) for seed in range(3)]


@pytest.fixture
def clouds() -> list[np.ndarray]:
    clouds = np.zeros((3, *SHAPE), bool)
    clouds[0, :, :90] = True
    clouds[1, 30:50, 60:130] = True
    return list(clouds)


@pytest.fixture
def folder(images, clouds, tmp_path):
    return save_series(tmp_path / "lake", images, clouds)


def weights(cloud, rows, cols):
    """Fourth power of the fraction of the pixels that each window sees that are clear."""
    down, along = (reflect(np.arange(-3, length + 5), length) for length in SHAPE)
    clear = ~cloud[np.ix_(down, along)]
    return np.array(
        [[clear[row : row + SIDE, col : col + SIDE].mean() ** 4 for col in cols] for row in rows]
    )


def expected_means(images, clouds, stride):
    """Features of every date by itself, and their weighted mean."""
    total = sums = 0
    for image, cloud in zip(images, clouds, strict=True):
        found = list(iterate_windows(FilterEncoder(), open_strips(image), stride))
        weight = weights(cloud, [one.row for one in found], found[0].cols)[..., None]
        sums = sums + weight * np.stack([one.features for one in found])
        total = total + weight
    return sums / total


@pytest.mark.parametrize("mode", ["exact", "dense"])
@pytest.mark.parametrize("most", [1, 2, 128])
def test_iterate_windows_of_series_weights_dates_by_what_is_clear(
    mode, most, images, clouds, folder, monkeypatch
):
    monkeypatch.setattr(windows, "_AVERAGED", {True: most, False: most})
    found = list(iterate_windows(FilterEncoder(), open_image(folder, BANDS), 16, mode=mode))
    features = np.stack([one.features for one in found])
    np.testing.assert_allclose(features, expected_means(images, clouds, 16), rtol=1e-5)
    assert all((one.valid_fraction == 1).all() for one in found)


def test_iterate_windows_of_one_clear_date_equals_that_of_its_raster(images, tmp_path):
    path = save_series(tmp_path / "pond", images[:1], [np.zeros(SHAPE, bool)])
    rasters = open_strips(path / "2020-01-01.tif", BANDS), open_image(path, BANDS)
    for one, two in zip(*(iterate_windows(FilterEncoder(), r, 8) for r in rasters), strict=True):
        assert one.row == two.row
        np.testing.assert_array_equal(one.cols, two.cols)
        np.testing.assert_array_equal(one.features, two.features)
        np.testing.assert_array_equal(one.valid_fraction, two.valid_fraction)
        np.testing.assert_allclose(one.brightness, two.brightness, rtol=1e-6)


def test_iterate_windows_of_series_counts_pixels_that_are_clear_once(images, tmp_path):
    clouds = np.zeros((3, *SHAPE), bool)
    clouds[:, :80] = True
    clouds[0, :, 100:] = False
    images[2][:] = 0
    strips = open_image(save_series(tmp_path / "pond", images, clouds), BANDS)
    first, *_, last = iterate_windows(FilterEncoder(), strips, 8)
    is_valid = ~clouds[:2].all(axis=0)
    for found in (first, last):
        expected = [is_valid[found.row :, col:][:64, :64].mean() for col in found.cols]
        np.testing.assert_allclose(found.valid_fraction, expected)
    # The first windows see no clear pixel, the next ones only in their context.
    assert (first.valid_fraction[:5] == 0).all()
    assert np.isnan(first.features[:5]).all()
    assert np.isfinite(first.features[5:]).all()
    inside = np.s_[last.row : last.row + 64, :64]
    clear = [~cloud[inside] for cloud in clouds[:2]]
    values = np.concatenate([i[inside][c] for i, c in zip(images[:2], clear, strict=True)])
    assert last.brightness[0] == pytest.approx(values.mean() / 10_000, rel=1e-5)


def test_iterate_windows_of_series_reduces_averages(folder):
    strips = open_image(folder, BANDS)
    whole = iterate_windows(FilterEncoder(), strips, 16)
    largest = iterate_windows(
        FilterEncoder(), strips, 16, reduce=lambda features: features.max(axis=1)
    )
    for one, two in zip(whole, largest, strict=True):
        np.testing.assert_array_equal(two.features, one.features.max(axis=1))


def test_encode_at_of_series_equals_iterate_windows(folder):
    strips = open_image(folder, BANDS)
    found = {one.row: one for one in iterate_windows(FilterEncoder(), strips, 8)}
    places = [(40, 8), (0, 74), (16, 0)]
    features = encode_at(
        FilterEncoder(), strips, [Window(*place, 64, 64) for place in places], batch_size=2
    )
    for (row, col), one in zip(places, features, strict=True):
        index = found[row].cols.tolist().index(col)
        np.testing.assert_allclose(one, found[row].features[index], rtol=1e-6)


def test_read_and_encode_of_series_in_another_process(folder):
    strips = open_image(folder, BANDS)
    copied = pickle.loads(pickle.dumps(strips))
    first = next(iterate_windows(FilterEncoder(), strips, 8))
    layout = windows.WindowLayout(tuple(first.cols.tolist()), 8, True, 64)
    values, *_ = read_and_encode(FilterEncoder(), layout, None, [copied], [0])
    np.testing.assert_array_equal(values[0], first.features)


def test_series_rows_are_read_once(folder, monkeypatch):
    counts = []
    monkeypatch.setattr(
        series.SeriesImage,
        "_read",
        lambda self, index, window, read=series.SeriesImage._read: (
            counts.append(window.height) or read(self, index, window)
        ),
    )
    strips = open_image(folder, BANDS)
    whole = copy.deepcopy(strips).read(0, SHAPE[0])
    del counts[:]
    parts = [strips.read(row, min(8, SHAPE[0] - row)) for row in range(0, SHAPE[0], 4)]
    np.testing.assert_array_equal(np.concatenate([p[:4] for p in parts]), whole)
    assert sum(counts) == 3 * SHAPE[0]


def test_open_image_of_one_path_in_a_list_is_its_raster(folder, images, tmp_path):
    path = folder / "2020-01-01.tif"
    alone = save(tmp_path / "alone.tif", images[0])
    assert not isinstance(open_image([alone], BANDS), series.SeriesStrips)
    both = open_image([path, folder / "2020-02-01.tif"], BANDS)
    assert len(both.series.acquisitions) == 2
    with pytest.raises(ConfigError, match="read with the bands of an encoder"):
        open_image(folder, None)


@pytest.mark.parametrize("place", ["beside", "among its bands"])
def test_open_image_of_raster_with_mask_equals_series_of_its_date(place, images, clouds, tmp_path):
    name = "2020-01-01.tif"
    whole = save_series(tmp_path / "pond", images[:1], clouds[:1])
    masked = whole / name
    if place != "beside":
        classes = np.where(clouds[0], 9, 4).astype(np.uint16)[..., None]  # SCL: cloud, vegetation
        values = np.concatenate([images[0], classes], axis=-1)
        masked = save(tmp_path / name, values, names=(*BANDS, "SCL"))
    one, two = (open_image(source, BANDS) for source in (masked, whole))
    np.testing.assert_array_equal(one.read(0, 104), two.read(0, 104))
    assert (one.read(0, 104)[clouds[0]] == 0).all()
    for first, second in zip(
        *(iterate_windows(FilterEncoder(), image, 8) for image in (one, two)), strict=True
    ):
        np.testing.assert_array_equal(first.features, second.features)
        np.testing.assert_array_equal(first.valid_fraction, second.valid_fraction)


@pytest.mark.parametrize("bands", [BANDS, None])
def test_open_image_of_raster_with_mask_takes_its_bands(bands, images, clouds, tmp_path):
    folder = save_series(tmp_path / "pond", images[:1], clouds[:1])
    opened = open_image(folder / "2020-01-01.tif", bands)
    assert opened.bands == BANDS
    assert (opened.read(0, 104)[clouds[0]] == 0).all()
    unmasked = open_image(folder / "2020-01-01.tif", bands, use_mask=False)
    np.testing.assert_array_equal(unmasked.read(0, 104), images[0])


def test_maps_of_raster_with_mask_have_no_data_under_cloud(images, clouds, tmp_path):
    folder = save_series(tmp_path / "pond", images[:1], clouds[:1])
    segment(folder / "2020-01-01.tif", tmp_path / "classes", stride=8)
    with rasterio.open(tmp_path / "classes.tif") as source:
        np.testing.assert_array_equal(source.read(1) == 0, clouds[0])
    embed(folder / "2020-01-01.tif", tmp_path / "features")
    embed(folder, tmp_path / "of-series")
    found = []
    for name in ("features.tif", "of-series.tif"):
        with rasterio.open(tmp_path / name) as source:
            found.append(source.read())
    np.testing.assert_array_equal(*found)


def test_iterate_windows_of_small_series_is_refused(tmp_path):
    save(tmp_path / "pond" / "2020-01-01.tif", make_image(0))
    strips = open_image(tmp_path / "pond", BANDS)
    with pytest.raises(ConfigError, match="smaller than a window"):
        next(iterate_windows(FilterEncoder(), strips, 8))


def embed(source, out, **options):
    embed_raster(source, out.with_suffix(".tif"), FilterEncoder(), bands=BANDS, stride=8, **options)


def segment(source, out, **options):
    options |= {"method": "windows", "num_clusters": 3, "bands": BANDS}
    segment_raster(source, out.with_suffix(".tif"), FilterEncoder(), **options)


def find(source, out, **options):
    options |= {"at": [(8, 8), (30, 40)], "stride": 8, "bands": BANDS}
    path = out.with_suffix(".geojson")
    retrieve(source, source, path, FilterEncoder(), **options)


@pytest.mark.parametrize("task", [embed, segment, find])
def test_tasks_of_series_use_dates_of_period_only(task, images, clouds, folder, tmp_path):
    part = save_series(tmp_path / "part" / "lake", images[:2], clouds[:2])
    last = datetime.date(2020, 2, 15)
    task(folder, tmp_path / "a", last=last)
    task(part, tmp_path / "b")
    task(folder, tmp_path / "c")
    a, b, c = (
        next(one for one in tmp_path.glob(f"{name}.*") if one.suffix in (".tif", ".geojson"))
        for name in "abc"
    )
    assert a.read_bytes() == b.read_bytes()
    assert a.read_bytes() != c.read_bytes()
    with pytest.raises(DataError, match="no date from 2020-05-01 to the last"):
        task(folder, tmp_path / "d", first=datetime.date(2020, 5, 1))


@pytest.mark.parametrize("task", [embed, segment, find])
def test_tasks_of_raster_with_period_are_refused(task, folder, tmp_path):
    options = {"first": datetime.date(2020, 1, 1), "newest": True}
    message = r"Only a series takes first \(--from\), newest \(--newest\).*Received: one raster"
    with pytest.raises(ConfigError, match=message):
        task(folder / "2020-01-01.tif", tmp_path / "a", **options)
    with pytest.raises(ConfigError, match=r"Only a series takes newest"):
        task(make_image(0, *SHAPE), tmp_path / "a", newest=True)


def test_retrieve_period_does_not_apply_to_raster(images, clouds, folder, tmp_path):
    part = save_series(tmp_path / "part" / "lake", images[:2], clouds[:2])
    options = {"at": [(8, 8)], "stride": 8, "bands": BANDS}
    raster, last = folder / "2020-04-01.tif", datetime.date(2020, 2, 15)
    (folder / "2020-03-01.tif").rename(raster)
    (folder / "2020-03-01_cloud.tif").rename(folder / "2020-04-01_cloud.tif")
    a, b = (tmp_path / f"{name}.geojson" for name in "ab")
    retrieve(raster, folder, a, FilterEncoder(), last=last, **options)
    retrieve(raster, part, b, FilterEncoder(), **options)
    assert a.read_bytes() == b.read_bytes()
