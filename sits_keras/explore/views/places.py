"""A window looked up in another date or raster: by shared features, and by raw pixels beside."""

import itertools
import math
from collections.abc import Iterator

from bokeh.models import Div, LayoutDOM, Select, Spinner

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.tiling import Window
from sits_keras.explore.engine.explorer import MOST_READ, Tell
from sits_keras.explore.engine.exports import Lookup
from sits_keras.explore.engine.sources import Image
from sits_keras.explore.engine.state import map_place
from sits_keras.explore.views.html import paragraph, table
from sits_keras.explore.views.session import Session
from sits_keras.explore.views.widgets import (
    PIXELS,
    QUERY,
    SHARED,
    DateSlider,
    ExportPanel,
    PlaceInput,
    RasterFigure,
    stacked,
    wrapped,
)
from sits_keras.tasks.retrieval.search import Match
from sits_keras.tasks.retrieval.table_2 import NEAR

_APART = IMAGE_SIZE // 2
_HELP = (
    "Click anywhere in the left image: the window of 64 x 64 px there is looked up in the other "
    "one, by the distance of its shared features and by that of its raw pixels. Dashed: where it "
    "really lies, if both show one place."
)

Row = tuple[Image, Match | None, Match | None]


class PlacesView:
    """Looks a window up."""

    label, needs = "Places", "shared"

    def __init__(self, session: Session):
        self._session, self._explorer = session, session.explorer
        self._images = {
            f"{one.place}: {one.label}": one for place in self._explorer.places for one in place[1]
        }
        place = session.place
        self._date = DateSlider("Date of the window", place.images, 0, self._choose)
        first = [name for name, one in self._images.items() if one.place == place.name]
        options = first + [name for name in self._images if name not in first]
        self._target = Select(
            title="Look it up in", width=320, options=options, value=options[len(first) > 1]
        )
        self._matches = Spinner(title="Finds to show", low=1, high=9, step=1, value=5, width=120)
        self._input = PlaceInput(session, self._choose)
        self._query = RasterFigure(session, "query", self._input.tap)
        self._by_shared = RasterFigure(session, "shared")
        self._by_pixels = RasterFigure(session, "pixels")
        self._draw_query = self._query.boxes(QUERY)
        self._draw_own = [
            one.boxes(QUERY, dashed=True) for one in (self._by_shared, self._by_pixels)
        ]
        self._draw_shared = self._by_shared.boxes(SHARED)
        self._draw_pixels = self._by_pixels.boxes(PIXELS)
        self._finds = Div(text="", name="finds")
        self._dates = Div(text="", name="dates")
        self._found: dict[str, list[Match]] = {"shared": [], "pixels": []}
        self._export = ExportPanel(session, "places", self._request)
        for one in (self._target, self._matches):
            one.on_change("value", lambda attr, old, new: self._choose())
        self.root: LayoutDOM = stacked(
            Div(text=paragraph(_HELP)),
            wrapped(self._date.widget, self._target, self._matches),
            wrapped(self._input.row, self._input.col),
            wrapped(
                self._query.figure,
                self._by_shared.figure,
                self._by_pixels.figure,
                self._finds,
                self._dates,
            ),
            self._export.root,
        )
        self._choose()

    def resume(self) -> None:
        """Shows the session's window, which may have been moved in another view."""
        self._choose()

    def _choose(self) -> None:
        queried, searched = self._date.image, self._images[self._target.value]
        self._input.show()
        self._query.show(self._explorer.raster(queried), f"Window of {queried.label}")
        for figure, how in ((self._by_shared, "shared features"), (self._by_pixels, "raw pixels")):
            figure.show(self._explorer.raster(searched), f"{searched.label}, by {how}")
        window = Window(*self._session.at, IMAGE_SIZE, IMAGE_SIZE)
        self._draw_query([window])
        is_one_place = self._grid(queried) == self._grid(searched)
        for draw in self._draw_own:
            draw([window] if is_one_place else [])
        self._export.show()
        self._draw_shared([])
        self._draw_pixels([])
        self._found = {"shared": [], "pixels": []}
        if self._explorer.known(searched) is None:
            self._session.work(
                "vectors",
                lambda tell: self._explorer.vectors(searched, tell),
                lambda _: self._look_up(queried, searched),
            )
        else:
            self._look_up(queried, searched)

    def _look_up(self, queried: Image, searched: Image) -> None:
        asked = (queried, self._session.at, searched, int(self._matches.value or 1), _APART)
        try:
            self._show("shared", self._explorer.look_up(*asked))
        except Exception as error:  # as in work that goes on beside
            self._session.fails(error)
            return
        row, col = self._session.at
        there = map_place(row, col, self._session.place.grid)
        self._session.say(
            f"Looked up row {row}, column {col} of {queried.label}"
            + (f"; its middle is at {there}." if there else ".")
        )
        self._session.work(
            "pixels",
            lambda tell: self._explorer.look_up_pixels(*asked),
            lambda found: self._show("pixels", found),
        )
        self._rows: list[Row] = []
        self._session.work_through(
            "dates", lambda tell: self._each_date(queried, asked[1], tell), self._add_date
        )

    def _each_date(self, queried: Image, at: tuple[int, int], tell: Tell) -> Iterator[Row]:
        """The nearest window in every other date of the place."""
        for image in self._session.place.images:
            if image != queried:
                self._explorer.vectors(image, tell)
                asked = (queried, at, image, 1, _APART)
                nearest = self._explorer.look_up(*asked), self._explorer.look_up_pixels(*asked)
                one, other = (next(iter(matches), None) for matches in nearest)
                yield image, one, other

    def _show(self, how: str, found: list[Match]) -> None:
        draw = self._draw_shared if how == "shared" else self._draw_pixels
        draw(
            [match.window for match in found],
            [f"{match.rank}: {match.distance:.4g}" for match in found],
        )
        self._found[how] = found
        rows = []
        for one, other in itertools.zip_longest(self._found["shared"], self._found["pixels"]):
            rows.append([(one or other).rank, *self._cells(one), *self._cells(other)])
        caption = f"Found in {self._target.value}"
        if not self._explorer.raster(self._images[self._target.value]).is_small:
            caption += (
                f"; by raw pixels, of the {MOST_READ} windows that are nearest by means of 8 x 8 px"
            )
        header = ["Rank", "Shared: distance", "row, col", "Pixels: distance", "row, col"]
        self._finds.text = table(caption, header, rows)

    def _cells(self, match: Match | None) -> list[str]:
        if match is None:
            return ["-", "-"]
        return [f"{match.distance:.4g}", f"{match.window.row}, {match.window.col}"]

    def _add_date(self, found: Row) -> None:
        self._rows.append(found)
        rows, near = [], [0, 0]
        for image, *matches in self._rows:
            cells = []
            for index, match in enumerate(matches):
                off = math.inf if match is None else math.dist(match.window[:2], self._session.at)
                near[index] += off <= NEAR
                cells.append("no data" if match is None else f"{off:.0f} px off")
            rows.append([image.label, *cells])
        total = len(self._rows)
        caption = (
            f"The nearest window of each other date, within {NEAR} px of its own place: by shared "
            f"features {near[0]} of {total}, by raw pixels {near[1]} of {total}"
        )
        self._dates.text = table(caption, ["Date", "Shared features", "Raw pixels"], rows)

    def _request(self) -> Lookup:
        searched = self._images[self._target.value]
        return Lookup(
            self._explorer.subject,
            self._date.image.path,
            searched.path,
            self._session.at,
            int(self._matches.value or 1),
            _APART,
            self._explorer.stride_of(searched),
        )

    def _grid(self, image: Image) -> object:
        return self._explorer.raster(image).grid
