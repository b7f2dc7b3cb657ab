"""Rendered tables of docs/models.md and docs/scale.md."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "make" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page():
    return load("models")


@pytest.mark.parametrize("name", ["models", "scale"])
def test_tables_equal_rendered_tables(name):
    module = load(name)
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.replace_tables(text) == text, f"run: python docs/make/{name}.py"


def test_rates_of_scale_are_those_of_the_results():
    """Numbers that docs/make/scale.py computes with stand in docs/results.md."""
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    rates = load("scale")
    for pattern in (
        rf"plain windowed reads.*\| {rates.PLAIN_READS / 1e6} \|",
        rf"in one process.*\| {rates.FRACTION_OF_PLAIN} \(",
        rf"two workers to one \| {rates.TWO_TO_ONE} ",
        rf"\| 16, 64 .*\| {rates.STEP_16} \|",
        rf"\| 64, 32 .*\| {rates.STEP_64 / 2} \|",
        rf"\| pairs \| {rates.PAIRS:,} \|",
        rf"`context` took {rates.CONTEXT} times",
        rf"dense to exact.*\| {rates.DENSE_TO_EXACT} \(",
    ):
        assert re.search(pattern, results), pattern


def test_a_tile_by_hand():
    """10,000 km2 are 1e8 pixels, 9.6 GB at 12 dates; a 32nd more is read, at 8.652 MB/s: 1,144 s.
    A map takes 1e8 / (5,208 x 64) = 300 s."""
    scale = load("scale")
    scale.JOBS = (scale.Job("a tile", 1e8, 1e8),)
    tables = scale.render_tables()
    assert "| a tile | 1e+08 | 9.6 GB | 9.9 GB | 19 min | 11 min | 95 |" in tables
    assert "| a tile | 5 min | 3.3 h | 1 | 400 MB | 100 MB |" in tables


def test_rendered_tables_have_no_empty_scores(page):
    """No cell is empty but those of FC, which is measured with our features only."""
    tables = page.render_tables(page.preset_folders())
    missing = [
        line for line in tables.split("\n") if "- /" in line or "/ -" in line or "|  |" in line
    ]
    rows = ("band statistics", "random convolutions", "EfficientNet-Lite0 of ImageNet")
    assert len(missing) == len(rows)
    for line, title in zip(missing, rows, strict=True):
        assert line.startswith(f"| {title} | - / ")
        assert line.count("- /") == len(line.split(" | ")) - 1
        assert "/ -" not in line
    assert len(page.preset_folders()) >= 2


def test_a_score_that_changes_is_shown(page, tmp_path):
    folder = tmp_path / "sits_rgbn_small"
    shutil.copytree(ROOT / "savedmodels" / "sits_rgbn_small", folder)
    scores = json.loads((folder / "metrics.json").read_text())
    for score in scores["scores"]:
        if score["method"] == "Shared features" and score["metric"] == "Recall@1":
            score["value"] = 0.12345
    (folder / "metrics.json").write_text(json.dumps(scores))
    assert "| **0.123** |" in page.render_tables([folder])
