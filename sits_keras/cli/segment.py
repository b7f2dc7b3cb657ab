"""Command `sits-keras segment`."""

from pathlib import Path
from typing import Any

import click

from sits_keras.cli.options import (
    check_series_paths,
    echo_result,
    load_encoder,
    model_option,
    out_argument,
    output_options,
    period_options,
    picture_option,
    sources_argument,
    stride_option,
    window_options,
)
from sits_keras.files import refuse_existing


@click.command()
@sources_argument("IN...")
@out_argument(".tif", ".tiff")
@model_option("A preset, a hub module of the shared encoder, a .keras file, or a run's folder.")
@click.option(
    "--clusters",
    "num_clusters",
    type=click.IntRange(2, 254),
    help="Number of classes.  [default: 7]",
)
@click.option(
    "--method",
    type=click.Choice(["layers", "windows"]),
    default="layers",
    show_default=True,
    help="Features to cluster: of pixels, from layers of the encoder; or of the paper's windows.",
)
@click.option(
    "--min-region",
    type=click.IntRange(1, 1000),
    metavar="PX",
    default=16,
    show_default=True,
    help="Pixels of the smallest region; smaller ones are merged into their neighbours.",
)
@click.option(
    "--like",
    type=click.Path(path_type=Path),
    metavar="CLUSTERS",
    help="Clusters of another map to apply: the .clusters.json beside it.",
)
@stride_option(8, "Distance between windows that vote, with --method windows.", 64)
@click.option(
    "--fit-stride",
    type=click.IntRange(1),
    metavar="PX",
    default=32,
    show_default=True,
    help="Distance between windows that clusters are fitted on, with --method windows.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of k-means and of its sample.")
@period_options
@picture_option("Picture of the image and its classes to write as well.")
@window_options
@output_options
def segment(
    sources: tuple[Path, ...],
    out: Path,
    model: Path,
    like: Path | None,
    picture: Path | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Map raster or series IN by clusters of its pixels, as the GeoTIFF OUT.

    A pixel is described by its reflectance and by layers of the shared encoder around it; k-means
    finds the clusters. Classes are 1, 2, ... from the darkest to the brightest, 0 is no data. Their
    names are mean spectra. OUT.clusters.json holds the clusters, to apply them to other dates and
    scenes with --like.

    IN may also be a series: a folder of dated rasters of one place, products, a file of STAC items,
    or several of these. Reflectance and layers are then averaged over its clear dates. The cloud
    mask of a raster is used if it is beside it (<name>_SCL.tif, <name>_cloud.tif) or among its
    bands: there is no data under cloud.

    A raster holds reflectance x 10,000 as integers or reflectance as floats, and names its bands
    (B02, B2 or blue), or has those of the model in its order (`sits-keras info MODEL`).

    \b
      sits-keras segment june.tif june-classes.tif --model MODULE --clusters 7
      sits-keras segment july.tif july-classes.tif --model MODULE --like june-classes.clusters.json
      sits-keras segment series/lake lake-classes.tif --model MODULE --from 2017-06-01
    """
    check_series_paths(sources, [out, picture], overwrite)
    from sits_keras import tasks
    from sits_keras.tasks.segmentation.clusters import clusters_path, read_clusters

    if like is None:
        refuse_existing(clusters_path(out), overwrite)
    else:
        read_clusters(like)
    done = tasks.segment_raster(
        list(sources),
        out,
        load_encoder(model, "shared"),
        like=like,
        picture=picture,
        overwrite=overwrite,
        **options,
    )
    used = int((done.num_pixels > 0).sum())
    if like is not None:
        echo_result(f"{out}: {used} of the {len(done.num_pixels)} clusters of {like}")
        return
    unit = "windows" if options["method"] == "windows" else "pixels"
    echo_result(
        f"{out}, {clusters_path(out)}: {used} clusters of {done.clusters.num_samples} {unit}"
    )
