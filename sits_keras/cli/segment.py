"""`sits-keras segment`."""

from pathlib import Path
from typing import Any

import click

from sits_keras.cli.options import (
    echo_result,
    load_encoder,
    model_option,
    out_argument,
    output_options,
    picture_option,
    prepare_verb,
    raster_argument,
    stride_option,
    window_options,
)


@click.command()
@raster_argument("image", "IN")
@out_argument(".tif", ".tiff")
@model_option("A preset, a hub module of the shared encoder, a .keras file, or a run's folder.")
@click.option(
    "--clusters",
    "num_clusters",
    type=click.IntRange(2, 254),
    default=7,
    show_default=True,
    help="Number of classes.",
)
@stride_option(8, "Distance between windows that vote: smaller is finer and slower.", 64)
@click.option(
    "--fit-stride",
    type=click.IntRange(1),
    metavar="PX",
    default=32,
    show_default=True,
    help="Distance between windows that the clusters are fitted on.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of k-means.")
@picture_option("Picture of the image and its classes to write as well.")
@window_options
@output_options
def segment(
    image: Path,
    out: Path,
    model: Path,
    num_clusters: int,
    picture: Path | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Map raster IN by clusters of its windows, as the GeoTIFF OUT.

    The shared representations of windows are clustered by k-means; each window then votes for the
    cluster of its pixels. Classes are 1, 2, ... from the darkest to the brightest, 0 is no data.

    IN holds reflectance x 10,000 as integers or reflectance as floats, and names its bands
    (B02, B2 or blue), or has those of the model in its order (`sits-keras info MODEL`).

    \b
      sits-keras segment scene.tif classes.tif --model MODULE --clusters 7
    """
    prepare_verb([image], [out, picture], overwrite)
    from sits_keras import tasks

    done = tasks.segment_raster(
        image,
        out,
        load_encoder(model, "shared"),
        num_clusters=num_clusters,
        picture=picture,
        overwrite=overwrite,
        **options,
    )
    echo_result(f"{out}: {num_clusters} clusters of {done.clusters.num_windows} windows")
