"""`sits-keras embed`."""

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
@model_option()
@click.option(
    "--encoder",
    type=click.Choice(["shared", "exclusive"]),
    help="What stays, or what passes.  [default: a module's own; a model's shared one]",
)
@stride_option(32, "Pixels from a window to the next: the smaller, the finer and slower.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="Of the values; int8 has a scale for each feature in the metadata.",
)
@mode_option
@worker_options
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def embed(
    image: Path,
    out: Path,
    model: Path,
    encoder: Literal["shared", "exclusive"] | None,
    stride: int,
    dtype: Literal["float32", "int8"],
    mode: Literal["exact", "dense"] | None,
    workers: int,
    scheduler: str | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write the features of raster IN's windows to OUT, a .tif or .parquet.

    GeoTIFF has a band for each feature and a pixel for each STRIDE x STRIDE pixels of IN: the
    window centred on it, or at the edges the nearest that fits. GeoParquet has a row for each
    window, with its outline.

    IN holds reflectance x 10,000 as integers or reflectance as floats, and names its bands
    (B02, B2 or blue), or has those of the model in its order (`sits-keras info MODEL`).

    \b
      sits-keras embed scene.tif features.tif --model MODULE --stride 16 --dtype int8
    """
    check_suffix(out, "OUT", ".tif", ".tiff", ".parquet")
    refuse_existing(out, overwrite, [image])
    check_rasters(image)
    import_tensorflow()
    from sits_keras.tasks.embedding import embed as embed_windows

    done = embed_windows(
        image,
        out,
        load_encoder(model, encoder),
        stride=stride,
        dtype=dtype,
        mode=mode,
        workers=workers,
        scheduler=scheduler,
        overwrite=overwrite,
        progress=not quiet,
    )
    clipped = f", {done.clipped_share:.2%} of the values clipped" if dtype == "int8" else ""
    click.echo(
        f"{out}: {done.num_features} features of {done.num_windows} windows, {dtype}{clipped}"
    )
