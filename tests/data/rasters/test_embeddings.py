import numpy as np
import pytest
import rasterio
from fake_embeddings import UTM, moved, place_at, random_vectors, write_embeddings

from sits_keras.data.rasters.embeddings import dequantize, has_vector, open_embeddings
from sits_keras.data.rasters.read import Grid
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError, MissingError


def test_open_embeddings_reads_numbers_and_leaves_other_bands_out(tmp_path):
    values = random_vectors(5, 70, 50)
    names = ["A00", "A01", "A02", "spread", "dates"]
    scales = [0.5, 0.25, 2, 1, 1]
    path = write_embeddings(
        tmp_path / "e.tif", values, names=names, scales=scales, offsets=[1, 0, 0, 0, 0]
    )
    found = open_embeddings(path)
    assert found.header.bands == ("A00", "A01", "A02")
    assert found.header.extra == ("spread", "dates")
    assert found.header.dtype == "int8"
    np.testing.assert_array_equal(found.header.scales, scales[:3])
    np.testing.assert_array_equal(found.header.offsets, [1, 0, 0])
    assert found.grid == Grid(70, 50, "EPSG:32631", tuple(UTM)[:6])
    np.testing.assert_array_equal(found.read(3, 20), values[:3, 3:23])
    np.testing.assert_array_equal(found.vector(69, 49), values[:3, 69, 49])


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_embeddings_load_equals_read(dtype, tmp_path):
    values = random_vectors(3, 600, 9).astype(dtype)
    found = open_embeddings(write_embeddings(tmp_path / "e.tif", values))
    before = found.read(510, 20)
    assert not found.is_loaded
    np.testing.assert_array_equal(found.load().read(510, 20), before)
    assert found.is_loaded
    np.testing.assert_array_equal(found.read(0, 600), values)
    np.testing.assert_array_equal(found.vector(599, 8), values[:, 599, 8])


def test_dequantize_applies_scale_and_offset_of_each_number():
    stored = np.array([[[2, -128]], [[-3, -128]]], np.int8)
    values = dequantize(stored, np.float32([0.5, 2]), np.float32([10, 0]))
    np.testing.assert_array_equal(values[:, 0, 0], [11, -6])
    assert np.isnan(values[:, 0, 1]).all()
    np.testing.assert_array_equal(has_vector(stored), [[True, False]])


def test_cell_at_finds_the_cell_of_a_place(tmp_path):
    found = open_embeddings(write_embeddings(tmp_path / "e.tif", random_vectors(2, 40, 60)))
    assert found.cell_at(*place_at(12.5, 31.5)) == (12, 31)
    with pytest.raises(ConfigError, match=r"The place 0,0 is outside .*e\.tif\. Expected about 4"):
        found.cell_at(0, 0)


def test_cell_at_without_crs_takes_column_and_row(tmp_path):
    path = write_embeddings(tmp_path / "e.tif", random_vectors(2, 40, 60), crs=None)
    assert open_embeddings(path).cell_at(31, 12) == (12, 31)


# Mosaics


@pytest.fixture
def mosaic(tmp_path):
    """Three tiles of a raster, the first two overlapping in 10 columns; and all of its vectors."""
    whole = random_vectors(3, 90, 150)
    parts = {"a": (0, 0, 60, 80), "b": (0, 70, 60, 80), "c": (60, 30, 30, 50)}
    expected = np.full_like(whole, -128)
    for name, (row, col, height, width) in parts.items():
        part = whole[:, row : row + height, col : col + width]
        expected[:, row : row + height, col : col + width] = part
        place = moved(row, col)
        write_embeddings(tmp_path / "tiles" / f"{name}.tif", part, transform=place, scales=0.5)
    (tmp_path / "tiles" / "item.json").write_text("{}")
    return tmp_path / "tiles", expected


def test_open_embeddings_of_a_folder_is_one_mosaic(mosaic):
    folder, expected = mosaic
    found = open_embeddings(folder)
    assert found.grid == Grid(90, 150, "EPSG:32631", tuple(UTM)[:6])
    np.testing.assert_array_equal(found.read(0, 90), expected)
    np.testing.assert_array_equal(found.read(55, 10), expected[:, 55:65])
    np.testing.assert_array_equal(found.vector(70, 40), expected[:, 70, 40])
    with pytest.raises(DataError, match="has no data at row 89, column 0"):
        found.vector(89, 0)


def test_open_embeddings_mosaic_fills_gaps_of_a_tile_from_the_next(mosaic):
    folder, expected = mosaic
    with rasterio.open(folder / "a.tif", "r+") as tile:
        tile.write(np.full((3, 60, 75), -128, np.int8), window=((0, 60), (5, 80)))
    expected[:, :60, 5:70] = -128
    np.testing.assert_array_equal(open_embeddings(folder).read(0, 90), expected)


def test_open_embeddings_reads_a_vrt_as_the_folder(mosaic, tmp_path):
    _, expected = mosaic
    sources = "".join(
        f"""<VRTRasterBand dataType="Int8" band="{band}"><Description>A0{band - 1}</Description>
        <NoDataValue>-128</NoDataValue><Scale>0.5</Scale>"""
        + "".join(
            f"""<ComplexSource><SourceFilename relativeToVRT="1">tiles/{name}.tif</SourceFilename>
            <SourceBand>{band}</SourceBand><NODATA>-128</NODATA>
            <SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>
            <DstRect xOff="{col}" yOff="{row}" xSize="{width}" ySize="{height}"/></ComplexSource>"""
            for name, row, col, height, width in (
                *(("c", 60, 30, 30, 50), ("b", 0, 70, 60, 80), ("a", 0, 0, 60, 80)),
            )
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    (tmp_path / "all.vrt").write_text(
        '<VRTDataset rasterXSize="150" rasterYSize="90"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>600000, 20, 0, 5000000, 0, -20</GeoTransform>{sources}</VRTDataset>"
    )
    found = open_embeddings(tmp_path / "all.vrt")
    np.testing.assert_array_equal(found.header.scales, [0.5, 0.5, 0.5])
    np.testing.assert_array_equal(found.read(0, 90), expected)


def test_open_embeddings_of_a_folder_takes_its_mosaic_and_no_quality(mosaic, tmp_path):
    folder, expected = mosaic
    write_embeddings(
        folder / "a.quality.tif", np.ones((2, 9, 9), np.float32), names=["spread", "dates"]
    )
    np.testing.assert_array_equal(open_embeddings(folder).read(0, 90), expected)
    write_embeddings(tmp_path / "one.tif", random_vectors(2, 8, 9))
    (tmp_path / "one.tif").rename(tmp_path / "mosaic.vrt")  # GDAL looks at the content
    assert open_embeddings(tmp_path).grid[:2] == (8, 9)


def test_embeddings_thinned_returns_every_nth_cell(tmp_path):
    values = random_vectors(3, 21, 10)
    values[:, 4, 8] = -128
    found = open_embeddings(write_embeddings(tmp_path / "e.tif", values, scales=0.5)).thinned(10)
    assert found.shape == (7, 4, 3)
    np.testing.assert_array_equal(found[1, 2], values[:, 3, 6] * 0.5)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"scales": 0.25}, "scales"),
        ({"offsets": 1}, "offsets"),
        ({"crs": "EPSG:32632"}, "CRS"),
        ({"names": ["A00", "A01", "A03"]}, "bands"),
        ({"transform": moved(0, 0.5)}, "grid of cells"),
        ({"transform": moved(0, 0, 2)}, "grid of cells"),
        ({"crs": None}, r"georeferencing \(none\)"),
    ],
)
def test_open_embeddings_of_tiles_that_differ_is_refused(options, word, mosaic):
    folder, _ = mosaic
    options = {"scales": 0.5, **options}
    write_embeddings(folder / "d.tif", random_vectors(3, 10, 10), **options)
    with pytest.raises(DataError, match=rf"d\.tif does not fit .*a\.tif: another .*{word}"):
        open_embeddings(folder)


# Bad input


def test_open_embeddings_of_an_image_is_refused(tmp_path):
    path = write_embeddings(
        tmp_path / "i.tif", np.ones((3, 9, 9), np.float32), names=["B02", "B03", "B04"]
    )
    with pytest.raises(DataError, match=r"Expected at least two bands named A00.* 3 bands, 'B02'"):
        open_embeddings(path)


def test_open_embeddings_of_integers_is_refused(tmp_path):
    path = write_embeddings(tmp_path / "i.tif", np.ones((3, 9, 9), np.int16))
    with pytest.raises(DataError, match=r"of int8 or floats.* int16"):
        open_embeddings(path)


def test_open_embeddings_of_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(MissingError, match="has no GeoTIFF"):
        open_embeddings(tmp_path)
    with pytest.raises(MissingError, match=r"No file at .*none\.tif"):
        open_embeddings(tmp_path / "none.tif")


def test_embeddings_vector_outside_is_refused(tmp_path):
    found = open_embeddings(write_embeddings(tmp_path / "e.tif", random_vectors(2, 40, 60)))
    with pytest.raises(ConfigError, match="Expected rows 0 to 39 and columns 0 to 59"):
        found.vector(40, 0)


def test_embeddings_read_damaged_file_is_refused(tmp_path):
    path = write_embeddings(tmp_path / "e.tif", random_vectors(3, 200, 200))
    found = open_embeddings(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 3)
    with pytest.raises(DataError, match=r"e\.tif cannot be read"):
        found.read(190, 10)


def test_embeddings_read_window_has_shape_of_window(tmp_path):
    found = open_embeddings(write_embeddings(tmp_path / "e.tif", random_vectors(3, 20, 20)))
    assert found.read_window(Window(4, 5, 6, 7)).shape == (3, 6, 7)
