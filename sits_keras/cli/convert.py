"""Command `sits-keras convert`."""

from pathlib import Path

import click

from sits_keras.cli.options import echo_result, out_argument, output_options


@click.command()
@click.argument("embeddings", type=click.Path(path_type=Path))
@out_argument(".zarr")
@output_options
def convert(embeddings: Path, out: Path, overwrite: bool, progress: bool) -> None:
    """Write the embedding raster or mosaic EMBEDDINGS as the Zarr store OUT.

    EMBEDDINGS is a GeoTIFF of `sits-keras embed`, a folder of such files on one grid, or a VRT. OUT
    ends in .zarr: version 3, sharded, with coordinates and CRS, for xarray. A STAC item is written
    beside it.

    \b
      sits-keras convert embeddings.tif embeddings.zarr
    """
    from sits_keras import tasks

    done = tasks.convert_embeddings(embeddings, out, overwrite=overwrite, progress=progress)
    height, width = done.grid[:2]
    echo_result(f"{out}: {len(done.bands)} numbers of {height} x {width} cells, {done.dtype}")
