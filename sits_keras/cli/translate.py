"""`sits-keras translate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sits_keras.cli.options import (
    PixelAt,
    check_rasters,
    check_suffix,
    load_whole_model,
    model_option,
    stride_option,
)
from sits_keras.errors import ConfigError
from sits_keras.files import refuse_existing
from sits_keras.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from sits_keras.model import DisentangledSITS


@click.command()
@click.argument(
    "rasters", nargs=-1, required=True, metavar="FROM [TO]", type=click.Path(path_type=Path)
)
@click.argument("out", type=click.Path(path_type=Path))
@model_option("A preset, a .keras file, or the folder of a finished run.")
@click.option("--samples", type=click.IntRange(1), help="Draw so many dates in place of TO's.")
@click.option("--seed", default=0, show_default=True, help="Seed of the drawn dates.")
@click.option(
    "--steps",
    type=click.IntRange(2),
    help="Go from FROM's date to TO's in so many images, both ends included.",
)
@click.option(
    "--at",
    type=PixelAt(),
    help="Upper left pixel of what a PNG shows.  [default: the middle of FROM]",
)
@stride_option(32, "Pixels from a window to the next; windows overlap and are blended.", 64)
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def translate(
    rasters: tuple[Path, ...],
    out: Path,
    model: Path,
    samples: int | None,
    seed: int,
    steps: int | None,
    at: tuple[int, int] | None,
    stride: int,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Show the place of FROM at the date of TO, at dates that are drawn, or between the two.

    OUT is a GeoTIFF on FROM's grid: reflectance x 10,000, 0 where there is no data. With --samples
    or --steps, so many of them: OUT-1.tif, OUT-2.tif, ... Where OUT ends in .png it is a picture of
    64 x 64 px, --at a place.

    FROM and TO lie on one grid. They hold reflectance x 10,000 as integers or reflectance as
    floats, and name their bands (B02, B2 or blue), or have those of the model in its order
    (`sits-keras info MODEL`).

    \b
      sits-keras translate spring.tif autumn.tif spring-as-autumn.tif --model RUN
      sits-keras translate spring.tif autumn.tif between.png --model RUN --steps 6
      sits-keras translate spring.tif drawn.png --model RUN --samples 5 --at 200,300
    """
    _check(rasters, samples, steps, at, out)
    num_outputs = samples or steps or 1
    is_picture = out.suffix.lower() == ".png"
    outs = [out]
    if num_outputs > 1 and not is_picture:
        digits = len(str(num_outputs))
        outs = [
            out.with_name(f"{out.stem}-{index:0{digits}d}{out.suffix}")
            for index in range(1, num_outputs + 1)
        ]
    for one in outs:
        refuse_existing(one, overwrite, rasters)
    check_rasters(*rasters)
    import_tensorflow()
    loaded = load_whole_model(model)
    if is_picture:
        from sits_keras.tasks.translation.rasters import draw_snapshot

        draw_snapshot(loaded, rasters, out, samples=samples, seed=seed, steps=steps, at=at)
    else:
        _write(loaded, rasters, outs, samples, seed, steps, stride, quiet)
    click.echo("\n".join(map(str, outs)))


def _check(
    rasters: tuple[Path, ...],
    samples: int | None,
    steps: int | None,
    at: tuple[int, int] | None,
    out: Path,
) -> None:
    if samples and steps:
        raise ConfigError("Expected --samples or --steps. Received both.")
    expected = 1 if samples else 2
    if len(rasters) != expected:
        names = "FROM OUT" if samples else "FROM TO OUT"
        raise ConfigError(
            f"Expected {names}{' with --samples' if samples else ''}. Received "
            f"{len(rasters) + 1} paths: {', '.join(map(str, (*rasters, out)))}."
        )
    check_suffix(out, "OUT", ".tif", ".tiff", ".png")
    if at and out.suffix.lower() != ".png":
        raise ConfigError(f"--at is for a picture, and {out} is none: name a .png.")


def _write(
    model: "DisentangledSITS",
    rasters: tuple[Path, ...],
    outs: list[Path],
    samples: int | None,
    seed: int,
    steps: int | None,
    stride: int,
    quiet: bool,
) -> None:
    from sits_keras.tasks.translation import rasters as mosaics

    options: dict[str, Any] = {"stride": stride, "progress": None if quiet else "translate"}
    if samples:
        mosaics.sample_rasters(model, rasters[0], outs, seed, **options)
    elif steps:
        mosaics.interpolate_rasters(model, rasters[0], rasters[1], outs, **options)
    else:
        mosaics.translate_raster(model, rasters[0], rasters[1], outs[0], **options)
