"""`sits-keras segment`."""

from pathlib import Path
from typing import Literal

import click

from sits_keras.cli.options import (
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
@click.argument("image", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@model_option("A preset, a hub module of the shared encoder, a .keras file, or a run's folder.")
@click.option(
    "--clusters",
    "num_clusters",
    type=click.IntRange(2, 254),
    default=7,
    show_default=True,
    help="How many classes.",
)
@stride_option(
    8, "Pixels from a window that votes to the next: the smaller, the finer and slower.", 64
)
@click.option(
    "--fit-stride",
    type=click.IntRange(1),
    metavar="PX",
    default=32,
    show_default=True,
    help="Pixels from a window that the clusters are fitted on to the next.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of k-means.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw it as this PNG, too.")
@mode_option
@worker_options
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
def segment(
    image: Path,
    out: Path,
    model: Path,
    num_clusters: int,
    stride: int,
    fit_stride: int,
    seed: int,
    picture: Path | None,
    mode: Literal["exact", "dense"] | None,
    workers: int,
    scheduler: str | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Map raster IN by clusters of its windows, as the GeoTIFF OUT.

    The shared representations of windows are clustered by k-means; each window then votes for the
    cluster of its pixels. Classes are 1, 2, ... from the darkest to the brightest, 0 is no data.

    IN holds reflectance x 10,000 as integers or reflectance as floats, and names its bands
    (B02, B2 or blue), or has those of the model in its order (`sits-keras info MODEL`).

    \b
      sits-keras segment scene.tif classes.tif --model MODULE --clusters 7
    """
    check_suffix(out, "OUT", ".tif", ".tiff")
    refuse_existing(out, overwrite, [image])
    if picture is not None:
        check_suffix(picture, "--picture", ".png")
        refuse_existing(picture, overwrite)
    check_rasters(image)
    import_tensorflow()
    from sits_keras.tasks.pictures import draw_classes
    from sits_keras.tasks.segmentation.maps import write_segments

    encoder = load_encoder(model, "shared")
    clusters, preview = write_segments(
        image,
        out,
        encoder,
        num_clusters=num_clusters,
        stride=stride,
        fit_stride=fit_stride,
        seed=seed,
        mode=mode,
        workers=workers,
        scheduler=scheduler,
        overwrite=overwrite,
        progress=not quiet,
    )
    if picture is not None:
        draw_classes(
            image, preview, clusters.classes(), picture, bands=encoder.bands, overwrite=overwrite
        )
    click.echo(f"{out}: {num_clusters} clusters of {clusters.num_windows} windows")
