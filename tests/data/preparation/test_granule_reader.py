import os

import numpy as np
import pytest
import rasterio
from fake_products import SIDE, ground, make_safe, write_image

from sits_keras.data.plausibility import count_values, find_problems, problem_messages
from sits_keras.data.preparation import granule_reader
from sits_keras.data.preparation.granule_reader import GranuleReader, KeptPixels, PixelWriter
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.sources.folders import read_folder
from sits_keras.data.sources.granules import Layer
from sits_keras.data.sources.safe import read_product
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError

ALL = ("B02", "B05", "B01")
RGB = ("B04", "B03", "B02")
NO_CRS = (None, None)
NONE = np.zeros((2, 2), bool)
VALUES = count_values(np.full((2, 2, 1), 1000, np.uint16), NONE, NONE, None)


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    scl = np.arange(192 * 192).reshape(192, 192) % 12
    safe = make_safe(tmp_path_factory.mktemp("p"), bands=ALL, scl=scl)
    return read_product(safe).granule


@pytest.mark.parametrize(
    "window",
    [
        Window(0, 0, 64, 64),
        Window(1, 2, 64, 65),
        Window(5, 11, 7, 13),
        Window(SIDE - 64, SIDE - 61, 64, 61),
        Window(17, 0, 1, SIDE),
    ],
)
def test_granule_reader_any_window_equals_that_part_of_the_whole(product, window):
    rows = slice(window.row, window.row + window.height)
    cols = slice(window.col, window.col + window.width)
    with GranuleReader(product, ALL) as reader:
        whole, cloudy = (f(Window(0, 0, SIDE, SIDE)) for f in (reader.read, reader.cloudy))
        np.testing.assert_array_equal(reader.read(window), whole[rows, cols])
        np.testing.assert_array_equal(reader.cloudy(window), cloudy[rows, cols])
    np.testing.assert_array_equal(whole[..., 2], ground("B01", 60).repeat(6, 0).repeat(6, 1))


def test_granule_reader_hole_in_one_band_is_a_hole_in_all(tmp_path):
    safe = make_safe(tmp_path, bands=("B02", "B05"), holes={"B05": slice(10, 11)})
    with GranuleReader(read_product(safe).granule, ("B02", "B05")) as reader:
        stored = reader.read(Window(18, 0, 6, 4))
    assert (stored[2:4] == 0).all()
    assert (stored[[0, 1, 4, 5]] > 0).all()


def test_granule_reader_coarse_bands_alone_have_their_own_grid(product):
    with GranuleReader(product, ("B05",)) as reader:
        assert (reader.grid.height, reader.grid.transform[0]) == (192, 20)


def series(folder, *corners, metres=10, crs="EPSG:32631", side=128):
    for month, corner in enumerate(corners, start=1):
        rows, cols = np.indices((side, side)) * metres
        # A plane over the ground: a bilinear resampling of it is exact.
        east, north = corner[0] + cols + metres / 2, corner[1] - rows - metres / 2
        values = 1000 + (east - 600_000) + 2 * (5_400_000 - north)
        write_image(
            folder / f"2020-0{month}-01_B02.tif", values.astype(np.uint16), metres, crs, corner
        )
        write_image(
            folder / f"2020-0{month}-01_cloud.tif",
            (values > 2500).astype("u1"),
            metres,
            crs,
            corner,
        )
    return read_folder(folder).granules


def _change(image, change):
    rng = np.random.default_rng(1)
    some, one = rng.random(image.shape[:2]) < 0.1, rng.random(image.shape) < 0.1
    match change:
        case "missing":
            image[some] = 0
        case "zero in a band":
            image[one] = 0
        case "saturated":
            image[one] = 65_535
        case "filled":
            image[some] = 65_535
        case "one":
            image[one] = 1
    return image


@pytest.mark.parametrize("tags", [(1, 0), (1e-4, 0.02), (1e-4, -0.1), (5e-5, 0.0)])
@pytest.mark.parametrize(
    "change", ["none", "missing", "zero in a band", "saturated", "filled", "one"]
)
def test_granule_reader_bounds_of_values_only_save_time(tmp_path, monkeypatch, change, tags):
    rng = np.random.default_rng(0)
    image = _change(rng.integers(2, 9000, (128, 128, 3)).astype(np.uint16), change)
    write_raster(tmp_path / "2020-01-01.tif", image, ["B02", "B03", "B04"], Grid(128, 128, *NO_CRS))
    with rasterio.open(tmp_path / "2020-01-01.tif", "r+") as target:
        target.nodata = None
        target.scales, target.offsets = [tags[0]] * 3, [tags[1]] * 3
    granule = read_folder(tmp_path).granules[0]

    def look():
        with GranuleReader(granule, ("B04", "B02")) as reader:
            return reader.read(Window(3, 5, 64, 96)), *reader.screen()

    quick = look()
    monkeypatch.setattr(granule_reader, "holds_data_only", lambda *args: False)
    slow = look()
    np.testing.assert_array_equal(quick[0], slow[0])
    assert quick[1:] == slow[1:]


@pytest.mark.parametrize("kind", ["stack", "bands"])
@pytest.mark.parametrize("num_threads", [2, 3, 16])
def test_screen_several_threads_find_and_keep_the_same(tmp_path, monkeypatch, kind, num_threads):
    monkeypatch.setattr(granule_reader, "_CHUNK_BYTES", 1)  # a row of blocks at a time
    if kind == "bands":
        _, granule = series(tmp_path, *[(600_000, 5_400_000)] * 2)
        bands = ("B02",)
    else:
        image = np.random.default_rng(0).integers(0, 30, (700, 300, 3)).astype(np.uint16)
        write_raster(tmp_path / "2020-01-01.tif", image, RGB, Grid(700, 300, *NO_CRS))
        (granule,), bands = read_folder(tmp_path).granules, ("B04", "B02")
    found = []
    for threads in (1, num_threads):
        with GranuleReader(granule, bands, num_threads=threads) as reader:
            side = min(reader.grid[:2])
            blocks = (Window(0, 0, side // 2, side), Window(side // 2, 0, side // 2, side))
            kept = KeptPixels(tmp_path / f"{threads}.pixels", blocks, len(bands), reader.has_mask)
            with PixelWriter(kept) as writer:
                found.append((*reader.screen(writer), kept.path))
            assert writer.is_complete
    (coverage, values, path), (*others, other_path) = found
    assert others == [coverage, values]
    assert coverage.valid > 0
    assert path.stat().st_size == kept.num_bytes
    assert path.read_bytes() == other_path.read_bytes()


def test_screen_error_in_one_of_several_threads_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(granule_reader, "_CHUNK_BYTES", 1)
    image = np.random.default_rng(0).integers(1, 9000, (1024, 256, 3)).astype(np.uint16)
    path = tmp_path / "2020-01-01.tif"
    write_raster(path, image, RGB, Grid(1024, 256, *NO_CRS))
    os.truncate(path, path.stat().st_size * 3 // 4)
    (granule,) = read_folder(tmp_path).granules
    with (
        pytest.raises(DataError, match=r"2020-01-01\.tif cannot be read"),
        GranuleReader(granule, RGB, num_threads=3) as reader,
    ):
        reader.screen()


def test_granule_reader_granule_is_resampled_to_another_grid(tmp_path):
    first, moved = series(tmp_path, (600_000, 5_400_000), (600_140, 5_399_970))
    with GranuleReader(first, ("B02",)) as reader:
        onto, known = reader.grid, reader.read(Window(0, 0, 128, 128))[..., 0]
        assert not reader.is_resampled
    with GranuleReader(moved, ("B02",), onto) as reader:
        assert reader.is_resampled
        assert reader.grid == onto
        stored = reader.read(Window(0, 0, 128, 128))[..., 0]
        cloudy = reader.cloudy(Window(0, 0, 128, 128))
        coverage = reader.coverage()
    assert (stored[:3] == 0).all()
    assert (stored[:, :14] == 0).all()
    np.testing.assert_array_equal(stored[3:, 14:], known[3:, 14:])
    np.testing.assert_array_equal(cloudy[3:, 14:], known[3:, 14:] > 2500)
    assert coverage == (128**2, 125 * 114, (known[3:, 14:] > 2500).sum())


def test_granule_reader_bands_are_resampled_bilinearly_between_pixels(tmp_path):
    first, moved = series(tmp_path, (600_000, 5_400_000), (600_003, 5_400_000))
    with GranuleReader(first, ("B02",)) as reader:
        onto, known = reader.grid, reader.read(Window(0, 0, 128, 128))[..., 0]
    with GranuleReader(moved, ("B02",), onto) as reader:
        stored = reader.read(Window(0, 0, 128, 128))[..., 0]
    inner = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(stored[inner].astype(int), known[inner], atol=1)


def test_granule_reader_grid_of_its_own_is_left_as_it_is(product):
    with GranuleReader(product, ("B02",)) as reader:
        grid = reader.grid
    with GranuleReader(product, ("B02",), grid) as reader:
        assert not reader.is_resampled


def test_granule_reader_layers_that_do_not_fit_are_refused(tmp_path):
    write_image(tmp_path / "2020-01-01_B02.tif", np.ones((128, 128), np.uint16), 10)
    write_image(tmp_path / "2020-01-01_B03.tif", np.ones((100, 128), np.uint16), 10)
    with pytest.raises(DataError, match=r"_B03.tif has 100 x 128 pixels in EPSG:32631.*do not fit"):
        GranuleReader(read_folder(tmp_path).granules[0], ("B02", "B03"))


def test_granule_reader_mask_of_too_few_bands_is_refused(tmp_path):
    safe = make_safe(tmp_path, level="L1C", classi=np.zeros((1, 64, 64)))
    with (
        GranuleReader(read_product(safe).granule, ("B02",)) as reader,
        pytest.raises(DataError, match=r"MSK_CLASSI_B00.jp2 has 1 bands, expected 2"),
    ):
        reader.coverage()


def test_granule_reader_everything_is_closed_again_after_an_error(product, monkeypatch):
    opened = []
    really_open = rasterio.open

    def remember(*args, **kwargs):
        opened.append(really_open(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(rasterio, "open", remember)
    with GranuleReader(product, ALL) as reader:
        reader.read(Window(0, 0, 8, 8))
    with pytest.raises(DataError, match="has no band B12"):
        GranuleReader(product, ("B02", "B12"))
    other = Grid(64, 64, "EPSG:32631", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0))
    broken = product._replace(crs="EPSG:32601")
    with pytest.raises(DataError, match="in EPSG:32601 by its metadata"):
        GranuleReader(broken, ALL, other)
    assert len(opened) >= 6
    assert all(source.closed for source in opened)


@pytest.mark.parametrize(
    ("stated", "differs"),
    [((1e-4, -0.1), False), ((1e-4, 0.0), True), ((None, None), False), ((None, -0.2), True)],
)
def test_granule_reader_tags_that_contradict_the_metadata_are_noted(tmp_path, stated, differs):
    path = tmp_path / "2020-01-01_B02.tif"
    write_image(path, np.full((64, 64), 3000, np.uint16), 10)
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (1e-4,), (-0.1,)
    granule = read_folder(tmp_path).granules[0]
    granule = granule._replace(layers={"B02": Layer(str(path), 1, *stated)})
    with GranuleReader(granule, ("B02",)) as reader:
        (radiometry,) = reader.radiometry
        stored = reader.read(Window(0, 0, 1, 1))
    assert bool(radiometry.contradiction) is differs
    offset = -0.1 if stated[1] is None else stated[1]
    assert stored.tolist() == [[[round(3000 + offset * 10_000)]]]
    problems = find_problems("lake", VALUES, {"B02": radiometry}, may_be_bytes=False)
    assert [problem.kind for problem in problems] == ["contradiction"] * differs
    if differs:
        (message,) = problem_messages(problems)
        assert "scale 0.0001 and offset -0.1 (the raster's own tags)" in message


def test_granule_reader_bands_without_data_overrule_the_classification(tmp_path):
    scl = np.full((192, 192), 4)
    safe = make_safe(tmp_path, scl=scl, holes={"B02": slice(0, 192)})
    with GranuleReader(read_product(safe).granule, ("B02", "B03")) as reader:
        coverage, _ = reader.screen()
    assert coverage.complete == pytest.approx(0.5)


def test_cloudy_outside_of_a_mask_that_is_resampled_is_not_trusted(tmp_path):
    utm = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)
    grid = Grid(64, 64, "EPSG:32631", utm)
    write_raster(tmp_path / "2020-01-01.tif", np.ones((64, 64, 1), np.uint16), ["B02"], grid)
    mask = np.zeros((64, 64, 1), np.uint8)
    write_raster(tmp_path / "2020-01-01_cloud.tif", mask, ["cloud"], grid)
    north = Grid(64, 64, "EPSG:32631", (*utm[:5], utm[5] + 320))
    (granule,) = read_folder(tmp_path).granules
    with GranuleReader(granule, ("B02",), north) as reader:
        cloudy = reader.cloudy(Window(0, 0, 64, 64))
    assert cloudy[:32].all()
    assert not cloudy[32:].any()
