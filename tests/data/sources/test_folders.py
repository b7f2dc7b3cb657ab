import datetime
from pathlib import Path

import numpy as np
import pytest
from fake_products import METRES, SIDE, ground, write_image
from hypothesis import given
from hypothesis import strategies as st

from sits_keras.bands import BANDS
from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.sources.folders import parse_name, read_folder
from sits_keras.data.sources.granules import CloudMask
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError

WHOLE = Window(0, 0, SIDE, SIDE)


@pytest.fixture
def touch(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).touch()
        return tmp_path

    return make


def only(folder):
    (granule,) = read_folder(folder).granules
    return granule


def test_read_folder_with_a_file_for_each_band_makes_one_granule(tmp_path):
    for band in ("B02", "B04", "B11"):
        path = tmp_path / f"2020-04-21_{band}.tif"
        write_image(path, ground(band, METRES[band]).astype(np.uint16), METRES[band])
    granule = only(tmp_path)
    assert granule.date == datetime.date(2020, 4, 21)
    assert granule.image is None
    with GranuleReader(granule, ("B11", "B02")) as reader:
        stored = reader.read(WHOLE)
    coarse = ground("B11", 20).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(stored, np.stack([coarse, ground("B02", 10)], axis=-1))


@pytest.mark.parametrize(
    "name",
    [
        "2020-04-21_B02.tif",
        "20200421_B02.tif",
        "T31UFS_20200421T105031_B02_10m.jp2",
        "S2A_MSIL2A_20200421_B02.TIF",
        "lake.2020-04-21_B02_20m.tiff",
    ],
)
def test_read_folder_finds_bands_in_names(touch, name):
    granule = only(touch(name))
    assert granule.date == datetime.date(2020, 4, 21)
    assert [Path(layer.path).name for layer in granule.layers.values()] == [name]


@pytest.mark.parametrize(
    ("masks", "kind"),
    [
        (("cloud", "SCL", "QA60"), "mask"),
        (("cloud", "QA60"), "mask"),
        (("SCL", "QA60"), "SCL"),
        (("SCL", "MSK_CLASSI"), "SCL"),
        (("QA60",), "QA60"),
    ],
)
def test_read_folder_with_several_masks_takes_the_users_first_with_a_word(
    touch, recwarn, masks, kind
):
    names = [f"2020-04-21_{mask}.tif" for mask in masks]
    folder = touch("2020-04-21.tif", *names)
    granule = only(folder)
    assert granule.mask == CloudMask(kind, str(folder / names[0]))
    assert len(granule.files) == 1 + len(masks)
    told = " ".join(str(one.message) for one in recwarn)
    assert all(f"{mask} as a mask (beside {masks[0]})" in told for mask in masks[1:])
    assert bool(told) == (len(masks) > 1)


def test_read_folder_with_all_bands_beside_one_is_refused(touch):
    folder = touch("2020-04-21.tif", "2020-04-21_B02.tif")
    with pytest.raises(DataError, match=r"2020-04-21.tif and .*_B02.tif are of the same date"):
        read_folder(folder)


def test_coverage_counts_cloud_and_cirrus_of_qa60(tmp_path):
    grid = Grid(64, 64, None, None)
    write_raster(tmp_path / "2020-04-21.tif", np.ones((64, 64, 1), np.uint16), ["B02"], grid)
    bits = np.zeros((64, 64, 1), np.uint16)
    bits[0], bits[1], bits[2], bits[3] = 1 << 10, 1 << 11, 3 << 10, 1 << 9
    write_raster(tmp_path / "2020-04-21_QA60.tif", bits, ["QA60"], grid)
    with GranuleReader(only(tmp_path), ("B02",)) as reader:
        assert reader.cloud_source == "QA60"
        assert reader.coverage() == (64 * 64, 64 * 64, 3 * 64)


@pytest.mark.parametrize(
    ("band", "value", "share"), [("SCL", 9, 1), ("SCL", 4, 0), ("QA60", 1024, 1)]
)
def test_coverage_counts_a_mask_among_the_bands(tmp_path, band, value, share):
    image = np.full((64, 64, 2), 500, np.uint16)
    image[..., 1] = value
    write_raster(tmp_path / "2020-04-21.tif", image, ["B02", band], Grid(64, 64, None, None))
    with GranuleReader(only(tmp_path), ("B02",)) as reader:
        assert reader.cloud_source == band
        assert reader.coverage().cloud == share


PARTS = ("", *BANDS, "SCL", "QA60", "cloud", "AOT", "TCI")
TILES = ("T31UFS", "T09VWK", "31UFS")
# Forms of names: {d} is the acquisition date, {p} a time of processing, {x} "_" and the content.
FORMS = {
    "iso": "{d:%Y-%m-%d}{x}",
    "compact": "{d:%Y%m%d}{x}",
    "underscores": "lake_{d:%Y_%m_%d}{x}",
    "dots": "{d:%Y.%m.%d}{x}",
    "time": "{d:%Y%m%d}_105031{x}",
    "fourteen digits": "{d:%Y%m%d}105031{x}",
    "iso time": "{d:%Y-%m-%d}T10-50-31Z{x}",
    "iso time with colons": "{d:%Y-%m-%d}T10:50:31.024Z{x}",
    "product": "S2A_MSIL2A_{d:%Y%m%d}T105031_N0500_R051_{t}_{p:%Y%m%d}T000000{x}",
    "old product": "S2A_OPER_PRD_MSIL1C_PDMC_{p:%Y%m%d}T151405_R051_V{d:%Y%m%d}T105031"
    "_{d:%Y%m%d}T105031{x}",
    "product's image": "{t}_{d:%Y%m%d}T105031{x}_10m",
    "Earth Engine": "{d:%Y%m%d}T105031_{p:%Y%m%d}T105300_{t}{x}",
    "Earth Engine, one day": "{d:%Y%m%d}T105031_{d:%Y%m%d}T105300{x}",
    "sits": "SENTINEL-2_MSI_20LKP{x}_{d:%Y-%m-%d}",
    "Browser": "{d:%Y-%m-%d}-00_00_{d:%Y-%m-%d}-23_59_Sentinel-2_L2A{x}_(Raw)",
    "Browser with colons": "{d:%Y-%m-%d}-00:00_{d:%Y-%m-%d}-23:59_Sentinel-2_L2A{x}_(Raw)",
    "HLS": "HLS.S30.T15TVG.{d:%Y%j}T170859.v2.0{x}",
    "MAJA": "SENTINEL2A_{d:%Y%m%d}-105855-123_L2A_T31UFS_C_V2-2_FRE{x}",
    "sen2r": "S2A2A_{d:%Y%m%d}_051_sen2r_BOA_10{x}",
    "earth-search": "S2A_31UFS_{d:%Y%m%d}_0_L2A{x}",
    "USGS": "L1C_T16TFM_A035544_{d:%Y%m%d}T163959{x}",
    "openEO": "openEO_{d:%Y-%m-%d}Z{x}",
    "band first": "{y}{d:%Y-%m-%d}",
    "band first, compact": "{y}{d:%Y%m%d}T105031",
}
SPELLINGS = {"B02": ("B02", "B2", "b02"), "B8A": ("B8A", "b8a"), "cloud": ("cloud", "CLOUD")}


@given(
    form=st.sampled_from(sorted(FORMS)),
    day=st.dates(datetime.date(2015, 6, 23), datetime.date(2035, 12, 31)),
    later=st.dates(datetime.date(2016, 1, 1), datetime.date(2035, 12, 31)),
    part=st.sampled_from(PARTS),
    spelling=st.integers(0, 2),
    tile=st.sampled_from(TILES[:2]),
)
def test_parse_name_of_any_known_form_finds_date_and_band(form, day, later, part, spelling, tile):
    spellings = SPELLINGS.get(part, (part,))
    text = spellings[spelling % len(spellings)]
    before, after = (f"{text}_", f"_{text}") if text else ("", "")
    stem = FORMS[form].format(d=day, p=later, t=tile, x=after, y=before)
    expected = "SCL" if (form, text) == ("sits", "CLOUD") else part
    assert parse_name(stem)[:2] == (day, expected), stem


@given(
    form=st.sampled_from(
        ["{a:%Y-%m-%d}_{b:%Y-%m-%d}", "s2_{a:%Y%m%d}_{b:%Y%m%d}", "{a}_to_{b}_B02"]
    ),
    days=st.lists(
        st.dates(datetime.date(2015, 6, 23), datetime.date(2035, 12, 31)),
        min_size=2,
        max_size=2,
        unique=True,
    ),
)
def test_parse_name_of_a_composite_is_refused_with_both_dates(form, days):
    stem = form.format(a=days[0], b=days[1])
    with pytest.raises(DataError, match=f"several dates in its name, {days[0]} and {days[1]}"):
        parse_name(stem)


@pytest.mark.parametrize(
    ("stem", "message"),
    [
        ("2020-04-21_B02_B03", "several bands in its name, B02 and B03"),
        ("cloud_2020-04-21_B02", "several bands in its name, B02 and cloud"),
        ("lake_2020-04-21-0000000000-0000006912", "one of the parts of an image"),
        ("LC08_L2SP_198030_20200421_20200822_02_T1_SR_B4", "an image of Landsat"),
        ("HLS.L30.T15TVG.2020112T170859.v2.0.B04", "an image of Landsat"),
        ("S1A_IW_GRDH_1SDV_20200421T055000", "an image of another sensor"),
        ("LANDSAT-8_OLI_198030_B05_2020-04-21", "an image of another sensor"),
        ("SENTINEL-1_GRD_20LKP_VV_2020-04-21", "an image of another sensor"),
        ("S2A_OPER_MSI_L1C_TL_SGS__20160122T133250_A003056_T31UFS_B02", "time of its processing"),
        ("2020112", "2020112 may be year and day of year"),
        ("21-04-2020", "21-04-2020 may be day, month and year"),
        ("04212020", "04212020 may be day, month and year"),
        ("202004", "202004 may be a month"),
        ("2020-04-21_masks", "looks like a mask"),
        ("2020042120200430", "is not named by its date"),
        ("1234567890", "is not named by its date"),
    ],
)
def test_parse_name_of_an_ambiguous_name_is_refused(stem, message):
    with pytest.raises(DataError, match=message):
        parse_name(stem)


@pytest.mark.parametrize(
    ("stem", "part"),
    [
        ("SENTINEL-2_MSI_20LKP_CLOUD_2018-07-18", "SCL"),  # sits calls it so
        ("SENTINEL-2_MSI_20LKP_cloud_2015-06-23", "cloud"),  # as after any other name
        ("2020-04-21_blue", "B02"),
        ("red_2020-04-21", "B04"),
        ("red_lake_2020-04-21", ""),
        ("2020-04-21 (1)", ""),
        ("2020-04-21_clip", ""),
        ("SENTINEL2A_20200421-105855-123_L2A_T31UFS_C_V2-2_CLM_R1", "CLM"),
    ],
)
def test_parse_name_of_common_words(stem, part):
    assert parse_name(stem).part == part


def test_read_folder_other_files_are_skipped_with_a_warning(touch):
    folder = touch(*(f"T31UFS_20200421T105031_{part}_10m.jp2" for part in ("B02", "AOT", "WVP")))
    with pytest.warns(UserWarning, match=r"not used: 1 of AOT \(aerosol\), 1 of WVP"):
        assert list(only(folder).layers) == ["B02"]


def test_read_folder_takes_the_finest_of_a_band_with_a_word(touch):
    folder = touch("20200421_B05_60m.jp2", "20200421_B05_20m.jp2", "20200421_B02_10m.jp2")
    with pytest.warns(UserWarning, match="1 of B05 at 60 m"):
        assert only(folder).layers["B05"].path.endswith("_20m.jp2")


def test_read_folder_without_an_image_is_refused(touch):
    with pytest.raises(DataError, match=r"has no image: 1 of TCI \(a picture\)\. Expected"):
        read_folder(touch("2020-04-21_TCI.tif"))
