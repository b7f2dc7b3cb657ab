"""Tables of `benchmarks/compare.py`."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "compare.py"


@pytest.fixture(scope="module")
def compare():
    spec = importlib.util.spec_from_file_location("compare", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_median_is_held_against_the_target(compare, monkeypatch):
    monkeypatch.setattr(compare, "TARGETS", {"rate": (">=", 0.7), "memory": ("<=", 1.02)})
    lines = compare.table({"rate": [0.9, 0.6, 0.7], "memory": [1.03], "other": [2.0]}).splitlines()
    assert lines[2:] == [
        "| rate | 0.70 | 0.60 to 0.90 | >= 0.7: reached |",
        "| memory | 1.03 | 1.03 to 1.03 | <= 1.02: missed |",
        "| other | 2.00 | 2.00 to 2.00 |  |",
    ]


def test_difference_ratio_of_one_file_alone_has_no_quotient(compare):
    lines = compare.difference({"a": [1.0, 2.0, 4.0], "b": [1.0]}, {"a": [3.0], "c": [5.0]})
    assert lines.splitlines()[2:] == [
        "| a | 2.00 | 3.00 | 1.50 |",
        "| b | 1.00 |  |  |",
        "| c |  | 5.00 |  |",
    ]


def test_render_table_between_the_marks_is_replaced(compare):
    text = f"before\n{compare.BEGIN}\nold\n{compare.END}\nafter\n"
    rendered = compare.render(text, {"a": [1.0]})
    assert rendered.startswith(f"before\n{compare.BEGIN}\n| ratio |")
    assert "old" not in rendered
    assert rendered.endswith(f"| a | 1.00 | 1.00 to 1.00 |  |\n{compare.END}\nafter\n")
    assert compare.render(rendered, {"a": [1.0]}) == rendered


def test_render_document_without_marks_is_refused(compare):
    with pytest.raises(SystemExit, match="Expected the marks"):
        compare.render("text", {})


def test_print_ratios_file_contains_printed_lines(compare, tmp_path, capsys):
    compare.print_ratios({"a": [1.0, 3.0]}, tmp_path / "ratios.json")
    assert json.loads((tmp_path / "ratios.json").read_text("utf-8")) == {"a": [1.0, 3.0]}
    assert "| a | 2.00 | 1.00 to 3.00 |  |" in capsys.readouterr().out


def test_targets_every_run_is_a_benchmark(compare):
    assert all((SCRIPT.parent / script).is_file() for script, *_ in compare.RUNS)
