"""docs/models.md says what the presets' JSON files say."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("models", ROOT / "docs" / "make" / "models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_files_say(page):
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.replace_tables(text) == text, "run: python docs/make/models.py"


def test_every_score_that_is_shown_is_there(page):
    """No cell is empty but that of band statistics and FC, which is not measured."""
    tables = page.render_tables(page.preset_folders())
    empty = [line for line in tables.split("\n") if "|  |" in line]
    assert all("band statistics" in line for line in empty)
    assert len(page.preset_folders()) >= 3


def test_a_score_that_changes_is_shown(page, tmp_path):
    folder = tmp_path / "sits_rgbn_small"
    shutil.copytree(ROOT / "savedmodels" / "sits_rgbn_small", folder)
    scores = json.loads((folder / "metrics.json").read_text())
    for score in scores["scores"]:
        if score["method"] == "Shared features" and score["metric"] == "Recall@1":
            score["value"] = 0.12345
    (folder / "metrics.json").write_text(json.dumps(scores))
    assert "| **0.123** |" in page.render_tables([folder])
