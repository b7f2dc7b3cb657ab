"""The verbs that make maps: change, segment and embed."""

import json
import re

import matplotlib.image
import numpy as np
import pyarrow.parquet
import pytest

from sits_keras import hub, load_model, tasks
from sits_keras.data import execution
from sits_keras.data.rasters.points import Point, write_points
from sits_keras.data.rasters.read import Grid, read_info, write_raster
from sits_keras.data.synthetic import make_series, write_series

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("load_once")]

BANDS = ("B02", "B03", "B04", "B08")
GRID = Grid(128, 96, "EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0))


@pytest.fixture
def rasters(tmp_path):
    """Two dates that differ in the lower half, and a mask of the difference."""
    rng = np.random.default_rng(0)
    before = rng.integers(200, 3000, (128, 96, 4)).astype(np.uint16)
    after = before.copy()
    after[64:] = rng.integers(200, 3000, (64, 96, 4))
    mask = np.zeros((128, 96, 1), np.uint8)
    mask[64:] = 1
    for name, values, bands in (
        ("before", before, BANDS),
        ("after", after, BANDS),
        ("mask", mask, ["changed"]),
    ):
        write_raster(tmp_path / f"{name}.tif", values, bands, GRID)
    return tmp_path


def test_change_writes_map_and_prints_threshold(rasters, tiny_run, call):
    before, after, out = rasters / "before.tif", rasters / "after.tif", rasters / "out.tif"
    arguments = ("change", before, after, out, "--model", tiny_run, "-q")
    code, text, err = call(*arguments, "--method", "exclusive", "--stride", 64)
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{out}: \d+\.\d% changed, threshold \S+ \(automatic\)\n", text)
    assert read_info(out).bands == ("distance", "changed")
    assert read_info(out).grid == GRID
    code, text, err = call(*arguments, "--overwrite")
    assert (code, err) == (0, "")
    assert "% of unchanged pixels are estimated to be above it" in text
    assert read_info(out).bands == ("distance", "changed", "percentile")
    labels = rasters / "points.geojson"
    write_points(labels, [Point(2, 3, True), Point(90, 80, False)], GRID)
    code, text, err = call(*arguments, "--overwrite", "--labels", labels)
    assert (code, err) == (0, "")
    assert "threshold 0.5" in text


def test_change_with_mask_prints_scores(rasters, tiny_run, call):
    arguments = [
        *("change", rasters / "before.tif", rasters / "after.tif", rasters / "out.tif", "-q"),
        *("--model", tiny_run, "--method", "exclusive", "--stride", 64),
        *("--mask", rasters / "mask.tif"),
    ]
    code, text, err = call(*arguments, "--threshold", 0, "--picture", rasters / "out.png")
    assert (code, err) == (0, "")
    lines = text.splitlines()
    assert lines[0] == f"{rasters / 'out.tif'}: 50.0% changed, threshold 0 (given)"
    assert lines[1].split() == ["method", "F1", "IoU", "AP"]
    assert lines[2].split() == ["exclusive", "1.000", "1.000", "1.000"]
    assert len(lines) == 12
    assert lines[-1] == "50.0% of 12288 pixels changed: AP of a guess"
    assert (rasters / "out.png").read_bytes().startswith(b"\x89PNG")
    code, text, err = call(*arguments, "--json", "--overwrite", "--threshold", 1e6)
    facts = json.loads(text)
    assert (facts["threshold"], facts["changed_fraction"]) == (1e6, 0)
    assert facts["scores"][0]["method"] == "exclusive"
    assert (facts["scores"][0]["f1"], facts["scores"][0]["average_precision"]) == (0, 1)


def test_change_invalid_input_is_refused(rasters, tiny_run, tiny_module, call, refuse):
    before, out = rasters / "before.tif", rasters / "out.tif"
    mask = rasters / "mask.tif"
    assert "Expected the exclusive encoder. Received: the shared encoder" in refuse(
        "change", before, before, out, "--model", tiny_module, "--method", "exclusive"
    )
    assert "steer the method layers" in refuse(
        *("change", before, before, out, "--model", tiny_module),
        *("--method", "pixels", "--labels", "points.geojson"),
    )
    write_raster(rasters / "o.tif", np.full((128, 97, 4), 999, np.uint16), BANDS, GRID)
    model = ("--model", tiny_run, "-q")
    assert "are not on the same grid" in refuse("change", before, rasters / "o.tif", out, *model)
    assert "already exists" in refuse("change", before, before, mask, *model)
    assert "0 is not in the range 1<=x<=64" in refuse(
        "change", before, before, out, *model, "--stride", 0
    )
    write_raster(mask, np.zeros((128, 96, 1), np.uint8), ["changed"], GRID)
    assert "marks none of" in refuse("change", before, before, out, *model, "--mask", mask)
    assert not out.exists()
    code, _, err = call("change", before, before, out, *model, "--threshold", "low")
    assert code == 2
    assert "'low' is neither a number nor 'auto'" in err
    assert call("change", before, before, out).code == 2


@pytest.fixture
def series(tmp_path):
    """A folder of a synthetic series."""
    truth = make_series(200, height=64, width=80, num_dates=8, num_cloudy=1)
    return write_series(truth, tmp_path / "series" / "place")


def test_change_of_a_series_writes_what_map_breaks_writes(series, tiny_run, call, tmp_path):
    out, picture = tmp_path / "out.tif", tmp_path / "out.png"
    arguments = ("change", series, out, "--model", tiny_run, "-q")
    code, text, err = call(*arguments, "--picture", picture, "--season", "none", "--threshold", 9)
    assert (code, err) == (0, "")
    assert re.fullmatch(
        rf"{out}: \d+\.\d% changed in 9 dates, of which \d+\.\d% came back, threshold 9\n", text
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    encoder = hub.wrap(load_model(tiny_run), "shared")
    done = tasks.map_breaks(series, tmp_path / "b.tif", encoder, threshold=9.0)
    assert (tmp_path / "b.tif").read_bytes() == out.read_bytes()
    code, text, err = call(*arguments, "--overwrite", "--json", "--threshold", 9)
    facts = json.loads(text)
    assert facts["changed_fraction"] == done.changed_fraction
    assert list(facts["dates"]) == [str(date) for date in done.dates]


def test_change_of_a_series_invalid_input_is_refused(series, tiny_run, refuse, tmp_path):
    out = tmp_path / "out.tif"
    model = ("--model", tiny_run, "-q")
    assert "A series does not take --mask, --stride" in refuse(
        "change", series, out, *model, "--stride", 8, "--mask", out
    ).replace("--stride, --mask", "--mask, --stride")
    assert "Received: 3 inputs" in refuse("change", series, series, series, out, *model)
    assert "Nothing at" in refuse("change", tmp_path / "none", out, *model)
    (date,) = sorted(series.glob("*[0-9].tif"))[:1]
    assert "name the folder of the raster instead" in refuse("change", date, out, *model)
    out.write_text("mine")
    assert "already exists" in refuse("change", series, out, *model)


def test_segment_writes_map_clusters_and_picture(rasters, tiny_run, call, refuse):
    out, picture, found = (rasters / f"out.{end}" for end in ("tif", "png", "clusters.json"))
    arguments = ("segment", rasters / "before.tif", out, "--model", tiny_run, "-q")
    code, text, err = call(*arguments, "--clusters", 3, "--picture", picture, "--min-region", 1)
    assert (code, err) == (0, "")
    assert text == f"{out}, {found}: 3 clusters of 12288 pixels\n"
    assert read_info(out).grid == GRID
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "out.tif already exists" in refuse(*arguments)
    other = ("segment", rasters / "after.tif", rasters / "b.tif", "--model", tiny_run, "-q")
    assert "out.png already exists" in refuse(*other, "--picture", picture)
    out.unlink()
    assert "out.clusters.json already exists" in refuse(*arguments)
    code, text, err = call(*other, "--like", found)
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{rasters / 'b.tif'}: \d of the 3 clusters of {found}\n", text)
    assert "Received: both" in refuse(*other, "--overwrite", "--like", found, "--clusters", 3)
    assert "No file at" in refuse(*other, "--overwrite", "--like", rasters / "none.json")


def test_segment_series_uses_dates_of_period(
    coded_series, tiny_run, call, refuse, tmp_path, monkeypatch
):
    # The coded values reach a reflectance of 4, which is reported.
    monkeypatch.setattr("sits_keras.tasks.series.warn_of_problems", lambda problems: None)
    lake = coded_series(tmp_path / "lake", dates=3, cloudy=(1,))
    days = sorted(lake.glob("*[0-9].tif"))
    options = ("--model", tiny_run, "--clusters", 3, "-q")
    a, b = tmp_path / "a.tif", tmp_path / "b.tif"
    code, _, err = call("segment", lake, a, *options, "--to", "2020-02-15")
    assert (code, err) == (0, "")
    assert call("segment", *days[:2], b, *options).code == 0
    assert a.read_bytes() == b.read_bytes()
    assert "no date from 2021-01-01" in refuse(
        "segment", lake, tmp_path / "c.tif", *options, "--from", "2021-01-01"
    )
    assert "Only a series takes first (--from)" in refuse(
        "segment", days[0], tmp_path / "c.tif", *options, "--from", "2020-01-01"
    )


def test_segment_by_windows_writes_map(rasters, tiny_run, call, refuse):
    arguments = ("segment", rasters / "before.tif", rasters / "out.tif", "--model", tiny_run, "-q")
    options = ("--method", "windows", "--clusters", 3, "--stride", 16, "--fit-stride", 16)
    code, text, err = call(*arguments, *options)
    assert (code, err) == (0, "")
    assert re.search(r"[23] clusters of 15 windows\n$", text)
    assert "6 windows with data" in refuse(*arguments, "--overwrite", "--method", "windows")


def test_embed_writes_raster_or_table(rasters, tiny_run, tiny_module, call, refuse):
    image, out = rasters / "before.tif", rasters / "out.tif"
    windows = ("--method", "windows", "-q")
    code, text, err = call("embed", image, out, "--model", tiny_module, *windows)
    assert (code, err) == (0, "")
    # Map rows at centres 16, 48, 80, 112 and columns at 16, 48, 80: four by three windows.
    assert text == f"{out}: 32 features of 12 windows, float32\n"
    assert read_info(out).grid.transform == (320, 0, 600_000, 0, -320, 5_000_000)
    table = rasters / "out.parquet"
    options = ("--encoder", "exclusive", "--dtype", "int8", "--stride", 16, "-q")
    code, text, err = call("embed", image, table, "--model", tiny_run, *options)
    assert (code, err) == (0, "")
    assert text == f"{table}: 3 features of 15 windows, int8, 0.00% of the values clipped\n"
    assert pyarrow.parquet.read_table(table).num_rows == 15
    assert "must end in .tif, .tiff or .parquet" in refuse(
        "embed", image, rasters / "out.csv", "--model", tiny_module
    )
    assert "Expected the exclusive encoder. Received: the shared encoder" in refuse(
        "embed", image, rasters / "b.tif", "--model", tiny_module, "--encoder", "exclusive"
    )


def test_embed_with_picture_writes_image_and_features(rasters, tiny_run, call, refuse):
    image, picture = rasters / "before.tif", rasters / "out.png"
    options = ("--model", tiny_run, "--stride", 16, "--dtype", "int8", "-q", "--picture", picture)
    assert call("embed", image, rasters / "out.tif", *options).code == 0
    height, width, _ = matplotlib.image.imread(picture).shape
    # Two panels of 128 x 96 px.
    assert 0.9 < height / (width / 2) < 1.6
    message = refuse("embed", image, rasters / "out.parquet", *options, "--overwrite")
    assert "out.parquet is a table. Write a .tif, or leave out the picture" in message
    assert "must end in .png" in refuse(
        "embed", image, rasters / "b.tif", "--model", tiny_run, "--picture", rasters / "b.jpg"
    )
    assert not (rasters / "b.tif").exists()


@pytest.fixture(scope="module")
def context_model(tmp_path_factory):
    """A model whose encoders see the context of windows. Not to change."""
    from sits_keras import DisentangledSITS, ModelConfig

    path = tmp_path_factory.mktemp("context") / "context.keras"
    config = ModelConfig(width=1, shared_channels=2, exclusive_dim=3, padding="context")
    DisentangledSITS(config).save(path)
    return path


def test_embed_modes_give_same_features(rasters, context_model, call):
    features = []
    for mode in ("exact", "dense"):
        out = rasters / f"{mode}.parquet"
        arguments = ("embed", rasters / "before.tif", out, "--model", context_model, "-q")
        code, _, err = call(*arguments, "--stride", 16, "--mode", mode)
        assert (code, err) == (0, "")
        table = pyarrow.parquet.read_table(out)
        features.append(np.array(table["features"].to_pylist()))
    assert features[0].shape == (15, 32)
    np.testing.assert_allclose(*features, rtol=0, atol=1e-5 * np.abs(features[0]).max())


def test_dense_mode_of_unsupported_model_is_refused(rasters, tiny_run, call, refuse):
    image, model = rasters / "before.tif", ("--model", tiny_run, "-q", "--mode", "dense")
    for arguments in (
        ("embed", image, rasters / "b.tif"),
        ("segment", image, rasters / "b.tif"),
        ("change", image, rasters / "after.tif", rasters / "b.tif"),
        ("retrieve", image, rasters / "after.tif", rasters / "b.geojson"),
    ):
        methods = {"segment": ("--method", "windows"), "change": ("--method", "exclusive")}
        also = methods.get(arguments[0], ())
        message = refuse(*arguments, *model, *also)
        assert "does not support dense mode: its convolutions pad each window with zeros" in message
        assert "Use exact mode (--mode exact)." in message
    assert not list(rasters.glob("b.*"))
    code, _, err = call("embed", image, rasters / "b.tif", "--model", tiny_run, "--mode", "quick")
    assert code == 2
    assert "'exact', 'dense'" in err


def test_embed_unreachable_scheduler_is_refused(rasters, tiny_run, refuse, monkeypatch):
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    monkeypatch.setattr(execution, "_CONNECT_TIMEOUT", 1)
    arguments = ("embed", rasters / "before.tif", rasters / "b.tif", "--model", tiny_run)
    arguments += ("--stride", 32, "-q")
    assert "No Dask scheduler answers" in refuse(*arguments, "--scheduler", "tcp://127.0.0.1:9")
    assert "workers must be at least 1" in refuse(*arguments, "--workers", 0)


def test_embed_shows_progress(rasters, tiny_module, call):
    image, out = rasters / "before.tif", rasters / "out.tif"
    assert "embed: 100%" in call("embed", image, out, "--model", tiny_module, "--stride", 32).err


def test_embed_writes_numbers_of_series(
    tmp_path, context_model, coded_series, call, refuse, monkeypatch
):
    # The coded values reach a reflectance of 4, which is reported.
    monkeypatch.setattr("sits_keras.tasks.series.warn_of_problems", lambda problems: None)
    lake = coded_series(tmp_path / "lake", dates=3, cloudy=(1,))
    model = ("--model", context_model, "--dim", 16, "-q")
    message = refuse("embed", lake, tmp_path / "a.tif", *model)
    assert "has no projection" in message
    assert "--fit-projection" in message
    fit = ("--projection", tmp_path / "p.npz", "--fit-projection")
    code, text, err = call("embed", lake, tmp_path / "a.tif", *model, *fit)
    assert (code, err) == (0, "")
    assert text.startswith(f"{tmp_path / 'a.tif'}: 16 numbers of 4096 cells, 3 dates, int8, ")
    known = fit[:2]
    period = ("--from", "2020-01-15", "--to", "2020-03-15")
    code, text, err = call("embed", lake, tmp_path / "b.tif", *model, *known, *period)
    assert (code, err) == (0, "")
    assert ", 2 dates, " in text
    tiles = ("embed", lake, tmp_path / "tiles", *model, *known, "--tile-side", 128)
    assert call(*tiles).code == 0
    assert "existed, 3 dates" in call(*tiles).out
    assert "no date from 2030-01-01" in refuse(
        "embed", lake, tmp_path / "c.tif", *model, *known, "--from", "2030-01-01"
    )
    assert "No file at" in refuse("embed", tmp_path / "none", tmp_path / "c.tif", *model)
    assert not (tmp_path / "c.tif").exists()
