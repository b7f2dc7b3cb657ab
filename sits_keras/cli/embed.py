"""Command `sits-keras embed`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sits_keras.cli import RESUMABLE
from sits_keras.cli.options import (
    check_series_paths,
    echo_result,
    load_encoder,
    model_option,
    output_options,
    period_options,
    picture_option,
    sources_argument,
    window_options,
)
from sits_keras.errors import ConfigError
from sits_keras.files import check_folder, refuse_existing

if TYPE_CHECKING:
    from sits_keras.tasks.embedding.pixels import WrittenPixels
    from sits_keras.tasks.embedding.windows import Embedding

_SUFFIXES = (".tif", ".tiff", ".parquet")


@click.command()
@sources_argument("SOURCE...")
@click.argument("out", type=click.Path(path_type=Path))
@model_option()
@click.option(
    "--encoder",
    type=click.Choice(["shared", "exclusive"]),
    help="Encoder to use.  [default: a module's own; a model's shared one]",
)
@click.option(
    "--method",
    type=click.Choice(["layers", "windows"]),
    help="Describe pixels by layers of the encoder, or write features of windows.  [default: "
    "layers; windows for a .parquet, or with --stride]",
)
@click.option(
    "--resolution",
    type=click.Choice(["10", "20", "40", "80"]),
    callback=lambda ctx, param, value: None if value is None else int(value),
    help="Side of a pixel of OUT in metres.  [default: that of SOURCE]",
)
@click.option(
    "--dim",
    type=click.Choice(["16", "32", "64", "128"]),
    default="64",
    show_default=True,
    callback=lambda ctx, param, value: int(value),
    help="Number of values of a pixel. 16 are the first 16 of 64.",
)
@click.option(
    "--dtype",
    type=click.Choice(["int8", "float16", "float32"]),
    help="Data type; int8 has a scale in the metadata.  [default: int8; float32 for windows]",
)
@period_options
@click.option(
    "--projection",
    type=click.Path(path_type=Path),
    metavar="NPZ",
    help="Projection to use instead of the model's own.",
)
@click.option(
    "--fit-projection",
    "fit",
    is_flag=True,
    help="Fit the projection to SOURCE, and write it to the file of --projection.",
)
@click.option(
    "--tile-side",
    type=click.IntRange(128),
    metavar="CELLS",
    default=1024,
    show_default=True,
    help="Side of a tile, a multiple of 128, if OUT is a folder.",
)
@click.option(
    "--stride",
    type=click.IntRange(1),
    metavar="PX",
    help="Distance between windows: smaller is finer and slower.  [default: 32, for windows]",
)
@picture_option("Picture of the embeddings as colours to write as well.")
@window_options
@output_options
def embed(
    sources: tuple[Path, ...],
    out: Path,
    model: Path,
    encoder: Literal["shared", "exclusive"] | None,
    picture: Path | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Write embeddings, numbers that describe each pixel of SOURCE, to a .tif or a folder OUT.

    SOURCE is a raster, a folder of dated rasters of one place, Sentinel-2 products, STAC items, or
    several of these in one UTM zone. Layers of the shared encoder are averaged over the clear dates
    and projected to DIM numbers. OUT.quality.tif has their spread over the dates, and the number of
    dates. If OUT is a folder, the same command resumes an interrupted job. The cloud mask of a
    raster is used if it is beside it (<name>_SCL.tif, <name>_cloud.tif) or among its bands.

    With --stride, --method windows or a .parquet, the 1,024 features of windows are written: a
    pixel for each STRIDE x STRIDE pixels, or a row for each window with its outline.

    Rasters hold reflectance x 10,000 as integers or reflectance as floats, and name their bands
    (B02, B2 or blue), or have those of the model in its order (`sits-keras info MODEL`).

    \b
      sits-keras embed series/lake lake.tif --model sits_rgbn_small
      sits-keras embed S2*.SAFE embeddings --model sits_rgbn_small --resolution 20 --dim 16
      sits-keras embed scene.tif features.tif --model MODULE --stride 16 --dtype int8
    """
    suffix = out.suffix.lower()
    if suffix and suffix not in _SUFFIXES and not out.is_dir():
        raise ConfigError(
            f"OUT must end in {', '.join(_SUFFIXES[:2])} or {_SUFFIXES[2]}, or be a folder. "
            f"Received: {out}."
        )
    is_folder = not suffix or out.is_dir()
    if is_folder:
        check_folder(out)
        click.get_current_context().meta[RESUMABLE] = True
    outs = [None if is_folder else out, picture]
    if options["fit"] and options["projection"] is not None:
        refuse_existing(options["projection"], overwrite)
    check_series_paths(sources, outs, overwrite)
    from sits_keras import tasks

    done = tasks.embed_raster(
        list(sources),
        out,
        load_encoder(model, encoder),
        picture=picture,
        overwrite=overwrite,
        **options,
    )
    echo_result(_describe(out, done, options["dtype"]))


def _describe(out: Path, done: "WrittenPixels | Embedding", dtype: str | None) -> str:
    clipped = f", {done.clipped_fraction:.2%} of the values clipped"
    from sits_keras.tasks.embedding import windows

    if isinstance(done, windows.Embedding):
        dtype = dtype or "float32"
        text = f"{out}: {done.num_features} features of {done.num_windows} windows, {dtype}"
        return text + clipped * (dtype == "int8")
    dtype = dtype or "int8"
    count = len(done.dates)
    tiles = ""
    if done.num_tiles > 1 or done.num_skipped:
        tiles = f" in {done.num_tiles} tiles, of which {done.num_skipped} existed"
    return (
        f"{out}: {done.num_features} numbers of {done.num_pixels} cells{tiles}, {count} "
        f"{'date' if count == 1 else 'dates'}, {dtype}" + clipped * (dtype == "int8")
    )
