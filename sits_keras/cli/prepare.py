"""`sits-keras prepare`."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import click

from sits_keras.cli.options import BandNames
from sits_keras.config import PrepareConfig
from sits_keras.startup import import_tensorflow

_DEFAULT = PrepareConfig()


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--bands",
    type=BandNames(),
    default=",".join(_DEFAULT.bands),
    show_default=True,
    help="Bands to keep, in this order.",
)
@click.option(
    "--patch-size", default=_DEFAULT.patch_size, show_default=True, help="Side of a patch, px."
)
@click.option(
    "--block-size",
    default=_DEFAULT.block_size,
    show_default=True,
    help="Side of a block, the part of a patch that one record holds, px.",
)
@click.option(
    "--dates", default=_DEFAULT.dates, show_default=True, help="Dates kept of a series, at most."
)
@click.option(
    "--min-dates",
    default=_DEFAULT.min_dates,
    show_default=True,
    help="Dates that a series must have left.",
)
@click.option(
    "--max-cloud",
    default=_DEFAULT.max_cloud,
    show_default=True,
    help="Share of cloud and shadow that a granule may have.",
)
@click.option(
    "--min-complete",
    default=_DEFAULT.min_complete,
    show_default=True,
    help="Share of a granule's pixels that must hold data.",
)
@click.option(
    "--compression",
    type=click.Choice(["none", "GZIP"]),
    default="none",
    show_default=True,
    help="Of the shards.",
)
@click.option("--include", multiple=True, help="Take these series only (shell pattern).")
@click.option("--exclude", multiple=True, help="Leave these series out (shell pattern).")
@click.option("--overwrite", is_flag=True, help="Replace records made with other options.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
def prepare(
    sources: tuple[Path, ...],
    out: Path,
    bands: tuple[str, ...],
    compression: Literal["none", "GZIP"],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Turn folders of dated rasters into a folder of records.

    A SOURCE is a folder of <YYYY-MM-DD>.tif rasters of one place, with <YYYY-MM-DD>_cloud.tif
    masks where there are any, or a folder of such folders. Granules under too much cloud or with
    too much missing are left out; the rest is cut into blocks and written to OUT as TFRecords with
    a manifest. Stopped at any point, the same command goes on from there.

    \b
      sits-keras prepare series/ records/train --exclude 'ns-*'
      sits-keras prepare series/ records/test --include 'ns-*'
    """
    config = dataclasses.replace(
        _DEFAULT,
        bands=bands,
        compression="" if compression == "none" else compression,
        **options,
    )
    import_tensorflow()
    from sits_keras.data.preparation import prepare as prepare_records

    manifest = prepare_records(
        sources,
        out,
        config,
        include=include,
        exclude=exclude,
        overwrite=overwrite,
        progress=not quiet,
    )
    for series, reason in manifest.skipped.items():
        click.echo(f"skipped {series}: {reason}")
    rejected = sum(len(one["rejected"]) for one in manifest.series)
    left_out = sum(one["blocks_skipped"] for one in manifest.series)
    click.echo(
        f"{out}: {manifest.num_records} records of {len(manifest.series)} series in "
        f"{len(manifest.shards)} shards; {rejected} dates and {left_out} blocks left out, "
        f"{len(manifest.skipped)} series skipped (manifest.json says why)"
    )
