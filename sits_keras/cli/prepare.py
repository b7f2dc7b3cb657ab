"""Command `sits-keras prepare`."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import click

from sits_keras.cli.options import DEFAULT, check_sources, screening_options
from sits_keras.config import PrepareConfig, help_of
from sits_keras.errors import ConfigError
from sits_keras.files import check_folder


@click.command()
@click.argument("sources", nargs=-1, metavar="SOURCES...", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--patch-size",
    default=DEFAULT.patch_size,
    show_default=True,
    help=help_of(PrepareConfig, "patch_size"),
)
@click.option(
    "--central",
    default=DEFAULT.central,
    show_default=True,
    help=help_of(PrepareConfig, "central"),
)
@click.option(
    "--block-size",
    default=DEFAULT.block_size,
    show_default=True,
    help=help_of(PrepareConfig, "block_size"),
)
@screening_options
@click.option(
    "--compression",
    type=click.Choice(["none", "GZIP"]),
    default="none",
    show_default=True,
    help="Compression of the shards.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace records made from other sources or options.",
)
def prepare(
    sources: tuple[Path, ...],
    out: Path,
    bands: tuple[str, ...],
    compression: Literal["none", "GZIP"],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    newest: bool,
    overwrite: bool,
    workers: int | None,
    scheduler: str | None,
    progress: bool,
    **options: Any,
) -> None:
    """Convert Sentinel-2 products and dated rasters to a folder of records.

    A SOURCE is a .SAFE folder or its .zip (L1C or L2A), a STAC item collection (.json), a folder of
    <YYYY-MM-DD>.tif rasters of one place, or of <YYYY-MM-DD>_B02.tif and so on, optionally with
    _SCL, _QA60 or _cloud masks; or a folder of these. Products of one tile make up one series.
    Granules that are too cloudy or incomplete are left out (`sits-keras inspect` lists them). The
    rest is cut into patches and blocks and written to OUT as TFRecords with a manifest. An
    interrupted run resumes when the same command is run again.

    \b
      sits-keras prepare downloads/*.SAFE records --central 5
      sits-keras prepare series/ records/train --exclude 'ns-*'
      sits-keras prepare series/ records/test --include 'ns-*'
    """
    if not sources:
        raise ConfigError(f"Expected SOURCES and then OUT. Received one path: {out}.")
    config = dataclasses.replace(
        DEFAULT,
        bands=bands,
        compression="" if compression == "none" else compression,
        **options,
    )
    check_sources(sources)
    check_folder(out)
    from sits_keras.data.preparation.pipeline import prepare as prepare_records

    manifest = prepare_records(
        sources,
        out,
        config,
        include=include,
        exclude=exclude,
        newest=newest,
        overwrite=overwrite,
        progress=progress,
        workers=workers,
        scheduler=scheduler,
    )
    for series, reason in manifest.skipped.items():
        click.echo(f"skipped {series}: {reason}")
    rejected = sum(len(one["rejected"]) for one in manifest.series)
    left_out = sum(one["blocks_skipped"] for one in manifest.series)
    click.echo(
        f"{out}: {manifest.num_records} records of {len(manifest.series)} series in "
        f"{len(manifest.shards)} shards; {rejected} dates and {left_out} blocks left out, "
        f"{len(manifest.skipped)} series skipped (reasons in manifest.json)"
    )
