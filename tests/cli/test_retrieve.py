import json

import matplotlib.image
import numpy as np
import pytest

from sits_keras import hub
from sits_keras.data.rasters.read import Grid, read_stored, write_raster
from sits_keras.data.rasters.rows import ArrayStrips
from sits_keras.data.tiling import Window
from sits_keras.tasks.windows import encode_at

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("load_once")]

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture
def image(tiny_series):
    return tiny_series / "a" / "2020-01-01.tif"


def test_retrieve_raster_in_itself_finds_all(image, tiny_module, call, tmp_path):
    out = tmp_path / "found.geojson"
    done = call(
        *("retrieve", image, image, out, "--model", tiny_module),
        *("--queries", 5, "--stride", 16, "--quiet"),
    )
    assert (done.code, done.err) == (0, "")
    first, second = done.out.splitlines()
    assert first == f"{out}, found.png: 5 boxes for 5 windows"
    assert second.startswith(
        "within 32 px of their own place: 100% of the nearest matches; by chance"
    )
    features = json.loads(out.read_text())["features"]
    assert len(features) == 5
    for index, one in enumerate(features):
        properties = one["properties"]
        assert (properties["query"], properties["rank"]) == (index, 1)
        assert properties["distance"] < 2  # channels that are flat are not correlated
        place = (properties["row"], properties["col"])
        assert place == (properties["query_row"], properties["query_col"])
        # Without a CRS, columns and rows.
        assert one["geometry"]["coordinates"][0][0] == [place[1], place[0]]
    height, width, _ = matplotlib.image.imread(tmp_path / "found.png").shape
    assert width > 1.7 * height


def test_retrieve_method_grid_is_l1_distance(image, tiny_module, call, refuse, tmp_path):
    command = ("retrieve", image, image, tmp_path / "a.geojson", "--model", tiny_module, "-q")
    options = ("--at", "8,16", "--stride", 32, "--json", "--overwrite")
    (found,) = json.loads(call(*command, *options, "--method", "grid").out)
    layers = call(*command, *options, "--method", "layers").out
    assert call(*command, *options).out == layers
    encoder = hub.load(tiny_module)
    stored = read_stored(image, BANDS)
    windows = [Window(8, 16, 64, 64), Window(found["row"], found["col"], 64, 64)]
    query, match = encode_at(encoder, ArrayStrips(stored, None), windows)
    assert found["distance"] == pytest.approx(np.abs(query - match).sum(), rel=1e-4)
    assert json.loads(layers)[0]["distance"] < 3
    message = refuse(*command, "--at", "0,0", "--overwrite", "--method", "pixels")
    assert "'layers', 'grid'" in message


def test_retrieve_at_looks_up_given_windows(image, tiny_run, call, tmp_path):
    done = call(
        *("retrieve", image, image, tmp_path / "f.geojson", "--model", tiny_run, "--json", "-q"),
        *("--at", "3,60", "--at", "64,0", "--matches", 2, "--stride", 32),
    )
    rows = json.loads(done.out)
    assert [(r["query"], r["rank"]) for r in rows] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [(r["query_row"], r["query_col"]) for r in rows[::2]] == [(3, 60), (64, 0)]
    assert (rows[2]["row"], rows[2]["col"]) == (64, 0)
    assert rows[3]["distance"] > rows[2]["distance"]


def test_retrieve_georeferenced_boxes_are_lonlat(image, tiny_run, call, tmp_path):
    grid = Grid(128, 128, "EPSG:32631", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
    write_raster(tmp_path / "placed.tif", read_stored(image, BANDS), BANDS, grid)
    out = tmp_path / "f.geojson"
    command = ("retrieve", image, tmp_path / "placed.tif", out, "--model", tiny_run, "-q")
    done = call(*command, "--at", "0,0", "--stride", 64)
    assert len(done.out.splitlines()) == 1  # whether they show one place is not known
    (one,) = json.loads(out.read_text())["features"]
    lon, lat = one["geometry"]["coordinates"][0][0]
    assert lon == pytest.approx(3.0, abs=1e-6)  # the middle of zone 31
    assert lat == pytest.approx(45.15, abs=0.01)


def test_retrieve_existing_output_is_kept(image, tiny_run, refuse, call, tmp_path):
    (tmp_path / "f.png").write_text("mine")
    command = ("retrieve", image, image, tmp_path / "f.geojson", "--model", tiny_run)
    assert "f.png already exists" in refuse(*command)
    done = call(*command, "--overwrite", "--queries", 1, "--stride", 64, "-q")
    assert done.code == 0
    assert (tmp_path / "f.geojson").is_file()


def test_retrieve_invalid_input_is_refused(image, tiny_run, refuse, tmp_path):
    out = tmp_path / "f.geojson"
    assert "must end in .geojson" in refuse(
        "retrieve", image, image, tmp_path / "f.shp", "--model", tiny_run
    )
    message = refuse("retrieve", image, image, out, "--model", tiny_run, "--at", "65,0")
    assert "rows 0 to 64 and columns 0 to 64. Received: row 65" in message
    small = tmp_path / "small.tif"
    write_raster(small, read_stored(image, BANDS)[:63], BANDS, Grid(63, 128, None, None))
    message = refuse("retrieve", image, small, out, "--model", tiny_run, "--queries", 1)
    assert "small.tif is 63 x 128 px, smaller than a window" in message
    assert not out.exists()


def test_retrieve_series_in_series_finds_own_windows(
    coded_series, tiny_module, call, refuse, tmp_path, monkeypatch
):
    # The coded values reach a reflectance of 4, which is reported.
    monkeypatch.setattr("sits_keras.tasks.series.warn_of_problems", lambda problems: None)
    lake = coded_series(tmp_path / "lake", dates=3, size=(128, 96), cloudy=(1,))
    out = tmp_path / "found.geojson"
    command = ("retrieve", lake, lake, out, "--model", tiny_module, "-q", "--stride", 16)
    done = call(*command, "--at", "0,32", "--at", "64,16", "--json")
    assert (done.code, done.err) == (0, "")
    rows = json.loads(done.out)
    assert [(row["row"], row["col"]) for row in rows] == [(0, 32), (64, 16)]
    assert [row["distance"] for row in rows] == pytest.approx([0, 0], abs=1e-3)
    assert "no date from the first to 2019-12-31" in refuse(
        *command, "--overwrite", "--to", "2019-12-31"
    )
    message = refuse(
        *("retrieve", lake, lake, tmp_path / "b.json", "--model", tiny_module),
        *("--method", "layers"),
    )
    assert "averages over the dates of a series" in message
    message = refuse(
        "retrieve", lake, tmp_path / "none", tmp_path / "b.json", "--model", tiny_module
    )
    assert "No file at" in message
