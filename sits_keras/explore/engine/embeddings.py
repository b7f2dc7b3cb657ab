"""An embedding raster that the page searches."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.data.radiometry import with_opacity
from sits_keras.data.rasters.embeddings import open_embeddings
from sits_keras.data.rasters.rows import preview_step, thin
from sits_keras.data.tiling import Window
from sits_keras.explore.engine.sources import MAX_SHOWN
from sits_keras.tasks.pictures import PrincipalColours, fit_colours
from sits_keras.tasks.retrieval.embeddings import SimilaritySearch, SimilarPlace


class ShownPlaces(NamedTuple):
    """Places like a cell, with what the page shows of them.

    Attributes:
        places: Similar places, the most similar first.
        similarity: Every `preview_step`th row and column of the similarities, `(rows, columns)`
            float32, NaN without data.
    """

    places: list[SimilarPlace]
    similarity: npt.NDArray[np.float32]


class ExploredEmbeddings:
    """Embeddings that are shown by their principal components, and searched by similarity.

    Any thread may call the methods. The embeddings are loaded at the first question.

    Args:
        path: Path as `open_embeddings` takes it.

    Attributes:
        path: Path of the embeddings.
        grid: Grid of the cells.

    Raises:
        SitsKerasError: As `open_embeddings` raises it.
    """

    is_slow = False

    def __init__(self, path: Path):
        self.path, self._embeddings = path, open_embeddings(path)
        self.grid = self._embeddings.grid
        self._lock = threading.Lock()
        self._colours: PrincipalColours | None = None
        self._search: SimilaritySearch | None = None

    def picture(
        self, window: Window | None = None, max_side: int = MAX_SHOWN
    ) -> npt.NDArray[np.uint8]:
        """Return a part as a picture of the first three principal components of the whole.

        Args:
            window: Part to show. By default the whole raster.
            max_side: Maximum number of rows or columns of the picture.

        Returns:
            `(rows, columns, 4)` uint8: red, green, blue and opacity, which is 0 for no data.
        """
        with self._lock:
            if self._colours is None:
                self._colours, _ = fit_colours(self._embeddings)
        vectors = self._embeddings.thinned(max_side, window)
        return with_opacity(self._colours(vectors), np.isfinite(vectors[..., 0]))

    def find(
        self,
        cell: tuple[int, int],
        num_matches: int,
        min_distance: int,
        on_progress: Callable[[str], None],
    ) -> ShownPlaces:
        """Find the cells that are most similar to one, as `tasks.query` does.

        Args:
            cell: Row and column.
            num_matches: Maximum number of places.
            min_distance: Minimum distance between places, and from the cell, in cells.
            on_progress: Function that receives the progress.

        Raises:
            DataError: The cell has no data, or no place is left.
        """
        with self._lock:
            if self._search is None:
                on_progress(f"Loading {self.path.name}")
                self._search = SimilaritySearch(self._embeddings.load())
            step = preview_step(*self.grid[:2])
            shown: list[npt.NDArray[np.float32]] = []
            places = self._search.find(
                [cell],
                num_matches=num_matches,
                min_distance=min_distance,
                on_rows=lambda row, values: shown.append(thin([(row, values)], step).copy()),
            )
        return ShownPlaces(places, np.concatenate(shown))
