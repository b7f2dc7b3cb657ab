"""`sits-keras explore`."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sits_keras.cli.options import load_encoder, load_whole_model, model_option
from sits_keras.errors import MissingLibraryError
from sits_keras.presets.folders import is_preset, list_presets
from sits_keras.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from sits_keras.explore.engine.model import Subject


@click.command()
@click.argument(
    "rasters",
    nargs=-1,
    required=True,
    metavar="SERIES_OR_RASTERS...",
    type=click.Path(path_type=Path),
)
@model_option(
    "A preset, a .keras file, a run's folder; or a hub module, for the views that it serves."
)
@click.option(
    "--mask",
    type=click.Path(path_type=Path),
    help="Raster that is not zero where there was a change, on the grid of the dates.",
)
@click.option(
    "--stride",
    type=click.IntRange(1, 64),
    help="Pixels from a window to the next.  [default: the smallest of 4, 8, ... 64 at which a "
    "raster has at most 20,000 windows]",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Folder where vectors are kept.  [default: explore/ in SITS_KERAS_HOME, or in the user's "
    "cache]",
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
    stride: int | None,
    cache: Path | None,
    host: str,
    port: int,
    origins: tuple[str, ...],
    open_browser: bool,
) -> None:
    """See in a browser what a model knows of rasters of your own.

    SERIES_OR_RASTERS are GeoTIFF files, folders of dated rasters as `sits-keras prepare` takes
    them, or folders of before.tif, after.tif and mask.tif. Windows are looked up in other dates,
    changes are mapped, places are generated at other dates, and segments are coloured; each view
    exports what the command line would write, and shows the command. Ctrl-C ends it.

    \b
      sits-keras explore series/lake --model sits_rgbn_small
      sits-keras explore 2020-06-01.tif 2020-09-01.tif --model RUN --port 0 --no-browser
    """
    if importlib.util.find_spec("bokeh") is None:
        raise MissingLibraryError("`sits-keras explore` needs Bokeh: pip install bokeh.")
    from sits_keras.explore.engine.cache import Cache
    from sits_keras.explore.server import check_address
    from sits_keras.presets.download import home

    check_address(host, port)
    kept = Cache(cache or home() / "explore")
    import_tensorflow()
    from sits_keras.explore.engine.explorer import Explorer
    from sits_keras.explore.engine.sources import find_places
    from sits_keras.explore.server import serve, start

    subject = load_subject(model)
    places = find_places(rasters, subject.bands, mask)
    explorer = Explorer(subject, places, kept, stride)
    count = sum(len(place.images) for place in places)
    click.echo(f"Rasters: {count}, places: {len(places)}. Vectors are kept in {kept.folder}")

    running = start(explorer, host=host, port=port, origins=origins)
    click.echo(f"{running.address}  (Ctrl-C ends it)")
    serve(running, open_browser=open_browser)
    click.echo("Stopped.")


def load_subject(path: Path) -> "Subject":
    """All that a MODEL holds; errors as `load_encoder`."""
    from sits_keras import hub
    from sits_keras.explore.engine.model import Subject

    if is_preset(path):
        name = path.name if list_presets().get(path.name) == path else str(path)
        return Subject(
            name,
            "preset",
            load_encoder(path, "shared"),
            load_encoder(path, "exclusive"),
            load_whole_model(path),
        )
    if (path / hub.PRESET_NAME).is_file():
        encoder = load_encoder(path)
        parts = {encoder.preset["encoder"]: encoder}
        return Subject(str(path), "module", parts.get("shared"), parts.get("exclusive"), None)
    model = load_whole_model(path)
    return Subject(
        str(path), "model", hub.wrap(model, "shared"), hub.wrap(model, "exclusive"), model
    )
