"""Lets griffe read the package's docstrings: Google's sections, set a little tighter.

Sections follow each other without an empty line, and names that share a text share a line
(`height, width: pixels`). The tests (`tests/docs/test_docstrings.py`) read them by this, too.
"""

import re
from typing import Any

import griffe

_SECTION = re.compile(r"(?<!\n)\n(?=(?:Args|Attributes|Returns|Yields|Raises):\n)")
_SHARED = re.compile(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)+): (.*(?:\n {8,}.*)*)", re.MULTILINE)

OPTIONS = {"returns_named_value": False, "returns_multiple_items": False}
"""Of griffe's parser: what stands under Returns is one text."""


class Tighter(griffe.Extension):
    """Sets docstrings as griffe expects them, before it parses them."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = _SHARED.sub(_apart, _SECTION.sub("\n\n", obj.docstring.value))


def _apart(match: re.Match[str]) -> str:
    return "\n".join(f"    {name}: {match[2]}" for name in match[1].split(", "))
