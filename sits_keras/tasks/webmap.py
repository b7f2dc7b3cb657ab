"""Write rasters as a web map: a folder of tiles and a page that opens from disk, without server."""

import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import numpy.typing as npt

from sits_keras.data.radiometry import with_opacity
from sits_keras.data.rasters.embeddings import (
    ROWS_AT_A_TIME,
    Embeddings,
    NotEmbeddingError,
    dequantize,
    open_embeddings,
)
from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.tiles import (
    TILE_SIZE,
    MapReader,
    Pyramid,
    open_colours,
    write_tiles,
)
from sits_keras.data.tiling import row_blocks
from sits_keras.errors import ConfigError, DataError, ExistsError
from sits_keras.files import check_creatable, write_json, written_aside
from sits_keras.tasks.pictures import apply_colormap, fit_colours

DESCRIPTION_NAME = "webmap.json"
PAGE_NAME = "index.html"

_FORMAT = "sits_keras webmap"

Rows = Callable[[int, int], npt.NDArray[np.uint8]]
"""Function of a first row and a number of rows that returns `(rows, width, 4)` uint8 colours."""


class MapLayer(NamedTuple):
    """Raster of a web map.

    Attributes:
        name: Name in the list of layers.
        legend: Meaning of the colours.
        pyramid: Zoom levels, bounds and number of tiles.
    """

    name: str
    legend: str
    pyramid: Pyramid


def write_webmap(
    rasters: Sequence[Path | str],
    out: Path | str,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> list[MapLayer]:
    """Write rasters as a folder of web mercator tiles and a page with them, in bounded memory.

    `out/index.html` opens from disk and from any web server. It loads nothing from other hosts.
    `out/tiles/<layer>/<zoom>/<x>/<y>.png` are tiles of 256 px, without those that have no data,
    from the zoom level at which the raster fits into a tile to the one of its own resolution.

    | raster | colours |
    |---|---|
    | embeddings | first three principal components, see `pictures.PrincipalColours` |
    | classes with a colour table | their colours |
    | image with bands B04, B03, B02 | true colour |
    | any other | its first band from its 2nd to its 98th percentile |

    Args:
        rasters: Rasters with a CRS, the lowest layer first; for embeddings also folders.
        out: Folder to write.
        overwrite: Overwrite an existing web map.
        progress: Show a progress bar.

    Returns:
        The layers.

    Raises:
        ExistsError: If `out` exists and `overwrite` is false, or is not a web map.
        OutputError: If `out` cannot be written.
        MissingError: If a raster does not exist.
        DataError: If a raster cannot be read, or has no CRS, transform or valid data.
        ConfigError: If there is no raster.

    Examples:
        >>> layers = write_webmap(["embeddings.tif", "classes.tif"], "map")
        >>> layers[0].pyramid.max_zoom
        14
    """
    out = Path(out)
    if not rasters:
        raise ConfigError("A web map needs at least one raster. Received: none.")
    if out.exists() and not (overwrite and (out / DESCRIPTION_NAME).is_file()):
        raise ExistsError(
            f"{out} exists and is not a web map. Choose another folder."
            if overwrite
            else f"{out} already exists. Choose another folder, or pass overwrite (--overwrite)."
        )
    check_creatable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    layers = []
    with written_aside(out) as aside:
        aside.mkdir()
        for index, raster in enumerate(rasters):
            layers.append(_write_layer(Path(raster), index, aside, progress))
        description = _describe(layers)
        write_json(aside / DESCRIPTION_NAME, description)
        (aside / PAGE_NAME).write_text(_render_page(description), encoding="utf-8")
    return layers


def _write_layer(path: Path, index: int, folder: Path, progress: bool) -> MapLayer:
    try:
        grid, read, legend, is_categorical = _open_embeddings(open_embeddings(path))
    except NotEmbeddingError:
        grid, read, legend, is_categorical = _open_map(MapReader(path))
    if grid.crs is None or grid.transform is None:
        raise DataError(
            f"{path} has no CRS or no transform, so it has no place on a map. Georeference it "
            "first (gdal_edit.py -a_srs -a_ullr)."
        )
    colours = folder / f"layer-{index}.tif"
    has_data = False
    with open_colours(colours, grid) as target:
        for row, num_rows in row_blocks(grid.height, ROWS_AT_A_TIME):
            rows = read(row, num_rows)
            has_data = has_data or bool(rows[..., 3].any())
            target.write(row, rows)
    if not has_data:
        raise DataError(f"{path} has no data: every pixel is nodata.")
    tiles = folder / "tiles" / str(index)
    pyramid = write_tiles(colours, tiles, is_categorical=is_categorical, progress=progress)
    colours.unlink()
    return MapLayer(path.stem or path.name, legend, pyramid)


def _open_embeddings(embeddings: Embeddings) -> tuple[Grid, Rows, str, bool]:
    colours, _ = fit_colours(embeddings)
    header = embeddings.header

    def read(row: int, num_rows: int) -> npt.NDArray[np.uint8]:
        stored = embeddings.read(row, num_rows)
        values = np.moveaxis(dequantize(stored, header.scales, header.offsets), 0, -1)
        return with_opacity(colours(values), np.isfinite(values[..., 0]))

    explained = ", ".join(f"{fraction:.0%}" for fraction in colours.explained)
    legend = f"Principal components as red, green and blue ({explained} of the variance)"
    return embeddings.grid, read, legend, False


def _open_map(reader: MapReader) -> tuple[Grid, Rows, str, bool]:
    if reader.colour_table is not None:
        table = reader.colour_table
        legend = "Classes in the colours of their table"
        return reader.grid, lambda row, count: table[reader.read_band(row, count)], legend, True
    if reader.shows_colours:

        def read_image(row: int, num_rows: int) -> npt.NDArray[np.uint8]:
            return with_opacity(*reader.read_colours(row, num_rows))

        return reader.grid, read_image, "True colour (B04, B03, B02)", False
    low, high = reader.range

    def read_quantity(row: int, num_rows: int) -> npt.NDArray[np.uint8]:
        values = reader.read_band(row, num_rows)
        scaled = np.clip((values - low) / ((high - low) or 1), 0, 1)
        return with_opacity(apply_colormap(scaled), np.isfinite(values))

    legend = f"{reader.band}, from {low:.4g} (dark) to {high:.4g} (bright)"
    return reader.grid, read_quantity, legend, False


def _describe(layers: Sequence[MapLayer]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": 1,
        "made_with": f"sits_keras {importlib.metadata.version('sits_keras')}",
        "tile_size": TILE_SIZE,
        "layers": [
            {
                "name": one.name,
                "legend": one.legend,
                "tiles": f"tiles/{index}/{{z}}/{{x}}/{{y}}.png",
                "min_zoom": one.pyramid.min_zoom,
                "max_zoom": one.pyramid.max_zoom,
                "bounds": [round(value, 7) for value in one.pyramid.bounds],
            }
            for index, one in enumerate(layers)
        ],
    }


def _render_page(description: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sits_keras.tasks"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("webmap.html").render(map=description)
