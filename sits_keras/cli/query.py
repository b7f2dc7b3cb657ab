"""Command `sits-keras query`."""

from pathlib import Path
from typing import Any

import click

from sits_keras.cli.options import (
    OutPath,
    PixelAt,
    PlaceAt,
    echo_result,
    json_option,
    output_options,
    picture_option,
)


@click.command()
@click.argument("embeddings", type=click.Path(path_type=Path))
@click.option(
    "--like",
    multiple=True,
    type=PlaceAt(),
    help="Place of an example: longitude and latitude in degrees, or column and row for a raster "
    "without CRS. Repeat it for several examples.",
)
@click.option(
    "--window",
    "windows",
    multiple=True,
    type=PixelAt(),
    help="Row and column of an example in EMBEDDINGS. Repeat it for several examples.",
)
@click.option(
    "--out",
    required=True,
    type=OutPath("--out", ".geojson", ".json"),
    metavar="GEOJSON",
    help="Output file, .geojson or .json.",
)
@click.option(
    "--matches",
    "num_matches",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Maximum number of places.",
)
@click.option(
    "--min-distance",
    type=click.IntRange(0),
    metavar="CELLS",
    default=8,
    show_default=True,
    help="Minimum distance between places, and from the examples.",
)
@picture_option("Picture of the embeddings and the similarities with the places to write as well.")
@json_option("Print the places as JSON.")
@output_options
def query(embeddings: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Find the places of EMBEDDINGS that are most similar to examples.

    EMBEDDINGS is a GeoTIFF of `sits-keras embed`, a folder of such files on one grid, or a VRT.

    The output is a GeoJSON file of cells: rank, similarity (the cosine), example. A raster of the
    similarities of all cells is written beside it, with the suffix .tif.

    \b
      sits-keras query embeddings.tif --like 11.35,46.49 --out like-this.geojson
      sits-keras query embeddings.tif --window 40,32 --window 8,90 --out found.geojson
    """
    from sits_keras import tasks

    done = tasks.query(embeddings, out, **options)
    most, least = done.places[0].similarity, done.places[-1].similarity
    examples = "1 example" if len(done.examples) == 1 else f"{len(done.examples)} examples"
    text = (
        f"{out}, {out.with_suffix('.tif').name}: {len(done.places)} places like {examples}, "
        f"similarity {most:.3f} to {least:.3f}"
    )
    echo_result(text, [one._asdict() for one in done.places] if as_json else None)
