"""Look windows of one raster up in another, of any size (section 4.3, Figure 5)."""

import datetime
import functools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.execution import runner_in_order
from sits_keras.data.radiometry import NODATA
from sits_keras.data.rasters.read import Grid, same_grid
from sits_keras.data.rasters.rows import Strips, preview_step
from sits_keras.data.rasters.write import write_boxes
from sits_keras.data.tiling import Window, sliding_offsets, sliding_windows, spread_out
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import check_suffix, refuse_existing
from sits_keras.tasks.pictures import plot_boxes, preview_image
from sits_keras.tasks.retrieval.distances import RetrievalMethod, comparison_of
from sits_keras.tasks.series import SeriesStrips, check_period, open_image, paths_of
from sits_keras.tasks.windows import (
    Encoder,
    Mode,
    WindowRow,
    check_size,
    encode_at,
    is_dense,
    iterate_windows,
)

STRIDE = 4
"""Distance between searched windows, in pixels, as implied by the paper's counts."""

NEAR = IMAGE_SIZE // 2
"""Euclidean distance within which a window is near its place, in pixels."""

_MIN_VALID_FRACTION = 0.5  # of a sampled window
_SAMPLES_PER_QUERY = 4  # windows sampled for each query


class Match(NamedTuple):
    """A window that was found for a query.

    Attributes:
        query: Index of the query.
        rank: Rank among the query's matches, 1 for the nearest.
        window: Its position in the searched image.
        distance: Distance from the query (`sits_keras.tasks.retrieval.distances`).
    """

    query: int
    rank: int
    window: Window
    distance: float


class Retrieval(NamedTuple):
    """Boxes that were found and written.

    Attributes:
        queries: Windows that were looked up.
        matches: Matches of each query, nearest first.
        boxes: Properties of each box of the GeoJSON file: query, query_row, query_col, rank,
            distance, row, col.
        near_fraction: Fraction of the queries whose nearest match begins within `NEAR` pixels of
            the query's own place. None where the rasters are on different grids.
        near_by_chance: Expected `near_fraction` of random matches, or None.
    """

    queries: list[Window]
    matches: list[Match]
    boxes: list[dict[str, Any]]
    near_fraction: float | None
    near_by_chance: float | None


def retrieve(
    query: Path | str | npt.NDArray[Any] | Sequence[Path | str],
    search: Path | str | npt.NDArray[Any] | Sequence[Path | str],
    out: Path | str,
    encoder: Encoder,
    *,
    num_queries: int = 64,
    at: Sequence[tuple[int, int]] = (),
    num_matches: int = 1,
    min_distance: int = IMAGE_SIZE // 2,
    stride: int = STRIDE,
    seed: int = 0,
    method: RetrievalMethod = None,
    first: datetime.date | None = None,
    last: datetime.date | None = None,
    newest: bool = False,
    bands: Sequence[str] | None = None,
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Retrieval:
    """Find windows of one raster in another and write them as GeoJSON, in bounded memory.

    Either can be a series, as `embed_raster` takes it: the grids of its windows are then averaged
    over the clear dates, so that season and light count less.

    A picture with a colour for each query is written beside the GeoJSON file, with the suffix .png.

    Args:
        query: Raster whose windows are looked up: a path, or a `(height, width, bands)` array of
            uint16 stored values or float reflectance; or a series.
        search: Raster or series to search, of any size and place.
        out: Output GeoJSON, `.geojson` or `.json`.
        encoder: Shared encoder, such as `hub.load(...)`.
        num_queries: Number of query windows to sample.
        at: (row, column) of the upper left pixels of query windows, instead of sampled windows.
        num_matches: Maximum number of matches of each query.
        min_distance: Minimum distance between the matches of a query, in pixels, along rows or
            columns.
        stride: Distance between searched windows, in pixels.
        seed: Seed of the sampled windows and of the order of ties.
        method: "layers" compares layers and grid (`sits_keras.tasks.retrieval.distances`); "grid"
            is the L1 distance of the grid, the paper's method. By default "layers" if the encoder
            is a shared `HubEncoder` and neither image is a series, else "grid". Features of other
            encoders are compared by L1 distance.
        first: First acquisition date of a series to use. It applies to `query` and `search` if both
            are series, and does not apply to a raster.
        last: Last acquisition date of a series to use.
        newest: Use the newest of several products of one tile and date; else they are an error.
        bands: Band names of the encoder. By default those that it states.
        mode: "exact" or "dense". By default dense where the encoder supports it at this stride.
        workers: Processes that encode windows. With more than 1 the encoder must be picklable.
        scheduler: Address of a Dask scheduler to use instead of processes.
        overwrite: Overwrite existing files.
        progress: Show a progress bar.

    Returns:
        The queries and their matches.

    Raises:
        ExistsError: If an output exists and `overwrite` is false, or is one of the inputs.
        OutputError: If an output cannot be written.
        MissingError: If a raster does not exist.
        DataError: If a raster cannot be read, lacks a band or has no valid data; if scenes of a
            series are not on one grid, or no date is in the period.
        ConfigError: If an argument is out of range, a raster is smaller than a window, a query is
            outside its raster, or the encoder does not support dense mode or layers although
            they are required.

    Examples:
        >>> encoder = sits_keras.from_preset("sits_rgbn_small", "shared")
        >>> found = retrieve("may.tif", "june.tif", "found.geojson", encoder, at=[(120, 64)])
        >>> found.matches[0].window
    """
    out = Path(out)
    check_suffix(out, "OUT", ".geojson", ".json")
    read = [*paths_of(query), *paths_of(search)]
    for one in (out, out.with_suffix(".png")):
        refuse_existing(one, overwrite, read)
    bands = bands or getattr(encoder, "bands", None)
    period = first, last
    check_period([query, search], period, newest)
    queried, searched = (
        open_image(one, bands, period=period, newest=newest, use_mask=False)
        for one in (query, search)
    )
    if at:
        windows = [Window(row, col, IMAGE_SIZE, IMAGE_SIZE) for row, col in at]
    else:
        windows = sample_queries(queried, num_queries, stride=stride, seed=seed)
    matches = find_windows(
        encoder,
        queried,
        windows,
        searched,
        stride=stride,
        num_matches=num_matches,
        min_distance=min_distance,
        seed=seed,
        method=method,
        mode=mode,
        workers=workers,
        scheduler=scheduler,
        progress="search" if progress else None,
    )
    boxes = write_matches(queried, windows, searched, matches, out)
    near = by_chance = None
    if same_grid(queried.grid, searched.grid):
        near, by_chance = near_fraction(windows, matches, searched.grid, stride)
    return Retrieval(windows, matches, boxes, near, by_chance)


def rank_windows(
    rows: Iterable[WindowRow],
    num_queries: int,
    stride: int,
    *,
    num_matches: int,
    min_distance: int,
    seed: int,
) -> list[Match]:
    """Return the nearest windows of each query from known distances.

    Args:
        rows: Searched windows, from the top. `features` holds the `(windows, num_queries)`
            distances.
        num_queries: Number of queries.
        stride: See `find_windows`.
        num_matches: See `find_windows`.
        min_distance: See `find_windows`.
        seed: See `find_windows`.

    Returns:
        Matches of each query, nearest first; empty if no window has data.
    """
    # Upper bound of the windows that a match excludes, so that enough candidates are kept.
    num_overlapping = (2 * math.ceil(min_distance / stride)) ** 2 + 1
    num_kept = (num_matches - 1) * num_overlapping + 1
    rng = np.random.default_rng(seed)
    best = np.empty((num_queries, 0, 4))  # distance, draw, row, col; the best first
    for found in rows:
        has_data = found.valid_fraction > 0
        if not has_data.any():
            continue
        cols = found.cols[has_data]
        new = np.empty((num_queries, len(cols), 4))
        new[..., 0] = found.features[has_data].T
        new[..., 1] = rng.random(len(cols))
        new[..., 2], new[..., 3] = found.row, cols
        both = np.concatenate([best, new], axis=1)
        order = np.lexsort((both[..., 1], both[..., 0]), axis=1)[:, :num_kept]
        best = np.take_along_axis(both, order[..., None], axis=1)
    return [
        match
        for query, candidates in enumerate(best)
        for match in select_matches(query, candidates, num_matches, min_distance)
    ]


def select_matches(
    query: int, candidates: npt.NDArray[np.float64], num_matches: int, min_distance: int
) -> list[Match]:
    """Return the first candidates of a query that are far enough from each other.

    Args:
        query: Index of the query.
        candidates: `(candidates, 4)`: distance, random number, row, col; nearest first.
        num_matches: See `find_windows`.
        min_distance: See `find_windows`.
    """
    chosen = spread_out(candidates[:, 2], candidates[:, 3], num_matches, min_distance)
    return [
        Match(
            query,
            rank,
            Window(int(candidates[index, 2]), int(candidates[index, 3]), IMAGE_SIZE, IMAGE_SIZE),
            float(candidates[index, 0]),
        )
        for rank, index in enumerate(chosen, start=1)
    ]


def sample_queries(
    image: Strips, num_queries: int, *, stride: int = STRIDE, seed: int = 0
) -> list[Window]:
    """Sample windows with data in at least half of their pixels.

    Args:
        image: Image to sample from.
        num_queries: Maximum number of windows; an image with fewer gives all of them.
        stride: Windows begin at multiples of it, or end at the far edges.
        seed: Seed of the sample.

    Returns:
        Windows in random order.

    Raises:
        ConfigError: If the image is smaller than a window, or `num_queries` is below 1.
        DataError: If no sampled window has enough data.
    """
    if num_queries < 1:
        raise ConfigError(f"num_queries must be at least 1. Received: num_queries={num_queries}.")
    check_size(image)
    rows = sliding_offsets(image.grid.height, IMAGE_SIZE, stride)
    cols = sliding_offsets(image.grid.width, IMAGE_SIZE, stride)
    num_windows = len(rows) * len(cols)
    rng = np.random.default_rng(seed)
    sampled = rng.choice(
        num_windows, min(num_windows, _SAMPLES_PER_QUERY * num_queries), replace=False
    )
    has_data = {}
    for index in sorted(sampled):  # row by row, since an image is read from top to bottom
        row, col = rows[index // len(cols)], cols[index % len(cols)]
        valid_fraction = (_crop(image, row, col)[..., 0] != NODATA).mean()
        if valid_fraction >= _MIN_VALID_FRACTION:
            has_data[index] = Window(row, col, IMAGE_SIZE, IMAGE_SIZE)
    chosen = [has_data[index] for index in sampled if index in has_data][:num_queries]
    if not chosen:
        raise DataError(
            f"None of {len(sampled)} windows sampled from {image.name} has data in half of its "
            "pixels. Choose windows with data (--at)."
        )
    return chosen


def find_windows(
    encoder: Encoder,
    queried: Strips,
    queries: Sequence[Window],
    searched: Strips,
    *,
    stride: int = STRIDE,
    num_matches: int = 1,
    min_distance: int = IMAGE_SIZE // 2,
    seed: int = 0,
    method: RetrievalMethod = None,
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: str | None = None,
) -> list[Match]:
    """Find windows of one image among all windows of another, in bounded memory.

    Args:
        encoder: Encoder whose features are compared.
        queried: Image of the queries.
        queries: Windows of 64 x 64 px.
        searched: Image to search.
        stride: Distance between searched windows, in pixels.
        num_matches: Maximum number of matches of each query.
        min_distance: Minimum distance between the matches of a query, in pixels, along rows or
            columns. Windows that overlap more count as one match.
        seed: Seed of the order of ties.
        method: See `retrieve`.
        mode: "exact" or "dense". By default dense where the encoder supports it at this stride.
        workers: Processes that encode windows. With more than 1 the encoder must be picklable.
        scheduler: Address of a Dask scheduler to use instead of processes.
        progress: Title of a progress bar that counts windows, or None for no bar.

    Returns:
        Matches of each query, nearest first.

    Raises:
        ConfigError: If an image is smaller than a window, a query is outside its image, an argument
            is out of range, or the encoder does not support dense mode or layers although
            they are required.
        DataError: If no window of the searched image has data.
    """
    for name, value, least in (("num_matches", num_matches, 1), ("min_distance", min_distance, 0)):
        if value < least:
            raise ConfigError(f"{name} must be at least {least}. Received: {name}={value}.")
    _check_queries(queried, queries)
    has_series = isinstance(queried, SeriesStrips) or isinstance(searched, SeriesStrips)
    encoder, distances = comparison_of(encoder, method, has_series=has_series)
    is_dense(encoder, stride, mode)
    features = encode_at(encoder, queried, queries)
    with runner_in_order(workers, scheduler) as run:
        found = rank_windows(
            iterate_windows(
                encoder,
                searched,
                stride,
                reduce=functools.partial(distances, features),
                mode=mode,
                run=run,
                progress=progress,
            ),
            len(queries),
            stride,
            num_matches=num_matches,
            min_distance=min_distance,
            seed=seed,
        )
    if not found:
        raise DataError(f"{searched.name} has no window with data.")
    return found


def near_fraction(
    queries: Sequence[Window], matches: Sequence[Match], grid: Grid, stride: int
) -> tuple[float, float]:
    """Return how often the nearest match is near its query's own place.

    This is meaningful if the images show the same place.

    Args:
        queries: Windows that were looked up.
        matches: Matches that were found.
        grid: Grid of the searched image.
        stride: Distance between searched windows, in pixels.

    Returns:
        Fraction of the queries whose nearest match begins within `NEAR` pixels of the query, and
        the expected fraction for random matches.
    """
    corners = np.array([window[:2] for window in queries])
    nearest = np.array([match.window[:2] for match in matches if match.rank == 1])
    searched = np.array([w[:2] for w in sliding_windows(*grid[:2], IMAGE_SIZE, stride)])
    is_near = np.hypot(*(corners - nearest).T) <= NEAR
    by_chance = np.mean([(np.hypot(*(searched - one).T) <= NEAR).mean() for one in corners])
    return float(is_near.mean()), float(by_chance)


def write_matches(
    queried: Strips,
    queries: Sequence[Window],
    searched: Strips,
    matches: Sequence[Match],
    path: Path,
) -> list[dict[str, Any]]:
    """Write matches as GeoJSON, and the picture of `plot_matches` beside it.

    Args:
        queried: See `find_windows`.
        queries: See `find_windows`.
        searched: See `find_windows`.
        matches: Output of `find_windows`.
        path: Output GeoJSON; the picture has the suffix .png instead.

    Returns:
        Properties of each box: query, query_row, query_col, rank, distance, row, col.
    """
    rows: list[dict[str, Any]] = [
        {
            "query": match.query,
            "query_row": queries[match.query].row,
            "query_col": queries[match.query].col,
            "rank": match.rank,
            "distance": match.distance,
            "row": match.window.row,
            "col": match.window.col,
        }
        for match in matches
    ]
    write_boxes(
        path, [(m.window, row) for m, row in zip(matches, rows, strict=True)], searched.grid
    )
    plot_matches(queried, queries, searched, matches, path.with_suffix(".png"))
    return rows


def plot_matches(
    queried: Strips,
    queries: Sequence[Window],
    searched: Strips,
    matches: Sequence[Match],
    path: Path,
) -> Path:
    """Plot both images with the queries and their nearest matches, a colour each (Figure 5).

    Args:
        queried: See `find_windows`.
        queries: See `find_windows`.
        searched: See `find_windows`.
        matches: Output of `find_windows`.
        path: Output PNG.

    Returns:
        The path.
    """
    nearest = {match.query: match.window for match in matches if match.rank == 1}
    # Neighbouring queries get similar colours.
    ordered = sorted(nearest, key=lambda index: queries[index])
    panels = []
    for name, image, windows in (
        ("windows of", queried, [queries[index] for index in ordered]),
        ("found in", searched, [nearest[index] for index in ordered]),
    ):
        step = preview_step(*image.grid[:2])
        boxes = [Window(*(round(side / step) for side in window)) for window in windows]
        panels.append((f"{name} {Path(image.name).name}", preview_image(image), boxes))
    return plot_boxes(panels, path)


def _check_queries(image: Strips, queries: Sequence[Window]) -> None:
    height, width = image.grid[:2]
    for window in queries:
        inside = 0 <= window.row <= height - IMAGE_SIZE and 0 <= window.col <= width - IMAGE_SIZE
        if not inside or (window.height, window.width) != (IMAGE_SIZE, IMAGE_SIZE):
            raise ConfigError(
                f"A query is not a window of {IMAGE_SIZE} x {IMAGE_SIZE} px in {image.name}, which "
                f"is {height} x {width} px. Expected it to begin at rows 0 to "
                f"{height - IMAGE_SIZE} and columns 0 to {width - IMAGE_SIZE}. Received: row "
                f"{window.row}, column {window.col}, {window.height} x {window.width} px."
            )


def _crop(image: Strips, row: int, col: int) -> npt.NDArray[np.uint16]:
    return image.read(row, IMAGE_SIZE)[:, col : col + IMAGE_SIZE]
