"""Tiles of one grid for many scenes: resumable, and joined by a mosaic without seams."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from sits_keras.data.execution import RunInOrder
from sits_keras.data.rasters.embeddings import INT8_NODATA
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError, ExistsError
from sits_keras.files import read_json, write_json, written_aside
from sits_keras.tasks.averages import job_bar
from sits_keras.tasks.embedding.pixels import (
    PixelEmbedder,
    WrittenPixels,
    quality_path,
    write_area,
)
from sits_keras.tasks.series import SeriesImage

JOB_NAME = "embeddings.json"
"""File that describes a folder of tiles."""

FORMAT = "sits_keras embeddings"
VERSION = 1

_REMEDY = "Name another folder, or pass overwrite (--overwrite) to start over."


def tile_areas(series: SeriesImage, side: int) -> list[tuple[str, Window]]:
    """Return the tiles that a series touches, of a grid that is the same for all series of a CRS.

    Tiles begin at multiples of their side, counted in pixels from the origin of the CRS.

    Args:
        series: The series.
        side: Side of a tile in pixels, a multiple of 16.

    Returns:
        Name and pixels of each tile, which may reach beyond the series' grid, row by row.
    """
    height, width = series.grid[:2]
    first_row = first_col = 0
    if series.grid.transform is not None:
        a, _, c, _, e, f = series.grid.transform
        # What is left of a pixel is the same for all scenes of one grid.
        first_row, first_col = (-(math.floor(one + 1e-6) % side) for one in (f / e, c / a))
    areas = []
    for row in range(first_row, height, side):
        for col in range(first_col, width, side):
            area = Window(row, col, side, side)
            if series.covers(area):
                areas.append((_tile_name(series, area), area))
    return areas


def _tile_name(series: SeriesImage, area: Window) -> str:
    moved = series.grid.part(area).transform
    if moved is None:
        return f"{area.col}_{area.row}"
    return "_".join(f"{value:.6f}".rstrip("0").rstrip(".") for value in (moved[2], moved[5]))


def write_tiles(
    embedder: PixelEmbedder,
    out: Path,
    *,
    tile_side: int,
    run: RunInOrder | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> WrittenPixels:
    """Write the tiles of a series that do not exist yet, then the mosaics of all.

    Args:
        embedder: Computation of the embeddings.
        out: Folder.
        tile_side: Side of a tile in cells of the output, a multiple of 16.
        run: Ordered remote runner, or None to run locally.
        overwrite: Remove the tiles of another job.
        progress: Show a progress bar over the whole job.

    Returns:
        Counts. Cells and clipped numbers are those of the tiles that were written now.

    Raises:
        ExistsError: If the folder contains something else, or tiles of other settings or sources.
        DataError: If its description is damaged.
    """
    series = embedder.series
    areas = tile_areas(series, tile_side * embedder.side)
    job = _describe(embedder, tile_side, [name for name, _ in areas])
    _open_job(out, job, overwrite)
    folder = out / "tiles"
    folder.mkdir(parents=True, exist_ok=True)
    todo = [(folder / f"{name}.tif", area) for name, area in areas]
    num_dates = len(series.acquisitions)
    weights = [area.height * area.width * num_dates for _, area in todo]
    num_filled = num_clipped = 0
    with job_bar(sum(weights), "embed" if progress else None) as bar:
        is_done = [path.is_file() for path, _ in todo]
        bar.update(sum(weight for weight, done in zip(weights, is_done, strict=True) if done))
        todo = [one for one, done in zip(todo, is_done, strict=True) if not done]
        weights = [weight for weight, done in zip(weights, is_done, strict=True) if not done]
        counts: Iterator[tuple[int, int]]
        if run is None:
            counts = (write_area(embedder, *one, bar.update) for one in todo)
        else:
            counts = run(write_area, [embedder], todo, bar, weights)
        for filled, clipped in counts:
            num_filled += filled
            num_clipped += clipped
    paths = [folder / f"{name}.tif" for name, _ in areas]
    nodata = str(INT8_NODATA) if embedder.dtype == "int8" else "nan"
    dtype = "Int8" if embedder.dtype == "int8" else "Float32"
    scale = embedder.projection.step if embedder.dtype == "int8" else None
    windows = [area for _, area in areas]
    tags = embedder.tags
    _write_mosaic(
        out / "mosaic.vrt", embedder, paths, windows, embedder.bands, dtype, nodata, scale, tags
    )
    if num_dates > 1:
        qualities = [quality_path(path) for path in paths]
        names = ["spread", "dates"]
        _write_mosaic(
            out / "quality.vrt", embedder, qualities, windows, names, "Float32", "nan", None, {}
        )
    clipped_fraction = num_clipped / max(num_filled * embedder.dim, 1)
    num_skipped = len(areas) - len(todo)
    return WrittenPixels(
        num_filled, embedder.dim, series.dates, clipped_fraction, len(areas), num_skipped
    )


def _describe(embedder: PixelEmbedder, tile_side: int, names: Sequence[str]) -> dict[str, Any]:
    series = embedder.series
    digest = hashlib.sha256()
    for one in series.acquisitions:
        for scene in one.scenes:
            digest.update(json.dumps([str(one.date), scene.window, scene.source]).encode())
    return {
        "format": FORMAT,
        "version": VERSION,
        **embedder.tags,
        "dtype": embedder.dtype,
        "scale": embedder.projection.step if embedder.dtype == "int8" else 1.0,
        "tile_side": tile_side,
        "crs": series.grid.crs,
        "sources": digest.hexdigest(),
        "tiles": list(names),
    }


def _open_job(out: Path, job: dict[str, Any], overwrite: bool) -> None:
    """Write the description of a job, or check that the one of an interrupted job is the same."""
    path = out / JOB_NAME
    if path.is_file():
        known = read_json(path, _REMEDY)
        if known.get("format") != FORMAT:
            raise DataError(f"{path} does not describe embeddings. {_REMEDY}")
        if known == job:
            return
        if not overwrite:
            differing = [key for key in job if known.get(key) != job[key]]
            raise ExistsError(
                f"{out} contains embeddings of another job, which differs in "
                f"{', '.join(differing)}. {_REMEDY}"
            )
        shutil.rmtree(out / "tiles", ignore_errors=True)
    elif out.exists() and any(out.iterdir()):
        raise ExistsError(
            f"{out} is not empty, and not a folder of embeddings. Name another folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, job)


def _write_mosaic(
    path: Path,
    embedder: PixelEmbedder,
    files: Sequence[Path],
    areas: Sequence[Window],
    bands: Sequence[str],
    dtype: str,
    nodata: str,
    scale: float | None,
    tags: dict[str, str],
) -> None:
    """Write all tiles as one virtual raster of GDAL, with paths relative to it."""
    side = embedder.side
    top, left = min(area.row for area in areas), min(area.col for area in areas)
    bottom = max(area.row + area.height for area in areas)
    right = max(area.col + area.width for area in areas)
    grid = embedder.series.grid.part(Window(top, left, bottom - top, right - left))
    size = f'rasterXSize="{(right - left) // side}" rasterYSize="{(bottom - top) // side}"'
    lines = [f"<VRTDataset {size}>"]
    if grid.crs is not None:
        lines.append(f"<SRS>{escape(grid.crs)}</SRS>")
    if grid.transform is not None:
        a, b, c, d, e, f = grid.transform
        values = (c, a * side, b * side, f, d * side, e * side)
        lines.append(f"<GeoTransform>{', '.join(map(repr, values))}</GeoTransform>")
    if tags:
        items = [f'<MDI key="{key}">{escape(value)}</MDI>' for key, value in tags.items()]
        lines += ["<Metadata>", *items, "</Metadata>"]
    for number, name in enumerate(bands, start=1):
        lines += [
            f'<VRTRasterBand dataType="{dtype}" band="{number}">',
            f"<Description>{name}</Description>",
            f"<NoDataValue>{nodata}</NoDataValue>",
        ]
        if scale is not None:
            lines.append(f"<Offset>0</Offset><Scale>{scale!r}</Scale>")
        for file, area in zip(files, areas, strict=True):
            width, height = area.width // side, area.height // side
            size = f'xSize="{width}" ySize="{height}"'
            row, col = (area.row - top) // side, (area.col - left) // side
            source = escape(os.path.relpath(file, path.parent).replace(os.sep, "/"))
            lines += [
                f'<SimpleSource><SourceFilename relativeToVRT="1">{source}</SourceFilename>'
                f"<SourceBand>{number}</SourceBand>"
                f'<SrcRect xOff="0" yOff="0" {size}/>'
                f'<DstRect xOff="{col}" yOff="{row}" {size}/></SimpleSource>'
            ]
        lines.append("</VRTRasterBand>")
    lines.append("</VRTDataset>")
    with written_aside(path) as aside:
        aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
