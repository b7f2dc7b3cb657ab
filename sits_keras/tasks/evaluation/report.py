"""The report of an evaluation: one HTML file that needs nothing beside it."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markupsafe

Value = float | int | str | None


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        title: what it is called, different in each row.
        values: one for each column; `None` where there is none.
        is_baseline: it is there to be beaten, or is what the paper gives.
    """

    title: str
    values: Sequence[Value]
    is_baseline: bool = False


class Table(NamedTuple):
    """Numbers with names.

    Attributes:
        id: a name within the evaluation.
        caption: what it shows, a sentence or several.
        columns: titles.
        rows: see `Row`.
    """

    id: str
    caption: str
    columns: list[str]
    rows: list[Row]

    def to_metrics(self) -> dict[str, Any]:
        """The numbers by the names of row and column."""
        return {row.title: dict(zip(self.columns, row.values, strict=True)) for row in self.rows}


class Figure(NamedTuple):
    """A picture.

    Attributes:
        file: of the PNG, relative to the evaluation's folder.
        caption: what is to be seen.
        alt: what it shows, for those who do not see it.
    """

    file: str
    caption: str
    alt: str


class Section(NamedTuple):
    """What one experiment comes to.

    Attributes:
        name: of the section.
        title: for people.
        settings: that it was made with.
        tables, figures: see `Table` and `Figure`.
        notes: what else to know, such as what was left out and why.
    """

    name: str
    title: str
    settings: dict[str, Any]
    tables: list[Table]
    figures: list[Figure]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """As plain dictionaries."""
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
        """What `to_json` gave.

        Raises:
            KeyError, TypeError: something else.
        """
        tables = [
            Table(**{**table, "rows": [Row(**row) for row in table["rows"]]})
            for table in values["tables"]
        ]
        figures = [Figure(**figure) for figure in values["figures"]]
        fields = {name: values[name] for name in ("name", "title", "settings", "notes")}
        return cls(**fields, tables=tables, figures=figures)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation over the seeds; `None` for a single one."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, (sum((one - mean) ** 2 for one in values) / (len(values) - 1)) ** 0.5


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
