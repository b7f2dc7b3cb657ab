"""Command `sits-keras translate`."""

from pathlib import Path
from typing import Any

import click

from sits_keras.cli.options import (
    PixelAt,
    check_paths,
    echo_result,
    load_whole_model,
    model_option,
    out_argument,
    output_options,
    picture_option,
    stride_option,
)


@click.command()
@click.argument(
    "rasters", nargs=-1, required=True, metavar="FROM [TO]", type=click.Path(path_type=Path)
)
@out_argument(".tif", ".tiff", ".png")
@model_option("A preset, a .keras file, or the folder of a finished run.")
@click.option(
    "--samples",
    "num_samples",
    type=click.IntRange(1),
    help="Number of dates to sample, instead of TO's.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the samples.")
@click.option(
    "--steps",
    "num_steps",
    type=click.IntRange(2),
    help="Number of images from FROM's date to TO's, both included.",
)
@click.option(
    "--at",
    type=PixelAt(),
    help="Upper left pixel of the crop that a .png shows.  [default: the middle of FROM]",
)
@stride_option(32, "Distance between windows, which overlap and are blended.", 64)
@picture_option("Picture of FROM, TO and the outputs to write as well, with a .tif.")
@output_options
def translate(
    rasters: tuple[Path, ...],
    out: Path,
    model: Path,
    num_samples: int | None,
    num_steps: int | None,
    at: tuple[int, int] | None,
    picture: Path | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Show the place of FROM at the date of TO, at sampled dates, or between the two.

    OUT is a GeoTIFF on FROM's grid: reflectance x 10,000, 0 where there is no data. With --samples
    or --steps there are several: OUT-1.tif, OUT-2.tif, ... Where OUT ends in .png it is a picture
    of 64 x 64 px, --at a place.

    FROM and TO are on one grid. They hold reflectance x 10,000 as integers or reflectance as
    floats, and name their bands (B02, B2 or blue), or have those of the model in its order
    (`sits-keras info MODEL`).

    \b
      sits-keras translate spring.tif autumn.tif spring-as-autumn.tif --model RUN
      sits-keras translate spring.tif autumn.tif between.png --model RUN --steps 6
      sits-keras translate spring.tif sampled.png --model RUN --samples 5 --at 200,300
    """
    from sits_keras.tasks.translation.rasters import plan_outputs

    planned = plan_outputs(
        len(rasters), out, num_samples=num_samples, num_steps=num_steps, at=at, picture=picture
    )
    check_paths(rasters, [*planned, picture], overwrite)
    from sits_keras import tasks

    outs = tasks.translate_raster(
        rasters,
        out,
        load_whole_model(model),
        num_samples=num_samples,
        num_steps=num_steps,
        at=at,
        picture=picture,
        overwrite=overwrite,
        **options,
    )
    echo_result("\n".join(map(str, outs)))
