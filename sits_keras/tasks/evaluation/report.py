"""The report of an evaluation: one HTML file that needs nothing beside it."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from sits_keras.tasks.evaluation.results import Section, Value


def render_report(metrics: Mapping[str, Any], sections: Sequence[Section], folder: Path) -> str:
    """Renders what an evaluation came to.

    Every number of `metrics` is in it, in full as the value of a `<data>` element. Nothing in it
    depends on the clock or on the machine.

    Args:
        metrics: what `metrics.json` holds.
        sections: whose tables those are.
        folder: that the figures' files are relative to.
    Returns:
        HTML.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sits_keras.tasks.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["inline_png"] = lambda file: _inline_png(folder / file)
    return environment.get_template("report.html").render(metrics=metrics, sections=sections)


def show_number(value: int | float) -> str:
    """A number as it is read: whole ones grouped by thousands, others to four digits."""
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f") if value >= 10_000 else str(value)
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"


def _number(value: Value | bool) -> str | markupsafe.Markup:
    """A number with its value in full; a dash where there is none; else the text itself."""
    if value is None:
        return markupsafe.Markup('<span aria-label="none">\u2013</span>')
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    template = markupsafe.Markup('<data value="{}">{}</data>')
    return template.format(json.dumps(value), show_number(value))


def _inline_png(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
