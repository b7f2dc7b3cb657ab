"""Command `sits-keras explore`: the page of a model and rasters."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sits_keras.cli.options import (
    identify_model,
    load_encoder,
    load_whole_model,
    model_option,
)
from sits_keras.errors import MissingLibraryError
from sits_keras.presets.folders import list_presets
from sits_keras.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from sits_keras.explore.engine.calls import ExploredModel


@click.command()
@click.argument(
    "rasters",
    nargs=-1,
    required=True,
    metavar="SERIES_OR_RASTERS...",
    type=click.Path(path_type=Path),
)
@model_option(
    "A preset, a .keras file, or a run's folder; or a hub module, which serves some of the views."
)
@click.option(
    "--mask",
    type=click.Path(path_type=Path),
    help="Reference of a change: a raster on the grid of the dates, not zero where they differ.",
)
@click.option(
    "--embeddings",
    type=click.Path(path_type=Path),
    help="Embedding raster of `sits-keras embed`, or a folder of such rasters, to search as well.",
)
@click.option(
    "--stride",
    type=click.IntRange(1, 64),
    metavar="PX",
    help="Distance between windows.  [default: the smallest of 4, 8, ... 64 at which a raster has "
    "at most 20,000 windows]",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Folder that caches the features.  [default: explore/ in SITS_KERAS_HOME, or in the "
    "user's cache]",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to serve at; 0.0.0.0 lets other machines connect. The page always asks for the "
    "token that is in the printed address.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=5006,
    show_default=True,
    help="Port to serve at; 0 for any free one.",
)
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Further name that the page is reached by, such as a proxy's. May be repeated.",
)
@click.option(
    "--open/--no-browser",
    "open_browser",
    default=True,
    help="Open the page in a browser where there is a display, or only print its address.  "
    "[default: open]",
)
def explore(
    rasters: tuple[Path, ...],
    model: Path,
    mask: Path | None,
    embeddings: Path | None,
    stride: int | None,
    cache: Path | None,
    host: str,
    port: int,
    origins: tuple[str, ...],
    open_browser: bool,
) -> None:
    """Explore rasters with a model in the browser.

    SERIES_OR_RASTERS are GeoTIFF files, folders of dated rasters as `sits-keras prepare` takes
    them, Sentinel-2 products, folders of products of one UTM zone, files of STAC items, or folders
    with before.tif, after.tif and, if there is a reference, mask.tif. The page finds a window in
    other dates, maps changes, generates places at other dates, and maps segments. With
    --embeddings, it finds the places of an embedding raster that are most similar to a cell. Each
    view exports what the command line would write, and shows the command.

    The page asks for a token, which is part of the printed address. Ctrl-C ends the server.

    \b
      sits-keras explore series/lake --model sits_rgbn_small
      sits-keras explore series/lake --model sits_rgbn_small --embeddings lake.tif
      sits-keras explore 2020-06-01.tif 2020-09-01.tif --model RUN --port 0 --no-browser
    """
    if importlib.util.find_spec("bokeh") is None:
        raise MissingLibraryError(
            "`sits-keras explore` needs Bokeh, which is not installed: pip install bokeh."
        )
    from sits_keras.data.rasters.embeddings import open_embeddings
    from sits_keras.explore.engine.cache import Cache
    from sits_keras.explore.server import check_address
    from sits_keras.presets.download import home

    check_address(host, port)
    if embeddings is not None:
        open_embeddings(embeddings)  # before the model is loaded
    vectors = Cache(cache or home() / "explore")
    import_tensorflow()
    from sits_keras.explore.engine.embeddings import ExploredEmbeddings
    from sits_keras.explore.engine.explorer import Explorer
    from sits_keras.explore.engine.sources import find_places
    from sits_keras.explore.server import serve, start

    explored = load_explored_model(model)
    places = find_places(rasters, explored.bands, mask)
    searched = None if embeddings is None else ExploredEmbeddings(embeddings)
    explorer = Explorer(explored, places, vectors, stride, searched)
    count = sum(len(place.images) or 1 for place in places)
    click.echo(f"Rasters: {count}, places: {len(places)}. Vectors are cached in {vectors.folder}.")

    running = start(explorer, host=host, port=port, origins=origins)
    click.echo(f"{running.address}  (Ctrl-C ends the server)")
    serve(running, open_browser=open_browser)
    click.echo("Stopped.")


def load_explored_model(path: Path) -> "ExploredModel":
    """Load all parts that a MODEL contains.

    Args:
        path: A preset's folder, a hub module, a `.keras` file, or the folder of a finished run.

    Raises:
        SitsKerasError: As `load_encoder` raises it.
    """
    from sits_keras import hub
    from sits_keras.explore.engine.calls import ExploredModel

    kind = identify_model(path).kind
    if kind == "preset":
        name = path.name if list_presets().get(path.name) == path else str(path)
        return ExploredModel(
            name,
            "preset",
            load_encoder(path, "shared"),
            load_encoder(path, "exclusive"),
            load_whole_model(path),
        )
    if kind == "hub module":
        encoder = load_encoder(path)
        parts = {encoder.metadata["encoder"]: encoder}
        return ExploredModel(str(path), "module", parts.get("shared"), parts.get("exclusive"), None)
    model = load_whole_model(path)
    return ExploredModel(
        str(path), "model", hub.wrap(model, "shared"), hub.wrap(model, "exclusive"), model
    )
