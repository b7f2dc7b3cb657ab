"""Command `sits-keras webmap`."""

from pathlib import Path

import click

from sits_keras.cli.options import echo_result, output_options


@click.command()
@click.argument(
    "rasters", metavar="RASTER...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.argument("out", metavar="OUT_DIR", type=click.Path(path_type=Path))
@output_options
def webmap(rasters: tuple[Path, ...], out: Path, overwrite: bool, progress: bool) -> None:
    """Write RASTERs as a web map to the folder OUT_DIR.

    Open OUT_DIR/index.html in a browser: it needs no server and loads nothing from other hosts.
    The first RASTER is the lowest layer. Embedding rasters, and folders of them, are shown by
    their first three principal components, maps of classes in their colours, images in true colour,
    and others by their first band. All need a CRS.

    \b
      sits-keras webmap scene.tif embeddings.tif classes.tif map
    """
    from sits_keras import tasks

    layers = tasks.write_webmap(rasters, out, overwrite=overwrite, progress=progress)
    zooms = [
        zoom for one in layers for zoom in range(one.pyramid.min_zoom, one.pyramid.max_zoom + 1)
    ]
    count = sum(one.pyramid.num_tiles for one in layers)
    echo_result(
        f"{out / 'index.html'}: {len(layers)} {'layer' if len(layers) == 1 else 'layers'}, "
        f"{count} tiles, zoom {min(zooms)} to {max(zooms)}"
    )
