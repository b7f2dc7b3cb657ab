import shutil
from pathlib import Path

import fake_products
import numpy as np
import pytest
import rasterio
import rasterio.control
import rasterio.rpc
import scipy.io
from fake_series import make_image, save_series

from sits_keras.data.radiometry import DISPLAY_MAX
from sits_keras.data.rasters.read import Grid, read_stored, write_raster
from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.explore.engine import sources
from sits_keras.explore.engine.sources import (
    MeanReader,
    RasterReader,
    find_places,
    picture_shape,
)
from sits_keras.tasks import series
from sits_keras.tasks.windows import read_block

BANDS = ("B02", "B03", "B04", "B08")


def test_find_places_groups_files_by_grid(write, tmp_path):
    files = [write(tmp_path / name) for name in ("2021.tif", "2020.tif")]
    wide = write(tmp_path / "wide.tif", (64, 80))
    first, second = find_places([*files, wide], BANDS)
    assert first.name == "2021 and 1 more"
    assert [(one.label, one.path) for one in first.images] == [
        ("2020", files[1]),
        ("2021", files[0]),
    ]
    assert (second.name, [one.label for one in second.images]) == ("wide", ["wide"])
    assert second.grid[:2] == (64, 80)
    assert {one.mask for one in (first, second)} == {None}


def test_find_places_labels_files_of_one_name_by_path(write, tmp_path):
    files = [write(tmp_path / name / "image.tif") for name in ("a", "b")]
    (place,) = find_places(files, BANDS)
    assert [one.label for one in place.images] == [str(file) for file in files]


def test_find_places_reads_folders_of_dates_and_of_a_change(meadow, felled):
    first, second = find_places([meadow, felled], BANDS)
    assert (first.name, len(first.images), first.mask) == ("meadow", 4, None)
    assert [one.place for one in first.images] == ["meadow"] * 4
    assert first.images[0].path == meadow / f"{first.images[0].label}.tif"
    assert [one.label for one in second.images] == ["before", "after"]
    assert second.mask == felled / "mask.tif"


def test_find_places_takes_several_crs_in_folders_only(write, tmp_path):
    paths = [
        write(tmp_path / "a" / "2020-01-01.tif", crs="EPSG:32631"),
        write(tmp_path / "b" / "2020-01-01.tif", crs="EPSG:32632"),
    ]
    assert len(find_places([path.parent for path in paths], BANDS)) == 2
    with pytest.raises(DataError, match=r"different CRS: EPSG:32631 and EPSG:32632\. Pass"):
        find_places(paths, BANDS)
    bare = write(tmp_path / "bare.tif", crs=None)
    with pytest.raises(DataError, match="different CRS: EPSG:32631 and none"):
        find_places([paths[0], bare], BANDS)


def test_find_places_takes_grids_equal_but_for_rounding_as_one(write, tmp_path):
    files = [write(tmp_path / name) for name in ("2020.tif", "2021.tif", "moved.tif")]
    for file, offset in ((files[1], 1e-9), (files[2], 0.5)):
        with rasterio.open(file, "r+") as raster:
            raster.transform = rasterio.Affine.translation(offset, 0) @ raster.transform
    mask = write(tmp_path / "mask.tif", bands=("changed",))
    first, second = find_places(files, BANDS, mask)
    assert [image.label for image in first.images] == ["2020", "2021"]
    assert (first.mask, second.name, second.mask) == (mask, "moved", None)


def test_find_places_names_a_linked_folder_by_its_link(felled, tmp_path):
    link = tmp_path / "fire"
    link.symlink_to(felled)
    (place,) = find_places([link], BANDS)
    assert place.name == "fire"


def place_by_points(path, dataset):
    """Replace the transform by ground control points."""
    points = [
        rasterio.control.GroundControlPoint(row, col, 5 + col / 1000, 50 - row / 1000)
        for row in (0, 64)
        for col in (0, 64)
    ]
    with rasterio.open(path, "w", **{**dataset, "transform": None, "crs": None}) as raster:
        raster.gcps = points, rasterio.crs.CRS.from_epsg(4326)
        raster.write(np.full((4, 64, 64), 1000, np.uint16))


def place_by_sensor_model(path, dataset):
    """Replace the transform by rational polynomial coefficients."""
    ones = [1.0] + [0.0] * 19
    rpcs = rasterio.rpc.RPC(
        *(100.0, 500.0, 50.0, 1.0, ones, ones, 32.0, 32.0, 5.0, 1.0, ones, ones, 32.0, 32.0)
    )
    with rasterio.open(path, "w", **{**dataset, "transform": None, "crs": None}) as raster:
        raster.rpcs = rpcs
        raster.write(np.full((4, 64, 64), 1000, np.uint16))


@pytest.mark.parametrize(
    ("place", "message"),
    [(place_by_points, "4 ground control points"), (place_by_sensor_model, "sensor model")],
)
@pytest.mark.parametrize("how", ["file", "folder", "mask"])
def test_find_places_without_a_transform_names_the_remedy(how, place, message, write, tmp_path):
    path = write(tmp_path / "lake" / "2020-01-01.tif")
    with rasterio.open(path) as raster:
        dataset = raster.profile
    mask = None
    if how == "mask":
        mask = tmp_path / "mask.tif"
        place(mask, dataset)
    else:
        place(path, dataset)
    with pytest.raises(DataError, match=rf"{message}.* gdalwarp -(tps|rpc)") as caught:
        find_places([path.parent if how == "folder" else path], BANDS, mask)
    assert "\n" not in str(caught.value)


def test_find_places_of_a_container_without_bands_names_its_parts(tmp_path):
    path = tmp_path / "year.nc"
    with scipy.io.netcdf_file(path, "w") as file:
        for name, length in (("y", 64), ("x", 64)):
            file.createDimension(name, length)
        for name in ("red", "blue"):
            file.createVariable(name, "f4", ("y", "x"))[:] = 0.1
    with pytest.raises(DataError, match=r"year\.nc has no bands itself, but subdatasets"):
        find_places([path], BANDS)


def test_find_places_of_several_grids_in_a_folder_raises(write, tmp_path):
    write(tmp_path / "2020-01-01.tif")
    write(tmp_path / "2020-02-01.tif", (64, 65))
    with pytest.raises(DataError, match="not on the same grid: size 64 x 64 and 64 x 65 px"):
        find_places([tmp_path], BANDS)


def test_find_places_of_unsuitable_paths_raises(write, tmp_path):
    with pytest.raises(MissingError, match=r"nowhere does not exist\. Expected a raster, a"):
        find_places([tmp_path / "nowhere"], BANDS)
    (tmp_path / "text.tif").write_text("not a raster")
    with pytest.raises(DataError, match=r"text\.tif cannot be read"):
        find_places([tmp_path / "text.tif"], BANDS)
    with pytest.raises(ConfigError, match="smaller than a window of 64 x 64"):
        find_places([write(tmp_path / "small.tif", (63, 90))], BANDS)
    with pytest.raises(DataError, match="has no band B08"):
        find_places([write(tmp_path / "rgb.tif", bands=("B02", "B03", "B04"))], BANDS)
    write(tmp_path / "split" / "2020-01-01_B02.tif", bands=("B02",))
    with pytest.raises(DataError, match="B03"):
        find_places([tmp_path / "split"], BANDS)
    write(tmp_path / "dates" / "2020-01-01.tif")
    fake_products.make_series(tmp_path / "both", 1)
    shutil.copytree(tmp_path / "dates", tmp_path / "both" / "dates")
    with pytest.raises(ConfigError, match="both contains dated rasters, and products"):
        find_places([tmp_path / "both"], BANDS)


def test_find_places_gives_series_a_mean(meadow, write, tmp_path):
    (place,) = find_places([meadow], BANDS)
    assert place.shown == (*place.images, place.mean)
    assert place.mean[:3] == ("mean of the clear dates", meadow, "meadow")
    assert place.mean.grid == place.grid
    write(tmp_path / "one" / "2020-01-01.tif")
    (one,) = find_places([tmp_path / "one"], BANDS)
    assert one.shown == one.images
    (file,) = find_places([tmp_path / "one" / "2020-01-01.tif"], BANDS)
    assert file.mean is None


def test_find_places_of_products_have_only_a_mean(tmp_path):
    folder = fake_products.make_series(tmp_path / "T31UDQ", 2)
    product = sorted(folder.iterdir())[0]
    places = find_places([folder, product], BANDS)
    assert [place.images for place in places] == [(), ()]
    assert [place.grid[:2] for place in places] == [(384, 384)] * 2
    labels = ["mean of the clear dates", "2023-01-01, clear pixels"]
    assert [place.shown[0].label for place in places] == labels
    assert [place.name for place in places] == ["T31UDQ", product.stem]


@pytest.mark.parametrize("is_small", [True, False])
def test_mean_reader_reads_the_mean_of_clear_dates(is_small, tmp_path, monkeypatch):
    if not is_small:
        monkeypatch.setattr(sources, "_SMALL", 0)
    images = [make_image(seed, 100, 90) for seed in range(3)]
    clouds = np.zeros((3, 100, 90), bool)
    clouds[1] = clouds[:, :10, :10] = True
    folder = save_series(tmp_path / "lake", images, clouds)
    (place,) = find_places([folder], BANDS)
    reader = MeanReader(folder, BANDS, place.grid)
    assert reader.is_small == is_small
    expected = np.rint((images[0].astype(np.float64) + images[2]) / 2)
    expected[:10, :10] = 0
    np.testing.assert_allclose(reader.window(20, 11), expected[20:84, 11:75], atol=1)
    whole = reader.picture()
    assert whole.shape == (100, 90, 4)
    np.testing.assert_array_equal(whole[..., 3] == 0, expected[..., 0] == 0)
    monkeypatch.setattr(
        series.SeriesImage,
        "windows",
        lambda self, area, make=series.SeriesImage.windows: make(self, area, 32),
    )
    np.testing.assert_array_equal(reader.picture(None, 50), whole[::2, ::2][:50, :45])
    part = reader.picture(Window(30, 7, 40, 80), 40)
    np.testing.assert_array_equal(part, whole[30:70:2, 7:87:2])


def test_find_places_gives_a_mask_to_the_place_on_its_grid(write, tmp_path, meadow):
    files = [write(tmp_path / name) for name in ("a.tif", "b.tif")]
    mask = write(tmp_path / "mask.tif", bands=("changed",))
    first, second = find_places([*files, meadow], BANDS, mask)
    assert (first.mask, second.mask) == (mask, None)
    other: Path = write(tmp_path / "other.tif", (70, 70), bands=("changed",))
    with pytest.raises(DataError, match=r"other\.tif is not on the grid of any .* Received: 70 x"):
        find_places(files, BANDS, other)


# Windows and pictures


@pytest.mark.parametrize("is_small", [True, False])
@pytest.mark.parametrize("place", [(0, 0), (10, 7), (36, 26)])
def test_raster_reader_window_has_context_of_tasks(place, is_small, write, tmp_path, monkeypatch):
    if not is_small:
        monkeypatch.setattr(sources, "_SMALL", 0)
    path = write(tmp_path / "a.tif", (100, 90))
    row, col = place
    (expected,) = read_block([open_strips(path, BANDS)], [row], [col], (31, 47)).pixels
    found = RasterReader(path, BANDS).window(row, col, (31, 47))
    np.testing.assert_array_equal(found, expected)
    bare = RasterReader(path, BANDS).window(row, col)
    np.testing.assert_array_equal(bare, expected[31:95, 31:95])


def test_raster_reader_changed_small_raster_is_read_again(write, tmp_path):
    path = write(tmp_path / "a.tif", seed=1)
    raster = RasterReader(path, BANDS)
    before = raster.window(0, 0)
    write(path, seed=2)
    after = raster.window(0, 0)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, read_stored(path, BANDS))


def test_raster_reader_picture_is_transparent_without_data(tmp_path):
    pixels = np.full((64, 64, 4), 1100, np.uint16)
    pixels[..., 2] = 5000  # B04
    pixels[:4] = 0
    write_raster(tmp_path / "a.tif", pixels, BANDS, Grid(64, 64, None, None))
    picture = RasterReader(tmp_path / "a.tif", BANDS).picture()
    assert picture.shape == (64, 64, 4)
    grey = round(255 * 0.11 / DISPLAY_MAX)
    assert picture[10, 10].tolist() == [255, grey, grey, 255]
    assert picture[:4, :, 3].max() == 0
    one = RasterReader(tmp_path / "a.tif", ("B08",)).picture()
    assert one[10, 10].tolist() == [grey, grey, grey, 255]


def test_raster_reader_picture_of_large_raster_is_decimated(write, tmp_path):
    path = write(tmp_path / "a.tif", (300, 200))
    raster = RasterReader(path, BANDS)
    whole = raster.picture()
    small = raster.picture(max_side=150)
    assert small.shape == (150, 100, 4)
    pixels = {tuple(one) for one in whole[:4, :4].reshape(-1, 4).tolist()}
    assert tuple(small[0, 0].tolist()) in pixels  # the nearest one, not a mean
    part = raster.picture(Window(100, 50, 60, 80), max_side=150)
    np.testing.assert_array_equal(part, whole[100:160, 50:130])


@pytest.mark.parametrize(
    ("sides", "expected"),
    [((100, 50), (100, 50)), ((2048, 1024), (1024, 512)), ((4, 10_240), (1, 1024))],
)
def test_picture_shape_has_a_maximum(sides, expected):
    assert picture_shape(Window(0, 0, *sides)) == expected
