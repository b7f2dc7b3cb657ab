"""Find the places of an embedding raster that are most similar to examples, by an exact search."""

import concurrent.futures
import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from sits_keras.data.rasters.embeddings import (
    ROWS_AT_A_TIME,
    Embeddings,
    dequantize,
    has_vector,
    open_embeddings,
)
from sits_keras.data.rasters.rows import preview_step, thin
from sits_keras.data.rasters.write import open_map, write_boxes
from sits_keras.data.tiling import Window, row_blocks, spread_out
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import check_suffix, refuse_existing
from sits_keras.tasks.pictures import (
    apply_colormap,
    check_picture,
    fit_colours,
    plot_boxes,
)

Result = TypeVar("Result")

_CELLS_OF_A_TASK = 2**16
_CELLS_AT_A_TIME = 2**12  # their vectors as floats fit into a processor's cache


class SimilarPlace(NamedTuple):
    """Cell that is similar to an example.

    Attributes:
        rank: Rank among those found, 1 for the most similar.
        row: Row of the cell.
        col: Column of the cell.
        example: Index of the example that it is most similar to.
        similarity: Cosine of the angle between the two vectors, in [-1, 1].
    """

    rank: int
    row: int
    col: int
    example: int
    similarity: float


class QueryResult(NamedTuple):
    """Places that were found and written.

    Attributes:
        examples: Row and column of each example.
        places: Similar places, the most similar first.
    """

    examples: list[tuple[int, int]]
    places: list[SimilarPlace]


def query(
    embeddings: Path | str | Embeddings,
    out: Path | str,
    *,
    like: Sequence[tuple[float, float]] = (),
    windows: Sequence[tuple[int, int]] = (),
    num_matches: int = 100,
    min_distance: int = 8,
    picture: Path | str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> QueryResult:
    """Find the cells of an embedding raster that are most similar to examples, in bounded memory.

    The similarity of a cell is the largest cosine of the angle between its vector and that of an
    example. All cells are compared. Vectors are compared as numbers (`stored * scale + offset`);
    if all scales are equal and there are no offsets, the sums over int8 values are exact.

    A raster of the similarities of all cells is written beside the GeoJSON file, with the suffix
    .tif: float32, NaN where there is no data.

    Args:
        embeddings: Embedding raster (GeoTIFF or VRT), folder of such rasters, or opened embeddings.
        out: Output GeoJSON, `.geojson` or `.json`: a polygon for each cell, with the properties
            rank, similarity, example, row, col.
        like: (longitude, latitude) of examples in degrees, or (column, row) in pixels for a
            raster without CRS.
        windows: (row, column) of examples in the raster.
        num_matches: Maximum number of places.
        min_distance: Minimum distance between places, and from the examples, in cells, along rows
            or columns.
        picture: PNG to write as well: the first three principal components of the embeddings, and
            the similarities, with boxes around the places.
        overwrite: Overwrite existing files.
        progress: Show a progress bar.

    Returns:
        The examples and the similar places.

    Raises:
        ExistsError: If an output exists and `overwrite` is false, or is the input.
        OutputError: If an output cannot be written.
        MissingError: If the embeddings do not exist.
        DataError: If they cannot be read, an example has no data, or no place is left.
        ConfigError: If there is no example, an example is outside, or an argument is out of range.

    Examples:
        >>> found = query("embeddings.tif", "like-this.geojson", like=[(11.35, 46.49)])
        >>> found.places[0].similarity
    """
    out = Path(out)
    check_suffix(out, "OUT", ".geojson", ".json")
    raster = out.with_suffix(".tif")
    read = [] if isinstance(embeddings, Embeddings) else [embeddings]
    for one in (out, raster):
        refuse_existing(one, overwrite, read)
    picture = check_picture(picture, overwrite)
    opened = embeddings if isinstance(embeddings, Embeddings) else open_embeddings(embeddings)
    examples = [opened.cell_at(lon, lat) for lon, lat in like] + list(windows)
    search = SimilaritySearch(opened)
    step = preview_step(*opened.grid[:2])
    shown: list[npt.NDArray[np.float32]] = []
    tags = {"examples": "; ".join(f"{row},{col}" for row, col in examples), "metric": "cosine"}
    with open_map(
        raster, opened.grid, ["similarity"], "float32", np.nan, resampling="average", tags=tags
    ) as target:

        def write(row: int, similarity: npt.NDArray[np.float32]) -> None:
            target.write(row, similarity)
            shown.append(thin([(row, similarity)], step).copy())

        places = search.find(
            examples,
            num_matches=num_matches,
            min_distance=min_distance,
            on_rows=write,
            progress=progress,
        )
        write_boxes(
            out,
            [(Window(one.row, one.col, 1, 1), _properties(one)) for one in places],
            opened.grid,
        )
    if picture is not None:
        side = max(min_distance // step, 6)
        boxes = [
            Window(one.row // step - side // 2, one.col // step - side // 2, side, side)
            for one in places
        ]
        similarity = np.concatenate(shown)
        low, high = np.nanpercentile(similarity, (2, 100))
        scaled = np.clip((similarity - low) / ((high - low) or 1), 0, 1)
        plot_boxes(
            [
                ("principal components", fit_colours(opened)[1], boxes),
                ("similarity", apply_colormap(scaled), boxes),
            ],
            picture,
        )
    return QueryResult(examples, places)


class SimilaritySearch:
    """Exact search of an embedding raster by cosine similarity.

    Args:
        embeddings: Embeddings to search. If they are loaded (`Embeddings.load`), the length of
            each vector is computed once, here.
    """

    def __init__(self, embeddings: Embeddings):
        self._embeddings = embeddings
        header = embeddings.header
        # The cosine does not depend on a common factor. Equal scales become 1, and the sums over
        # integers are exact in float32: 1,040 x 127 x 127 < 2^24.
        largest = np.abs(header.scales).max() or np.float32(1)
        self._scales, self._offsets = header.scales / largest, header.offsets / largest
        self._lengths: npt.NDArray[np.float32] | None = None
        if embeddings.is_loaded:
            self._lengths = np.empty(embeddings.grid[:2], np.float32)
            with _threads() as map_cells:
                for row, stored in self._blocks():
                    map_cells(self._measure, stored, self._lengths[row : row + stored.shape[1]])

    def find(
        self,
        examples: Sequence[tuple[int, int]],
        *,
        num_matches: int = 100,
        min_distance: int = 8,
        on_rows: Callable[[int, npt.NDArray[np.float32]], None] | None = None,
        progress: bool = False,
    ) -> list[SimilarPlace]:
        """Find the cells that are most similar to examples.

        Args:
            examples: Row and column of each example.
            num_matches: See `query`.
            min_distance: See `query`.
            on_rows: Function that takes the first row and the `(rows, width)` similarities, NaN
                without data, of each block of rows, from the top. The array changes after the call.
            progress: Show a progress bar.

        Returns:
            Similar places, the most similar first; of equal ones, the first in the raster.

        Raises:
            ConfigError: As in `query`.
            DataError: As in `query`.
        """
        for name, value, least in (
            ("num_matches", num_matches, 1),
            ("min_distance", min_distance, 0),
        ):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}. Received: {name}={value}.")
        if not examples:
            raise ConfigError(
                "There is no example to search for. Expected a place (--like LON,LAT) or a cell "
                "(--window ROW,COL)."
            )
        vectors = self._vectors_of(examples)
        # Upper bound of the cells that a place excludes, so that enough candidates are kept.
        num_excluded = (2 * max(min_distance, 1) - 1) ** 2
        best = _Best((num_matches - 1) * num_excluded + 1, examples, max(min_distance, 1))
        height, width = self._embeddings.grid[:2]
        similarity = np.empty((ROWS_AT_A_TIME, width), np.float32)
        with (
            _threads() as map_cells,
            tqdm(total=height * width, desc="query", unit="px", disable=not progress) as bar,
        ):
            for row, stored in self._blocks():
                block = similarity[: stored.shape[1]]
                if self._lengths is None:
                    lengths = np.empty_like(block)
                    map_cells(self._measure, stored, lengths)
                else:
                    lengths = self._lengths[row : row + len(block)]
                compare = functools.partial(self._compare, vectors, best.least)
                found = map_cells(compare, stored, lengths, block)
                cells = np.concatenate([start + part for start, part in found])
                best.add(row, block, cells, functools.partial(self._nearest, vectors, stored))
                if on_rows is not None:
                    on_rows(row, block)
                bar.update(block.size)
        best.rank()
        chosen = spread_out(best.rows, best.cols, num_matches, min_distance)
        if not chosen:
            raise DataError(
                f"{self._embeddings.name} has no cell with data other than the examples and their "
                "neighbours. Choose a smaller min_distance (--min-distance)."
            )
        return [
            SimilarPlace(
                rank,
                int(best.rows[index]),
                int(best.cols[index]),
                int(best.examples[index]),
                float(best.similarity[index]),
            )
            for rank, index in enumerate(chosen, start=1)
        ]

    def _blocks(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield the first row and the stored vectors of some rows at a time, from the top."""
        for row, num_rows in row_blocks(self._embeddings.grid.height, ROWS_AT_A_TIME):
            yield row, self._embeddings.read(row, num_rows)

    def _measure(self, stored: npt.NDArray[Any], lengths: npt.NDArray[np.float32]) -> None:
        """Write the length of each vector, NaN where there is no data."""
        scales, offsets = self._scales, self._offsets
        for part, cells in _as_floats(stored):
            mixed = (2 * scales * offsets) @ cells + offsets @ offsets if offsets.any() else 0
            np.multiply(cells, cells, out=cells)
            squares = (scales * scales) @ cells + mixed
            lengths[part] = np.where(
                has_vector(stored[:, part]), np.sqrt(np.maximum(squares, 0)), np.nan
            )

    def _compare(
        self,
        vectors: npt.NDArray[np.float32],
        least: float,
        stored: npt.NDArray[Any],
        lengths: npt.NDArray[np.float32],
        similarity: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.intp]:
        """Write the similarity of each cell, and return the cells above a least similarity.

        Scales and offsets are applied to the few vectors rather than to all cells.

        Args:
            vectors: `(examples, num_features)`.
            least: Least similarity, or -inf to return no cell.
            stored: `(num_features, cells)` stored vectors.
            lengths: `(cells,)` lengths of the vectors, NaN without data.
            similarity: `(cells,)` output, NaN without data.
        """
        weights, constants = vectors * self._scales, vectors @ self._offsets
        dots = np.empty((len(vectors), stored.shape[1]), np.float32)
        for part, cells in _as_floats(stored):
            np.matmul(weights, cells, out=dots[:, part])
        if constants.any():
            dots += constants[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            dots /= lengths * np.linalg.norm(vectors, axis=1)[:, None]
            dots.max(axis=0, out=similarity)
            return np.flatnonzero(similarity > least if least > -np.inf else [])

    def _nearest(
        self,
        vectors: npt.NDArray[np.float32],
        stored: npt.NDArray[Any],
        cells: npt.NDArray[np.intp],
    ) -> npt.NDArray[np.intp]:
        """Return the index of the example that each of some cells of a block is most similar to."""
        if len(vectors) == 1:
            return np.zeros(len(cells), np.intp)
        own = dequantize(stored.reshape(len(stored), -1)[:, cells], self._scales, self._offsets)
        cosines = vectors @ own / np.linalg.norm(vectors, axis=1)[:, None]
        nearest: npt.NDArray[np.intp] = cosines.argmax(axis=0)
        return nearest

    def _vectors_of(self, examples: Sequence[tuple[int, int]]) -> npt.NDArray[np.float32]:
        stored = np.stack([self._embeddings.vector(row, col) for row, col in examples], axis=1)
        vectors = dequantize(stored, self._scales, self._offsets).T
        for (row, col), vector in zip(examples, vectors, strict=True):
            if not vector.any():
                raise DataError(
                    f"The vector of {self._embeddings.name} at row {row}, column {col} is 0 and "
                    "has no direction. Choose another cell."
                )
        return vectors


def _as_floats(
    stored: npt.NDArray[Any],
) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Yield some cells at a time, and their `(num_features, cells)` values in one buffer."""
    buffer = np.empty((len(stored), min(_CELLS_AT_A_TIME, stored.shape[1])), np.float32)
    for start in range(0, stored.shape[1], _CELLS_AT_A_TIME):
        part = slice(start, min(start + _CELLS_AT_A_TIME, stored.shape[1]))
        cells = buffer[:, : part.stop - start]
        np.copyto(cells, stored[:, part])
        yield part, cells


class _MapCells(Protocol):
    """Function that calls another one for parts of the cells of some rows, see `_threads`."""

    def __call__(
        self,
        function: Callable[..., Result],
        stored: npt.NDArray[Any],
        *others: npt.NDArray[np.float32],
    ) -> list[tuple[int, Result]]:
        """Return the first cell of each part, ascending, and the function's result.

        Args:
            function: Takes `(num_features, cells)` stored vectors, and `(cells,)` of each array.
            stored: `(num_features, rows, width)` stored vectors.
            *others: `(rows, width)` arrays.
        """
        ...


@contextlib.contextmanager
def _threads() -> Iterator[_MapCells]:
    """Provide a function that divides work between threads, each of one thread of BLAS."""
    with (
        threadpool_limits(1),
        concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):

        def map_cells(
            function: Callable[..., Result],
            stored: npt.NDArray[Any],
            *others: npt.NDArray[np.float32],
        ) -> list[tuple[int, Result]]:
            arrays = [one.reshape(*one.shape[:-2], -1) for one in (stored, *others)]
            starts = range(0, arrays[0].shape[-1], _CELLS_OF_A_TASK)
            tasks = [
                pool.submit(
                    function, *(one[..., start : start + _CELLS_OF_A_TASK] for one in arrays)
                )
                for start in starts
            ]
            return [(start, task.result()) for start, task in zip(starts, tasks, strict=True)]

        yield map_cells


class _Best:
    """The most similar cells of those added, except the neighbours of examples.

    Args:
        num_kept: Cells to keep.
        examples: Row and column of each example.
        min_distance: Minimum distance from the examples, in cells.

    Attributes:
        rows: `(cells,)` rows of the cells kept.
        cols: `(cells,)` columns.
        similarity: `(cells,)` similarities.
        examples: `(cells,)` index of each cell's example.
        least: Similarity above which a cell can be among the best; -inf while any can.
    """

    def __init__(self, num_kept: int, examples: Sequence[tuple[int, int]], min_distance: int):
        self._num_kept, self._examples, self._min_distance = num_kept, examples, min_distance
        self.similarity: npt.NDArray[np.float32] = np.empty(0, np.float32)
        self.rows: npt.NDArray[np.intp] = np.empty(0, np.intp)
        self.cols: npt.NDArray[np.intp] = np.empty(0, np.intp)
        self.examples: npt.NDArray[np.intp] = np.empty(0, np.intp)
        self.least = -np.inf

    def add(
        self,
        first_row: int,
        similarity: npt.NDArray[np.float32],
        cells: npt.NDArray[np.intp],
        nearest: Callable[[npt.NDArray[np.intp]], npt.NDArray[np.intp]],
    ) -> None:
        """Add cells from the top of the raster down.

        Args:
            first_row: First row.
            similarity: `(rows, width)`, NaN without data.
            cells: Indices of the cells above `least`, ascending; all count while it is -inf.
            nearest: Function that returns the example of each of some cells.
        """
        values = similarity.reshape(-1)
        if self.least == -np.inf:
            excluded = len(self._examples) * (2 * self._min_distance - 1) ** 2
            known = np.flatnonzero(values == values)  # faster than isnan
            cells = known[_largest(values[known], self._num_kept + excluded)]
        rows, cols = np.divmod(cells, similarity.shape[1])
        rows += first_row
        is_far = np.ones(len(rows), bool)
        for row, col in self._examples:
            is_far &= np.maximum(abs(rows - row), abs(cols - col)) >= self._min_distance
        cells = cells[is_far]
        merged = np.append(self.similarity, values[cells])
        kept = _largest(merged, self._num_kept)
        self.similarity = merged[kept]
        self.rows = np.append(self.rows, rows[is_far])[kept]
        self.cols = np.append(self.cols, cols[is_far])[kept]
        self.examples = np.append(self.examples, nearest(cells))[kept]
        if len(kept) == self._num_kept:
            self.least = float(self.similarity.min())

    def rank(self) -> None:
        """Sort the cells: the most similar first, and of equal ones, the first in the raster."""
        order = np.argsort(-self.similarity, kind="stable")
        self.similarity, self.rows = self.similarity[order], self.rows[order]
        self.cols, self.examples = self.cols[order], self.examples[order]


def _largest(values: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Return the indices of the largest values, ascending; of equal ones, the first.

    Args:
        values: `(values,)` without NaN.
        count: Number of indices; fewer values give all.
    """
    if len(values) <= count:
        return np.arange(len(values))
    least = np.partition(values, -count)[-count]
    larger, equal = np.flatnonzero(values > least), np.flatnonzero(values == least)
    return np.sort(np.append(larger, equal[: count - len(larger)]))


def _properties(place: SimilarPlace) -> dict[str, Any]:
    return {
        "rank": place.rank,
        "similarity": round(place.similarity, 6),
        "example": place.example,
    }
