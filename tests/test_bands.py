import warnings

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from sits_keras.bands import (
    BANDS,
    UNNAMED_BANDS,
    RasterBands,
    band_name,
    is_like_a_mask,
    name_bands,
)
from sits_keras.data.rasters.read import read_info, read_stored
from sits_keras.data.rasters.rows import open_strips
from sits_keras.errors import DataError

RGBN = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.nir)
GREY = ("gray", "undefined", "undefined", "undefined")
WANTED = ("B02", "B03", "B04", "B08")


@pytest.fixture
def write(tmp_path):
    """Writes a raster whose band i, from 1, holds `1000 * i`."""

    def write_bands(count=4, dtype=np.uint16, names=None, colours=None):
        path = tmp_path / "2020-01-01.tif"
        shape = {"height": 80, "width": 70, "count": count, "dtype": dtype}
        photometric = {"photometric": "RGB"} if colours and ColorInterp.red in colours else {}
        place = rasterio.Affine(10, 0, 6e5, 0, -10, 5e6)
        with rasterio.open(
            path, "w", driver="GTiff", transform=place, **shape, **photometric
        ) as target:
            if colours:
                target.colorinterp = colours
            if names:
                target.descriptions = names
            for index in range(1, count + 1):
                target.write(np.full((80, 70), min(1000 * index, np.iinfo(dtype).max)), index)
        return path

    return write_bands


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("B02", "B02"),
        ("B2", "B02"),
        ("b8a", "B8A"),
        ("B4, central wavelength 665 nm", "B04"),
        (" B11 ", "B11"),
        ("blue", "B02"),
        ("NIR", "B08"),
        ("nir08", "B8A"),
        ("B13", "B13"),
        ("B0", "B0"),
        ("rededge", "rededge"),
        ("SCL", "SCL"),
        ("scl", "SCL"),
        ("qa60", "QA60"),
        ("msk_classi_opaque", "MSK_CLASSI_OPAQUE"),
        ("B02_20m", "B02"),
        ("SCL_20m", "SCL"),
        ("reflectance:B04", "B04"),
        ("20200421T105031_20200421T105300_T31UFS_B8A", "B8A"),
        ("20200421T105031_B2", "B02"),
        ("SR_B4", "SR_B4"),  # of Landsat, where it is another band
        ("nir_1", "nir_1"),
        ("distance", "distance"),
    ],
)
def test_band_name_of_other_spellings_is_the_bands(name, expected):
    assert band_name(name) == expected


def test_band_name_of_every_band_is_itself():
    assert tuple(map(band_name, BANDS)) == BANDS
    assert sorted(UNNAMED_BANDS) == sorted(BANDS)


@pytest.mark.parametrize(
    ("descriptions", "colours", "expected"),
    [
        (("B2", "B3", "B4", "B8"), GREY, (WANTED, False)),
        ((None,) * 4, GREY, ((None,) * 4, False)),
        (("Band 1", "Band 2", "band_3", "Layer 4"), GREY, ((None,) * 4, False)),
        ((None,) * 4, ("red", "green", "blue", "nir"), (("B04", "B03", "B02", "B08"), True)),
        ((None,) * 4, ("blue", "green", "red", "alpha"), (("B02", "B03", "B04", None), True)),
        ((None,) * 3, ("red", "red", "blue"), ((None,) * 3, False)),
        ((None,) * 3, ("gray", "undefined", "alpha"), ((None, None, "alpha"), False)),
        ((*WANTED, None), (*GREY, "alpha"), ((*WANTED, "alpha"), False)),
        (
            (None,) * 5,
            ("red", "green", "blue", "nir", "nir"),
            (("B04", "B03", "B02", None, None), True),
        ),
        (WANTED, ("red", "green", "blue", "nir"), (WANTED, False)),  # a name counts first
    ],
)
def test_name_bands_prefers_descriptions_to_colours(descriptions, colours, expected):
    assert name_bands(descriptions, colours) == RasterBands(*expected)


def test_open_strips_with_colours_in_another_order_warns(write):
    path = write(colours=RGBN)
    np.testing.assert_array_equal(read_stored(path, WANTED)[0, 0], [3000, 2000, 1000, 4000])
    with pytest.warns(
        UserWarning, match=r"01\.tif names no bands.*: band 1 is B04, 2 is B03"
    ) as one:
        open_strips(path, WANTED)
    assert len(one) == 1


def test_open_strips_with_colours_in_order_does_not_warn(write):
    path = write(3, colours=RGBN[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = open_strips(path, ("B04", "B03", "B02")).read(0, 1)
    np.testing.assert_array_equal(rows[0, 0], [1000, 2000, 3000])


def test_read_stored_of_a_band_without_a_colour_is_refused(write):
    path = write(colours=(*RGBN[:3], ColorInterp.undefined))
    assert read_info(path).bands == ("B04", "B03", "B02", None)
    with pytest.raises(DataError, match=r"no band B08\. It names no bands; by their colours.*r\+"):
        read_stored(path, WANTED)


def test_band_indices_after_the_suggested_remedy_finds_bands(write):
    path = write(colours=(*RGBN[:3], ColorInterp.undefined))
    rasterio.open(path, "r+").descriptions = "B04", "B03", "B02", "B08"
    np.testing.assert_array_equal(read_stored(path, WANTED)[0, 0], [3000, 2000, 1000, 4000])


def test_read_stored_of_thirteen_unnamed_bands_names_both_orders(write):
    with pytest.raises(DataError, match=r"has 13 bands without names, expected 4.* EuroSAT B01 to"):
        read_stored(write(13), WANTED)


@pytest.mark.parametrize("count", [3, 4])
def test_read_stored_of_a_picture_is_refused_before_its_bands(write, count):
    with pytest.raises(DataError, match="holds 8-bit values, which are display values"):
        read_stored(write(count, np.uint8), WANTED)


def test_band_indices_with_a_duplicate_name_is_refused(write):
    path = write(5, names=("B02", "B03", "B04", "B04", "B08"))
    with pytest.raises(DataError, match=r"has band B04 2 times. Expected one band of each name"):
        read_stored(path, WANTED)
    np.testing.assert_array_equal(read_stored(path, ("B08",))[0, 0], [5000])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("CLM", "clp", "cs_cdf", "probability", "MSK_CLDPRB", "Fmask")),
        *((name, True) for name in ("QA_PIXEL", "QA10", "cloud_probability", "my mask")),
        *((name, False) for name in (*BANDS, "SCL", "qa60", "MSK_CLASSI_CIRRUS", "dataMask")),
        *((name, False) for name in ("NDVI", "distance", "rededge", "AOT")),
    ],
)
def test_is_like_a_mask_of_names_in_use(name, expected):
    assert is_like_a_mask(name) is expected


def test_read_stored_of_unnamed_bands_does_not_count_opacity(write):
    path = write(5, colours=(ColorInterp.gray, *[ColorInterp.undefined] * 3, ColorInterp.alpha))
    np.testing.assert_array_equal(read_stored(path, WANTED)[0, 0], [1000, 2000, 3000, 4000])
