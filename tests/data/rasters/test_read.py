import errno
import http.server
import os
import struct
import threading
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
import rasterio
import scipy.io
from fake_products import make_safe
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC

from sits_keras.data.rasters.read import (
    Grid,
    RasterInfo,
    open_raster,
    read_info,
    read_mask,
    read_pixels,
    read_stored,
    resampled,
    same_crs,
    same_grid,
    write_raster,
)
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError, MissingError

# The `write` below warns of rasters without georeferencing; the last test tries the package alone.
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

BANDS = ("B02", "B03", "B04", "B08")
UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)
# Two pixels of B02, B03, B04, B08.
PIXELS = np.array([[[100, 200, 300, 400], [500, 600, 700, 800]]], np.uint16)
ONES = [1.0] * 20
READERS = {
    "read_info": read_info,
    "read_mask": read_mask,
    "read_stored": lambda path: read_stored(path, BANDS),
}


@pytest.fixture
def write(tmp_path):
    """Writes a raster with rasterio alone; `edit` gets the open raster for all that is special."""

    def write_plain(values, bands=BANDS, edit=None, name="2020-01-01.tif", **profile) -> Path:
        path = tmp_path / name
        height, width, count = values.shape
        shape = {"height": height, "width": width, "count": count, "dtype": values.dtype}
        with rasterio.open(path, "w", **{"driver": "GTiff", **shape, **profile}) as target:
            for index, band in enumerate(bands or (), start=1):
                target.set_band_description(index, band)
            if edit:
                edit(target)
            target.write(np.moveaxis(values, -1, 0))
        return path

    return write_plain


def test_open_raster_cache_is_in_megabytes(write):
    """With a cache of 128 bytes (`128`), a tile would be decoded again for each row."""
    with open_raster(write(PIXELS)):
        assert rasterio.env.getenv()["GDAL_CACHEMAX"] == 128 * 2**20


@pytest.fixture(params=["directory first", "directory last", "tiled and compressed"])
def cut_raster(request, write, tmp_path):
    """The first half of a raster's file."""
    values = np.random.default_rng(0).integers(1, 9000, (96, 80, 4)).astype(np.uint16)
    if request.param == "directory first":
        path = write(values)
    elif request.param == "directory last":
        path = tmp_path / "2020-01-01.tif"
        write_raster(path, values, BANDS, Grid(96, 80, None, None))
    else:
        path = write(values, tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    np.testing.assert_array_equal(read_stored(path, BANDS), values)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def test_read_info_returns_grid_bands_and_dtypes(write):
    path = write(PIXELS, crs="EPSG:32631", transform=rasterio.Affine(*UTM))
    assert read_info(path) == RasterInfo(Grid(1, 2, "EPSG:32631", UTM), BANDS, ("uint16",) * 4)


def test_read_info_of_a_bare_raster_has_no_names_or_georeferencing(write):
    path = write(PIXELS[..., :2].astype(np.float32), bands=None)
    assert read_info(path) == RasterInfo(Grid(1, 2, None, None), (None, None), ("float32",) * 2)


def test_read_stored_of_uint16_returns_the_values(write):
    stored = read_stored(write(PIXELS), BANDS)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, PIXELS)


def test_read_stored_finds_bands_by_name_in_any_order(write):
    stored = read_stored(write(PIXELS), ("B08", "B02"))
    np.testing.assert_array_equal(stored, [[[400, 100], [800, 500]]])


def test_read_stored_of_unnamed_bands_takes_them_in_order(write):
    np.testing.assert_array_equal(read_stored(write(PIXELS, bands=None), BANDS), PIXELS)


@pytest.mark.parametrize("count", [3, 5])
def test_read_stored_of_another_number_of_unnamed_bands_is_refused(write, count):
    path = write(np.ones((1, 1, count), np.uint16), bands=None)
    with pytest.raises(DataError, match=rf"has {count} bands without names, expected 4: B02, B03"):
        read_stored(path, BANDS)


def test_read_stored_without_a_band_names_it(write):
    path = write(PIXELS[..., :3], bands=("B02", "B03", None))
    with pytest.raises(DataError, match=r"has no band B04, B08. It has: B02, B03, \(unnamed\)"):
        read_stored(path, BANDS)


def test_raster_info_indices_start_at_one():
    info = RasterInfo(Grid(1, 1, None, None), ("B8A", "B02", "B04"), ("uint16",) * 3)
    assert info.indices(("B04", "B8A"), Path("x.tif")) == [3, 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_read_stored_of_eight_bits_is_refused(write, dtype):
    path = write(np.ones((1, 2, 4), dtype))
    with pytest.raises(DataError, match=r"2020-01-01.tif holds 8-bit values, .* not reflectance"):
        read_stored(path, BANDS)


def test_read_stored_of_floats_returns_ten_thousandths(write):
    values = np.array([[[0.01, 0.25, 1.2, 0.0]]], np.float32)
    np.testing.assert_array_equal(read_stored(write(values), BANDS), [[[100, 2500, 12_000, 1]]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_read_stored_float_that_is_not_finite_is_missing_in_all_bands(write, bad):
    values = np.full((1, 2, 4), 0.5, np.float32)
    values[0, 1, 2] = bad
    np.testing.assert_array_equal(read_stored(write(values), BANDS), [[[5000] * 4, [0] * 4]])


def test_read_stored_of_float_nodata_is_missing(write):
    values = np.full((1, 2, 4), 0.5, np.float32)
    values[0, 0] = -9999
    stored = read_stored(write(values, nodata=-9999), BANDS)
    np.testing.assert_array_equal(stored, [[[0] * 4, [5000] * 4]])


def test_read_stored_of_floats_of_thousands_is_refused(write):
    path = write(PIXELS.astype(np.float32))
    with pytest.raises(DataError, match=r"2020-01-01.tif holds reflectance up to 500\. Expected"):
        read_stored(path, BANDS)


def test_read_stored_of_floats_above_one_is_reflectance(write):
    values = np.full((1, 1, 4), 2.5, np.float32)
    np.testing.assert_array_equal(read_stored(write(values), BANDS), [[[25_000] * 4]])


def test_read_stored_beyond_sixteen_bits_is_clipped(write):
    values = np.full((1, 1, 4), 9.5, np.float32)
    np.testing.assert_array_equal(read_stored(write(values), BANDS), [[[65_535] * 4]])


def test_read_stored_applies_scale_and_offset_of_the_metadata(write):
    def edit(target):
        target.scales = [0.0001] * 4
        target.offsets = [-0.1] * 4

    values = np.array([[[3000, 1000, 500, 1250], [2000, 2000, 0, 2000]]], np.uint16)
    stored = read_stored(write(values, edit=edit), BANDS)
    np.testing.assert_array_equal(stored, [[[2000, 1, 1, 250], [0, 0, 0, 0]]])


def test_read_stored_applies_scale_and_offset_by_band(write):
    def edit(target):
        target.scales = [0.0001, 0.0002, 0.0003, 0.0004]
        target.offsets = [0.0, 0.0, 0.0, 0.5]

    stored = read_stored(write(PIXELS, edit=edit), ("B08", "B03"))
    np.testing.assert_array_equal(stored, [[[6600, 400], [8200, 1200]]])


def test_read_stored_of_scaled_floats_of_thousands_is_reflectance(write):
    def edit(target):
        target.scales = [0.0001] * 4

    stored = read_stored(write(PIXELS.astype(np.float32), edit=edit), BANDS)
    np.testing.assert_array_equal(stored, PIXELS)


def test_read_stored_integer_zero_in_any_band_is_missing(write):
    values = PIXELS.copy()
    values[0, 1, 3] = 0
    stored = read_stored(write(values), BANDS)
    np.testing.assert_array_equal(stored, [[[100, 200, 300, 400], [0, 0, 0, 0]]])


def test_read_stored_ignores_zeros_of_other_bands(write):
    values = PIXELS.copy()
    values[0, 1, 3] = 0
    np.testing.assert_array_equal(read_stored(write(values), ("B02",)), [[[100], [500]]])


def test_read_stored_declared_nodata_is_missing(write):
    values = PIXELS.copy()
    values[0, 0, 0] = 65_535
    stored = read_stored(write(values, nodata=65_535), BANDS)
    np.testing.assert_array_equal(stored, [[[0, 0, 0, 0], [500, 600, 700, 800]]])


def test_read_stored_masked_pixels_are_missing(write):
    def edit(target):
        target.write_mask(np.array([[0, 255]], np.uint8))

    stored = read_stored(write(PIXELS, edit=edit), BANDS)
    np.testing.assert_array_equal(stored, [[[0, 0, 0, 0], [500, 600, 700, 800]]])


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.int16, [-5, 1, 2500, 32_767], [1, 1, 2500, 32_767]),
        (np.int32, [-2_000, 1, 2500, 70_000], [1, 1, 2500, 65_535]),
        (np.uint32, [1, 65_535, 65_536, 4_000_000_000], [1, 65_535, 65_535, 65_535]),
    ],
)
def test_read_stored_of_other_integers_clips_and_does_not_wrap(write, dtype, values, expected):
    stored = read_stored(write(np.array([[values]], dtype)), BANDS)
    np.testing.assert_array_equal(stored, [[expected]])


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_read_stored_undeclared_fill_value_is_missing(write, dtype):
    values = PIXELS.astype(dtype) * (1 if dtype is np.int16 else 1e-4)
    values[0, 1, 2] = -9999
    stored = read_stored(write(values.astype(dtype)), BANDS)
    np.testing.assert_array_equal(stored, [[[100, 200, 300, 400], [0, 0, 0, 0]]])


def test_read_stored_nodata_rounded_in_its_tag_is_missing(write):
    values = np.full((1, 2, 4), 0.5, np.float32)
    values[0, 0] = 0.1
    stored = read_stored(write(values, nodata=0.1), BANDS)
    np.testing.assert_array_equal(stored, [[[0] * 4, [5000] * 4]])


@pytest.mark.parametrize("key", ["_FillValue", "missing_value"])
def test_read_stored_fill_tag_of_netcdf_is_missing(write, key):
    def edit(target):
        target.update_tags(2, **{key: "600"})

    stored = read_stored(write(PIXELS, edit=edit), BANDS)
    np.testing.assert_array_equal(stored, [[[100, 200, 300, 400], [0, 0, 0, 0]]])


@pytest.mark.parametrize(
    ("position", "dtype"), [(0, np.uint16), (4, np.uint16), (4, np.float32), (2, np.float32)]
)
def test_read_stored_alpha_band_of_five_marks_missing_pixels(write, position, dtype):
    alpha = np.array([[255, 0]], dtype)
    values = np.insert(PIXELS * (1 if dtype is np.uint16 else 1e-4), position, alpha, axis=-1)
    bands = [*BANDS]
    bands.insert(position, "alpha")

    def edit(target):
        colours = [rasterio.enums.ColorInterp.undefined] * 5
        colours[position] = rasterio.enums.ColorInterp.alpha
        target.colorinterp = colours

    stored = read_stored(write(values.astype(dtype), bands=bands, edit=edit), BANDS)
    np.testing.assert_array_equal(stored, [[[100, 200, 300, 400], [0, 0, 0, 0]]])


def test_read_stored_data_mask_of_sentinel_hub_marks_missing_pixels(write):
    values = np.concatenate([PIXELS, np.array([[[1], [0]]], np.uint16)], axis=-1)
    stored = read_stored(write(values, bands=(*BANDS, "dataMask")), BANDS)
    np.testing.assert_array_equal(stored, [[[100, 200, 300, 400], [0, 0, 0, 0]]])


def test_read_stored_window_is_the_part_at_its_offsets(write):
    values = np.arange(1, 4 * 30 * 20 + 1, dtype=np.uint16).reshape(30, 20, 4)
    stored = read_stored(write(values), BANDS, Window(row=5, col=3, height=7, width=11))
    np.testing.assert_array_equal(stored, values[5:12, 3:14])


def test_read_mask_is_true_for_values_other_than_zero(write):
    path = write(np.array([[[0], [1]], [[7], [255]]], np.uint8), bands=None)
    mask = read_mask(path)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, [[False, True], [True, True]])


def test_read_mask_window_is_the_part_at_its_offsets(write):
    values = np.zeros((9, 9, 1), np.uint8)
    values[4, 6] = 1
    mask = read_mask(write(values, bands=None), Window(row=4, col=5, height=1, width=3))
    np.testing.assert_array_equal(mask, [[False, True, False]])


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_readers_of_a_missing_file_name_it(tmp_path, read):
    with pytest.raises(MissingError, match=r"No file at .*2020-01-01.tif"):
        read(tmp_path / "2020-01-01.tif")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"", "cannot be read: it is empty. It may be truncated or damaged: fetch it again"),
        (b"no raster at all", "check which program wrote it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git lfs pull"),
        (b"<!DOCTYPE html><html>Log in</html>", "a page or a message of a server.* log in"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code>', "a message of a server"),
        (b'{"message": "too many requests"}', "a message of a server"),
        (b"PK\x03\x04 and so on", "It is an archive: unpack it first"),
    ],
)
def test_readers_of_another_kind_of_file_give_the_remedy_of_its_cause(
    tmp_path, read, content, remedy
):
    path = tmp_path / "2020-01-01.tif"
    path.write_bytes(content)
    with pytest.raises(DataError, match=remedy) as error:
        read(path)
    assert str(error.value).startswith(f"{path} cannot be read: ")


def test_read_stored_of_a_truncated_raster_names_it(cut_raster):
    with pytest.raises(DataError, match=r"2020-01-01.tif cannot be read: .* truncated or damaged"):
        read_stored(cut_raster, BANDS)


def test_read_mask_of_a_truncated_raster_names_it(write):
    path = write(np.ones((300, 300, 1), np.uint8), bands=None, name="2020-01-01_cloud.tif")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"2020-01-01_cloud.tif cannot be read: .* truncated"):
        read_mask(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_write_raster_is_read_by_rasterio(tmp_path, dtype):
    values = np.arange(1, 5 * 7 * 3 + 1).reshape(5, 7, 3).astype(dtype)
    path = tmp_path / "out.tif"
    write_raster(path, values, ("x", "y", "z"), Grid(5, 7, "EPSG:32631", UTM))
    with rasterio.open(path) as source:
        np.testing.assert_array_equal(np.moveaxis(source.read(), 0, -1), values)
        assert source.descriptions == ("x", "y", "z")
        assert source.dtypes == (np.dtype(dtype).name,) * 3
        assert source.crs.to_epsg() == 32631
        assert tuple(source.transform)[:6] == UTM
        assert source.nodata == (0 if dtype is np.uint16 else None)


def test_write_raster_without_georeferencing_writes_none(tmp_path):
    path = tmp_path / "out.tif"
    write_raster(path, PIXELS, BANDS, Grid(1, 2, None, None))
    with rasterio.open(path) as source:
        assert source.crs is None
        assert source.transform.is_identity
        assert not source.gcps[0]
    assert read_info(path).grid == Grid(1, 2, None, None)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", (1e-4, 0.0, 8.1, 0.0, -1e-4, 45.2)),
        ("EPSG:3857", (10.0, 0.5, 1.0, 0.25, -10.0, 2.0)),
        (None, UTM),
        ("EPSG:32631", None),
    ],
)
def test_write_raster_grid_is_read_back(tmp_path, crs, transform):
    grid = Grid(1, 2, crs, transform)
    path = tmp_path / "out.tif"
    write_raster(path, PIXELS, BANDS, grid)
    assert read_info(path).grid == grid


def test_write_raster_crs_without_a_code_is_read_back(tmp_path):
    first, second = tmp_path / "first.tif", tmp_path / "second.tif"
    write_raster(first, PIXELS, BANDS, Grid(1, 2, "+proj=laea +lat_0=12.5 +lon_0=3.25", UTM))
    grid = read_info(first).grid
    write_raster(second, PIXELS, BANDS, grid)
    assert "12.5" in grid.crs
    assert read_info(second).grid == grid


def test_write_raster_that_fails_keeps_the_existing_file(tmp_path, listing):
    path = tmp_path / "out.tif"
    grid = Grid(1, 2, None, None)
    write_raster(path, PIXELS, BANDS, grid)
    with pytest.raises(IndexError):
        write_raster(path, PIXELS + 1, (*BANDS, "one too many"), grid)
    assert listing(tmp_path) == ["out.tif"]
    np.testing.assert_array_equal(read_stored(path, BANDS), PIXELS)


def test_write_raster_into_a_missing_folder_leaves_nothing(tmp_path, listing):
    with pytest.raises(OSError, match="No such file"):
        write_raster(tmp_path / "nowhere" / "out.tif", PIXELS, BANDS, Grid(1, 2, None, None))
    assert listing(tmp_path) == []


@pytest.mark.filterwarnings("always")
def test_readers_of_a_raster_without_georeferencing_do_not_warn(tmp_path, recwarn):
    path = tmp_path / "out.tif"
    write_raster(path, PIXELS, BANDS, Grid(1, 2, None, None))
    read_info(path)
    read_mask(path)
    read_stored(path, BANDS)
    assert not recwarn.list


def test_read_info_uses_a_world_file(tmp_path):
    path = tmp_path / "2020-01-01.tif"
    write_raster(path, np.ones((64, 64, 1), np.uint16), ["B02"], Grid(64, 64, None, None))
    (tmp_path / "2020-01-01.tfw").write_text("10\n0\n0\n-10\n600005\n4999995\n")
    assert read_info(path).grid.transform == (10, 0, 600_000, 0, -10, 5_000_000)


def test_read_stored_writes_no_files(tmp_path):
    path = tmp_path / "2020-01-01.tif"
    write_raster(path, np.ones((64, 64, 1), np.uint16), ["B02"], Grid(64, 64, None, None))
    read_stored(path, ("B02",))
    assert list(tmp_path.iterdir()) == [path]


class Server(http.server.BaseHTTPRequestHandler):
    """Answers `/<status>/...` with that status, and 200 with the text after `text=`."""

    def do_GET(self):
        status = int(self.path.split("/")[1])
        body = urllib.parse.unquote(self.path.rpartition("text=")[2]).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"/vsicurl/http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "the URL may have expired: sign the items again"),
        (403, "the URL may have expired: sign the items again"),
        (404, "The file is not there any more: search the catalogue again"),
        (429, "try again later, with fewer --workers"),
        (503, "try again later, with fewer --workers"),
    ],
)
def test_open_raster_refused_by_a_server_gives_the_remedy_without_the_secret(
    server, status, remedy
):
    url = f"{server}/{status}/B02.tif?se=2024-01-01&sig=s3cr3t"
    with pytest.raises(DataError, match=remedy) as error:
        read_info(url)
    assert f"{status}/B02.tif cannot be read: HTTP response code: {status}" in str(error.value)
    assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize("name", ["B02.jp2?sig=x", "B02?x=1", "B02.tif?x=1", "x.vrt?x=1"])
def test_open_raster_of_a_remote_recipe_is_refused(server, write, name):
    path = write(PIXELS)
    recipe = (
        '<VRTDataset rasterXSize="2" rasterYSize="1"><VRTRasterBand dataType="UInt16" band="1">'
        f"<SimpleSource><SourceFilename>{path}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(DataError, match="not recognized as being in a supported file format"):
        read_info(f"{server}/200/{name}&text={urllib.parse.quote(recipe)}")


def test_open_raster_without_a_connection_names_the_network():
    with pytest.raises(DataError, match="The server or the network fails: try again later"):
        read_info("/vsicurl/http://127.0.0.1:1/B02.tif")


def test_open_raster_in_a_bucket_without_credentials_names_the_settings(monkeypatch, tmp_path):
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_NO_SIGN_REQUEST", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("CPL_AWS_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "YES")
    with pytest.raises(DataError, match="AWS_NO_SIGN_REQUEST=YES for a public bucket"):
        read_info("/vsis3/no-such-bucket/B02.tif")


def test_open_raster_of_an_unknown_compression_names_another(write):
    path = write(PIXELS, compress="deflate")
    content = path.read_bytes()
    tag = struct.pack("<HHI", 259, 3, 1)
    start = content.index(tag) + len(tag)
    path.write_bytes(content[:start] + struct.pack("<H", 34_999) + content[start + 2 :])
    with pytest.raises(DataError, match=r"cannot unpack its compression: .* COMPRESS=DEFLATE"):
        read_info(path)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EACCES, "Change the permissions"), (errno.EMFILE, r"raise the limit \(ulimit -n\)")],
)
def test_open_raster_with_an_error_of_the_system_gives_its_remedy(
    write, monkeypatch, number, remedy
):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    path = write(PIXELS)
    monkeypatch.setattr(rasterio, "open", fail)
    with pytest.raises(DataError, match=rf"cannot be read: {os.strerror(number)}\. .*{remedy}"):
        read_info(path)


def test_open_raster_without_a_driver_for_its_format_names_the_driver(tmp_path, monkeypatch):
    path = tmp_path / "B02.jp2"
    path.write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n")
    monkeypatch.setattr(rasterio.Env, "drivers", lambda env: {"GTiff": "GeoTIFF"})
    with pytest.raises(DataError, match=r"has no driver JP2OpenJPEG, which reads \.jp2 files"):
        read_info(path)


def test_open_raster_of_a_broken_link_is_reported(tmp_path):
    (tmp_path / "2020-01-01.tif").symlink_to(tmp_path / "gone.tif")
    with pytest.raises(MissingError, match=r"2020-01-01\.tif is a link to a file that does not"):
        read_info(tmp_path / "2020-01-01.tif")


def test_open_raster_of_a_container_lists_its_subdatasets(tmp_path):
    path = tmp_path / "cube.nc"
    with scipy.io.netcdf_file(path, "w") as cube:
        for name, size in (("y", 4), ("x", 5)):
            cube.createDimension(name, size)
        for band in ("B02", "B03"):
            cube.createVariable(band, "f4", ("y", "x"))[:] = 0.1
    with pytest.raises(DataError, match=r"cube\.nc has no bands itself, but subdatasets \(.*B02"):
        read_info(path)


@pytest.mark.parametrize(("dimension", "is_refused"), [("time", True), ("band", False)])
def test_open_raster_of_one_variable_in_steps_is_refused(tmp_path, dimension, is_refused):
    path = tmp_path / "cube.nc"
    with scipy.io.netcdf_file(path, "w") as cube:
        for name, size in ((dimension, 4), ("y", 4), ("x", 5)):
            cube.createDimension(name, size)
            cube.createVariable(name, "f4", (name,))[:] = np.arange(size)
        cube.createVariable("reflectance", "f4", (dimension, "y", "x"))[:] = 0.1
    if not is_refused:
        assert read_stored(path, BANDS).shape == (4, 5, 4)
        return
    with pytest.raises(DataError, match=r"cube\.nc holds 4 steps of one variable as bands, along"):
        read_info(path)


def test_open_raster_of_a_products_metadata_names_prepare(tmp_path):
    path = make_safe(tmp_path) / "MTD_MSIL2A.xml"
    with pytest.raises(DataError, match=r"MTD_MSIL2A\.xml ") as error:
        read_info(path)
    assert "Products are taken by prepare" in str(error.value) or "cannot be read" in str(
        error.value
    )


@pytest.mark.parametrize(
    ("edit", "remedy"),
    [
        (
            lambda target: setattr(
                target,
                "gcps",
                (
                    [
                        GroundControlPoint(row, col, 2 + col / 10, 48 - row / 10)
                        for row in (0, 1)
                        for col in (0, 2)
                    ],
                    rasterio.CRS.from_epsg(4326),
                ),
            ),
            r"by 4 ground control points alone.* gdalwarp -tps",
        ),
        (
            lambda target: setattr(
                target,
                "rpcs",
                RPC(0, 1, 0, 1, ONES, ONES, 0, 1, 0, 1, ONES, ONES, 0, 1),
            ),
            r"by a sensor model \(RPC\) alone.* gdalwarp -rpc",
        ),
    ],
    ids=["GCP", "RPC"],
)
def test_open_raster_georeferenced_by_points_alone_is_refused(write, edit, remedy):
    with pytest.raises(DataError, match=remedy):
        read_info(write(PIXELS, edit=edit))


@pytest.mark.parametrize("alpha", [1, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_read_stored_with_an_alpha_band_takes_its_holes(write, alpha, dtype):
    colours = [ColorInterp.undefined] * 5
    colours[alpha - 1] = ColorInterp.alpha
    names = list(BANDS)
    names.insert(alpha - 1, None)
    values = np.full((1, 2, 5), 300 if dtype is np.uint16 else 0.03, dtype)
    values[0, :, alpha - 1] = 0, 255
    path = write(values, bands=names, edit=lambda target: setattr(target, "colorinterp", colours))
    np.testing.assert_array_equal(read_stored(path, BANDS), [[[0] * 4, [300] * 4]])


def test_read_stored_with_a_data_mask_takes_its_holes(write):
    values = np.full((1, 2, 5), 300, np.uint16)
    values[0, :, 4] = 0, 1
    stored = read_stored(write(values, bands=(*BANDS, "dataMask")), BANDS)
    np.testing.assert_array_equal(stored, [[[0] * 4, [300] * 4]])


@pytest.mark.parametrize("nodata", [-3.4028234663852886e38, 0.1])
def test_read_stored_compares_nodata_as_floats_of_the_raster(write, nodata):
    values = np.full((1, 2, 4), 0.5, np.float32)
    values[0, 0] = nodata
    stored = read_stored(write(values, nodata=nodata), BANDS)
    np.testing.assert_array_equal(stored, [[[0] * 4, [5000] * 4]])


def test_read_stored_of_floats_takes_zero_in_all_bands_for_missing(write):
    values = np.full((1, 3, 4), 0.5, np.float32)
    values[0, 0] = 0
    values[0, 1, :3] = 0
    stored = read_stored(write(values), BANDS)
    np.testing.assert_array_equal(stored, [[[0] * 4, [1, 1, 1, 5000], [5000] * 4]])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("EPSG:32631", "EPSG:32631", True),
        ("EPSG:32631", rasterio.CRS.from_epsg(32631).to_wkt(), True),
        ("EPSG:32631", "EPSG:32632", False),
        ("EPSG:32631", "EPSG:NONE", False),
        ("EPSG:32631", None, False),
        (None, None, True),
    ],
)
def test_same_crs_compares_meaning_in_either_order(first, second, expected):
    assert same_crs(first, second) is expected
    assert same_crs(second, first) is expected


@given(
    shift=st.floats(-1, 1),
    axis=st.integers(0, 5),
    height=st.integers(64, 11_000),
    width=st.integers(64, 11_000),
)
def test_same_grid_ignores_rounding_and_no_more(shift, axis, height, width):
    grid = Grid(height, width, "EPSG:32631", UTM)

    def moved(pixels):
        transform = list(UTM)
        reach = (width, height, 1)[axis % 3]
        transform[axis] += shift * pixels * 10 / reach
        return grid._replace(transform=tuple(transform))

    assert same_grid(grid, moved(1e-4))
    if abs(shift) > 0.9:
        assert not same_grid(grid, moved(0.02))
        assert not same_grid(moved(0.02), grid)
    assert not same_grid(grid, grid._replace(height=height + 1))


@pytest.mark.parametrize("fill", [-1, -9999, 0.0, np.nan])
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_resampled_raster_blends_no_fill_into_its_neighbours(write, fill, method):
    values = np.full((64, 64, 4), 0.3, np.float32)
    values[:20] = fill
    nodata = fill if fill else None
    path = write(values, crs="EPSG:32631", transform=rasterio.Affine(*UTM), nodata=nodata)
    onto = Grid(64, 64, "EPSG:32631", (10.0, 0.0, 600_005.0, 0.0, -10.0, 5_000_005.0))
    with open_raster(path) as source, resampled(source, onto, method) as moved:
        pixels, valid = read_pixels(moved, [1, 2, 3, 4], Window(10, 5, 40, 40))
    assert pixels.shape == (4, 40, 40)
    assert valid[12:].all()
    assert not valid[:9].any()
    np.testing.assert_allclose(pixels[:, valid], 0.3, rtol=1e-6)


def test_resampled_raster_is_the_same_by_parts(write):
    values = np.random.default_rng(0).integers(1, 9000, (96, 80, 4)).astype(np.uint16)
    path = write(values, crs="EPSG:32631", transform=rasterio.Affine(*UTM))
    onto = Grid(50, 60, "EPSG:32631", (13.0, 0.0, 599_990.0, 0.0, -13.0, 5_000_003.0))
    with open_raster(path) as source, resampled(source, onto, "bilinear") as moved:
        whole, valid = read_pixels(moved, [1, 4])
        part, has_data = read_pixels(moved, [1, 4], Window(20, 30, 17, 25))
    np.testing.assert_array_equal(part, whole[:, 20:37, 30:55])
    np.testing.assert_array_equal(has_data, valid[20:37, 30:55])
    assert whole.dtype == np.uint16
    assert 0 < valid.mean() < 1


def test_resampled_raster_outside_of_the_source_has_no_data(write):
    path = write(PIXELS, crs="EPSG:32631", transform=rasterio.Affine(*UTM))
    onto = Grid(64, 64, "EPSG:32631", (10.0, 0.0, 700_000.0, 0.0, -10.0, 5_000_000.0))
    with open_raster(path) as source:
        pixels, valid = read_pixels(resampled(source, onto, "nearest"), [1], Window(0, 0, 8, 8))
    assert not pixels.any()
    assert not valid.any()


def test_resampled_mask_of_two_bands_keeps_a_pixel_of_one(write):
    mask = np.zeros((16, 16, 2), np.uint8)
    mask[4, 5] = 1, 0
    mask[8, 9] = 0, 1
    path = write(mask, bands=None, crs="EPSG:32631", transform=rasterio.Affine(*UTM))
    onto = Grid(16, 16, "EPSG:32631", (10.0, 0.0, 600_010.0, 0.0, -10.0, 5_000_000.0))
    with open_raster(path) as source:
        pixels, _ = read_pixels(resampled(source, onto, "nearest"), [1, 2])
    assert [list(one) for one in zip(*np.nonzero(pixels), strict=True)] == [[0, 4, 4], [1, 8, 8]]
