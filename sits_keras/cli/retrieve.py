"""`sits-keras retrieve`."""

import json
from pathlib import Path
from typing import Literal

import click

from sits_keras.cli.options import (
    PixelAt,
    check_rasters,
    check_suffix,
    load_encoder,
    mode_option,
    model_option,
    stride_option,
    worker_options,
)
from sits_keras.files import refuse_existing
from sits_keras.tensorflow_import import import_tensorflow


@click.command()
@click.argument("query", type=click.Path(path_type=Path))
@click.argument("search", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@model_option()
@click.option(
    "--queries",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Windows of QUERY to look up, drawn by --seed.",
)
@click.option(
    "--at",
    multiple=True,
    type=PixelAt(),
    help="Look up the window whose upper left pixel this is, in place of drawn ones; may be "
    "given several times.",
)
@click.option(
    "--matches",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Boxes found for each window.",
)
@click.option(
    "--apart",
    type=click.IntRange(0),
    metavar="PX",
    default=32,
    show_default=True,
    help="Pixels that matches of one window are apart, at least.",
)
@stride_option(4, "Pixels from a searched window to the next: the smaller, the finer and slower.")
@click.option("--seed", default=0, show_default=True, help="Seed of the drawn windows.")
@click.option("--json", "as_json", is_flag=True, help="Print the matches as JSON.")
@mode_option
@worker_options
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def retrieve(
    query: Path,
    search: Path,
    out: Path,
    model: Path,
    queries: int,
    at: tuple[tuple[int, int], ...],
    matches: int,
    apart: int,
    stride: int,
    seed: int,
    as_json: bool,
    mode: Literal["exact", "dense"] | None,
    workers: int,
    scheduler: str | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Find windows of 64 x 64 px of the raster QUERY in the raster SEARCH.

    OUT is a GeoJSON file of the boxes that were found: query, rank, distance, row, col. A picture
    lies beside it, OUT with the suffix .png: a colour for each query.

    Rasters may be of any size and place. They hold reflectance x 10,000 as integers or reflectance
    as floats, and name their bands (B02, B2 or blue), or have those of the model in its order
    (`sits-keras info MODEL`).

    \b
      sits-keras retrieve spring.tif autumn.tif found.geojson --model MODULE
      sits-keras retrieve spring.tif region.tif found.geojson --model RUN --at 120,64 --matches 5
    """
    check_suffix(out, "OUT", ".geojson", ".json")
    picture = out.with_suffix(".png")
    for one in (out, picture):
        refuse_existing(one, overwrite, [query, search])
    check_rasters(query, search)
    import_tensorflow()
    from sits_keras.config import IMAGE_SIZE
    from sits_keras.data.rasters.rows import open_strips
    from sits_keras.data.tiling import Window
    from sits_keras.tasks.retrieval import search as lookup

    encoder = load_encoder(model, "shared")
    queried, searched = open_strips(query, encoder.bands), open_strips(search, encoder.bands)
    if at:
        windows = [Window(row, col, IMAGE_SIZE, IMAGE_SIZE) for row, col in at]
    else:
        windows = lookup.draw_queries(queried, queries, stride=stride, seed=seed)
    found = lookup.find_windows(
        encoder,
        queried,
        windows,
        searched,
        stride=stride,
        num_matches=matches,
        apart=apart,
        seed=seed,
        mode=mode,
        workers=workers,
        scheduler=scheduler,
        progress=None if quiet else "search",
    )
    rows = lookup.write_matches(queried, windows, searched, found, out)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    click.echo(f"{out}, {picture.name}: {len(found)} boxes for {len(windows)} windows")
    if queried.grid == searched.grid:
        near, chance = lookup.fraction_near(windows, found, searched.grid, stride)
        click.echo(
            f"within {lookup.NEAR} px of their own place: {near:.0%} of the nearest ones; by "
            f"chance {chance:.0%}. This holds if the two rasters show one place."
        )
