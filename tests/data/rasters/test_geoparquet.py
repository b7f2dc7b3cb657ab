import json
import struct
import sys

import numpy as np
import pyarrow.parquet
import pytest

from sits_keras.data.rasters.geoparquet import open_table
from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.write import outline
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError

UTM = Grid(300, 300, "EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0))
ACROSS = Grid(300, 300, "EPSG:32701", (10.0, 0.0, 178_500.0, 0.0, -10.0, 8_100_000.0))
NOWHERE = Grid(300, 300, None, None)
WINDOWS = [Window(0, 0, 64, 64), Window(10, 20, 64, 64), Window(236, 236, 64, 64)]
VALUES = np.arange(6, dtype=np.float32).reshape(3, 2)


def write(path, grid=UTM, windows=WINDOWS, values=VALUES, **options):
    with open_table(path, grid, 2, values.dtype.name, **options) as table:
        table.write(windows[:1], np.array([1.0], np.float32), values[:1])
        table.write(windows[1:], np.full(len(windows) - 1, 0.5, np.float32), values[1:])
    return pyarrow.parquet.read_table(path)


def rings_of(wkb):
    """The outer rings of a Polygon or MultiPolygon."""
    order, kind, count = struct.unpack_from("<BII", wkb)
    assert order == 1
    if kind == 6:
        at, rings = 9, []
        for _ in range(count):
            (ring,) = rings_of(wkb[at:])
            rings.append(ring)
            at += 13 + 16 * len(ring)
        assert at == len(wkb)
        return rings
    assert (kind, count) == (3, 1)
    (length,) = struct.unpack_from("<I", wkb, 9)
    return [np.frombuffer(wkb, "<f8", 2 * length, 13).reshape(-1, 2)]


def test_open_table_rows_equal_written_rows(tmp_path):
    table = write(tmp_path / "new" / "a.parquet")
    assert table["row"].to_pylist() == [0, 10, 236]
    assert table["col"].to_pylist() == [0, 20, 236]
    assert table["valid_fraction"].to_pylist() == [1.0, 0.5, 0.5]
    np.testing.assert_array_equal(table["features"].to_pylist(), VALUES)
    assert table.schema.field("features").type == pyarrow.list_(pyarrow.float32(), 2)
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["a.parquet"]


def test_open_table_with_a_crs_writes_longitude_and_latitude(tmp_path):
    table = write(tmp_path / "a.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    column = geo["columns"][geo["primary_column"]]
    assert "crs" not in column
    assert column["encoding"] == "WKB"
    assert column["orientation"] == "counterclockwise"
    for wkb, window in zip(table["geometry"].to_pylist(), WINDOWS, strict=True):
        (ring,) = rings_of(wkb)
        np.testing.assert_array_equal(ring, outline(window, UTM)["coordinates"][0])


def test_open_table_outline_across_180_degrees_has_two_parts(tmp_path):
    table = write(tmp_path / "a.parquet", ACROSS, [Window(0, 0, 300, 300)], VALUES[:1])
    first, second = rings_of(table["geometry"][0].as_py())
    assert {np.sign(first[:, 0].mean()), np.sign(second[:, 0].mean())} == {-1, 1}


def test_open_table_without_a_crs_writes_pixels(tmp_path):
    table = write(tmp_path / "a.parquet", NOWHERE)
    column = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
    assert column["crs"] is None
    (ring,) = rings_of(table["geometry"][1].as_py())
    assert {tuple(point) for point in ring} == {(20, 10), (84, 10), (84, 74), (20, 74)}


def test_open_table_of_int8_writes_scales(tmp_path):
    table = write(tmp_path / "a.parquet", values=VALUES.astype(np.int8), scales=[0.5, 2.0])
    field = table.schema.field("features")
    assert field.type == pyarrow.list_(pyarrow.int8(), 2)
    assert json.loads(field.metadata[b"scale"]) == [0.5, 2.0]


def test_open_table_with_many_rows_writes_row_groups(tmp_path):
    windows = [Window(row, 0, 64, 64) for row in range(3)] * 1500
    with open_table(tmp_path / "a.parquet", NOWHERE, 2, "float32") as table:
        for start in range(0, 4500, 100):
            part = windows[start : start + 100]
            table.write(part, np.ones(100, np.float32), np.full((100, 2), start, np.float32))
    file = pyarrow.parquet.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(2)] == [4100, 400]
    assert file.read()["features"].to_pylist()[-1] == [4400, 4400]


def test_open_table_is_read_by_geopandas(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    write(tmp_path / "a.parquet")
    frame = geopandas.read_parquet(tmp_path / "a.parquet")
    assert frame.crs == "OGC:CRS84"
    bounds = frame.to_crs("EPSG:32631").total_bounds
    np.testing.assert_allclose(bounds, [600_000, 4_997_000, 603_000, 5_000_000], atol=0.01)


def test_open_table_without_pyarrow_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with (
        pytest.raises(ConfigError, match=r"pip install pyarrow"),
        open_table(tmp_path / "a.parquet", UTM, 2, "float32"),
    ):
        pass
