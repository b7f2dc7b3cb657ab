"""Controls and raster figures that the views share, in Bokeh."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from bokeh.events import RangesUpdate, Tap
from bokeh.layouts import column, row
from bokeh.models import (
    Button,
    ColumnDataSource,
    CustomJS,
    Div,
    GlyphRenderer,
    LayoutDOM,
    Range1d,
    Slider,
    Spinner,
    TextAreaInput,
)
from bokeh.plotting import figure

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.rasters.read import Grid
from sits_keras.data.tiling import Window
from sits_keras.explore.engine.exports import Request
from sits_keras.explore.engine.sources import MOST_SHOWN, Image, Raster
from sits_keras.explore.engine.state import inside, window_at
from sits_keras.explore.views.html import links
from sits_keras.explore.views.session import Session


def wrapped(*children: LayoutDOM) -> LayoutDOM:
    """Children side by side, on several lines where they do not fit on one."""
    for child in children:
        # Bokeh draws a frame of fixed size wrong where the row stretches its figure.
        child.styles = {**child.styles, "flex": "none"}
    return row(*children, styles={"flex-wrap": "wrap", "gap": "0.5em", "align-items": "flex-start"})


def stacked(*children: LayoutDOM) -> LayoutDOM:
    """Children one below the other."""
    return column(*children, sizing_mode="stretch_width")


def slider(title: str, **options: Any) -> Slider:
    """A slider whose name is told to those who do not see it, too."""
    return Slider(title=title, html_attributes={"role": "group", "aria-label": title}, **options)


class DateSlider:
    """A slider over the dates of a place.

    Args:
        title: what it chooses.
        images: the dates.
        index: of the one that is chosen at first.
        changed: called when another one is chosen.
    """

    def __init__(
        self, title: str, images: Sequence[Image], index: int, changed: Callable[[], None]
    ):
        self._images = images
        labels = [f"{title} ({one.label})" for one in images]
        self.widget = slider(
            title,
            start=0,
            end=max(len(images) - 1, 1),
            step=1,
            value=index,
            show_value=False,
            width=320,
            disabled=len(images) < 2,
        )
        self.widget.title = labels[index]
        show = CustomJS(args={"labels": labels}, code="cb_obj.title = labels[cb_obj.value]")
        self.widget.js_on_change("value", show)
        self.widget.on_change("value_throttled", lambda attr, old, new: changed())

    @property
    def image(self) -> Image:
        """The date that is chosen."""
        return self._images[int(self.widget.value)]


class PlaceInput:
    """What chooses a window: a click, or for those who do not click the row and column of its upper
    left corner.

    Args:
        session: whose window it is.
        changed: called when another one is chosen.
    """

    def __init__(self, session: Session, changed: Callable[[], None]):
        self._session, self._changed = session, changed
        self.row = Spinner(title="Row of its upper left corner", low=0, step=1, width=200)
        self.col = Spinner(title="Column of its upper left corner", low=0, step=1, width=200)
        self._is_shown = True
        for one in (self.row, self.col):
            one.on_change("value", self._read)

    def show(self) -> None:
        """Shows the session's window."""
        grid = self._session.place.grid
        self._is_shown = False
        self.row.update(high=grid.height - IMAGE_SIZE, value=self._session.at[0])
        self.col.update(high=grid.width - IMAGE_SIZE, value=self._session.at[1])
        self._is_shown = True

    def tap(self, x: float, y: float) -> None:
        """Takes the window around a point."""
        self._take(window_at(x, y, *self._session.place.grid[:2]))

    def _read(self, attr: str, old: Any, new: Any) -> None:
        if not self._is_shown or self.row.value is None or self.col.value is None:
            return
        grid = self._session.place.grid
        self._take(inside(int(self.row.value), int(self.col.value), *grid[:2]))

    def _take(self, at: tuple[int, int]) -> None:
        self._session.at = at
        self._changed()


class ExportPanel:
    """Writes what a verb of the command line writes, and shows the lines that do.

    Args:
        session: of the page.
        name: by which it is found.
        request: what to write, as it is chosen when it is called.
    """

    def __init__(self, session: Session, name: str, request: Callable[[], Request]):
        self._session, self._name, self._request = session, name, request
        self._button = Button(label="Export", button_type="primary", name=f"{name} export")
        self._files = Div(text="", name=f"{name} files", html_attributes={"aria-live": "polite"})
        self._button.on_click(self._write)
        self._command = TextAreaInput(title="Command that writes the same", rows=3, cols=100)
        self._python = TextAreaInput(title="In Python", rows=9, cols=100)
        parts: list[LayoutDOM] = [wrapped(self._button, self._files)]
        for text, what in ((self._command, "command"), (self._python, "Python lines")):
            copy = Button(label=f"Copy the {what}")
            copy.js_on_click(
                CustomJS(args={"text": text}, code="navigator.clipboard.writeText(text.value)")
            )
            parts += [text, copy]
        self.root = stacked(*parts)

    def show(self) -> None:
        """Shows the lines that write what is chosen now."""
        request = self._request()
        self._command.value, self._python.value = request.command(), request.python()
        self._files.text = ""

    def _write(self) -> None:
        request, folder = self._request(), self._session.export_folder()
        self._button.disabled = True
        self._session.say("Exporting: the verb's own functions read the rasters anew.")
        self._session.work(
            f"export {self._name}", lambda tell: request.write(folder), self._offer, self._again
        )

    def _offer(self, files: list[Any]) -> None:
        offered = self._session.offer(files)
        self._files.text = links(offered)
        self._session.say(f"Written: {', '.join(name for name, _, _ in offered)}.")

    def _again(self) -> None:
        self._button.disabled = False


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
