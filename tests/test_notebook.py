"""`examples/story.ipynb`: as it is checked in, and executed with little to do."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import notebooks
import pytest

pytestmark = pytest.mark.integration

STORY = Path(__file__).resolve().parents[1] / "examples" / "story.ipynb"
MAX_BYTES = 1_500_000
DISTANCES = "distance     same place  same date"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cell):
    return [one.data["image/png"] for one in cell.outputs if "image/png" in one.get("data", {})]


def printed(notebook):
    """Return the printed output of all cells, by line."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(one.text for one in outputs if one.output_type == "stream").splitlines()


def numbers(notebook, row, table=""):
    """The numbers at the end of the first line that begins so, after one that is `table`."""
    lines = printed(notebook)
    start = lines.index(table) if table else 0
    line = next(line.strip() for line in lines[start:] if line.strip().startswith(row))
    return [float(number) for number in re.findall(r" (\d+\.\d+)\b", line)]


@pytest.fixture(scope="module")
def checked_in():
    return nbformat.read(STORY, as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Trained for two steps: whatever is of the preset alone is as in the whole."""
    return notebooks.execute(STORY, tmp_path_factory.mktemp("story"), STEPS=2)


# As it is checked in


def test_every_cell_was_executed_in_order(checked_in):
    nbformat.validate(checked_in)
    cells = code_cells(checked_in)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(pictures(cell)) for cell in cells) >= 8


def test_outputs_hold_no_errors_and_nothing_of_the_machine(checked_in):
    for cell in code_cells(checked_in):
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data")
            assert output.get("name") != "stderr"
    text = re.sub(r'"image/png": "[^"]*"', "", STORY.read_text(encoding="utf-8"))
    assert not re.search(r"/(home|root|tmp|usr|work|Users)/|[A-Z]:\\\\|0x[0-9a-f]{6}", text)
    assert STORY.stat().st_size < MAX_BYTES


def test_its_code_is_in_form():
    pytest.importorskip("ruff")  # of [dev]; `make lint` checks the same
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, STORY], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_notebook_links_lead_to_files(checked_in):
    text = "\n".join(cell.source for cell in checked_in.cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        assert (STORY.parent / link).exists(), link


def test_notebook_numbers_after_training_match_its_text(checked_in):
    assert numbers(checked_in, "shared features, after training")[0] > 0.9
    preset, trained, unchanged = (
        numbers(checked_in, row, "mean L1 in [-1, 1]")[0]
        for row in ("preset", "after training", "unchanged")
    )
    assert trained < preset
    assert trained <= unchanged
    same_place, same_date = numbers(checked_in, "shared", DISTANCES)
    assert same_place < min(0.9, same_date)
    raw_place, raw_date = numbers(checked_in, "raw pixels", DISTANCES)
    same_place, same_date = numbers(checked_in, "exclusive", DISTANCES)
    assert same_place > raw_place
    assert same_date < raw_date


# Executed


def test_it_runs_and_shows_as_many_pictures(executed, checked_in):
    for now, before in zip(code_cells(executed), code_cells(checked_in), strict=True):
        assert now.source == before.source
        assert len(pictures(now)) == len(pictures(before))
        assert all(len(picture) > 5000 for picture in pictures(now))
        assert {one.output_type for one in now.outputs} == {
            one.output_type for one in before.outputs
        }


@pytest.mark.parametrize("which", ["executed", "checked_in"])
def test_notebook_preset_scores_above_raw_pixels_and_chance(which, request):
    notebook = request.getfixturevalue(which)
    found, raw, chance = (
        numbers(notebook, row, "Recall@1")[0]
        for row in ("shared features, preset", "raw pixels", "chance")
    )
    assert found > raw + 0.1
    assert raw > 10 * chance
    pooled, untrained, statistics = (
        numbers(notebook, row)
        for row in ("preset, pooled", "untrained, pooled", "statistics of the bands")
    )
    # With five labels the untrained encoder may be as good: the chips are procedural.
    assert sum(pooled) > max(sum(untrained), sum(statistics))
    assert all(one > other for one, other in zip(pooled, statistics, strict=True))
    exclusive, pixels, by_chance = (
        numbers(notebook, row, "average precision")[0]
        for row in ("exclusive features", "image difference", "chance")
    )
    assert pixels > exclusive > by_chance  # which the text does not hide


def test_its_numbers_are_those_that_are_checked_in(executed, checked_in):
    for row in (
        "shared features, preset",
        "mutual information with the true cover, pooled:",
        "exclusive features",
        "preset, pooled",
        "statistics of the bands",
    ):
        now, before = numbers(executed, row), numbers(checked_in, row)
        assert now == pytest.approx(before, abs=0.06), row
