"""A raster as a figure: its picture, read again where one zooms in, and boxes on it."""

from collections.abc import Callable, Sequence

import numpy as np
from bokeh.events import RangesUpdate, Tap
from bokeh.models import ColumnDataSource, GlyphRenderer, Range1d
from bokeh.plotting import figure

from sits_keras.data.rasters.read import Grid
from sits_keras.data.tiling import Window
from sits_keras.explore.engine.rasters import MOST_SHOWN, Raster
from sits_keras.explore.views.session import Session

QUERY = "#ffffff"
SHARED = "#56b4e9"  # Okabe and Ito's, which colour-blind people tell apart
PIXELS = "#e69f00"

_LARGEST = (360, 400)  # width and height of the frame on the page, px
_SMALLEST = 280
_SIDES = ("left", "right", "top", "bottom")


DrawBoxes = Callable[..., None]
"""Given windows, and labels of all of them or of none."""


class RasterFigure:
    """A raster on the page, rows down and columns to the right, in pixels.

    Args:
        session: of the page; the frame is of the shape of its place.
        name: by which the figure is found, and its work told from others'.
        on_tap: given column and row of a point that is clicked.
    """

    def __init__(
        self, session: Session, name: str, on_tap: Callable[[float, float], None] | None = None
    ):
        self._session, self._name = session, name
        self._raster: Raster | None = None
        grid = session.place.grid
        scale = min(_LARGEST[0] / grid.width, _LARGEST[1] / grid.height)
        self.figure = figure(
            name=name,
            title="",
            frame_width=max(_SMALLEST, round(grid.width * scale)),
            frame_height=max(_SMALLEST, round(grid.height * scale)),
            tools="pan,box_zoom,wheel_zoom,reset",
            x_range=Range1d(0, 1),
            y_range=Range1d(1, 0),
            x_axis_label="column, px",
            y_axis_label="row, px",
            background_fill_color="#eeeeee",
            toolbar_location="below",
            html_attributes={"role": "group", "aria-label": f"image: {name}"},
        )
        self.figure.toolbar.logo = None
        self.figure.grid.visible = False
        self._picture = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []})
        self.figure.image_rgba("image", x="x", y="y", dw="dw", dh="dh", source=self._picture)
        self.figure.on_event(RangesUpdate, self._zoom)
        if on_tap is not None:
            self.figure.on_event(Tap, lambda event: on_tap(event.x, event.y))

    def show(self, raster: Raster, title: str) -> None:
        """Shows a raster, all of it where it has another grid than the one before."""
        self.figure.title.text = title
        if raster is self._raster:
            return
        if self._raster is None or self._raster.grid != raster.grid:
            self._fit(raster.grid)
        self._raster = raster
        self._read(raster, self._visible(raster))

    def layer(self, opacity: float, **options: object) -> tuple[ColumnDataSource, GlyphRenderer]:
        """An image over the raster's own, to be filled by `fill`; options as of `figure.image`."""
        source = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []})
        drawn = self.figure.image(
            "image", x="x", y="y", dw="dw", dh="dh", source=source, global_alpha=opacity, **options
        )
        return source, drawn

    def boxes(self, colour: str, dashed: bool = False) -> DrawBoxes:
        """A function that draws windows, with a label each where they have one."""
        source = ColumnDataSource({name: [] for name in _SIDES})
        labels = ColumnDataSource({"x": [], "y": [], "text": []})
        sides = {name: name for name in _SIDES}
        style = {"line_dash": "dashed"} if dashed else {}
        for line, width in (("#000000", 5), (colour, 2.5)):
            self.figure.quad(
                **sides, source=source, fill_alpha=0, line_color=line, line_width=width, **style
            )
        self.figure.text(
            source=labels,
            x_offset=4,
            y_offset=3,
            text_baseline="top",
            text_color="#000000",
            text_font_size="12px",
            text_font_style="bold",
            background_fill_color=colour,
            padding=2,
        )

        def draw(windows: Sequence[Window], texts: Sequence[str] = ()) -> None:
            drawn = windows[::-1]  # the first one above the others
            source.data = {
                "left": [one.col for one in drawn],
                "right": [one.col + one.width for one in drawn],
                "top": [one.row for one in drawn],
                "bottom": [one.row + one.height for one in drawn],
            }
            labelled = drawn if texts else []
            labels.data = {
                "x": [one.col for one in labelled],
                "y": [one.row for one in labelled],
                "text": list(texts[::-1]),
            }

        return draw

    def _fit(self, grid: Grid) -> None:
        """Shows all of a grid, in the middle, its pixels square."""
        width, height = self.figure.frame_width, self.figure.frame_height
        side = max(grid.width / width, grid.height / height)  # of a screen's pixel
        x, y = (side * width - grid.width) / 2, (side * height - grid.height) / 2
        left, right, top, bottom = -x, grid.width + x, -y, grid.height + y
        self.figure.x_range.update(start=left, end=right, reset_start=left, reset_end=right)
        self.figure.y_range.update(start=bottom, end=top, reset_start=bottom, reset_end=top)

    def _visible(self, raster: Raster) -> Window:
        x, y = self.figure.x_range, self.figure.y_range
        return visible_window(x.start, x.end, y.end, y.start, raster.grid)

    def _zoom(self, event: RangesUpdate) -> None:
        raster = self._raster
        if raster is not None and max(raster.grid[:2]) > MOST_SHOWN:
            part = visible_window(event.x0, event.x1, event.y1, event.y0, raster.grid)
            self._read(raster, part)

    def _read(self, raster: Raster, part: Window) -> None:
        if max(raster.grid[:2]) <= MOST_SHOWN:
            # Small enough to be read at once, and to be there whole whatever is visible.
            part = Window(0, 0, raster.grid.height, raster.grid.width)
            fill(self._picture, packed(raster.picture()), part)
            return
        self._session.work(
            f"picture {self._name}",
            lambda tell: packed(raster.picture(part)),
            lambda picture: fill(self._picture, picture, part),
        )


def visible_window(left: float, right: float, top: float, bottom: float, grid: Grid) -> Window:
    """The part of a raster within a frame, at least a pixel."""
    top, bottom = sorted((top, bottom))
    row = int(np.clip(np.floor(top), 0, grid.height - 1))
    col = int(np.clip(np.floor(left), 0, grid.width - 1))
    stop_row = int(np.clip(np.ceil(bottom), row + 1, grid.height))
    stop_col = int(np.clip(np.ceil(right), col + 1, grid.width))
    return Window(row, col, stop_row - row, stop_col - col)


def packed(picture: np.ndarray) -> np.ndarray:
    """`(rows, columns, 4)` uint8 as Bokeh takes it, `(rows, columns)` uint32."""
    return np.ascontiguousarray(picture).view("<u4")[..., 0]


def clear(source: ColumnDataSource) -> None:
    """Takes what a source holds out of it."""
    source.data = {name: [] for name in source.data}


def fill(source: ColumnDataSource, image: np.ndarray, part: Window) -> None:
    """Puts an image where a part of the raster lies."""
    source.data = {
        "image": [image],
        "x": [part.col],
        "y": [part.row],
        "dw": [part.width],
        "dh": [part.height],
    }
