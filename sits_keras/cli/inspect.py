"""Command `sits-keras inspect`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from sits_keras.cli.options import DEFAULT, check_sources, screening_options

_COLUMNS = ("series", "date", "cloud", "mask", "complete", "level", "baseline", "kept")


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@screening_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with footprints and grids.")
def inspect(
    sources: tuple[Path, ...],
    bands: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    newest: bool,
    workers: int | None,
    scheduler: str | None,
    progress: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """List the granules of SOURCES, and the reason for each that `prepare` would leave out.

    Columns: cloud, the fraction of cloud; mask, the cloud mask used (SCL, QA60, MSK_CLASSI, mask,
    product, or none); complete, the valid-data fraction; level and processing baseline; kept, or
    the reason for leaving it out. Granules that cannot be read, and several granules of one date,
    are listed too. SOURCES and options are those of `sits-keras prepare`. Nothing is written.

    \b
      sits-keras inspect downloads/*.zip --max-cloud 0.1
    """
    config = dataclasses.replace(DEFAULT, bands=bands, **options)
    check_sources(sources)
    from sits_keras.data.preparation.pipeline import inspect as inspect_sources

    rows = inspect_sources(
        sources,
        config,
        include=include,
        exclude=exclude,
        newest=newest,
        progress=progress,
        workers=workers,
        scheduler=scheduler,
    )
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    table = [_COLUMNS, *(tuple(_format_cell(name, row[name]) for name in _COLUMNS) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_COLUMNS))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    num_kept = sum(row["kept"].partition(",")[0] == "kept" for row in rows)
    click.echo(f"{num_kept} of {len(rows)} granules would be kept")


def _format_cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if name in ("cloud", "complete") else str(value)
