import json

import matplotlib.image
import numpy as np
import pytest
import rasterio
import rasterio.warp

from sits_keras.data.rasters.read import Grid, read_info, write_raster
from sits_keras.data.rasters.write import (
    MapClass,
    open_map,
    outline,
    scaled_grid,
    write_boxes,
    write_png,
)
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError

UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)
LAND = MapClass("land & co", (230, 159, 0))
WATER = MapClass("water", (0, 114, 178))


def grid_of(height, width, crs="EPSG:32631", transform=UTM):
    return Grid(height, width, crs, transform)


def write(path, values, *, grid=None, bands=("x",), nodata=None, step=100, **options):
    grid = grid or grid_of(*values.shape[:2])
    with open_map(path, grid, bands, values.dtype, nodata, **options) as target:
        for row in range(0, len(values), step):
            target.write(row, values[row : row + step])
    return path


# Grids


def place_of(transform, row, col):
    a, b, c, d, e, f = transform
    return a * col + b * row + c, d * col + e * row + f


def test_scaled_grid_pixel_covers_its_cell():
    scaled = scaled_grid(grid_of(100, 90), 8, 12, 11)
    assert scaled == Grid(12, 11, "EPSG:32631", (80.0, 0.0, 600_000.0, 0.0, -80.0, 5_000_000.0))


@pytest.mark.parametrize("stride", [7, 8, 32, 100])
@pytest.mark.parametrize(
    "transform", [UTM, (8.0, 3.0, 1000.0, 2.0, -9.0, 2000.0)], ids=["north up", "turned"]
)
def test_scaled_grid_with_an_offset_centres_pixels_on_windows(stride, transform):
    offset = ((64 - stride) / 2,) * 2
    scaled = scaled_grid(grid_of(500, 400, transform=transform), stride, 10, 9, offset)
    row, col = 3, 2
    of_map = place_of(scaled.transform, row + 0.5, col + 0.5)
    of_window = place_of(transform, row * stride + 32, col * stride + 32)
    np.testing.assert_allclose(of_map, of_window, rtol=1e-12)


def test_scaled_grid_without_georeferencing_has_none():
    assert scaled_grid(Grid(100, 90, None, None), 8, 12, 11) == Grid(12, 11, None, None)


# Maps


def test_open_map_writes_a_cloud_optimised_geotiff_with_overviews(tmp_path):
    values = np.random.default_rng(0).uniform(size=(1100, 700, 2)).astype(np.float32)
    values[:10, :20] = np.nan
    path = write(
        tmp_path / "new" / "map.tif",
        values,
        bands=("distance", "changed"),
        nodata=np.nan,
        tags={"stride": "32"},
    )
    with rasterio.open(path) as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.overviews(1) == [2, 4]
        assert source.descriptions == ("distance", "changed")
        assert np.isnan(source.nodata)
        assert source.tags()["stride"] == "32"
        np.testing.assert_array_equal(np.moveaxis(source.read(), 0, -1), values)
        assert not source.dataset_mask()[:10, :20].any()
    assert read_info(path).grid == grid_of(1100, 700)
    assert [one.name for one in path.parent.iterdir()] == ["map.tif"]


@pytest.mark.parametrize(
    ("resampling", "expected"), [("average", 25.0), ("mode", 0.0), ("nearest", None)]
)
def test_open_map_resamples_overviews_by_the_given_method(resampling, expected, tmp_path):
    values = np.zeros((600, 600), np.float32)
    values[::2, ::2] = 100
    path = write(tmp_path / "map.tif", values, resampling=resampling)
    with rasterio.open(path, overview_level=0) as source:
        assert source.shape == (300, 300)
        overview = source.read(1)
    if expected is None:  # one of each four, which one is GDAL's to choose
        expected = overview[0, 0]
        assert expected in (0, 100)
    np.testing.assert_allclose(overview, expected)


def test_open_map_of_classes_writes_colours_and_names(tmp_path):
    values = np.array([[0, 1], [2, 2]], np.uint8).repeat(40, 0).repeat(40, 1)
    path = write(tmp_path / "map.tif", values, nodata=0, classes={1: LAND, 2: WATER})
    with rasterio.open(path) as source:
        colours = source.colormap(1)
        assert (colours[1], colours[2]) == ((230, 159, 0, 255), (0, 114, 178, 255))
        assert source.nodata == 0
        np.testing.assert_array_equal(source.read(1), values)
    names = (tmp_path / "map.tif.aux.xml").read_text()
    assert "<Category></Category><Category>land &amp; co</Category><Category>water<" in names


def test_open_map_removes_statistics_of_the_former_map(tmp_path):
    path = write(tmp_path / "map.tif", np.ones((4, 4), np.uint8), classes={1: LAND})
    write(path, np.ones((4, 4), np.float32))
    assert [one.name for one in tmp_path.iterdir()] == ["map.tif"]


def test_open_map_writes_scales(tmp_path):
    values = np.full((70, 65, 3), -5, np.int8)
    path = write(
        tmp_path / "map.tif", values, bands=("a", "b", "c"), nodata=-128, scales=[0.5, 0.25, 2.0]
    )
    with rasterio.open(path) as source:
        assert source.scales == (0.5, 0.25, 2.0)
        assert source.offsets == (0.0, 0.0, 0.0)


def test_open_map_of_many_bands_has_smaller_tiles(tmp_path):
    path = write(tmp_path / "a.tif", np.ones((65, 66, 1024), np.float32), bands=["x"] * 1024)
    with rasterio.open(path) as source:
        assert source.block_shapes[0] == (64, 64)


def test_open_map_without_georeferencing_writes_none(tmp_path, recwarn):
    grid = Grid(70, 65, None, None)
    path = write(tmp_path / "map.tif", np.ones((70, 65), np.float32), grid=grid)
    assert read_info(path).grid == grid
    assert not recwarn.list


def test_open_map_takes_rows_in_any_order(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    with open_map(tmp_path / "map.tif", grid_of(4, 3), ["x"], "float32", None) as target:
        for row in (3, 0, 2, 1):
            target.write(row, values[row : row + 1])
    with rasterio.open(tmp_path / "map.tif") as source:
        np.testing.assert_array_equal(source.read(1), values)


@pytest.mark.parametrize(
    ("row", "shape"), [(3, (2, 3, 1)), (-1, (1, 3)), (0, (1, 2, 1)), (0, (1, 3, 2))]
)
def test_open_map_with_rows_that_do_not_fit_leaves_nothing(row, shape, tmp_path):
    expected = r"Expected rows of shape \(rows, 3, 1\) of a map 4 px high"
    with (
        pytest.raises(ConfigError, match=expected),
        open_map(tmp_path / "map.tif", grid_of(4, 3), ["x"], "float32", None) as target,
    ):
        target.write(row, np.zeros(shape, np.float32))
    assert not list(tmp_path.iterdir())


def test_open_map_with_missing_rows_leaves_nothing(tmp_path):
    path = tmp_path / "map.tif"
    path.write_text("old")
    with (
        pytest.raises(ConfigError, match="2 rows of the map were never written, from row 1"),
        open_map(path, grid_of(4, 3), ["x"], "float32", None) as target,
    ):
        [target.write(row, np.zeros((1, 3))) for row in (0, 3)]
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["map.tif"]


# Pictures


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_write_png_has_the_given_pixels(dtype, tmp_path):
    image = np.zeros((5, 7, 3), np.float32)
    image[1, 2] = [1.0, 0.6, 2.0]
    expected = np.zeros((5, 7, 3), np.uint8)
    expected[1, 2] = [255, 153, 255]
    write_png(tmp_path / "new" / "a.png", expected if dtype == "uint8" else image)
    shown = matplotlib.image.imread(tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(np.rint(shown * 255), expected)
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["a.png"]


# Boxes


def read_boxes(tmp_path, grid, *windows):
    boxes = [(window, {"rank": rank}) for rank, window in enumerate(windows)]
    write_boxes(tmp_path / "boxes.geojson", boxes, grid)
    return json.loads((tmp_path / "boxes.geojson").read_text())


def area(ring):
    x, y = np.array(ring).T
    x, y = x - x[0], y - y[0]
    return (np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def test_write_boxes_are_longitude_and_latitude_counter_clockwise(tmp_path):
    collection = read_boxes(tmp_path, grid_of(200, 200), Window(10, 20, 64, 64))
    assert "coordinate_system" not in collection
    (feature,) = collection["features"]
    assert feature["properties"] == {"row": 10, "col": 20, "height": 64, "width": 64, "rank": 0}
    (ring,) = feature["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert len(ring) == 5
    assert area(ring) > 0
    # The corners, back in the raster's CRS.
    x, y = rasterio.warp.transform("OGC:CRS84", "EPSG:32631", *zip(*ring[:-1], strict=True))
    corners = {(round(one), round(other)) for one, other in zip(x, y, strict=True)}
    expected = {(600_200, 4_999_900), (600_840, 4_999_900)}
    assert corners == expected | {(x, y - 640) for x, y in expected}


def test_write_boxes_of_a_south_up_raster_are_counter_clockwise(tmp_path):
    grid = grid_of(200, 200, transform=(10.0, 0.0, 600_000.0, 0.0, 10.0, 5_000_000.0))
    (feature,) = read_boxes(tmp_path, grid, Window(0, 0, 64, 64))["features"]
    assert area(feature["geometry"]["coordinates"][0]) > 0


def test_write_boxes_long_edges_follow_the_raster(tmp_path):
    grid = grid_of(10_980, 10_980)
    (feature,) = read_boxes(tmp_path, grid, Window(0, 0, 10_980, 1024))["features"]
    # 10,980 px in 22 parts and 1,024 in 2, on both sides, and the first point again.
    assert len(feature["geometry"]["coordinates"][0]) == 2 * 22 + 2 * 2 + 1


def test_write_boxes_across_180_degrees_are_cut(tmp_path):
    grid = grid_of(300, 300, "EPSG:32701", (10.0, 0.0, 178_500.0, 0.0, -10.0, 8_100_000.0))
    (feature,) = read_boxes(tmp_path, grid, Window(0, 0, 300, 300))["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"
    rings = [part[0] for part in feature["geometry"]["coordinates"]]
    signs = set()
    for ring in rings:
        assert area(ring) > 0
        lons = np.array(ring)[:, 0]
        assert np.ptp(lons) < 1
        signs.add(np.sign(lons.mean()))
    assert signs == {-1, 1}


@pytest.mark.parametrize("transform", [None, UTM])
def test_write_boxes_without_a_crs_are_pixels(transform, tmp_path):
    grid = Grid(200, 200, None, transform)
    collection = read_boxes(tmp_path, grid, Window(10, 20, 64, 32), Window(0, 0, 64, 64))
    assert collection["coordinate_system"].startswith("pixels: column, row")
    ring = collection["features"][0]["geometry"]["coordinates"][0]
    assert {tuple(point) for point in ring} == {(20, 10), (52, 10), (52, 74), (20, 74)}
    assert [one["properties"]["rank"] for one in collection["features"]] == [0, 1]


def test_open_map_grid_equals_that_of_the_raster(tmp_path):
    grid = grid_of(70, 65, "EPSG:4326", (1e-4, 0.0, 8.0, 0.0, -1e-4, 47.0))
    write_raster(tmp_path / "in.tif", np.ones((70, 65, 1), np.uint16), ["B02"], grid)
    path = write(tmp_path / "out.tif", np.ones((70, 65), np.uint8), grid=grid)
    assert read_info(path).grid == read_info(tmp_path / "in.tif").grid


def test_outline_in_a_crs_that_proj_does_not_know_names_the_setting():
    grid = Grid(64, 64, "EPSG:999999", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0))
    with pytest.raises(DataError, match=r"EPSG:999999 cannot be .* PROJ_LIB or PROJ_DATA"):
        outline(Window(0, 0, 64, 64), grid)
