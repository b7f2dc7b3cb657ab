"""Windows of one raster looked up in another, of any size (section 4.3, Figure 5)."""

import functools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.execution import runner_in_order
from sits_keras.data.radiometry import NODATA
from sits_keras.data.rasters.read import Grid, same_grid
from sits_keras.data.rasters.rows import Strips, open_strips, preview_step
from sits_keras.data.rasters.write import write_boxes
from sits_keras.data.tiling import Window, sliding_offsets, sliding_windows
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import check_suffix, refuse_existing
from sits_keras.tasks.pictures import plot_boxes, preview_image
from sits_keras.tasks.retrieval.table_2 import NEAR, STRIDE, distances_to
from sits_keras.tasks.windows.sliding import (
    Encoder,
    Mode,
    WindowRow,
    check_size,
    encode_at,
    is_dense,
    iterate_windows,
)


class Match(NamedTuple):
    """A window that was found for a query.

    Attributes:
        query: index of the query.
        rank: 1 for the nearest.
        window: where it lies in the searched image.
        distance: L1 distance of the features.
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
    query: Path | str | np.ndarray,
    search: Path | str | np.ndarray,
    out: Path | str,
    encoder: Encoder,
    *,
    num_queries: int = 64,
    at: Sequence[tuple[int, int]] = (),
    num_matches: int = 1,
    min_distance: int = IMAGE_SIZE // 2,
    stride: int = STRIDE,
    seed: int = 0,
    bands: Sequence[str] | None = None,
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Retrieval:
    """Find windows of one raster in another and write them as GeoJSON, in bounded memory.

    A picture with a colour for each query is written beside the GeoJSON file, with the suffix .png.

    Args:
        query: Raster whose windows are looked up: a path, or a `(height, width, bands)` array of
            uint16 stored values or float reflectance.
        search: Raster to search, of any size and place.
        out: Output GeoJSON, `.geojson` or `.json`.
        encoder: Shared encoder, such as `hub.load(...)`.
        num_queries: Number of query windows to sample.
        at: (row, column) of the upper left pixels of query windows, instead of sampled windows.
        num_matches: Maximum number of matches of each query.
        min_distance: Minimum distance between the matches of a query, in pixels, along rows or
            columns.
        stride: Distance between searched windows, in pixels.
        seed: Seed of the sampled windows and of the order of ties.
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
        DataError: If a raster cannot be read, lacks a band or holds no data.
        ConfigError: If an argument is out of range, a raster is smaller than a window, a query is
            outside its raster, or the encoder does not support dense mode and it was asked for.

    Examples:
        >>> encoder = sits_keras.from_preset("sits_rgbn_small", "shared")
        >>> found = retrieve("may.tif", "june.tif", "found.geojson", encoder, at=[(120, 64)])
        >>> found.matches[0].window
    """
    out = Path(out)
    check_suffix(out, "OUT", ".geojson", ".json")
    read = [one for one in (query, search) if isinstance(one, Path | str)]
    for one in (out, out.with_suffix(".png")):
        refuse_existing(one, overwrite, read)
    bands = bands or getattr(encoder, "bands", None)
    queried, searched = open_strips(query, bands), open_strips(search, bands)
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
    """The nearest windows of each query, of windows whose distances are known.

    Args:
        rows: the searched windows, from the top; `features` are the `(windows, num_queries)`
            distances.
        num_queries: how many.
        stride, num_matches, min_distance, seed: see `lookup.find_windows`.
    Returns:
        The matches of each query, the nearest first; none where no window holds data.
    """
    # Windows that a match rules out, at most; so that enough are kept for the next ones.
    num_overlapping = (2 * math.ceil(min_distance / stride)) ** 2 + 1
    num_kept = (num_matches - 1) * num_overlapping + 1
    rng = np.random.default_rng(seed)
    best = np.empty((num_queries, 0, 4))  # distance, draw, row, col; the best first
    for found in rows:
        holds_data = found.valid_fraction > 0
        if not holds_data.any():
            continue
        cols = found.cols[holds_data]
        new = np.empty((num_queries, len(cols), 4))
        new[..., 0] = found.features[holds_data].T
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
    query: int, candidates: np.ndarray, num_matches: int, min_distance: int
) -> list[Match]:
    """The first candidates of a query that lie apart from each other.

    Args:
        query: its index.
        candidates: `(candidates, 4)`: distance, draw, row, col; the nearest first.
        num_matches, min_distance: see `lookup.find_windows`.
    """
    chosen: list[Match] = []
    for distance, _, row, col in candidates:
        if all(
            max(abs(row - other.window.row), abs(col - other.window.col)) >= min_distance
            for other in chosen
        ):
            window = Window(int(row), int(col), IMAGE_SIZE, IMAGE_SIZE)
            chosen.append(Match(query, len(chosen) + 1, window, float(distance)))
            if len(chosen) == num_matches:
                break
    return chosen


_LEAST_DATA = 0.5  # share of a drawn window's pixels that must hold data
_DRAWS_PER_QUERY = 4  # windows looked at for each one that is wanted


def sample_queries(
    image: Strips, num_queries: int, *, stride: int = STRIDE, seed: int = 0
) -> list[Window]:
    """Draws windows that hold data in at least half of their pixels.

    Args:
        image: where to draw them.
        num_queries: how many, at most: an image that has fewer gives all it has.
        stride: windows begin at multiples of it, or at the far edges.
        seed: seed of the draws.
    Raises:
        ConfigError: the image is smaller than a window, or no queries are asked for.
        DataError: none of the windows holds enough data.
    """
    if num_queries < 1:
        raise ConfigError(f"num_queries must be at least 1. Received: num_queries={num_queries}.")
    check_size(image)
    rows = sliding_offsets(image.grid.height, IMAGE_SIZE, stride)
    cols = sliding_offsets(image.grid.width, IMAGE_SIZE, stride)
    num_windows = len(rows) * len(cols)
    rng = np.random.default_rng(seed)
    drawn = rng.choice(num_windows, min(num_windows, _DRAWS_PER_QUERY * num_queries), replace=False)
    holds_data = {}
    for index in sorted(drawn):  # row by row, for an image is read from top to bottom
        row, col = rows[index // len(cols)], cols[index % len(cols)]
        share = (_crop(image, row, col)[..., 0] != NODATA).mean()
        if share >= _LEAST_DATA:
            holds_data[index] = Window(row, col, IMAGE_SIZE, IMAGE_SIZE)
    chosen = [holds_data[index] for index in drawn if index in holds_data][:num_queries]
    if not chosen:
        raise DataError(
            f"{image.name} has no data in {len(drawn)} windows that were drawn: none holds it in "
            "half of its pixels. Name places with data (--at)."
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
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: str | None = None,
) -> list[Match]:
    """Looks windows of one image up among all windows of another, by L1 distance.

    Neither image nor the features of its windows are ever whole in memory.

    Args:
        encoder: what to compare windows by.
        queried: where the queries lie.
        queries: windows of 64 x 64 px.
        searched: where to look.
        stride: pixels from a searched window to the next.
        num_matches: matches for each query, at most.
        min_distance: pixels by which matches of one query lie apart, in rows or columns at least;
            windows that overlap more are one find, not several.
        seed: seed by which windows that are as near as each other are put in order.
        mode: how searched windows are encoded, "exact" or "dense"; by default dense where the
            encoder is fit for it.
        workers: processes that encode windows; the encoder must be one that can be pickled.
        scheduler: address of a Dask scheduler whose workers encode them, in their place.
        progress: title of a progress bar that counts windows; `None` for no bar.
    Returns:
        The matches of each query, the nearest first.
    Raises:
        ConfigError: an image is smaller than a window, a query does not lie in its image, or a
            number is out of range; dense mode is asked for and not to be had.
        DataError: no window of the searched image holds data.
    """
    for name, value, least in (("num_matches", num_matches, 1), ("min_distance", min_distance, 0)):
        if value < least:
            raise ConfigError(f"{name} must be at least {least}. Received: {name}={value}.")
    _check_queries(queried, queries)
    is_dense(encoder, stride, mode)
    features = encode_at(encoder, queried, queries)
    with runner_in_order(workers, scheduler) as run:
        found = rank_windows(
            iterate_windows(
                encoder,
                searched,
                stride,
                reduce=functools.partial(distances_to, features),
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
        raise DataError(f"{searched.name} holds no data in any window.")
    return found


def near_fraction(
    queries: Sequence[Window], matches: Sequence[Match], grid: Grid, stride: int
) -> tuple[float, float]:
    """How many of the nearest windows lie at their query's own place, where images show one place.

    Args:
        queries: what was looked up.
        matches: what was found.
        grid: of the searched image.
        stride: pixels from a searched window to the next.
    Returns:
        Share of the queries whose nearest window begins within `NEAR` pixels of it, and what
        picking at random would give.
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
    """Writes the windows that were found as GeoJSON, and the picture of `plot_matches` beside it.

    Args:
        queried, queries, searched, matches: as in `find_windows`.
        path: of the GeoJSON; the picture has the suffix .png in its place.
    Returns:
        What the file says of each box: query, query_row, query_col, rank, distance, row, col.
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
    """Draws both images with the queries and their nearest windows, a colour each (Figure 5).

    Args:
        queried, queries, searched, matches: as in `find_windows`.
        path: of the PNG.
    """
    nearest = {match.query: match.window for match in matches if match.rank == 1}
    asked = sorted(nearest, key=lambda index: queries[index])  # neighbours in colour and in place
    panels = []
    for name, image, windows in (
        ("windows of", queried, [queries[index] for index in asked]),
        ("found in", searched, [nearest[index] for index in asked]),
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
                f"A query must be a window of {IMAGE_SIZE} x {IMAGE_SIZE} px in {image.name}, "
                f"which is {height} x {width} px: it can begin at rows 0 to {height - IMAGE_SIZE} "
                f"and columns 0 to {width - IMAGE_SIZE}. Received: row {window.row}, column "
                f"{window.col}, {window.height} x {window.width} px."
            )


def _crop(image: Strips, row: int, col: int) -> np.ndarray:
    return image.read(row, IMAGE_SIZE)[:, col : col + IMAGE_SIZE]
