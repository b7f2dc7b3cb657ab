import importlib.util
import json
import sys

import numpy as np
import pystac
import pystac.validation
import pytest
import rasterio
from fake_embeddings import UTM, moved, place_at, random_vectors, write_embeddings

from sits_keras.data.rasters.embeddings import open_embeddings
from sits_keras.data.rasters.geoparquet import open_table, read_table_header
from sits_keras.data.rasters.read import Grid
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError, MissingLibraryError
from sits_keras.tasks import embedding_files
from sits_keras.tasks.embedding_files import convert_embeddings, describe_embeddings, write_item

needs_zarr = pytest.mark.skipif(
    importlib.util.find_spec("zarr") is None, reason="needs zarr, of the extra `zarr`"
)

TAGS = {
    "encoder": "tiny-shared",
    "encoder_sha256": "ab" * 32,
    "dates": "2020-03-01,2020-01-01,2020-07-01",
}
MODEL = {"id": "tiny", "type": "Feature", "properties": {"mlm:name": "tiny"}}


@pytest.fixture
def raster(tmp_path):
    """Embeddings of 70 x 90 cells of 20 m, of which 10 x 10 have no data."""
    values = random_vectors(5, 70, 90)
    values[:, :10, :10] = -128
    return write_embeddings(tmp_path / "in" / "e.tif", values, scales=0.125, offsets=1, tags=TAGS)


@pytest.fixture
def table(tmp_path):
    grid = Grid(200, 300, "EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0))
    path = tmp_path / "t.parquet"
    with open_table(path, grid, 3, "int8", scales=[0.5, 1, 2]) as target:
        windows = [Window(row, col, 64, 64) for row, col in ((0, 0), (100, 200), (136, 236))]
        target.write(windows, np.ones(3, np.float32), np.arange(9, dtype=np.int8).reshape(3, 3))
    return path


def numbers_of(path):
    with rasterio.open(path) as source:
        values = source.read().astype(np.float32)
    return np.where(values == -128, np.nan, values * 0.125 + 1)


# Zarr


@needs_zarr
@pytest.mark.filterwarnings("error:Failed to open Zarr store with consolidated metadata")
def test_convert_embeddings_is_opened_by_xarray_with_coordinates_and_crs(raster, tmp_path):
    xarray = pytest.importorskip("xarray", reason="needs xarray")
    pytest.importorskip("rioxarray", reason="needs rioxarray")
    convert_embeddings(raster, tmp_path / "e.zarr")
    with xarray.open_zarr(tmp_path / "e.zarr", decode_coords="all") as found:
        numbers = found["embeddings"]
        assert numbers.dims == ("band", "y", "x")
        assert (found["x"].values[0], found["x"].values[-1]) == (600_010, 600_000 + 20 * 89.5)
        assert (found["y"].values[0], found["y"].values[-1]) == (4_999_990, 5_000_000 - 20 * 69.5)
        assert numbers.rio.crs.to_epsg() == 32631
        assert numbers.rio.transform() == UTM
        np.testing.assert_allclose(numbers.values, numbers_of(raster), rtol=1e-6)


@needs_zarr
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_convert_embeddings_keeps_the_stored_values(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_files, "_CHUNK", 16)
    monkeypatch.setattr(embedding_files, "_SHARD", 32)
    values = random_vectors(4, 70, 50).astype(dtype)
    values[:, 3, 4] = -128 if dtype == "int8" else np.nan
    scales = np.float32([0.5, 1, 2, 3])
    whole = write_embeddings(tmp_path / "e.tif", values, scales=scales, tags=TAGS)
    convert_embeddings(whole, tmp_path / "e.zarr")
    found, expected = open_embeddings(tmp_path / "e.zarr"), open_embeddings(whole)
    np.testing.assert_array_equal(found.read(0, 70), values)
    np.testing.assert_array_equal(found.read(30, 5), values[:, 30:35])
    assert found.grid == expected.grid
    assert (found.header.bands, found.header.tags) == (expected.header.bands, TAGS)
    np.testing.assert_array_equal(found.header.scales, scales)


@needs_zarr
def test_convert_embeddings_shards_a_mosaic(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_files, "_CHUNK", 16)
    monkeypatch.setattr(embedding_files, "_SHARD", 32)
    values = random_vectors(3, 64, 96)
    for col in (0, 48):
        part = values[:, :, col : col + 48]
        write_embeddings(tmp_path / "tiles" / f"{col}.tif", part, transform=moved(0, col))
    convert_embeddings(tmp_path / "tiles", tmp_path / "e.zarr")
    zarr = pytest.importorskip("zarr")
    array = zarr.open_group(tmp_path / "e.zarr", mode="r")["embeddings"]
    assert (array.chunks, array.shards) == ((3, 16, 16), (3, 32, 32))
    assert array.metadata.zarr_format == 3
    np.testing.assert_array_equal(array[:], values)
    files = [one for one in (tmp_path / "e.zarr" / "embeddings" / "c").rglob("*") if one.is_file()]
    assert len(files) == 6


@needs_zarr
def test_convert_embeddings_follows_the_conventions(raster, tmp_path):
    convert_embeddings(raster, tmp_path / "e.zarr")
    attributes = json.loads((tmp_path / "e.zarr" / "zarr.json").read_text())["attributes"]
    assert [one["uuid"] for one in attributes["zarr_conventions"]] == [
        "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
        "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    ]
    expected = {
        "geoemb:type": "pixel",
        "geoemb:dimensions": 5,
        "geoemb:model": f"urn:sits-keras:encoder:tiny-shared:sha256:{'ab' * 32}",
        "geoemb:data_type": "int8",
        "geoemb:gsd": 20,
        "geoemb:quantization": {
            "method": "linear",
            "original_dtype": "float32",
            "quantized_dtype": "int8",
            "scale": {"type": "scalar", "scale": 0.125, "offset": 1},
        },
        "proj:code": "EPSG:32631",
        "spatial:dimensions": ["y", "x"],
        "spatial:transform": list(UTM)[:6],
        "spatial:shape": [70, 90],
        "spatial:bbox": [600_000, 5_000_000 - 1400, 601_800, 5_000_000],
        "spatial:registration": "pixel",
    }
    assert {name: attributes[name] for name in expected} == expected
    assert len(attributes["geoemb:source_data"]) == 1


@needs_zarr
def test_convert_embeddings_without_crs_writes_no_geometry(tmp_path):
    path = write_embeddings(tmp_path / "e.tif", random_vectors(3, 20, 30), crs=None)
    convert_embeddings(path, tmp_path / "e.zarr")
    assert open_embeddings(tmp_path / "e.zarr").grid == Grid(20, 30, None, None)
    item = json.loads((tmp_path / "e.zarr.item.json").read_text())
    assert item["geometry"] is None
    attributes = json.loads((tmp_path / "e.zarr" / "zarr.json").read_text())["attributes"]
    assert [one["name"] for one in attributes["zarr_conventions"]] == ["geoemb:"]


@needs_zarr
def test_convert_embeddings_existing_output_is_kept(raster, tmp_path):
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "file").write_text("mine")
    with pytest.raises(ExistsError, match="already exists"):
        convert_embeddings(raster, tmp_path / "mine.zarr")
    with pytest.raises(ExistsError, match="is not a Zarr store"):
        convert_embeddings(raster, tmp_path / "mine.zarr", overwrite=True)
    assert (tmp_path / "mine.zarr" / "file").read_text() == "mine"
    with pytest.raises(ConfigError, match=r"OUT must end in \.zarr"):
        convert_embeddings(raster, tmp_path / "e.nc")
    for _ in range(2):
        convert_embeddings(raster, tmp_path / "e.zarr", overwrite=True)


@needs_zarr
def test_convert_embeddings_interrupted_leaves_nothing(raster, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    opened = open_embeddings(raster)
    monkeypatch.setattr(opened, "read_window", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert_embeddings(opened, tmp_path / "e.zarr")
    assert not list(tmp_path.glob("*e.zarr"))


@needs_zarr
def test_open_embeddings_of_another_zarr_store_is_refused(tmp_path):
    zarr = pytest.importorskip("zarr")
    zarr.create_group(tmp_path / "other.zarr").create_array("a", shape=(3,), dtype="int8")
    with pytest.raises(DataError, match="is not a Zarr store of embeddings"):
        open_embeddings(tmp_path / "other.zarr")


def test_convert_embeddings_without_zarr_is_refused(raster, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'sits_keras\[zarr\]'"):
        convert_embeddings(raster, tmp_path / "e.zarr")


# STAC


def validate(path):
    """Read an item with pystac, and check it against the schema of STAC that pystac contains."""
    pytest.importorskip("jsonschema", reason="needs jsonschema, for pystac to validate")
    content = json.loads(path.read_text())
    validator = pystac.validation.RegisteredValidator.get_validator()
    validator.validate_core(content, pystac.STACObjectType.ITEM, content["stac_version"])
    # Of the extension for embeddings, whose schema allows no other fields for items.
    allowed = {"runtime_parameters", "quantization", "fit_for_use", "uncertainty", "energy"}
    fields = {name[4:] for name in content["properties"] if name.startswith("emb:")}
    assert fields <= allowed
    assert "embeddings" in content["assets"]
    assert pystac.Item.from_file(str(path)).assets["embeddings"].roles == ["data"]


def test_write_item_of_a_raster_describes_it_and_links_the_encoder(raster, tmp_path):
    out = write_item(raster, model=MODEL)
    assert out == raster.with_name("e.tif.item.json")
    validate(out)
    item = json.loads(out.read_text())
    properties = item["properties"]
    assert properties["data_type"] == "int8"
    assert properties["gsd"] == 20
    assert (properties["proj:code"], properties["proj:shape"]) == ("EPSG:32631", [70, 90])
    assert properties["emb:quantization"] == {
        "method": "linear",
        "original_dtype": "float32",
        "quantized_dtype": "int8",
        "scale": [0.125],
        "offset": [1],
    }
    assert properties["emb:runtime_parameters"]["encoder_sha256"] == "ab" * 32
    assert properties["datetime"] is None
    assert properties["start_datetime"] == "2020-01-01T00:00:00Z"
    assert properties["end_datetime"] == "2020-07-01T00:00:00Z"
    (west, south), (east, north) = place_at(70, 0), place_at(0, 90)
    np.testing.assert_allclose(item["bbox"], [west, south, east, north], atol=1e-3)
    assert item["assets"]["embeddings"]["href"] == "./e.tif"
    (link,) = [one for one in item["links"] if one["rel"] == "emb:model"]
    assert json.loads((raster.parent / link["href"]).read_text()) == MODEL


@needs_zarr
def test_convert_embeddings_takes_the_item_of_the_encoder_along(raster, tmp_path):
    write_item(raster, model=MODEL)
    convert_embeddings(raster, tmp_path / "out" / "e.zarr")
    out = tmp_path / "out" / "e.zarr.item.json"
    validate(out)
    (link,) = [one for one in json.loads(out.read_text())["links"] if one["rel"] == "emb:model"]
    assert json.loads((tmp_path / "out" / link["href"]).read_text()) == MODEL


def test_write_item_of_each_format_is_valid(raster, table, tmp_path):
    single = {**TAGS, "dates": "2020-03-01"}
    one = write_embeddings(tmp_path / "f.tif", np.ones((2, 9, 9), np.float32), tags=single)
    for path in (raster, table, one, raster.parent):
        validate(write_item(path))
    item = json.loads((tmp_path / "f.tif.item.json").read_text())
    assert item["properties"]["datetime"] == "2020-03-01T00:00:00Z"
    assert "emb:quantization" not in item["properties"]


def test_write_item_of_wrong_dates_is_refused(tmp_path):
    path = write_embeddings(tmp_path / "e.tif", random_vectors(2, 9, 9), tags={"dates": "May"})
    with pytest.raises(DataError, match="'May' in the metadata are not dates"):
        write_item(path)


# Descriptions


def test_describe_embeddings_states_numbers_size_and_scale(raster):
    assert describe_embeddings(raster) == {
        "kind": "embedding raster",
        "numbers": 5,
        "dtype": "int8",
        "scale": 0.125,
        "offset": 1,
        "size": "70 x 90 cells",
        "crs": "EPSG:32631",
        "cell": "20 metre",
        "other bands": [],
        **TAGS,
    }


def test_write_item_states_the_scale_of_the_raster(tmp_path):
    path = write_embeddings(tmp_path / "e.tif", random_vectors(2, 9, 9), scales=0.05, tags=TAGS)
    item = json.loads(write_item(path).read_text())
    assert item["properties"]["emb:quantization"]["scale"] == [0.05]
    assert describe_embeddings(path)["scale"] == 0.05


def test_describe_embeddings_of_a_table(table):
    facts = describe_embeddings(table)
    assert (facts["kind"], facts["numbers"], facts["windows"]) == ("table of embeddings", 3, 3)
    assert (facts["dtype"], facts["scale"]) == ("int8", "one for each number")


def test_table_is_opened_by_geopandas(table):
    geopandas = pytest.importorskip("geopandas", reason="needs geopandas")
    found = geopandas.read_parquet(table)
    assert found.crs.to_string() == "OGC:CRS84"
    assert len(found) == 3
    np.testing.assert_array_equal(np.stack(found["features"]), np.arange(9).reshape(3, 3))
    np.testing.assert_allclose(read_table_header(table).bounds, found.total_bounds)


def test_describe_embeddings_of_another_table_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_text("mine")
    for name in ("a", "b"):
        with pytest.raises(DataError, match="is not a table of embeddings"):
            describe_embeddings(tmp_path / f"{name}.parquet")
    with pytest.raises(MissingError, match=r"No file at .*none\.parquet"):
        describe_embeddings(tmp_path / "none.parquet")
