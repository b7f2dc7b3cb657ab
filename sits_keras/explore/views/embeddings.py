"""The Embeddings view: the places of an embedding raster that are most similar to a cell."""

from typing import Any

import numpy as np
from bokeh.models import Div, LinearColorMapper, Spinner
from bokeh.palettes import Viridis256

from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError
from sits_keras.explore.engine.analysis import map_position
from sits_keras.explore.engine.calls import TaskCall, query_call
from sits_keras.explore.engine.embeddings import ShownPlaces
from sits_keras.explore.views.session import Session, View
from sits_keras.explore.views.widgets import (
    QUERY,
    SHARED,
    ExportPanel,
    RasterFigure,
    clear,
    fill,
    paragraph,
    slider,
    stacked,
    table,
    wrapped,
)

_MIN_DISTANCE = 8  # cells, as of the command
_MARK = 2  # cells around a place that its box shows
_HELP = (
    "Click in the left image, the first three principal components of the embeddings. The right "
    "image shows the similarity of every cell to that cell, the cosine of the angle between their "
    "vectors, with boxes around the most similar places."
)


class EmbeddingsView(View):
    """Search of an embedding raster by similarity.

    Args:
        session: Session of the page.
    """

    label = "Embeddings"
    needs_place = False

    def __init__(self, session: Session):
        super().__init__(session)
        embeddings = session.explorer.embeddings
        if embeddings is None:
            raise ConfigError("No embeddings are explored. Pass some (--embeddings).")
        self._embeddings = embeddings
        height, width = embeddings.grid[:2]
        self._row, self._col = (
            Spinner(title=f"{name} of the cell", low=0, high=side - 1, value=side // 2, width=160)
            for name, side in (("Row", height), ("Column", width))
        )
        self._matches = Spinner(title="Places", low=1, high=100, step=1, value=10, width=120)
        self._opacity = slider("Opacity", start=0, end=1, step=0.05, value=1, width=240)
        self._query = RasterFigure(session, "components", self._tap)
        self._found = RasterFigure(session, "similarity")
        self._palette = LinearColorMapper(
            palette=list(Viridis256), low=-1, high=1, nan_color="#00000000"
        )
        self._layer, renderer = self._found.layer(1, color_mapper=self._palette)
        self._opacity.js_link("value", renderer.glyph, "global_alpha")
        self._show_query = self._query.boxes(QUERY)
        self._show_places = self._found.boxes(SHARED)
        self._table = Div(text="", name="similar places")
        self._export = ExportPanel(session, "embeddings", self._describe)
        self._is_shown = True
        for control in (self._row, self._col, self._matches):
            control.on_change("value", self._change)
        self.root = stacked(
            Div(text=paragraph(_HELP)),
            wrapped(self._row, self._col, self._matches, self._opacity),
            wrapped(self._query.figure, self._found.figure, self._table),
            self._export.root,
        )
        self._query.show(embeddings, embeddings.path.name)
        self._found.show(embeddings, "similarity")
        self._update()

    @property
    def _cell(self) -> tuple[int, int]:
        return int(self._row.value or 0), int(self._col.value or 0)

    def _tap(self, x: float, y: float) -> None:
        height, width = self._embeddings.grid[:2]
        row, col = int(np.floor(y)), int(np.floor(x))
        if 0 <= row < height and 0 <= col < width:
            self._is_shown = False
            self._row.value, self._col.value = row, col
            self._is_shown = True
            self._update()

    def _change(self, attr: str, old: Any, new: Any) -> None:
        if self._is_shown:
            self._update()

    def _update(self) -> None:
        cell, count = self._cell, int(self._matches.value or 1)
        self._show_query([_around(*cell)])
        self._show_places([])
        clear(self._layer)
        self._table.text = ""
        self._export.show()
        self._session.work(
            "similar places",
            lambda on_progress: self._embeddings.find(cell, count, _MIN_DISTANCE, on_progress),
            self._show,
        )

    def _show(self, found: ShownPlaces) -> None:
        low, high = np.nanpercentile(found.similarity, (2, 100))
        self._palette.update(low=float(low), high=float(high))
        fill(self._layer, found.similarity, Window(0, 0, *self._embeddings.grid[:2]))
        self._show_places(
            [_around(place.row, place.col) for place in found.places],
            [str(place.rank) for place in found.places],
        )
        row, col = self._cell
        rows = [(p.rank, f"{p.similarity:.3f}", f"{p.row}, {p.col}") for p in found.places]
        caption = f"Places like row {row}, column {col}"
        self._table.text = table(caption, ["Rank", "Similarity", "row, col"], rows)
        position = map_position(row, col, self._embeddings.grid, side=1)
        self._session.show_status(
            f"Searched for row {row}, column {col}"
            + (f"; its centre is at {position}." if position else ".")
        )

    def _describe(self) -> TaskCall:
        return query_call(
            self._session.explorer.model,
            self._embeddings.path,
            cell=self._cell,
            num_matches=int(self._matches.value or 1),
            min_distance=_MIN_DISTANCE,
        )


def _around(row: int, col: int) -> Window:
    return Window(row - _MARK, col - _MARK, 2 * _MARK + 1, 2 * _MARK + 1)
