"""The wording check of `make lint`."""

import runpy
from pathlib import Path

import pytest

CHECK = runpy.run_path(str(Path(__file__).resolve().parents[1] / ".ci" / "check_words.py"))


def banned(text: str) -> list[tuple[int, str]]:
    return [(line, message.split("'")[1]) for line, message in CHECK["find_banned"](text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is no folder.", [(1, "is no")]),
        ("There is no folder, and it is no longer used; 0 is no data.", []),
        ("Rasters\nand their surroundings", [(2, "surroundings")]),
        ("# Training goes\n    # on later", [(1, "goes on")]),
        ("Recommend a mended line", [(1, "mended")]),
    ],
)
def test_find_banned_reports_phrase_and_line(text, expected):
    assert banned(text) == expected


def test_find_clauses_reports_docstrings_that_begin_with_a_clause():
    source = (
        '"""Module."""\n\n\ndef f():\n    """What f does."""\n\n\ndef g():\n    """Return it."""\n'
    )
    assert [line for line, _ in CHECK["find_clauses"](source)] == [5]


def test_checked_paths_exist():
    assert all((CHECK["ROOT"] / path).exists() for path in CHECK["CHECKED"])
