"""Embedding rasters: the function of `sits-keras embed` (`embed_raster`)."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from sits_keras.data.execution import runner_in_order
from sits_keras.data.rasters.embeddings import open_embeddings
from sits_keras.data.rasters.read import Grid, describe_crs
from sits_keras.errors import ConfigError
from sits_keras.files import check_folder, check_suffix, refuse_existing
from sits_keras.hub import HubEncoder
from sits_keras.hub.encoder import weights_sha256
from sits_keras.hub.metadata import make_stac_item
from sits_keras.hub.projection import Projection, read_projection, write_projection
from sits_keras.tasks.embedding.pixels import (
    Dtype,
    PixelEmbedder,
    WrittenPixels,
    quality_path,
    write_pixels,
)
from sits_keras.tasks.embedding.projection import fit_projection, sample_series
from sits_keras.tasks.embedding.tiles import write_tiles
from sits_keras.tasks.embedding.windows import STRIDE, Embedding, embed_windows
from sits_keras.tasks.embedding_files import item_path, write_item
from sits_keras.tasks.layers import check_sides, require_layers
from sits_keras.tasks.pictures import check_picture, fit_colours, plot_images
from sits_keras.tasks.series import SeriesImage, open_series
from sits_keras.tasks.windows import Encoder, Mode

DIM = 64
RESOLUTIONS = (10, 20, 40, 80)
"""Sides of a cell in metres."""

TILE_SIDE = 1024

_TABLE = ".parquet"
_NOMINAL = 10.0  # m, of a pixel of a raster that does not state it


def embed_raster(
    source: Path | str | npt.NDArray[Any] | Sequence[Path | str],
    out: Path | str,
    encoder: Encoder,
    *,
    method: Literal["layers", "windows"] | None = None,
    resolution: int | None = None,
    dim: int = DIM,
    dtype: Dtype | None = None,
    first: datetime.date | None = None,
    last: datetime.date | None = None,
    newest: bool = False,
    projection: Path | str | Projection | None = None,
    fit: bool = False,
    tile_side: int = TILE_SIDE,
    stride: int | None = None,
    picture: Path | str | None = None,
    bands: Sequence[str] | None = None,
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> WrittenPixels | Embedding:
    """Write numbers that describe each pixel, or features of windows, in bounded memory.

    Method "layers" describes a pixel by its reflectance and by layers 1 to 4 of the shared encoder
    around it, averaged over the clear dates of a series and projected to a few numbers
    (`hub.projection`). The output is a cloud-optimised GeoTIFF with a band for each number, beside
    it `OUT.quality.tif` with the spread over the dates and their number; or a folder of such
    rasters, tiles of one grid with a mosaic. Rerun to resume an interrupted folder.

    Method "windows" writes the 1,024 features of windows, see `embed_windows`.

    A STAC item is written beside the output, and that of the encoder, if the encoder is a preset's,
    a hub module or a wrapped model (see `embedding_files.write_item`).

    Args:
        source: Raster, folder of dated rasters of one place, Sentinel-2 products, files of STAC
            items, or several of these in one UTM zone; or a `(height, width, bands)` array of
            uint16 stored values or float reflectance.
        out: Output file, `.tif`, or for windows `.parquet`; or a folder, a path without suffix.
        encoder: Encoder to apply, such as `hub.load(...)`.
        method: "layers" or "windows". By default windows for a table, with a stride or a mode, or
            if the encoder is a function without layers.
        resolution: Side of a cell of the output: 10, 20, 40 or 80 m, a multiple of the pixels. By
            default a pixel. If the CRS is not in metres, a pixel counts as 10 m.
        dim: Numbers of a pixel: 16, 32, 64 or 128. Fewer are the first of more.
        dtype: "int8", "float16" or "float32"; by default int8, and for windows float32.
        first: First acquisition date to use.
        last: Last acquisition date to use.
        newest: Use the newest of several products of one tile and date; else they are an error.
        projection: Projection to use instead of the encoder's own, or its file.
        fit: Fit the projection to the source, and write it to the file `projection`. Numbers of
            different projections cannot be compared.
        tile_side: Cells of a side of a tile, a multiple of 128, for a folder.
        stride: Distance between windows, in pixels, 32 by default; for windows only.
        picture: PNG to write as well: the first three principal components as red, green and blue.
        bands: Band names of the encoder. By default those that it states.
        mode: "exact" or "dense", for windows only.
        workers: Processes that encode. With more than 1 the encoder must be picklable.
        scheduler: Address of a Dask scheduler to use instead of processes.
        overwrite: Overwrite existing files, or the tiles of another job.
        progress: Show a progress bar.

    Returns:
        Counts of what was written.

    Raises:
        ExistsError: If an output exists and `overwrite` is false, or is an input; if a folder
            contains something else.
        OutputError: If an output cannot be written.
        MissingError: If a source or the projection does not exist.
        DataError: If a source cannot be read, lacks a band or has no data; if scenes are not on one
            grid, or no date is in the period; if the projection is damaged.
        ConfigError: If an argument is out of range or does not fit the others, or the encoder has
            no projection.

    Examples:
        >>> encoder = sits_keras.from_preset("sits_rgbn_small", "shared")
        >>> done = embed_raster("series/lake", "lake.tif", encoder)
        >>> embed_raster(["a.SAFE", "b.SAFE"], "embeddings", encoder, resolution=20, dim=16)
        >>> embed_raster("scene.tif", "windows.parquet", encoder, stride=16)
    """
    out = Path(out)
    has_layers = isinstance(encoder, HubEncoder)
    if method not in ("layers", "windows", None):
        raise ConfigError(f"method must be 'layers' or 'windows'. Received: {method!r}.")
    if method is None:
        is_windows = out.suffix.lower() == _TABLE or not has_layers
        is_windows |= stride is not None or mode is not None
        method = "windows" if is_windows else "layers"
    if method == "windows":
        given = {
            "resolution": resolution,
            "projection": projection,
            "fit": fit or None,
        }
        _refuse(given, "windows", "layers")
        if dtype == "float16":
            raise ConfigError("dtype must be 'float32' or 'int8' for windows. Received: 'float16'.")
        if isinstance(encoder, HubEncoder):
            refuse_existing(item_path(out), overwrite)
        written = embed_windows(
            source,
            out,
            encoder,
            stride=STRIDE if stride is None else stride,
            dtype=dtype or "float32",
            first=first,
            last=last,
            newest=newest,
            picture=picture,
            bands=bands,
            mode=mode,
            workers=workers,
            scheduler=scheduler,
            overwrite=overwrite,
            progress=progress,
        )
        if isinstance(encoder, HubEncoder):
            write_item(out, model=make_stac_item(encoder.metadata))
        return written
    _refuse({"stride": stride, "mode": mode}, "layers", "windows")
    picture = check_picture(picture, overwrite)
    encoder = require_layers(encoder)
    dtype = dtype or "int8"
    if dtype not in ("int8", "float16", "float32"):
        raise ConfigError(f"dtype must be 'int8', 'float16' or 'float32'. Received: {dtype!r}.")
    if resolution not in (*RESOLUTIONS, None):
        raise ConfigError(f"resolution must be 10, 20, 40 or 80 m. Received: {resolution!r}.")
    if tile_side < 128 or tile_side % 128:
        raise ConfigError(f"tile_side must be a multiple of 128. Received: {tile_side!r}.")
    is_folder = not out.suffix or out.is_dir()
    if is_folder:
        check_folder(out)
    else:
        check_suffix(out, "OUT", ".tif", ".tiff")
    series = open_series(source, bands or encoder.bands, period=(first, last), newest=newest)
    check_sides(series.name, series.grid)
    if not is_folder:
        inputs = [scene.name for one in series.acquisitions for scene in one.scenes]
        refuse_existing(out, overwrite, inputs)
        refuse_existing(item_path(out), overwrite, inputs)
        if len(series.acquisitions) > 1:
            refuse_existing(quality_path(out), overwrite, inputs)
    side = _cell_side(series.grid, resolution, series.name)
    found = _find_projection(encoder, projection, series, fit, overwrite)
    if not 1 <= dim <= found.axes.shape[1]:
        raise ConfigError(
            f"dim must be 1 to {found.axes.shape[1]}, the numbers of the projection. Received: "
            f"{dim}."
        )
    embedder = PixelEmbedder(encoder, series, found, dim, dtype, side)
    with runner_in_order(workers, scheduler) as run:
        if is_folder:
            done = write_tiles(
                embedder, out, tile_side=tile_side, run=run, overwrite=overwrite, progress=progress
            )
        else:
            done = write_pixels(embedder, out, run=run, progress=progress)
    write_item(out, model=make_stac_item(encoder.metadata))
    if picture is not None:
        _, image = fit_colours(open_embeddings(out))
        plot_images([("principal components", image)], picture, overwrite=overwrite)
    return done


def _refuse(given: dict[str, Any], method: str, other: str) -> None:
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ConfigError(
            f"Method {method!r} does not take {', '.join(names)}. Leave it out, or use method "
            f"{other!r} (--method)."
        )


def _cell_side(grid: Grid, resolution: int | None, name: str) -> int:
    """Return the side of a cell in pixels."""
    if resolution is None:
        return 1
    pixel = describe_crs(grid).metres or _NOMINAL
    side = round(resolution / pixel)
    if side < 1 or abs(side * pixel - resolution) > 0.01 * resolution or side > 8:
        raise ConfigError(
            f"{name} has pixels of {pixel:g} m. Expected a resolution that is 1, 2, 4 or 8 times "
            f"as large. Received: {resolution} m."
        )
    return side


def _find_projection(
    encoder: HubEncoder,
    given: Path | str | Projection | None,
    series: SeriesImage,
    fit: bool,
    overwrite: bool,
) -> Projection:
    """Return the projection to use; fit and write it if `fit` is true."""
    checksum = weights_sha256(encoder)
    if fit:
        if not isinstance(given, Path | str):
            raise ConfigError(
                "A projection that is fitted is written to a file. Expected the path of it as "
                "projection (--projection)."
            )
        refuse_existing(Path(given), overwrite)
        fitted = fit_projection(encoder, sample_series(series))
        write_projection(Path(given), fitted)
        return fitted
    if isinstance(given, Path | str):
        found = read_projection(Path(given))
    elif given is not None:
        found = given
    elif encoder.projection is not None:
        found = encoder.projection
    else:
        raise ConfigError(
            f"The encoder {encoder.metadata['name']} has no projection, which makes few numbers of "
            "its layers. Use a preset of the package, or fit one to the source with "
            "--fit-projection --projection FILE and use the file for all rasters that are compared "
            "(--projection FILE)."
        )
    if found.encoder != checksum:
        raise ConfigError(
            "The projection was fitted with another encoder. Expected checksum "
            f"{checksum[:12]}. Received: {found.encoder[:12]}. Use the encoder it was fitted "
            "with, or fit one again."
        )
    return found
