import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fake_products import BANDS, METRES, SIDE, ground, make_safe, write_image, zip_product

from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.sources.granules import CloudMask
from sits_keras.data.sources.safe import (
    MAX_XML_BYTES,
    NotSentinel2Error,
    is_safe,
    needs_offset,
    parse_product,
    read_product,
)
from sits_keras.data.sources.series import find_series
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError

RGBN = ("B02", "B03", "B04", "B08")
WHOLE = Window(0, 0, SIDE, SIDE)
REAL = [
    # What stands in the names of the four products: level, baseline, tile, UTM zone, date.
    ("S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248", "EPSG:32646", 0),
    ("S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857", "EPSG:32707", 0),
    ("S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126", "EPSG:32633", -1000),
    ("S2A_MSIL2A_20230821T221941_N0509_R029_T01KAB_20230822T021825", "EPSG:32701", -1000),
]


def pixels(path, bands=RGBN, window=WHOLE):
    with GranuleReader(read_product(path).granule, bands) as reader:
        return reader.read(window)


def edit(path, pattern, old, new):
    (file,) = path.rglob(pattern)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def full(value, side=192):
    return np.full((side, side), value)


@pytest.fixture(params=REAL, ids=lambda real: real[0][4:10] + real[0][26:32])
def real(request, real_data, tmp_path):
    """A real product's metadata with made-up images, and what is known of it."""
    name, crs, offset = request.param
    safe = Path(shutil.copytree(real_data / "safe" / f"{name}.SAFE", tmp_path / f"{name}.SAFE"))
    for path in (safe, *safe.rglob("*")):
        path.chmod(0o755)
    expected = json.loads((safe / "expected_output.json").read_text())
    (safe / "expected_output.json").unlink()
    corner = expected["assets"]["red"]["proj:transform"][2::3]
    for asset in expected["assets"].values():
        bands = [band["name"] for band in asset.get("eo:bands", [])]
        if len(bands) != 1 or "reflectance" not in asset["roles"]:
            continue
        metres = int(asset.get("gsd") or asset["raster:bands"][0]["spatial_resolution"])
        values = (ground(bands[0], metres) - offset).astype(np.uint16)
        write_image(safe / asset["href"], values, metres, crs, corner)
    return safe, crs, offset, expected


def test_read_product_of_real_metadata_returns_their_facts(real):
    safe, crs, offset, expected = real
    product = read_product(safe)
    _, level, date, baseline, _, tile, _ = safe.stem.split("_")
    assert product.tile.tile == tile
    assert product.tile.crs == product.granule.crs == crs
    assert product.tile.corner == tuple(expected["assets"]["red"]["proj:transform"][2::3])
    assert product.granule.level == level[3:]
    assert product.granule.date.strftime("%Y%m%d") == date[:8]
    assert product.granule.baseline == f"{baseline[1:3]}.{baseline[3:]}"
    assert product.metadata.quantification == 10_000
    assert set(product.metadata.offsets.values()) == {offset}
    assert product.granule.cloud_cover * 100 == pytest.approx(
        expected["properties"]["eo:cloud_cover"]
    )


def test_read_product_footprint_equals_that_of_another_tool(real):
    safe, _, _, expected = real
    lons, lats = np.transpose(read_product(safe).granule.footprint)
    west, south, east, north = expected["bbox"]
    assert (lats.min(), lats.max()) == pytest.approx((south, north), abs=1e-3)
    if west < east:
        assert (lons.min(), lons.max()) == pytest.approx((west, east), abs=1e-3)
    else:  # across the date line
        assert lons[lons > 0].min() == pytest.approx(west, abs=1e-3)
        assert lons[lons < 0].max() == pytest.approx(east, abs=1e-3)


def test_read_product_of_real_metadata_finds_bands_and_radiometry(real):
    safe, crs, _, expected = real
    granule = read_product(safe).granule
    assert list(granule.layers) == [
        band for band in BANDS if band != "B10" or granule.level == "L1C"
    ]
    bands = ("B08", "B02", "B04", "B11", "B01")
    with GranuleReader(granule, bands) as reader:
        assert reader.grid.crs == crs
        assert reader.grid.transform[2::3] == tuple(
            expected["assets"]["red"]["proj:transform"][2::3]
        )
        stored = reader.read(WHOLE)
    for position, band in enumerate(bands):
        factor = METRES[band] // 10
        if band == "B01" and granule.level == "L2A" and granule.baseline >= "04":
            factor = 2  # from baseline 04.00 on, L2A has it at 20 m as well
        known = ground(band, 10 * factor).repeat(factor, 0).repeat(factor, 1)
        np.testing.assert_array_equal(stored[..., position], known)


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_read_product_reflectance_is_the_same_at_every_baseline(tmp_path, level):
    early = make_safe(tmp_path / "a", level=level, baseline="03.01", offset=None)
    late = make_safe(tmp_path / "b", level=level, baseline="05.09", offset=-1000)
    finer = make_safe(tmp_path / "c", level=level, offset=-2000, quantification=20_000)
    known = np.stack([ground(band, 10) for band in RGBN], axis=-1)
    for path in (early, late, finer):
        np.testing.assert_array_equal(pixels(path), known)


def test_read_product_of_a_relative_path_reads_pixels(tmp_path, monkeypatch):
    safe = make_safe(tmp_path)
    monkeypatch.chdir(tmp_path)
    files = read_product(Path(safe.name)).granule.files
    assert len(files) == 6  # two of metadata, four bands
    assert all(file.is_file() for file in files)


def test_read_product_applies_offsets_by_band(tmp_path):
    safe = make_safe(tmp_path)
    edit(safe, "MTD_MSI*", 'band_id="7">-1000<', 'band_id="7">-950<')
    known = [ground("B02", 10), ground("B08", 10) + 50]
    np.testing.assert_array_equal(pixels(safe, ("B02", "B08")), np.stack(known, axis=-1))


def test_read_product_dark_pixels_below_zero_are_not_missing(tmp_path):
    safe = make_safe(tmp_path, bands=("B02",))
    edit(safe, "MTD_MSI*", 'band_id="1">-1000<', 'band_id="1">-3400<')
    assert (pixels(safe, ("B02",)) == 1).all()


@pytest.mark.parametrize(
    ("baseline", "offset"),
    [("02.07", False), ("03.01", False), ("04.00", True), ("05.11", True), ("99.99", False)],
)
def test_parse_product_from_baseline_4_on_has_an_offset(baseline, offset):
    assert needs_offset(baseline, "x") is offset


@pytest.mark.parametrize("level", ["L1C", "L2A"])
@pytest.mark.parametrize("baseline", ["04.00", "05.10"])
def test_parse_product_without_its_offset_is_refused(tmp_path, level, baseline):
    safe = make_safe(tmp_path, level=level, baseline=baseline, offset=None)
    name = "BOA_ADD_OFFSET" if level == "L2A" else "RADIO_ADD_OFFSET"
    with pytest.raises(DataError, match=f"baseline {baseline} and states no {name}"):
        read_product(safe)


def test_read_product_without_the_offset_of_one_band_is_refused(tmp_path):
    safe = make_safe(tmp_path)
    edit(safe, "MTD_MSI*", '<BOA_ADD_OFFSET band_id="3">-1000</BOA_ADD_OFFSET>', "")
    with pytest.raises(DataError, match=r"_B04_10m.jp2 is of .* 05.09, and its product states no"):
        read_product(safe)


def test_parse_product_reads_element_names_of_l2a_before_2018(tmp_path):
    safe = make_safe(tmp_path, baseline="02.07", offset=None)
    edit(safe, "MTD_MSI*", "BOA_QUANTIFICATION", "L2A_BOA_QUANTIFICATION")
    edit(safe, "MTD_MSI*", "IMAGE_FILE>", "IMAGE_FILE_2A>")
    np.testing.assert_array_equal(pixels(safe, ("B04",))[..., 0], ground("B04", 10))


def test_read_product_finds_geotiff_images(tmp_path):
    safe = make_safe(tmp_path, suffix=".tif")
    np.testing.assert_array_equal(pixels(safe, ("B04",))[..., 0], ground("B04", 10))


def test_read_product_of_a_zip_reads_it_in_place(tmp_path):
    known = pixels(make_safe(tmp_path / "folder", scl=full(4)))
    path = make_safe(tmp_path / "zip", scl=full(4), archive=True)
    assert is_safe(path)
    np.testing.assert_array_equal(pixels(path), known)
    assert [file.name for file in (tmp_path / "zip").iterdir()] == [path.name]
    assert read_product(path).granule.files == (path,)


def test_read_product_takes_the_finest_image_of_a_band(tmp_path):
    safe = make_safe(tmp_path, bands=("B02",))
    coarse = "GRANULE/L2A_T31UDQ_A001234_20230601T105031/IMG_DATA/R60m/x_B02_60m"
    write_image(safe / f"{coarse}.jp2", np.ones((64, 64), np.uint16), 60)
    edit(safe, "MTD_MSI*", "<IMAGE_FILE>", f"<IMAGE_FILE>{coarse}</IMAGE_FILE><IMAGE_FILE>")
    assert read_product(safe).granule.layers["B02"].path.endswith("_B02_10m.jp2")


def test_read_product_with_several_masks_takes_the_users_then_the_best(tmp_path):
    clear = {"cloud": 42.0, "scl": full(4), "classi": np.zeros((2, 64, 64))}

    def mask(own, **options):
        safe = make_safe(tmp_path, **{**clear, **options})
        if own:
            write_image(safe.with_name(f"{safe.stem}_cloud.tif"), full(0, SIDE).astype("u1"), 10)
        granule = read_product(safe).granule
        shutil.rmtree(safe)
        return granule.mask and granule.mask.kind

    assert mask(own=False) == "SCL"
    assert mask(own=False, scl=None) == "MSK_CLASSI"
    with pytest.warns(UserWarning, match="a cloud mask of yours .* is used, and their SCL or"):
        assert mask(own=True) == "mask"
    assert mask(own=True, scl=None, classi=None) == "mask"
    safe = make_safe(tmp_path / "alone", cloud=42.0)
    assert read_product(safe).granule.mask is None
    with GranuleReader(read_product(safe).granule, RGBN) as reader:
        assert reader.cloud_source == "product"
        assert reader.coverage().cloud == pytest.approx(0.42, abs=1e-4)
        assert reader.cloudy(WHOLE) is None


def test_coverage_of_a_scene_classification_counts_cloud_and_missing(tmp_path):
    scl = full(4)
    scl[:48] = 0  # a quarter without data
    for row, value in enumerate((1, 2, 3, 5, 6, 7, 8, 9, 10, 11)):
        scl[48 + row] = value
    with GranuleReader(read_product(make_safe(tmp_path, scl=scl)).granule, RGBN) as reader:
        coverage = reader.coverage()
        assert coverage == (192 * 192, 144 * 192, 4 * 192)  # shadow, clouds and cirrus
        cloudy = reader.cloudy(Window(96, 3, 20, 50))
    rows = np.isin(np.arange(20) // 2, (2, 6, 7, 8))  # each of its pixels is two of 10 m
    np.testing.assert_array_equal(cloudy, np.broadcast_to(rows[:, None], (20, 50)))


def test_coverage_of_l1c_counts_cloud_of_its_mask(tmp_path):
    classi = np.zeros((2, 64, 64))
    classi[0, 10:20] = 1  # opaque
    classi[1, 15:30] = 1  # cirrus
    safe = make_safe(tmp_path, level="L1C", classi=classi, bands=(*RGBN, "B01"))
    with GranuleReader(read_product(safe).granule, RGBN) as reader:
        assert reader.cloud_source == "MSK_CLASSI"
        assert reader.coverage() == (SIDE**2, SIDE**2, 20 * 6 * SIDE)
        np.testing.assert_array_equal(
            reader.cloudy(Window(55, 0, 10, 7))[:, 0], np.arange(55, 65) >= 60
        )


def test_coverage_of_l1c_counts_missing_in_its_coarsest_band(tmp_path):
    safe = make_safe(
        tmp_path,
        level="L1C",
        classi=np.zeros((2, 64, 64)),
        bands=(*RGBN, "B01"),
        holes={"B01": slice(0, 16)},
    )
    with GranuleReader(read_product(safe).granule, RGBN) as reader:
        assert reader.coverage().complete == 0.75
        assert (reader.read(WHOLE) > 0).all()


ENTITIES = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><a>&c;</a>"""
EXTERNAL = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>
<a>&b;</a>"""
HOSTILE = {
    "entity expansion": (ENTITIES, "declares a document type or entities"),
    "external entity": (EXTERNAL, "declares a document type or entities"),
    "document type": ('<!DOCTYPE a SYSTEM "http://x/y.dtd"><a/>', "declares a document type"),
    "deep nesting": ("<a>" * 100_000, "nests elements 65 deep"),
    "too large": ("<a>" * (MAX_XML_BYTES // 3 + 1), "Expected at most 16777216 of metadata"),
    "no XML": ("not found", "is not XML"),
    "cut off": ("<a><b>1</b>", "is not XML"),
    "empty": ("", "is not XML"),
    "another kind": ("<a><PRODUCT_TYPE>S1</PRODUCT_TYPE></a>", "is of product type S1"),
    "another encoding": ('<?xml version="1.0" encoding="no-such"?><a/>', "is not XML"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_read_product_with_hostile_or_broken_metadata_is_refused(tmp_path, kind, packed):
    text, message = HOSTILE[kind]
    path = make_safe(tmp_path, bands=("B02",))
    (path / "MTD_MSIL2A.xml").write_text(text)
    if packed:
        path = zip_product(path)
    with pytest.raises(DataError, match=message) as error:
        read_product(path)
    assert str(error.value).startswith(f"{path}/")
    assert "\n" not in str(error.value)


def test_read_product_with_100_megabytes_of_metadata_is_refused_unread(tmp_path):
    safe = make_safe(tmp_path, bands=("B02",))
    with (safe / "MTD_MSIL2A.xml").open("w") as file:
        for _ in range(100):
            file.write("<a>" * (2**20 // 3 + 1))
    with pytest.raises(DataError, match="Expected at most 16777216 of metadata"):
        read_product(safe)


def test_read_product_of_a_zip_with_false_sizes_is_refused(tmp_path):
    safe = make_safe(tmp_path, bands=("B02",))
    with (safe / "MTD_MSIL2A.xml").open("a") as file:
        file.write(" " * (MAX_XML_BYTES + 1))
    path = safe.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in safe.rglob("*.xml"):
            archive.write(file, file.relative_to(tmp_path).as_posix())
    content = path.read_bytes()
    true = (safe / "MTD_MSIL2A.xml").stat().st_size.to_bytes(4, "little")
    assert content.count(true) >= 1
    path.write_bytes(content.replace(true, (1000).to_bytes(4, "little")))
    with pytest.raises(DataError):
        read_product(path)


MISSING = {
    "no product metadata": ("MTD_MSI*", "has no MTD_MSIL1C.xml or MTD_MSIL2A.xml"),
    "no tile metadata": ("MTD_TL.xml", "has no MTD_TL.xml"),
}


@pytest.mark.parametrize("kind", MISSING)
def test_read_product_without_metadata_names_them(tmp_path, kind):
    pattern, message = MISSING[kind]
    safe = make_safe(tmp_path, bands=("B02",))
    next(safe.rglob(pattern)).unlink()
    with pytest.raises(DataError, match=message) as error:
        read_product(safe)
    assert str(error.value).startswith(str(safe))


@pytest.mark.parametrize(
    ("pattern", "old", "new", "message"),
    [
        ("MTD_MSI*", "PRODUCT_START_TIME", "X", "has no PRODUCT_START_TIME"),
        ("MTD_MSI*", "2023-06-01T", "yesterday", "'yesterday10:50:31.024Z' for a time"),
        ("MTD_MSI*", "PROCESSING_BASELINE", "X", "has no PROCESSING_BASELINE"),
        (
            "MTD_MSI*",
            ">05.09<",
            ">new<",
            "is of processing baseline 'new'. Expected one such as 05.09",
        ),
        ("MTD_MSI*", "BOA_QUANTIFICATION", "X", "has no BOA_QUANTIFICATION_VALUE"),
        ("MTD_MSI*", ">10000<", ">many<", "has 'many' where a number is expected"),
        ("MTD_MSI*", ">10000<", ">0<", "has a quantification value of 0. Expected"),
        ("MTD_MSI*", ">-1000<", ">nan<", "has 'nan' where a number is expected"),
        ("MTD_MSI*", 'band_id="7"', 'band_id="17"', "an unknown band, band_id 17"),
        ("MTD_TL*", "_T31UDQ_", "_", "does not name a tile"),
        ("MTD_TL*", ">EPSG:32631<", "><", "has no HORIZONTAL_CS_CODE"),
    ],
)
def test_read_product_with_incomplete_metadata_names_the_gap(tmp_path, pattern, old, new, message):
    safe = make_safe(tmp_path, bands=("B02",))
    edit(safe, pattern, old, new)
    with pytest.raises(DataError, match=message):
        read_product(safe)


@pytest.mark.parametrize("name", ["../../../etc/x_B02", "/etc/x_B02", "C:/x_B02", "..\\..\\x_B02"])
def test_read_product_with_images_outside_of_it_is_refused(tmp_path, name):
    safe = make_safe(tmp_path, bands=("B02",))
    edit(safe, "MTD_MSI*", "<IMAGE_FILE>", f"<IMAGE_FILE>{name}</IMAGE_FILE><IMAGE_FILE>")
    with pytest.raises(DataError, match="names a file outside of itself"):
        read_product(safe)


@pytest.mark.parametrize("name", ["../../evil.jp2", "/etc/evil.jp2", "x.SAFE/../../evil.jp2"])
def test_read_product_of_a_zip_with_paths_out_of_it_is_refused(tmp_path, name):
    path = make_safe(tmp_path / "in", bands=("B02",), archive=True)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"evil")
    with pytest.raises(DataError, match="names a file outside of itself"):
        read_product(path)
    assert [file.name for file in tmp_path.rglob("*evil*")] == []


def test_read_product_of_a_file_that_is_not_a_zip_is_refused(tmp_path):
    path = tmp_path / "S2A.zip"
    path.write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"S2A.zip is not a valid zip file: .* fetch it again"):
        read_product(path)


def test_read_product_of_a_truncated_zip_is_refused(tmp_path):
    path = make_safe(tmp_path, bands=("B02",), archive=True)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is not a valid zip file"):
        read_product(path)


def test_read_product_of_a_zip_of_two_products_is_refused(tmp_path):
    make_safe(tmp_path / "in" / "both.SAFE", bands=("B02",))
    make_safe(tmp_path / "in" / "both.SAFE", bands=("B02",), date="2023-07-01")
    path = zip_product(tmp_path / "in" / "both.SAFE")
    with pytest.raises(DataError, match="holds several products or granules"):
        read_product(path)


def test_granule_reader_without_a_band_names_it(tmp_path):
    safe = make_safe(tmp_path, bands=("B02", "B03"))
    with pytest.raises(DataError, match=r"SAFE has no band B04, B08. It has: B02, B03. Fetch"):
        pixels(safe)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.995])
def test_coverage_of_a_truncated_image_is_refused(tmp_path, share):
    safe = make_safe(tmp_path, scl=full(4))
    (image,) = safe.rglob("*_B08_10m.jp2")
    content = image.read_bytes()
    image.write_bytes(content[: int(share * len(content))])
    with (
        GranuleReader(read_product(safe).granule, RGBN) as reader,
        pytest.raises(DataError, match=r"_B08_10m.jp2 cannot be read: .* fetch it again"),
    ):
        reader.coverage()


def test_granule_reader_of_a_recipe_named_like_an_image_is_refused(tmp_path):
    secret = tmp_path / "secret.tif"
    write_image(secret, np.full((SIDE, SIDE), 77, np.uint16), 10)
    safe = make_safe(tmp_path, bands=("B02",))
    next(safe.rglob("*_B02_10m.jp2")).write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><VRTRasterBand dataType="UInt16" '
        f'band="1"><SimpleSource><SourceFilename>{secret}</SourceFilename></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(DataError, match=r"_B02_10m.jp2 cannot be read"):
        pixels(safe, ("B02",))


def test_granule_reader_of_another_zone_than_stated_is_refused(tmp_path):
    safe = make_safe(tmp_path, bands=("B02",))
    edit(safe, "MTD_TL.xml", "EPSG:32631", "EPSG:32632")
    with pytest.raises(DataError, match=r"in EPSG:32632 by its metadata, but .* in EPSG:32631"):
        pixels(safe, ("B02",))


def test_read_product_finds_a_mask_beside_it(tmp_path):
    safe = make_safe(tmp_path, bands=("B02",))
    own = safe.with_name(f"{safe.stem}_cloud.tif")
    write_image(own, full(1, SIDE).astype(np.uint8), 10)
    granule = read_product(safe).granule
    assert granule.mask == CloudMask("mask", str(own))
    assert own in granule.files


def test_parse_product_without_cloud_cover_returns_none(tmp_path):
    safe = make_safe(tmp_path, bands=("B02",))
    edit(safe, "MTD_MSI*", "Cloud_Coverage_Assessment", "X")
    xml = (safe / "MTD_MSIL2A.xml").read_bytes()
    assert parse_product(xml, "x").cloud_cover is None
    with GranuleReader(read_product(safe).granule, ("B02",)) as reader:
        assert reader.cloud_source == "none"
        assert reader.coverage().cloudy == 0


def test_read_product_of_a_zip_with_backslashes_reads_its_pixels(tmp_path):
    safe = make_safe(tmp_path, scl=full(4))
    path = safe.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(safe.rglob("*")):
            if file.is_file():
                entry = zipfile.ZipInfo("x")
                entry.filename = str(file.relative_to(tmp_path)).replace("/", "\\")
                archive.writestr(entry, file.read_bytes())
    expected, of_folder = pixels(path, RGBN), pixels(safe, RGBN)
    np.testing.assert_array_equal(expected, of_folder)
    assert read_product(path).granule.mask.kind == "SCL"


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_read_product_passes_over_hidden_files(tmp_path, packed):
    safe = make_safe(tmp_path, bands=("B02",))
    for name in ("._MTD_MSIL2A.xml", ".snapshot/MTD_MSIL2A.xml", "__MACOSX/MTD_MSIL2A.xml"):
        (safe / name).parent.mkdir(exist_ok=True)
        (safe / name).write_bytes(b"\0\5\x16\7")
    path = zip_product(safe) if packed else safe
    assert list(read_product(path).granule.layers) == ["B02"]


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (["S1A_IW_GRDH_1SDV.SAFE/manifest.safe"], "It is a product of Sentinel-1: leave it out"),
        (["LC08_L2SP_198030_B4.TIF"], "It is a product of Landsat"),
        (["S2A_OPER_MTD_SAFL1C_PDMC_2016.xml"], "fetch the same acquisition from Collection 1"),
        (["tiles/31/U/tileInfo.json", "metadata.xml"], "a tile of a cloud bucket"),
        (["S2A_MSIL2A.zip"], "It holds archives: unpack it first"),
        (["2750/Forest/Forest_1.jpg"], "`sits-keras classify train` takes it"),
        (["readme.txt"], "it is not a Sentinel-2 product"),
    ],
)
def test_read_product_of_another_kind_states_the_remedy(tmp_path, names, remedy):
    path = tmp_path / "download.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    with pytest.raises(NotSentinel2Error, match=remedy):
        read_product(path)


def test_read_product_of_a_saved_page_is_reported(tmp_path):
    path = tmp_path / "S2A.zip"
    path.write_text("<html>Please log in</html>")
    with pytest.raises(DataError, match=r"is not a valid zip file: .* a page or a message"):
        read_product(path)


def test_find_series_passes_over_other_products_with_a_word(tmp_path):
    make_safe(tmp_path, bands=("B02",))
    for name in ("S1A_IW.zip", "._S2A.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("S1A_IW_GRDH.SAFE/manifest.safe", b"x")
    with pytest.warns(UserWarning, match=r"1 of the files and folders are not used: .*S1A_IW"):
        (series,) = find_series([tmp_path])
    assert len(series.granules) == 1
    with pytest.raises(NotSentinel2Error, match="It is a product of Sentinel-1"):
        find_series([tmp_path / "S1A_IW.zip"])


@pytest.mark.parametrize(
    ("baseline", "needs"), [("03.01", False), ("04.00", True), ("99.33", False)]
)
def test_needs_offset_of_baselines(baseline, needs):
    assert needs_offset(baseline, "x") is needs
