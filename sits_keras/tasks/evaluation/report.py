"""Render the report of an evaluation: one self-contained HTML file."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markupsafe

Value = float | int | str | None


class Row(NamedTuple):
    """Row of a table.

    Attributes:
        title: Title, different in each row.
        values: Value of each column, None for a missing value.
        is_baseline: Whether the row is a baseline or a result of the paper.
    """

    title: str
    values: Sequence[Value]
    is_baseline: bool = False


class Table(NamedTuple):
    """Table of numbers.

    Attributes:
        id: Name within the evaluation.
        caption: Caption, one or several sentences.
        columns: Column titles.
        rows: Rows.
    """

    id: str
    caption: str
    columns: list[str]
    rows: list[Row]

    def to_metrics(self) -> dict[str, Any]:
        """Return the values by titles of row and column."""
        return {row.title: dict(zip(self.columns, row.values, strict=True)) for row in self.rows}


class Figure(NamedTuple):
    """Picture of the report.

    Attributes:
        file: PNG, relative to the evaluation's folder.
        caption: Caption.
        alt: Alternative text.
    """

    file: str
    caption: str
    alt: str


class Section(NamedTuple):
    """Result of one experiment.

    Attributes:
        name: Name of the section.
        title: Title in the report.
        settings: Settings of the measurement.
        tables: Tables.
        figures: Figures.
        notes: Remarks, such as what was skipped and why.
    """

    name: str
    title: str
    settings: dict[str, Any]
    tables: list[Table]
    figures: list[Figure]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries."""
        return {
            **self._asdict(),
            "tables": [
                {**table._asdict(), "rows": [row._asdict() for row in table.rows]}
                for table in self.tables
            ],
            "figures": [figure._asdict() for figure in self.figures],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Section":
        """Return a section from the output of `to_json`.

        Args:
            values: Output of `to_json`.

        Raises:
            KeyError: If a field is missing.
            TypeError: If a field is unknown or has another type.
        """
        tables = [
            Table(**{**table, "rows": [Row(**row) for row in table["rows"]]})
            for table in values["tables"]
        ]
        figures = [Figure(**figure) for figure in values["figures"]]
        fields = {name: values[name] for name in ("name", "title", "settings", "notes")}
        return cls(**fields, tables=tables, figures=figures)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean, and the standard deviation over seeds or None for a single value.

    Args:
        values: One value for each seed.
    """
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, (sum((one - mean) ** 2 for one in values) / (len(values) - 1)) ** 0.5


def render_report(metrics: Mapping[str, Any], sections: Sequence[Section], folder: Path) -> str:
    """Render the report of an evaluation.

    Every number of `metrics` is in it, in full as the value of a `<data>` element. The report does
    not depend on the clock or on the machine.

    Args:
        metrics: Content of `metrics.json`.
        sections: Sections with the tables of `metrics`.
        folder: Folder that the figures' files are relative to.

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


def render_accuracies(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Render the tables of Table 3 as text: methods in rows, fractions of the labels in columns.

    Args:
        tables: Tables of the section of classification by name, as in `metrics.json`.

    Returns:
        Markdown, a table for each labelled set and split, then the published results.
    """
    parts = []
    for name, rows in tables.items():
        if name.startswith("table_3_"):
            parts.append(f"{name.removeprefix('table_3_')}, accuracy, %\n\n{_pivot(rows)}")
        elif name.startswith("literature_"):
            lines = [("published", "accuracy, %", "split", "source")]
            for title, row in rows.items():
                accuracy = f"{100 * row['accuracy']:.1f}"
                lines.append((title, accuracy, row["split"], row["source"]))
            parts.append(_render_lines(lines))
    return "\n\n".join(parts)


def _pivot(rows: Mapping[str, Mapping[str, Any]]) -> str:
    methods: dict[str, dict[str, float]] = {}
    counts: dict[str, int] = {}
    for title, row in rows.items():
        found = re.fullmatch(r"(.+), (\d+%) of the labels", title)
        if found is None:  # chance, which does not depend on labels
            continue
        method, fraction = found.groups()
        methods.setdefault(method, {})[fraction] = row["accuracy"]
        counts[fraction] = row["training images"]
    lines = [("features, classifier", *(f"{n:,} labels ({one})" for one, n in counts.items()))]
    for method, values in methods.items():
        cells = (f"{100 * values[one]:.1f}" if one in values else "" for one in counts)
        lines.append((method, *cells))
    return _render_lines(lines)


def _render_lines(lines: Sequence[Sequence[str]]) -> str:
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([rows[0], "|---" * len(lines[0]) + "|", *rows[1:]])


def show_number(value: int | float) -> str:
    """Format a number: integers grouped by thousands, others with four digits.

    Args:
        value: Number to format.
    """
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f") if value >= 10_000 else str(value)
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"


def _number(value: Value | bool) -> str | markupsafe.Markup:
    """Return a number with its full value, a dash for None, or the text itself."""
    if value is None:
        return markupsafe.Markup('<span aria-label="none">\u2013</span>')
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    template = markupsafe.Markup('<data value="{}">{}</data>')
    return template.format(json.dumps(value), show_number(value))


def _inline_png(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
