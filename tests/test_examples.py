"""The examples, run as a user runs them, with little to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

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


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    options = ["--steps", "3", "--width", "2", "--batch-size", "4"]
    return folder / "out", run_example("demo.py", "--out", "out", *options, folder=folder).stdout


def test_demo_prints_its_table_and_names_what_it_wrote(demo: tuple[Path, str]):
    out, printed = demo
    for row in ("translation", "autoencoding", "shared features", "raw pixels", "chance"):
        assert f"| {row} |" in printed
    for name in ("run/model.keras", "module/", "translations.png", "table.md"):
        assert name in printed
        assert (out / name).exists()


def test_demo_scores_are_numbers_of_held_out_places(demo: tuple[Path, str]):
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


def test_training_script_leaves_a_model_and_an_encoder(tmp_path: Path, coded_series):
    for index in range(2):
        coded_series(tmp_path / "series" / f"place-{index}")
    script = (EXAMPLES / "train_series.py").read_text()
    short = script.replace("batch_size=32", "batch_size=2").replace("width=16", "width=1")
    short = short.replace("steps_per_epoch=100, epochs=20", "steps_per_epoch=1, epochs=1")
    assert short != script
    (tmp_path / "short.py").write_text(short)
    subprocess.run(
        [sys.executable, "short.py", "series"], cwd=tmp_path, check=True, capture_output=True
    )
    assert (tmp_path / "model.keras").is_file()
    assert (tmp_path / "history.csv").is_file()
    assert (tmp_path / "shared_encoder" / "saved_model.pb").is_file()


def test_classification_example_prints_a_table_and_leaves_a_classifier_and_a_map(
    tmp_path: Path, write_chips, tiny_run: Path
):
    colours = {"Forest": (20, 40, 20), "River": (60, 60, 60)}
    archive = write_chips(tmp_path / "set.zip", colours, count=50, kind="tif")
    scene = next((tiny_run.parent / "series" / "a").glob("*.tif"))
    printed = run_example(
        "classify_eurosat.py", str(archive), str(tiny_run), str(scene), folder=tmp_path
    ).stdout
    assert "Frozen, linear" in printed
    assert "Band statistics, 5 nearest" in printed
    assert "% to " in printed
    assert (tmp_path / "classifier" / "classifier.json").is_file()
    assert (tmp_path / "classes.tif").is_file()
