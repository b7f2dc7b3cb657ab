"""`sits-keras embed`."""

from pathlib import Path
from typing import Any, Literal

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
@out_argument(".tif", ".tiff", ".parquet")
@model_option()
@click.option(
    "--encoder",
    type=click.Choice(["shared", "exclusive"]),
    help="Encoder to use.  [default: a module's own; a model's shared one]",
)
@stride_option(32, "Distance between windows: smaller is finer and slower.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="Data type of the features; int8 has a scale for each feature in the metadata.",
)
@picture_option("Picture of the features as colours to write as well, with a .tif.")
@window_options
@output_options
def embed(
    image: Path,
    out: Path,
    model: Path,
    encoder: Literal["shared", "exclusive"] | None,
    dtype: Literal["float32", "int8"],
    picture: Path | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Write the features of raster IN's windows to OUT, a .tif or .parquet.

    A GeoTIFF has a band for each feature and a pixel for each STRIDE x STRIDE pixels of IN: the
    window centred on it or, at the edges, the nearest window that fits. GeoParquet has a row for
    each window, with its outline.

    IN holds reflectance x 10,000 as integers or reflectance as floats, and names its bands
    (B02, B2 or blue), or has those of the model in its order (`sits-keras info MODEL`).

    \b
      sits-keras embed scene.tif features.tif --model MODULE --stride 16 --dtype int8
    """
    prepare_verb([image], [out, picture], overwrite)
    from sits_keras import tasks

    done = tasks.embed_raster(
        image,
        out,
        load_encoder(model, encoder),
        dtype=dtype,
        picture=picture,
        overwrite=overwrite,
        **options,
    )
    clipped = f", {done.clipped_fraction:.2%} of the values clipped" if dtype == "int8" else ""
    echo_result(
        f"{out}: {done.num_features} features of {done.num_windows} windows, {dtype}{clipped}"
    )
