"""docs/paper_map.md: coverage of the paper, and existence of the names."""

import ast
import functools
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8")
IN_PAPER, BEYOND, CHOICES = re.split(r"^## .*\n", PAGE, flags=re.MULTILINE)[1:]

# All that the paper numbers.
NUMBERED = [
    *("1", "2", "3", "3.1", "3.2", "4", "4.1", "4.2", "4.3", "4.4", "4.5", "4.6", "5"),
    *(f"eq. {number}" for number in ("1", "2", "3", "4", "5", "6", "7-10")),
    *(f"Fig. {number}" for number in range(1, 8)),
    *(f"Table {number}" for number in range(1, 4)),
    "Alg. 1",
]


def rows_of(text: str) -> list[list[str]]:
    """Cells of the table, without its head."""
    lines = [line for line in text.split("\n") if line.startswith("|")]
    return [re.split(r" \| ", line.removeprefix("| ").removesuffix(" |")) for line in lines[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


PLACES = [[cell.strip(" |") for cell in row] for row in rows_of(IN_PAPER) + rows_of(BEYOND)]


def test_all_that_the_paper_numbers_has_a_row():
    there = {name for row in rows_of(IN_PAPER) for name in row[0].split(", ")}
    assert set(NUMBERED) == there


@pytest.mark.parametrize("row", PLACES, ids=lambda row: row[1][:30])
def test_paper_map_row_names_existing_code_and_tests(row):
    assert len(row) == 5
    assert [name for name in names(row[2]) if not exists(name)] == []
    for name in names(row[3]):
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        functions = [one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)]
        assert any(one.startswith("test_") for one in functions), name


def test_every_choice_has_a_reason():
    rows = rows_of(CHOICES)
    assert len(rows) > 30
    assert {len(row) for row in rows} == {4}
    assert all(all(row) for row in rows)


def exists(name: str) -> bool:
    """Return whether a file, a module or a name in a module exists."""
    if "/" in name:
        return (ROOT / name).exists()
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["sits_keras", *parts[:split]]))
        except ModuleNotFoundError:
            continue
        fields = parts[split:]
        return functools.reduce(_field, fields, found) is not None
    return False


def _field(found: object, name: str) -> object:
    known = getattr(
        found, "__dataclass_fields__", {}
    )  # a field without a default is not an attribute
    return known.get(name) or getattr(found, name, None)


def test_exists_unknown_name_is_false():
    assert exists("losses.shared_l1")
    assert exists("config.ModelConfig.shared_norm")
    for name in ("losses.shared_l3", "tasks.nowhere", "examples/no.py", "config.ModelConfig.depth"):
        assert not exists(name)
