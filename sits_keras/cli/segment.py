"""`sits-keras segment`."""

from pathlib import Path
from typing import Literal

import click

from sits_keras.cli.models import load_encoder, model_option
from sits_keras.cli.options import mode_option, worker_options
from sits_keras.files import refuse_existing
from sits_keras.startup import import_tensorflow


@click.command()
@click.argument("image", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@model_option("A preset, a hub module of the shared encoder, a .keras file, or a run's folder.")
@click.option("--clusters", "num_clusters", default=7, show_default=True, help="How many classes.")
@click.option(
    "--stride",
    default=8,
    show_default=True,
    help="Pixels from a window that votes to the next, 1 to 64: the smaller, the finer and slower.",
)
@click.option(
    "--fit-stride",
    default=32,
    show_default=True,
    help="Pixels from a window that the clusters are fitted on to the next.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of k-means.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw it as a PNG, too.")
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

    \b
      sits-keras segment scene.tif classes.tif --model MODULE --clusters 7
    """
    refuse_existing(out, overwrite)
    if picture is not None:
        refuse_existing(picture, overwrite)
    import_tensorflow()
    from sits_keras.tasks.quicklooks import draw_classes
    from sits_keras.tasks.segmentation import write_segments

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
