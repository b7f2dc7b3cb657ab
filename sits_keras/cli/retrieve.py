"""Command `sits-keras retrieve`."""

from pathlib import Path
from typing import Any

import click

from sits_keras.cli.options import (
    PixelAt,
    check_series_paths,
    echo_result,
    json_option,
    load_encoder,
    model_option,
    out_argument,
    output_options,
    period_options,
    raster_argument,
    stride_option,
    window_options,
)
from sits_keras.tensorflow_import import import_tensorflow


@click.command()
@raster_argument("query")
@raster_argument("search")
@out_argument(".geojson", ".json")
@model_option()
@click.option(
    "--queries",
    "num_queries",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Number of windows of QUERY to look up, sampled by --seed.",
)
@click.option(
    "--at",
    multiple=True,
    type=PixelAt(),
    help="Upper left pixel of a window to look up, instead of sampled windows. Repeat it for "
    "several windows.",
)
@click.option(
    "--matches",
    "num_matches",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Maximum number of matches of each window.",
)
@click.option(
    "--min-distance",
    type=click.IntRange(0),
    metavar="PX",
    default=32,
    show_default=True,
    help="Minimum distance between the matches of one window.",
)
@click.option(
    "--method",
    type=click.Choice(["layers", "grid"]),
    help="Distance of windows: of layers and grid of the encoder, or L1 of the grid as in the "
    "paper.  [default: layers; grid for series]",
)
@stride_option(4, "Distance between searched windows: smaller is finer and slower.")
@click.option("--seed", default=0, show_default=True, help="Seed of the sampled windows.")
@period_options
@json_option("Print the matches as JSON.")
@window_options
@output_options
def retrieve(
    query: Path,
    search: Path,
    out: Path,
    model: Path,
    as_json: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Find windows of 64 x 64 px of raster or series QUERY in raster or series SEARCH.

    OUT is a GeoJSON file of the boxes that were found: query, rank, distance, row, col. A picture
    is written beside it, OUT with the suffix .png: a colour for each query.

    A series is a folder of dated rasters of one place, products, or a file of STAC items. The
    features of its windows are averaged over the clear dates, and compared by the method grid.
    --from and --to apply to every series, and not to a raster.

    Rasters may be of any size and place. They hold reflectance x 10,000 as integers or reflectance
    as floats, and name their bands (B02, B2 or blue), or have those of the model in its order
    (`sits-keras info MODEL`).

    \b
      sits-keras retrieve spring.tif autumn.tif found.geojson --model MODULE
      sits-keras retrieve spring.tif region.tif found.geojson --model RUN --at 120,64 --matches 5
      sits-keras retrieve spring.tif series/lake found.geojson --model MODULE
    """
    picture = out.with_suffix(".png")
    check_series_paths([query, search], [out, picture], overwrite)
    import_tensorflow()
    from sits_keras import tasks
    from sits_keras.tasks.retrieval.search import NEAR

    done = tasks.retrieve(
        query, search, out, load_encoder(model, "shared"), overwrite=overwrite, **options
    )
    text = f"{out}, {picture.name}: {len(done.matches)} boxes for {len(done.queries)} windows"
    if done.near_fraction is not None:
        text += (
            f"\nwithin {NEAR} px of their own place: {done.near_fraction:.0%} of the nearest "
            f"matches; by chance {done.near_by_chance:.0%}. This holds if the two rasters show the "
            "same place."
        )
    echo_result(text, done.boxes if as_json else None)
