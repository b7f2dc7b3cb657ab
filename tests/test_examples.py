"""The examples, run as a user runs them, with little to do."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from sits_keras.data.rasters.read import Grid, write_raster

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run_example(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "error::DeprecationWarning:sits_keras"},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )


def shorten(name: str, folder: Path, changes: dict[str, str]) -> str:
    """Write a copy of an example with smaller numbers, and return its path."""
    script = (EXAMPLES / name).read_text()
    for old, new in changes.items():
        assert script.count(old) == 1, old
        script = script.replace(old, new)
    (folder / name).write_text(script)
    return str(folder / name)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    # Every fifth place is held out.
    script = shorten(
        "demo.py", folder, {"NUM_PLACES = 12": "NUM_PLACES = 5", "NUM_CROPS = 64": "NUM_CROPS = 8"}
    )
    options = ["--steps", "3", "--width", "2", "--batch-size", "4"]
    return folder / "out", run_example(script, "--out", "out", *options, folder=folder).stdout


def test_demo_prints_table_and_outputs(demo: tuple[Path, str]):
    out, printed = demo
    for row in ("translation", "autoencoding", "shared features", "raw pixels", "chance"):
        assert f"| {row} |" in printed
    for name in ("run/model.keras", "module/", "translations.png", "table.md"):
        assert name in printed
        assert (out / name).exists()


def test_demo_scores_held_out_places(demo: tuple[Path, str]):
    out, _ = demo
    scores = json.loads((out / "scores.json").read_text())
    assert set(scores["translation"]) == {"trained on", "held out"}
    assert all(0 < value < 2 for rows in scores["translation"].values() for value in rows.values())
    assert all(0 <= value <= 1 for value in scores["recall"].values())
    train, test = (
        {
            one["id"]
            for one in json.loads((out / f"records/{part}/manifest.json").read_text())["series"]
        }
        for part in ("train", "test")
    )
    assert train
    assert test
    assert not train & test


def test_demo_draws_four_columns(demo: tuple[Path, str]):
    height, width, _ = matplotlib.image.imread(demo[0] / "translations.png").shape
    assert height > width > 400


def test_train_series_writes_model_and_encoder(tmp_path: Path, coded_series):
    for index in range(2):
        coded_series(tmp_path / "series" / f"place-{index}")
    changes = {"batch_size=32": "batch_size=2", "width=16": "width=1"}
    changes["steps_per_epoch=100, epochs=20"] = "steps_per_epoch=1, epochs=1"
    run_example(shorten("train_series.py", tmp_path, changes), "series", folder=tmp_path)
    assert (tmp_path / "model.keras").is_file()
    assert (tmp_path / "history.csv").is_file()
    assert (tmp_path / "shared_encoder" / "saved_model.pb").is_file()


# Of the tasks, in this process: they are short


@pytest.fixture(scope="module")
def exclusive_module(tiny_run: Path, tiny_module: Path) -> Path:
    from sits_keras import hub, load_model

    return hub.export(load_model(tiny_run), tiny_module.with_name("of dates"), "exclusive")


@pytest.fixture
def run_here(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_classify_eurosat_writes_classifier_and_map(
    run_here, monkeypatch, write_chips, tiny_run, tmp_path
):
    from sits_keras.tasks.classification import finetuning

    monkeypatch.setattr(finetuning, "MIN_STEPS", 1)  # of the head on frozen features
    colours = {"Forest": (20, 40, 20), "River": (60, 60, 60)}
    archive = write_chips(tmp_path / "set.zip", colours, count=50, kind="tif")
    scene = next((tiny_run.parent / "series" / "a").glob("*.tif"))
    printed = run_here("classify_eurosat.py", archive, tiny_run, scene)
    assert "Frozen, linear" in printed
    assert "Band statistics, 5 nearest" in printed
    assert "% to " in printed
    assert (tmp_path / "classifier" / "classifier.json").is_file()
    assert (tmp_path / "classes.tif").is_file()


def test_map_change_writes_map_of_five_percent(run_here, exclusive_module, tiny_series, tmp_path):
    before, after = sorted((tiny_series / "a").glob("*.tif"))[:2]
    out = run_here("map_change.py", exclusive_module, before, after, "change.tif")
    share = float(out.removeprefix("change.tif: ").split("%")[0])
    assert 1 < share <= 6  # pixels come in cells of 16, so that 5 % is not exact
    assert sorted(path.name for path in tmp_path.iterdir()) == ["change.png", "change.tif"]


def test_segment_scene_prints_fraction_of_each_class(run_here, tiny_module, tiny_series):
    scene = sorted((tiny_series / "a").glob("*.tif"))[0]
    rows = run_here("segment_scene.py", tiny_module, scene, "classes.tif").splitlines()
    assert 2 <= len(rows) <= 7
    assert rows[0].partition("%  cluster ")[2].startswith("1: NDVI")
    assert sum(float(row.split("%")[0]) for row in rows) == pytest.approx(100, abs=1)


def test_embed_scene_prints_nearest_windows(run_here, tiny_module, tiny_series):
    scene = sorted((tiny_series / "a").glob("*.tif"))[0]
    rows = run_here("embed_scene.py", tiny_module, scene, "a.parquet", 80, 64).splitlines()
    assert rows[0].split() == ["row", "48", "col", "32", "distance", "0.00"]
    assert len(rows) == 5


def test_change_scores_prints_scores_by_family(run_here, exclusive_module, tiny_series, tmp_path):
    pair = tmp_path / "fire-a"
    pair.mkdir()
    for name, path in zip(("before", "after"), sorted((tiny_series / "a").iterdir()), strict=False):
        shutil.copy(path, pair / f"{name}.tif")
    mask = np.zeros((128, 128, 1), np.uint8)
    mask[:50] = 1
    write_raster(pair / "mask.tif", mask, ["changed"], Grid(128, 128, None, None))
    rows = run_here("change_scores.py", exclusive_module, tmp_path, 64).splitlines()
    assert rows[0] == "fire: 1 pairs"
    assert len(rows) == 10
    assert rows[1].startswith("  exclusive ")
    assert rows[1].endswith("(chance 0.391)")


def test_evaluate_preset_prints_tables(run_here, tiny_preset, tiny_series, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/series").symlink_to(tiny_series)
    lines = run_here("evaluate_preset.py", tiny_preset.name, "data", "out", "b").splitlines()
    assert lines[0].startswith("translation: ")
    assert any("Raw pixels" in line and "Recall@1" in line for line in lines)
    assert lines[-1].startswith("change: skipped, no change/")
    assert (tmp_path / "out/report.html").is_file()


def test_translate_dates_writes_raster_and_pictures(run_here, tiny_run, tiny_series, tmp_path):
    out = run_here("translate_dates.py", tiny_run, tiny_series / "a")
    assert out.splitlines()[0].startswith("translation  0.")
    names = ["2020-01-01-as-2020-03-01.tif", "series.png", "steps.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_retrieve_places_prints_recall(run_here, tiny_module, tiny_series, tmp_path):
    out = run_here("retrieve_places.py", tiny_module, tiny_series / "a", 16)
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows] == ["shared", "pixels", "chance"]
    assert all(0 <= float(row[1]) <= 1 for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.geojson", "found.png"]


def test_eurosat_transfer_prints_rows_for_each_encoder(
    run_here, monkeypatch, write_chips, tiny_preset
):
    from sits_keras.tasks.classification import finetuning

    monkeypatch.setattr(finetuning, "MIN_STEPS", 1)  # of the head on frozen features
    colours = {"Forest": (20, 40, 20), "River": (60, 60, 60)}
    data = write_chips(Path("set.zip"), colours, count=12, kind="tif")
    quick = ("--epochs", 1, "--limit", 20)
    rows = {}
    for encoder in ("tiny_preset", tiny_preset / "shared_encoder"):
        out = run_here("eurosat_transfer.py", data, encoder, *quick)
        assert out.startswith("16 training images, 4 test images\n")
        table = [line.strip("| ").split(" | ") for line in out.splitlines()[3:]]
        rows[str(encoder)] = {row[0]: float(row[1].rstrip("%")) for row in table}
    by_name, by_path = rows.values()
    assert list(by_name) == ["frozen + FC(64, 10)", "full, from_preset", "full, as a TFSMLayer"]
    assert list(by_path) == ["frozen + FC(64, 10)", "full, as a TFSMLayer"]
    assert by_name["frozen + FC(64, 10)"] == by_path["frozen + FC(64, 10)"]
    assert all(0 <= value <= 100 for value in by_name.values())


def test_encode_with_onnx_needs_no_tensorflow(tmp_path: Path, tiny_run: Path):
    for library in ("onnxruntime", "tf2onnx"):
        pytest.importorskip(library, reason="needs the extra [test]")
    from sits_keras import hub, load_model

    model = load_model(tiny_run)
    hub.export(model, tmp_path / "encoder", file_format="onnx")
    images = np.random.default_rng(0).uniform(0, 0.4, (3, 64, 64, 4)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    files = ("encoder/windows.onnx", "images.npy", "features.npy")
    printed = run_example("encode_with_onnx.py", *files, folder=tmp_path).stdout
    assert "of bands B02, B03, B04, B08" in printed
    expected = hub.wrap(model).pooled(images)
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), expected, atol=1e-4)
    assert (
        "tensorflow" not in (EXAMPLES / "encode_with_onnx.py").read_text().split("import json")[1]
    )
