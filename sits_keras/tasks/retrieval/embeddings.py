"""Find the places of an embedding raster that are most similar to examples, by an exact search."""

import concurrent.futures
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from sits_keras.data.rasters.embeddings import (
    ROWS_AT_A_TIME,
    Embeddings,
    dequantize,
    has_data,
    open_embeddings,
)
from sits_keras.data.rasters.rows import preview_step, thin
from sits_keras.data.rasters.write import open_map, write_boxes
from sits_keras.data.tiling import Window, row_blocks
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import check_suffix, refuse_existing
from sits_keras.tasks.pictures import (
    apply_colormap,
    check_picture,
    fit_colours,
    plot_boxes,
)
from sits_keras.tasks.retrieval.search import spread_out

_CELLS_OF_A_TASK = 2**16
_CELLS_AT_A_TIME = 2**12  # their vectors as floats fit into a processor's cache


class SimilarPlace(NamedTuple):
    """A cell that was found.

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


class Answer(NamedTuple):
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
) -> Answer:
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
    return Answer(examples, places)


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
            no_vectors = np.zeros((0, embeddings.num_features), np.float32)
            self._lengths = np.concatenate([lengths for _, _, lengths in self._blocks(no_vectors)])

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
        lengths_of_examples = np.linalg.norm(vectors, axis=1)[:, None, None]
        # Upper bound of the cells that a place excludes, so that enough candidates are kept.
        num_excluded = (2 * max(min_distance, 1) - 1) ** 2
        best = _Best((num_matches - 1) * num_excluded + 1)
        height, width = self._embeddings.grid[:2]
        with tqdm(total=height * width, desc="query", unit="px", disable=not progress) as bar:
            for row, dots, lengths in self._blocks(vectors):
                with np.errstate(invalid="ignore", divide="ignore"):
                    dots /= lengths * lengths_of_examples
                which = None if len(examples) == 1 else dots.argmax(axis=0)
                similarity = dots[0] if len(examples) == 1 else dots.max(axis=0)
                if on_rows is not None:
                    on_rows(row, similarity)
                _exclude(similarity, row, examples, max(min_distance, 1))
                best.add(row, similarity, which)
                bar.update(similarity.size)
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

    def _blocks(
        self, vectors: npt.NDArray[np.float32]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Yield products with vectors and lengths of some rows at a time.

        Args:
            vectors: `(examples, num_features)`.

        Yields:
            First row, `(examples, rows, width)` scalar products, and `(rows, width)` lengths,
            NaN where there is no data.
        """
        height, width = self._embeddings.grid[:2]
        num_threads = os.cpu_count() or 1
        with (
            threadpool_limits(1),
            concurrent.futures.ThreadPoolExecutor(num_threads) as pool,
        ):
            for row, num_rows in row_blocks(height, ROWS_AT_A_TIME):
                stored = self._embeddings.read(row, num_rows)
                flat = stored.reshape(len(stored), -1)
                dots = np.empty((len(vectors), flat.shape[1]), np.float32)
                if self._lengths is None:
                    known, lengths = None, np.empty(flat.shape[1], np.float32)
                else:
                    known = lengths = self._lengths[row : row + num_rows].reshape(-1)
                starts = range(0, flat.shape[1], _CELLS_OF_A_TASK)
                tasks = [slice(start, start + _CELLS_OF_A_TASK) for start in starts]
                for done in [
                    pool.submit(
                        self._multiply,
                        flat[:, part],
                        vectors,
                        dots[:, part],
                        lengths[part] if known is None else None,
                    )
                    for part in tasks
                ]:
                    done.result()
                yield row, dots.reshape(-1, num_rows, width), lengths.reshape(num_rows, width)

    def _multiply(
        self,
        stored: npt.NDArray[Any],
        vectors: npt.NDArray[np.float32],
        dots: npt.NDArray[np.float32],
        lengths: npt.NDArray[np.float32] | None,
    ) -> None:
        """Write the scalar products and, if asked for, the lengths of some cells.

        Scales and offsets are applied to the few vectors rather than to all cells.
        """
        scales, offsets = self._scales, self._offsets
        weights = np.concatenate([vectors * scales, [2 * scales * offsets]])
        constants = np.append(vectors @ offsets, offsets @ offsets)
        values = np.empty((len(stored), min(_CELLS_AT_A_TIME, stored.shape[1])), np.float32)
        for start in range(0, stored.shape[1], _CELLS_AT_A_TIME):
            part = slice(start, min(start + _CELLS_AT_A_TIME, stored.shape[1]))
            cells = values[:, : part.stop - part.start]
            np.copyto(cells, stored[:, part])
            if lengths is None:
                np.matmul(weights[:-1], cells, out=dots[:, part])
                dots[:, part] += constants[:-1, None]
                continue
            products = weights @ cells + constants[:, None]
            dots[:, part] = products[:-1]
            np.multiply(cells, cells, out=cells)
            squares = (scales * scales) @ cells + products[-1]
            lengths[part] = np.where(
                has_data(stored[:, part]), np.sqrt(np.maximum(squares, 0)), np.nan
            )

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


class _Best:
    """The most similar cells of those added, in the order of their similarity."""

    def __init__(self, num_kept: int):
        self._num_kept = num_kept
        self.similarity: npt.NDArray[np.float32] = np.empty(0, np.float32)
        self.rows: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self.cols: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self.examples: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def add(
        self,
        row: int,
        similarity: npt.NDArray[np.float32],
        examples: npt.NDArray[np.integer] | None,
    ) -> None:
        """Add cells from the top of the raster down.

        Args:
            row: First row.
            similarity: `(rows, width)`, NaN for cells that are left out.
            examples: `(rows, width)` index of each cell's example, None if there is one.
        """
        flat = similarity.reshape(-1)
        is_full = len(self.similarity) == self._num_kept
        # Of equal cells, the first in the raster is kept: those added later must be more similar.
        with np.errstate(invalid="ignore"):
            found = np.flatnonzero(flat > self.similarity[-1] if is_full else flat >= -np.inf)
        if len(found) > 4 * self._num_kept:
            # Equal ones are all kept here, for the order to decide.
            least = np.partition(flat[found], -self._num_kept)[-self._num_kept]
            found = found[flat[found] >= least]
        new_examples = found * 0 if examples is None else examples.reshape(-1)[found]
        merged = np.append(self.similarity, flat[found])
        order = np.argsort(-merged, kind="stable")[: self._num_kept]
        self.similarity = merged[order]
        self.rows = np.append(self.rows, row + found // similarity.shape[1])[order]
        self.cols = np.append(self.cols, found % similarity.shape[1])[order]
        self.examples = np.append(self.examples, new_examples)[order]


def _exclude(
    similarity: npt.NDArray[np.float32],
    row: int,
    examples: Sequence[tuple[int, int]],
    min_distance: int,
) -> None:
    """Set the similarity to NaN near examples."""
    for example_row, example_col in examples:
        first, last = example_row - min_distance + 1 - row, example_row + min_distance - row
        left, right = example_col - min_distance + 1, example_col + min_distance
        similarity[max(first, 0) : max(last, 0), max(left, 0) : max(right, 0)] = np.nan


def _properties(place: SimilarPlace) -> dict[str, Any]:
    return {
        "rank": place.rank,
        "similarity": round(place.similarity, 6),
        "example": place.example,
    }
