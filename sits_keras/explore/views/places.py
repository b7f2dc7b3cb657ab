"""The Places view: a window found in another date or raster, by features and by raw pixels."""

import itertools
import math
from collections.abc import Iterator

from bokeh.models import Div, Select, Spinner

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.rasters.read import Grid, same_grid
from sits_keras.data.tiling import Window
from sits_keras.explore.engine.analysis import map_position
from sits_keras.explore.engine.calls import TaskCall, retrieval_call
from sits_keras.explore.engine.explorer import MAX_READ, OnProgress
from sits_keras.explore.engine.sources import DatedRaster, ExploredImage
from sits_keras.explore.views.session import Session, View
from sits_keras.explore.views.widgets import (
    PIXELS,
    QUERY,
    SHARED,
    DateSlider,
    ExportPanel,
    RasterFigure,
    WindowInput,
    paragraph,
    stacked,
    table,
    wrapped,
)
from sits_keras.tasks.retrieval.search import NEAR, Match

_MIN_DISTANCE = IMAGE_SIZE // 2
_HELP = (
    "Click in the left image. The window of 64 x 64 px around the click is found in the other "
    "image by the distance of shared features and by the distance of raw pixels. The dashed box "
    "is its true position, if both images show one place. For the mean of a series, features and "
    "pixels of a window are averaged over its clear dates."
)

NearestMatches = tuple[DatedRaster, Match | None, Match | None]
"""A date, and its nearest match by features and by pixels."""


class PlacesView(View):
    """Retrieval of a window by features and by raw pixels.

    Args:
        session: Session of the page.
    """

    label, needs = "Places", "shared"

    def __init__(self, session: Session):
        super().__init__(session)
        self._images = {
            f"{image.place}: {image.label}": image
            for place in self._explorer.places
            for image in place.shown
        }
        place = session.place
        self._date = DateSlider("Date of the window", place.shown, 0, self._update)
        first = [name for name, image in self._images.items() if image.place == place.name]
        options = first + [name for name in self._images if name not in first]
        self._target = Select(
            title="Search in", width=320, options=options, value=options[len(first) > 1]
        )
        self._matches = Spinner(title="Matches", low=1, high=9, step=1, value=5, width=120)
        self._input = WindowInput(session, self._update)
        self._query = RasterFigure(session, "query", self._input.tap)
        self._by_shared = RasterFigure(session, "shared")
        self._by_pixels = RasterFigure(session, "pixels")
        self._show_query = self._query.boxes(QUERY)
        self._show_own = [
            raster.boxes(QUERY, dashed=True) for raster in (self._by_shared, self._by_pixels)
        ]
        self._show_boxes = {
            "shared": self._by_shared.boxes(SHARED),
            "pixels": self._by_pixels.boxes(PIXELS),
        }
        self._table = Div(text="", name="matches")
        self._dates = Div(text="", name="dates")
        self._found: dict[str, list[Match]] = {"shared": [], "pixels": []}
        self._export = ExportPanel(session, "places", self._describe)
        for control in (self._target, self._matches):
            control.on_change("value", lambda attr, old, new: self._update())
        self.root = stacked(
            Div(text=paragraph(_HELP)),
            wrapped(self._date.widget, self._target, self._matches),
            wrapped(self._input.row, self._input.col),
            wrapped(
                self._query.figure,
                self._by_shared.figure,
                self._by_pixels.figure,
                self._table,
                self._dates,
            ),
            self._export.root,
        )
        self._update()

    def resume(self) -> None:
        """Show the session's window, which another view may have moved."""
        self._update()

    def _update(self) -> None:
        query, searched = self._date.image, self._images[self._target.value]
        self._input.show()
        self._query.show(self._explorer.raster(query), f"Window of {query.label}")
        for figure, how in ((self._by_shared, "shared features"), (self._by_pixels, "raw pixels")):
            figure.show(self._explorer.raster(searched), f"{searched.label}, by {how}")
        window = Window(*self._session.at, IMAGE_SIZE, IMAGE_SIZE)
        self._show_query([window])
        is_one_place = same_grid(self._grid(query), self._grid(searched))
        for show in self._show_own:
            show([window] if is_one_place else [])
        self._export.show()
        for show in self._show_boxes.values():
            show([])
        self._found = {"shared": [], "pixels": []}
        if self._explorer.known_vectors(searched) is None:
            self._session.work(
                "vectors",
                lambda on_progress: self._explorer.vectors(searched, on_progress),
                lambda _: self._search(query, searched),
            )
        else:
            self._search(query, searched)

    def _search(self, query: ExploredImage, searched: ExploredImage) -> None:
        asked = (query, self._session.at, searched, int(self._matches.value or 1), _MIN_DISTANCE)
        try:
            self._show("shared", self._explorer.find_by_features(*asked))
        except Exception as error:  # as in background work
            self._session.show_error(error)
            return
        row, col = self._session.at
        position = map_position(row, col, self._session.place.grid)
        self._session.show_status(
            f"Searched for row {row}, column {col} of {query.label}"
            + (f"; its centre is at {position}." if position else ".")
        )
        self._session.work(
            "pixels",
            lambda on_progress: self._explorer.find_by_pixels(*asked),
            lambda found: self._show("pixels", found),
        )
        self._rows: list[NearestMatches] = []
        self._session.work_through(
            "dates",
            lambda on_progress: self._each_date(query, asked[1], on_progress),
            self._add_date,
        )

    def _each_date(
        self, query: ExploredImage, at: tuple[int, int], on_progress: OnProgress
    ) -> Iterator[NearestMatches]:
        """Yield the nearest window in every other date of the place."""
        for image in self._session.place.images:
            if image != query:
                self._explorer.vectors(image, on_progress)
                asked = (query, at, image, 1, _MIN_DISTANCE)
                shared = self._explorer.find_by_features(*asked)
                pixels = self._explorer.find_by_pixels(*asked)
                yield image, next(iter(shared), None), next(iter(pixels), None)

    def _show(self, how: str, found: list[Match]) -> None:
        self._show_boxes[how](
            [match.window for match in found],
            [f"{match.rank}: {match.distance:.4g}" for match in found],
        )
        self._found[how] = found
        rows = []
        for shared, pixels in itertools.zip_longest(self._found["shared"], self._found["pixels"]):
            rows.append([(shared or pixels).rank, *self._cells(shared), *self._cells(pixels)])
        caption = f"Matches in {self._target.value}"
        if not self._explorer.raster(self._images[self._target.value]).is_small:
            caption += f"; by raw pixels, among the {MAX_READ} windows nearest by means of 8 x 8 px"
        header = ["Rank", "Shared: distance", "row, col", "Pixels: distance", "row, col"]
        self._table.text = table(caption, header, rows)

    def _cells(self, match: Match | None) -> list[str]:
        if match is None:
            return ["-", "-"]
        return [f"{match.distance:.4g}", f"{match.window.row}, {match.window.col}"]

    def _add_date(self, found: NearestMatches) -> None:
        self._rows.append(found)
        rows, near = [], [0, 0]
        for image, *matches in self._rows:
            cells = []
            for index, match in enumerate(matches):
                if match is None:
                    cells.append("no data")
                    continue
                error = math.dist(match.window[:2], self._session.at)
                near[index] += error <= NEAR
                cells.append(f"{error:.0f} px")
            rows.append([image.label, *cells])
        total = len(self._rows)
        caption = (
            f"Position error of the nearest window in each other date. Within {NEAR} px: by shared "
            f"features {near[0]} of {total}, by raw pixels {near[1]} of {total}"
        )
        self._dates.text = table(caption, ["Date", "Shared features", "Raw pixels"], rows)

    def _describe(self) -> TaskCall:
        searched = self._images[self._target.value]
        return retrieval_call(
            self._explorer.model,
            self._date.image.path,
            searched.path,
            at=self._session.at,
            num_matches=int(self._matches.value or 1),
            min_distance=_MIN_DISTANCE,
            stride=self._explorer.stride_of(searched),
        )

    def _grid(self, image: ExploredImage) -> Grid:
        return self._explorer.raster(image).grid
