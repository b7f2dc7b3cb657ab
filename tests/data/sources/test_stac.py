import copy
import datetime
import json

import numpy as np
import pytest
from fake_products import SIDE, ground, make_safe, write_image

from sits_keras.bands import COMMON_NAMES
from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.sources.granules import CloudMask
from sits_keras.data.sources.series import find_series
from sits_keras.data.sources.stac import read_items
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError

RGBN = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}
WHOLE = Window(0, 0, SIDE, SIDE)


def asset(href, name=None, common=None, **fields):
    bands = [{"name": name, "common_name": common}] if name or common else []
    return {"href": href, "roles": ["data"], "eo:bands": bands, **fields}


def item(assets, **properties):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": properties.pop("id", "S2A_T31UDQ"),
        "geometry": None,
        "links": [],
        "collection": "sentinel-2-l2a",
        "properties": {
            "datetime": "2023-06-01T10:50:31Z",
            "s2:mgrs_tile": "31UDQ",
            "proj:epsg": 32631,
            "eo:cloud_cover": 1.5,
            **properties,
        },
        "assets": assets,
    }


def collection(path, *items):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def only(path):
    ((name, granule),) = read_items(path)
    return name, granule


def rgbn(folder, offset=0, **fields):
    """Writes a raster a band, and gives assets by common name."""
    for name, band in RGBN.items():
        values = (ground(band, 10) - offset).astype(np.uint16)
        write_image(folder / f"{name}.tif", values, 10)
    return {name: asset(f"./{name}.tif", band, name, **fields) for name, band in RGBN.items()}


def check_pixels(granule):
    with GranuleReader(granule, ("B08", "B02")) as reader:
        stored = reader.read(WHOLE)
    np.testing.assert_array_equal(stored[..., 0], ground("B08", 10))
    np.testing.assert_array_equal(stored[..., 1], ground("B02", 10))


def test_read_items_of_local_files_finds_bands_by_common_names(tmp_path):
    assets = rgbn(tmp_path / "s")
    assets["scl"] = asset("scl.tif", "SCL")
    write_image(tmp_path / "s" / "scl.tif", np.full((192, 192), 4, np.uint8), 20)
    path = collection(
        tmp_path / "s" / "items.json", item(assets, **{"s2:processing_baseline": "03.01"})
    )
    name, granule = only(path)
    assert name == "T31UDQ"
    assert granule.date == datetime.date(2023, 6, 1)
    assert granule.cloud_cover == 0.015
    assert (granule.baseline, granule.level, granule.crs) == ("03.01", "L2A", "EPSG:32631")
    assert granule.mask == CloudMask("SCL", str(tmp_path / "s" / "scl.tif"))
    assert list(granule.layers) == ["B02", "B03", "B04", "B08"]
    check_pixels(granule)


RASTER_OFFSET = {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}
NEW = {"s2:processing_baseline": "05.09"}


@pytest.mark.parametrize(
    ("dn_offset", "fields", "properties"),
    [
        (-1000, RASTER_OFFSET, NEW),
        (-1000, {"raster:scale": 0.0001, "raster:offset": -0.1}, NEW),
        (-1000, {"bands": [{"raster:scale": 1e-4, "raster:offset": -0.1}]}, NEW),
        (-1000, RASTER_OFFSET, {**NEW, "earthsearch:boa_offset_applied": False}),
        # The catalogue took it in already; what it says beside the pixels is of before.
        (0, RASTER_OFFSET, {**NEW, "earthsearch:boa_offset_applied": True}),
        (0, {}, {**NEW, "earthsearch:boa_offset_applied": True}),
        (0, {}, {"sentinel:processing_baseline": "04.00", "sentinel:boa_offset_applied": True}),
        (0, {"raster:bands": [{"scale": 0.0001, "offset": 0}]}, NEW),
        (0, {}, {"s2:processing_baseline": "03.01"}),
        (-1000, {"raster:offset": -0.1}, {"processing:version": "05.11"}),
        (0, {}, {}),
    ],
)
def test_read_items_takes_the_offset_that_an_item_states(tmp_path, dn_offset, fields, properties):
    assets = rgbn(tmp_path, dn_offset, **fields)
    check_pixels(only(collection(tmp_path / "i.json", item(assets, **properties)))[1])


@pytest.mark.parametrize(
    "properties",
    [
        NEW,
        {"processing:version": "05.11"},
        {**NEW, "earthsearch:boa_offset_applied": False},
    ],
)
@pytest.mark.parametrize("fields", [{}, {"raster:scale": 0.0001}])
def test_read_items_without_a_needed_offset_is_refused(tmp_path, properties, fields):
    path = collection(tmp_path / "i.json", item(rgbn(tmp_path, **fields), **properties))
    with pytest.raises(DataError, match=r"S2A_T31UDQ of .*i.json is of .* states none for B02"):
        only(path)


def test_read_items_with_an_offset_of_zero_not_applied_is_refused(tmp_path):
    properties = {**NEW, "earthsearch:boa_offset_applied": False}
    path = collection(
        tmp_path / "i.json", item(rgbn(tmp_path, **{"raster:offset": 0}), **properties)
    )
    with pytest.raises(DataError, match="states none for B02"):
        only(path)


def test_read_items_takes_the_offset_of_the_products_metadata(tmp_path):
    safe = make_safe(tmp_path, bands=("B02",))
    assets = rgbn(tmp_path, -1000)
    assets["product-metadata"] = {"href": f"{safe.name}/MTD_MSIL2A.xml", "roles": ["metadata"]}
    check_pixels(only(collection(tmp_path / "i.json", item(assets, **NEW)))[1])
    assets["product-metadata"]["href"] = "gone.xml"
    with pytest.raises(DataError, match=r"gone.xml cannot be read"):
        only(collection(tmp_path / "i.json", item(assets, **NEW)))


def test_read_items_takes_the_finest_asset_and_no_pictures(tmp_path):
    assets = {
        "red_20m": asset("20.tif", "B04", gsd=20),
        "visual": asset("tci.tif", "B04", "red", gsd=10),
        "preview": asset("p.tif", "B04", gsd=1) | {"roles": ["overview"]},
        "display": asset("d.tif", "B04", **{"raster:bands": [{"data_type": "uint8"}]}),
        "red": asset("10.tif", "B04", gsd=10),
        "red_60m": asset("60.tif", "B04", gsd=60),
    }
    _, granule = only(collection(tmp_path / "i.json", item(assets)))
    assert granule.layers["B04"].path == str(tmp_path / "10.tif")


def test_read_items_takes_assets_of_several_bands_and_bare_keys(tmp_path):
    assets = {
        "stack": {"href": "s.tif", "bands": [{"name": "B4"}, {"eo:common_name": "nir08"}]},
        "B02_10m": {"href": "b02.tif"},
        "swir16": {"href": "b11.tif"},
        "SCL_60m": {"href": "scl60.tif"},
        "SCL_20m": {"href": "scl20.tif"},
        "other": {"href": "x.tif"},
    }
    _, granule = only(collection(tmp_path / "i.json", item(assets)))
    found = {band: (layer.path, layer.number) for band, layer in granule.layers.items()}
    assert found == {
        "B02": (str(tmp_path / "b02.tif"), 1),
        "B04": (str(tmp_path / "s.tif"), 1),
        "B8A": (str(tmp_path / "s.tif"), 2),
        "B11": (str(tmp_path / "b11.tif"), 1),
    }
    assert granule.mask.path == str(tmp_path / "scl20.tif")


@pytest.mark.parametrize(
    ("href", "name"),
    [
        ("https://x.org/a/B04.tif", "/vsicurl/https://x.org/a/B04.tif"),
        ("https://x.org/B04.tif?sig=a%2Fb", "/vsicurl/https://x.org/B04.tif?sig=a%2Fb"),
        ("s3://eodata/Sentinel-2/B04.jp2", "/vsis3/eodata/Sentinel-2/B04.jp2"),
        ("gs://bucket/B04.jp2", "/vsigs/bucket/B04.jp2"),
        ("file:///data/B04.tif", "/data/B04.tif"),
        ("/data/B04.tif", "/data/B04.tif"),
    ],
)
def test_read_items_hrefs_become_names_for_gdal(tmp_path, href, name):
    _, granule = only(collection(tmp_path / "i.json", item({"red": asset(href, "B04")})))
    assert granule.layers["B04"].path == name
    assert [str(file) for file in granule.files[1:]] == ([] if "/vsi" in name else [name])


def test_read_items_with_an_unknown_scheme_is_refused(tmp_path):
    path = collection(tmp_path / "i.json", item({"red": asset("ftp://x.org/B04.tif", "B04")}))
    with pytest.raises(DataError, match=r"an asset at ftp://x.org/B04.tif. Expected a file, or"):
        only(path)


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"s2:mgrs_tile": "31UDQ"}, "T31UDQ"),
        ({"s2:mgrs_tile": None, "grid:code": "MGRS-07HFE"}, "T07HFE"),
        (
            {
                "s2:mgrs_tile": None,
                "mgrs:utm_zone": 7,
                "mgrs:latitude_band": "H",
                "mgrs:grid_square": "FE",
            },
            "T07HFE",
        ),
        ({"s2:mgrs_tile": None}, "lake"),
    ],
)
def test_read_items_are_named_by_their_tile(tmp_path, properties, name):
    assert only(collection(tmp_path / "lake.json", item({}, **properties)))[0] == name


def test_find_series_joins_items_and_products_of_a_tile(tmp_path):
    make_safe(tmp_path / "in", date="2023-07-01")
    assets = rgbn(tmp_path / "in")
    late = item(assets, id="late", datetime="2023-08-01T23:59:59+02:00")
    collection(tmp_path / "in" / "i.json", late, item(assets, id="early"))
    (series,) = find_series([tmp_path / "in"])
    assert series.id == "T31UDQ"
    assert [str(granule.date) for granule in series.granules] == [
        "2023-06-01",
        "2023-07-01",
        "2023-08-01",
    ]


def test_find_series_with_two_items_of_a_date_is_refused(tmp_path):
    path = collection(tmp_path / "i.json", item({}, id="one"), item({}, id="two"))
    with pytest.raises(DataError, match="T31UDQ 2023-06-01: one, same date as two: remove"):
        find_series([path])


@pytest.fixture
def processed_twice(tmp_path):
    """Two dates, each processed with two baselines, in no order."""
    items = [
        item({}, id=f"{day}_{baseline}", datetime=f"2020-0{day}-01T10:00:00Z", **properties)
        for day in (4, 5)
        for baseline, properties in (
            ("05.00", {"s2:processing_baseline": "05.00"}),
            ("02.14", {"s2:processing_baseline": "02.14"}),
        )
    ]
    return collection(tmp_path / "i.json", *items)


def test_find_series_products_of_two_baselines_are_listed_with_what_to_keep(processed_twice):
    with pytest.raises(DataError, match="2 dates have several granules") as error:
        find_series([processed_twice])
    for day in (4, 5):
        assert (
            f"T31UDQ 2020-0{day}-01: {day}_05.00, same date as {day}_02.14: keep it, the newest "
            "processing baseline, 05.00"
        ) in str(error.value)


def test_find_series_newest_baseline_is_kept_if_asked(processed_twice):
    (series,) = find_series([processed_twice], newest=True)
    assert [granule.baseline for granule in series.granules] == ["05.00", "05.00"]
    assert [(one.granule.baseline, one.kind) for one in series.conflicts] == [
        ("02.14", "settled"),
        ("02.14", "settled"),
    ]
    assert series.conflicts[0].reason == "4_05.00 is kept, the newest processing baseline, 05.00"


def test_find_series_last_processed_of_one_baseline_is_kept(tmp_path):
    name = "S2A_MSIL2A_20200401T105031_N0500_R051_T31UDQ_{}T000000"
    items = [item({}, id=name.format(day)) for day in ("20230510", "20230711")]
    path = collection(tmp_path / "i.json", *items)
    (series,) = find_series([path], newest=True)
    assert [granule.name for granule in series.granules] == [f"{path}#{items[1]['id']}"]
    assert "the last processed, 20230711T000000" in series.conflicts[0].reason


def test_find_series_identical_granules_are_refused_with_newest(tmp_path):
    path = collection(tmp_path / "i.json", item({}, id="one"), item({}, id="two"))
    with pytest.raises(DataError, match="one, same date as two: remove all but one"):
        find_series([path], newest=True)


@pytest.mark.parametrize(
    ("properties", "what"),
    [({"proj:epsg": 32632}, "CRS"), ({"s2:product_type": "S2MSI1C"}, "level")],
)
def test_find_series_with_two_zones_or_levels_is_refused(tmp_path, properties, what):
    other = item({}, id="b", datetime="2023-07-01T00:00:00Z", **properties)
    path = collection(tmp_path / "i.json", item({}, id="a"), other)
    with pytest.raises(DataError, match=f"i.json#b has {what} .*A series has one {what}"):
        find_series([path])


def test_read_items_of_a_single_item(tmp_path):
    (tmp_path / "i.json").write_text(json.dumps(item({})))
    assert only(tmp_path / "i.json")[0] == "T31UDQ"


def test_read_items_over_a_span_of_time_take_its_start(tmp_path):
    span = {
        "datetime": None,
        "start_datetime": "2023-06-02T00:00:00Z",
        "end_datetime": "2023-06-03T00:00:00Z",
    }
    assert str(only(collection(tmp_path / "i.json", item({}, **span)))[1].date) == "2023-06-02"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no JSON", "is not a STAC item or item collection"),
        ("[1, 2]", "is not a STAC item or item collection"),
        ('{"type": "Catalog"}', "is of type 'Catalog'. Expected a STAC item collection"),
        ('{"type": "Feature"}', "is not a STAC item or item collection"),
        ('{"type": "FeatureCollection", "features": [3]}', "is not a STAC item or item collection"),
        (json.dumps(item({"red": {"roles": []}})), "is not a STAC item or item collection"),
        ("{}", "is of type None"),
        (json.dumps(item({}, **{"eo:cloud_cover": "none"})), "does not follow STAC"),
        (
            json.dumps(item({}, **NEW) | {"assets": {"red": asset("x", "B04", gsd="fine")}}),
            "does not follow STAC",
        ),
        (json.dumps(item({"a": asset("x", "B04")}, **{"s2:processing_baseline": "x"})), "Expected"),
    ],
)
def test_read_items_of_other_or_broken_files_is_refused(tmp_path, text, message):
    path = tmp_path / "i.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        list(read_items(path))
    assert "i.json" in str(error.value)


def test_common_names_cover_all_bands():
    assert COMMON_NAMES["nir"] == "B08"
    assert COMMON_NAMES["nir08"] == "B8A"
    assert len(set(COMMON_NAMES.values())) == 13


@pytest.mark.parametrize("index", range(4))
def test_read_items_of_another_tool_finds_bands_and_offsets(real_data, tmp_path, index):
    folder = sorted((real_data / "safe").iterdir())[index]
    values = json.loads((folder / "expected_output.json").read_text())
    name, granule = only(collection(tmp_path / "i.json", copy.deepcopy(values)))
    assert name == folder.name.split("_")[5]
    offset = values["assets"]["red"]["raster:bands"][0]["offset"]
    assert granule.layers["B04"][2:] == (0.0001, offset)
    assert granule.layers["B08"].path.endswith(values["assets"]["nir"]["href"].lstrip("."))
    assert {"B02", "B05", "B8A", "B12"} <= set(granule.layers)


@pytest.mark.parametrize(
    "properties",
    [
        {"grid:code": "MGRS-9VWK"},
        {"grid:code": "mgrs-09vwk"},
        {"s2:mgrs_tile": "09VWK"},
        {"s2:mgrs_tile": "T09VWK"},
        {"s2:mgrs_tile": "9vwk"},
        {"mgrs:utm_zone": "9", "mgrs:latitude_band": "v", "mgrs:grid_square": "WK"},
    ],
)
def test_read_items_of_a_tile_in_any_spelling_name_one_place(tmp_path, properties):
    one = item({}, **{"s2:mgrs_tile": None, **properties})
    assert only(collection(tmp_path / "i.json", one))[0] == "T09VWK"


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"proj:epsg": 32631}, "EPSG:32631"),
        ({"proj:epsg": 32631.0}, "EPSG:32631"),
        ({"proj:code": "epsg:32631"}, "EPSG:32631"),
        ({"proj:code": "EPSG:None", "proj:epsg": None}, None),
        ({"proj:code": "OGC:CRS84", "proj:epsg": None}, None),
    ],
)
def test_read_items_crs_is_an_epsg_code_or_none(tmp_path, properties, expected):
    _, granule = only(collection(tmp_path / "i.json", item({}, **properties)))
    assert granule.crs == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_read_items_in_any_encoding(tmp_path, encoding):
    path = tmp_path / "in" / "i.json"
    path.parent.mkdir()
    path.write_text(json.dumps(item({}, id="é"), ensure_ascii=False), encoding=encoding)
    (series,) = find_series([path.parent])
    assert series.granules[0].name.endswith("#é")


def test_read_items_with_percent_signs_in_paths(tmp_path):
    folder = tmp_path / "my data" / "été"
    assets = rgbn(folder)
    for name in assets:
        assets[name]["href"] = (folder / f"{name}.tif").as_uri()
    check_pixels(only(collection(tmp_path / "uri.json", item(assets)))[1])
    for name in assets:
        assets[name]["href"] = f"my%20data/%C3%A9t%C3%A9/{name}.tif"
    check_pixels(only(collection(tmp_path / "relative.json", item(assets)))[1])


@pytest.mark.parametrize(
    ("baseline", "applied", "offset", "taken", "is_told"),
    [
        ("05.09", None, -0.1, -0.1, False),
        ("05.09", None, 0, 0.0, True),
        ("05.09", True, None, 0.0, False),
        ("05.09", True, 0, 0.0, False),
        ("05.09", True, -0.1, 0.0, False),
        ("05.09", False, -0.1, -0.1, False),
        ("05.09", None, -1000, -0.1, True),
        ("02.14", None, None, 0.0, False),
        ("02.14", None, 0, 0.0, False),
        ("02.14", None, -0.1, -0.1, True),
        ("02.14", True, None, 0.0, False),
        ("02.14", True, -0.1, 0.0, False),
        ("02.14", False, 0, 0.0, False),
        ("02.14", False, -0.1, -0.1, True),
        ("99.99", None, -0.1, -0.1, False),
        (None, None, -0.1, -0.1, False),
        (None, True, -0.1, 0.0, False),
        (None, None, 0, 0.0, False),
    ],
)
def test_read_items_contradicting_offsets_are_reported(
    tmp_path, recwarn, baseline, applied, offset, taken, is_told
):
    stated = {"scale": 0.0001} | ({} if offset is None else {"offset": offset})
    properties = {} if baseline is None else {"s2:processing_baseline": baseline}
    properties |= {} if applied is None else {"earthsearch:boa_offset_applied": applied}
    assets = {"red": asset("x.tif", "B04", **{"raster:bands": [stated]})}
    items = [item(assets, id=name, **properties) for name in ("one", "two")]
    for _, granule in read_items(collection(tmp_path / "i.json", *items)):
        assert granule.layers["B04"].offset == pytest.approx(taken)
    told = [str(one.message) for one in recwarn if "contradict" in str(one.message)]
    assert len(told) == is_told
    assert all("one is of baseline" in text or "one states" in text for text in told)


@pytest.mark.parametrize(
    ("platform", "name", "common"),
    [
        ("landsat-8", "B4", "red"),
        (None, "B5", "nir08"),
        (None, "B2", "green"),
        (None, "B6", "swir16"),
    ],
)
def test_read_items_of_another_sensor_are_refused(tmp_path, platform, name, common):
    one = item({"x": asset("x.tif", name, common)}, id="LC08", platform=platform)
    with pytest.raises(DataError, match=r"Item LC08 .* Expected Sentinel-2"):
        only(collection(tmp_path / "i.json", one))


def test_read_items_takes_no_panchromatic_band_for_infrared(tmp_path):
    assets = {"a": asset("x.tif", "B8", "pan"), "b": asset("y.tif", "B8A", "nir")}
    _, granule = only(collection(tmp_path / "i.json", item(assets)))
    assert list(granule.layers) == ["B8A"]


def test_read_items_takes_a_known_pixel_size_before_an_unknown_one(tmp_path):
    assets = {"blue-jp2": asset("a.jp2", "B02", "blue"), "blue": asset("b.tif", "B02", gsd=10)}
    _, granule = only(collection(tmp_path / "i.json", item(assets)))
    assert granule.layers["B02"].path == str(tmp_path / "b.tif")


def test_read_items_lists_every_broken_item(tmp_path):
    items = [item({}, id=f"n{n}", **{"eo:cloud_cover": "none"}) for n in range(3)]
    with pytest.raises(DataError, match=r"has 3 problems.*\(1\) Item n0 .*\(3\) Item n2 "):
        read_items(collection(tmp_path / "i.json", *items))


def test_read_items_of_one_page_of_a_search_warns(tmp_path):
    path = collection(tmp_path / "i.json", item({}), item({}))
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "numberMatched": 341}))
    with pytest.warns(UserWarning, match="holds 2 of the 341 items of its search"):
        assert len(read_items(path)) == 1  # the same item twice


def test_read_items_without_any_cloud_warn(tmp_path):
    items = [item({}, id=str(index), **{"eo:cloud_cover": 0}) for index in range(4)]
    with pytest.warns(UserWarning, match="all 4 items state a cloud cover of exactly 0"):
        read_items(collection(tmp_path / "i.json", *items))


def test_read_items_does_not_print_the_secrets_of_metadata_urls(tmp_path):
    assets = rgbn(tmp_path, -1000)
    assets["product-metadata"] = {"href": "http://127.0.0.1:1/m.xml?sig=s3cr3t"}
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:1/m\.xml cannot be read") as error:
        only(collection(tmp_path / "i.json", item(assets, **NEW)))
    assert "s3cr3t" not in str(error.value)
