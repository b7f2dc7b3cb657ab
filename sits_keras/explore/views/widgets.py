"""Controls, raster figures and pieces of HTML that the views share."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from bokeh.events import RangesUpdate, Tap
from bokeh.layouts import column, row
from bokeh.models import (
    Button,
    ColumnDataSource,
    CustomJS,
    Div,
    GlyphRenderer,
    LayoutDOM,
    RadioGroup,
    Range1d,
    Select,
    Slider,
    Spinner,
    TextAreaInput,
)
from bokeh.plotting import figure

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.rasters.points import Point
from sits_keras.data.rasters.read import Grid
from sits_keras.data.tiling import Window
from sits_keras.explore.engine.analysis import clip_window, window_around
from sits_keras.explore.engine.calls import TaskCall
from sits_keras.explore.engine.sources import MAX_SHOWN, ExploredImage, Pictured
from sits_keras.explore.views.session import Session


def wrapped(*children: LayoutDOM) -> LayoutDOM:
    """Lay children out side by side, on several lines if they do not fit on one."""
    for child in children:
        # Bokeh draws a frame of fixed size wrong where the row stretches its figure.
        child.styles = {**child.styles, "flex": "none"}
    return row(*children, styles={"flex-wrap": "wrap", "gap": "0.5em", "align-items": "flex-start"})


def stacked(*children: LayoutDOM) -> LayoutDOM:
    """Lay children out one below the other."""
    return column(*children, sizing_mode="stretch_width")


def slider(title: str, **options: Any) -> Slider:
    """Return a slider whose name a screen reader reads."""
    return Slider(title=title, html_attributes={"role": "group", "aria-label": title}, **options)


ImageT = TypeVar("ImageT", bound=ExploredImage)


class DateSlider(Generic[ImageT]):
    """A slider over the dates of a place, or over its dates and their mean.

    Args:
        title: Purpose of the date.
        images: Images to choose from.
        index: Index of the date that is chosen at first.
        on_change: Function that is called when another date is chosen.
    """

    def __init__(
        self,
        title: str,
        images: Sequence[ImageT],
        index: int,
        on_change: Callable[[], None],
    ):
        self._images = images
        labels = [f"{title} ({image.label})" for image in images]
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
        self.widget.on_change("value_throttled", lambda attr, old, new: on_change())

    @property
    def image(self) -> ImageT:
        """Image that is chosen."""
        return self._images[int(self.widget.value)]


class WindowInput:
    """Controls that choose the session's window: by a click, or by row and column.

    Args:
        session: Session of the page.
        on_change: Function that is called when another window is chosen.
    """

    def __init__(self, session: Session, on_change: Callable[[], None]):
        self._session, self._on_change = session, on_change
        self.row = Spinner(title="Row of the upper left corner", low=0, step=1, width=200)
        self.col = Spinner(title="Column of the upper left corner", low=0, step=1, width=200)
        self._is_shown = True
        for spinner in (self.row, self.col):
            spinner.on_change("value", self._read)

    def show(self) -> None:
        """Show the session's window."""
        grid = self._session.place.grid
        self._is_shown = False
        self.row.update(high=grid.height - IMAGE_SIZE, value=self._session.at[0])
        self.col.update(high=grid.width - IMAGE_SIZE, value=self._session.at[1])
        self._is_shown = True

    def tap(self, x: float, y: float) -> None:
        """Choose the window around a point."""
        self._take(window_around(x, y, *self._session.place.grid[:2]))

    def _read(self, attr: str, old: Any, new: Any) -> None:
        if not self._is_shown or self.row.value is None or self.col.value is None:
            return
        grid = self._session.place.grid
        self._take(clip_window(int(self.row.value), int(self.col.value), *grid[:2]))

    def _take(self, at: tuple[int, int]) -> None:
        self._session.at = at
        self._on_change()


class PointInput:
    """Controls that label pixels of a place, by a click or by row and column, and remove labels.

    Args:
        session: Session of the page.
        on_change: Function that is called when the points are others.

    Attributes:
        points: The labelled pixels.
        root: The controls.
    """

    def __init__(self, session: Session, on_change: Callable[[], None]):
        self._session, self._on_change = session, on_change
        self.points: list[Point] = []
        self._is_enabled = True
        self._kind = RadioGroup(
            labels=[name.capitalize() for name, *_ in _KINDS],
            active=0,
            inline=True,
            html_attributes={"role": "group", "aria-label": "A click marks"},
        )
        grid = session.place.grid
        self._row, self._col = (
            Spinner(title=f"{name} of a point", low=0, high=side - 1, step=1, value=0, width=130)
            for name, side in (("Row", grid.height), ("Column", grid.width))
        )
        self._add = Button(label="Add the point")
        self._chosen = Select(title="Points", width=260)
        self._remove, self._clear = Button(label="Remove the point"), Button(label="Remove all")
        self._count = Div(text="", name="points", html_attributes={"aria-live": "polite"})
        self._add.on_click(lambda: self.tap(self._col.value or 0, self._row.value or 0))
        self._remove.on_click(self._remove_chosen)
        self._clear.on_click(lambda: self._take([]))
        self._sources = [ColumnDataSource({"x": [], "y": []}) for _ in _KINDS]
        self.root = stacked(
            wrapped(self._kind, self._count),
            wrapped(self._row, self._col, self._add, self._chosen, self._remove, self._clear),
        )
        self._show()

    def enable(self, is_enabled: bool) -> None:
        """Let points be added and removed, or not."""
        self._is_enabled = is_enabled
        self._show()

    def clear(self) -> None:
        """Remove all points, without a call of `on_change`."""
        self.points = []
        self._show()

    def tap(self, x: float, y: float) -> None:
        """Label the pixel at a point; a pixel has one label."""
        height, width = self._session.place.grid[:2]
        row, col = int(np.floor(y)), int(np.floor(x))
        if self._is_enabled and 0 <= row < height and 0 <= col < width:
            others = [one for one in self.points if (one.row, one.col) != (row, col)]
            self._take([*others, Point(row, col, self._kind.active == 0)])

    def draw(self, raster: "RasterFigure") -> None:
        """Show the points in a figure: circles where it changed, squares where not."""
        for source, (_, marker, colour) in zip(self._sources, _KINDS, strict=True):
            raster.figure.scatter(
                "x",
                "y",
                source=source,
                marker=marker,
                size=12,
                line_color="#ffffff",
                line_width=2,
                fill_color=colour,
            )

    def _remove_chosen(self) -> None:
        index = int(self._chosen.value)
        self._take(self.points[:index] + self.points[index + 1 :])

    def _take(self, points: list[Point]) -> None:
        self.points = points
        self._show()
        self._on_change()

    def _show(self) -> None:
        names = [
            f"{number}: row {one.row}, column {one.col}, {_KINDS[not one.changed][0]}"
            for number, one in enumerate(self.points, 1)
        ]
        last = str(max(len(names) - 1, 0))
        options = [(str(index), name) for index, name in enumerate(names)] or [("0", "none")]
        self._chosen.update(options=options, value=last)
        of_kinds = [[p for p in self.points if p.changed == kind] for kind in (True, False)]
        for source, points in zip(self._sources, of_kinds, strict=True):
            source.data = {
                "x": [one.col + 0.5 for one in points],
                "y": [one.row + 0.5 for one in points],
            }
        changed, unchanged = map(len, of_kinds)
        self._count.text = paragraph(f"Points: {changed} changed, {unchanged} not changed.")
        for control in (self._kind, self._row, self._col, self._add):
            control.disabled = not self._is_enabled
        for control in (self._chosen, self._remove, self._clear):
            control.disabled = not (self._is_enabled and self.points)


class ExportPanel:
    """A button that writes files, and the command and Python lines that write the same.

    Args:
        session: Session of the page.
        name: Name of the panel.
        describe: Function that returns the call for what is chosen now.
    """

    def __init__(self, session: Session, name: str, describe: Callable[[], TaskCall]):
        self._session, self._name, self._describe = session, name, describe
        self._button = Button(label="Export", button_type="primary", name=f"{name} export")
        self._files = Div(text="", name=f"{name} files", html_attributes={"aria-live": "polite"})
        self._button.on_click(self._write)
        self._command = TextAreaInput(title="Command that writes the same", rows=3, cols=100)
        self._python = TextAreaInput(title="In Python", rows=12, cols=100)
        parts: list[LayoutDOM] = [wrapped(self._button, self._files)]
        for text, what in ((self._command, "command"), (self._python, "Python lines")):
            copy = Button(label=f"Copy the {what}")
            copy.js_on_click(
                CustomJS(args={"text": text}, code="navigator.clipboard.writeText(text.value)")
            )
            parts += [text, copy]
        self.root = stacked(*parts)

    def show(self) -> None:
        """Show the lines that write what is chosen now."""
        call = self._describe()
        self._command.value, self._python.value = call.command(), call.python()
        self._files.text = ""

    def _write(self) -> None:
        call, folder = self._describe(), self._session.export_folder()
        self._button.disabled = True
        self._session.show_status("Exporting: reading the rasters.")
        self._session.work(
            f"export {self._name}",
            lambda on_progress: call.write(folder),
            self._offer,
            self._enable,
        )

    def _offer(self, files: list[Any]) -> None:
        offered = self._session.offer(files)
        self._files.text = links(offered)
        self._session.show_status(f"Written: {', '.join(name for name, _, _ in offered)}.")

    def _enable(self) -> None:
        self._button.disabled = False


QUERY = "#ffffff"
SHARED = "#56b4e9"  # Okabe and Ito's colours, which colour-blind people can distinguish
PIXELS = "#e69f00"

_KINDS = (("changed", "circle", "#d55e00"), ("not changed", "square", "#0072b2"))

_LARGEST = (360, 400)  # width and height of the frame on the page, px
_SMALLEST = 280
_SIDES = ("left", "right", "top", "bottom")


ShowBoxes = Callable[..., None]
"""Function that takes windows, and labels of all of them or of none."""


class RasterFigure:
    """Figure of a raster, in pixels, with rows down and columns to the right.

    Args:
        session: Session of the page. The frame has the shape of its place.
        name: Name of the figure, and of its background work.
        on_tap: Function that takes the column and row of a point that is clicked.
    """

    def __init__(
        self, session: Session, name: str, on_tap: Callable[[float, float], None] | None = None
    ):
        self._session, self._name = session, name
        self._raster: Pictured | None = None
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

    def show(self, raster: Pictured, title: str) -> None:
        """Show a raster: the same part as before, or the whole if the grid is another one."""
        self.figure.title.text = title
        if raster is self._raster:
            return
        if self._raster is None or self._raster.grid != raster.grid:
            self._fit(raster.grid)
        self._raster = raster
        self._read(raster, self._visible(raster))

    def layer(self, opacity: float, **options: object) -> tuple[ColumnDataSource, GlyphRenderer]:
        """Add an image over the raster, to be filled by `fill`; options as for `figure.image`."""
        source = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []})
        renderer = self.figure.image(
            "image", x="x", y="y", dw="dw", dh="dh", source=source, global_alpha=opacity, **options
        )
        return source, renderer

    def boxes(self, colour: str, dashed: bool = False) -> ShowBoxes:
        """Return a function that shows windows as boxes, labelled or not."""
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

        def show(windows: Sequence[Window], texts: Sequence[str] = ()) -> None:
            shown = windows[::-1]  # the first one above the others
            source.data = {
                "left": [window.col for window in shown],
                "right": [window.col + window.width for window in shown],
                "top": [window.row for window in shown],
                "bottom": [window.row + window.height for window in shown],
            }
            labelled = shown if texts else []
            labels.data = {
                "x": [window.col for window in labelled],
                "y": [window.row for window in labelled],
                "text": list(texts[::-1]),
            }

        return show

    def _fit(self, grid: Grid) -> None:
        """Fit the frame to a grid, centred, with square pixels."""
        width, height = self.figure.frame_width, self.figure.frame_height
        side = max(
            grid.width / width, grid.height / height
        )  # of a screen pixel, in pixels of the raster
        x, y = (side * width - grid.width) / 2, (side * height - grid.height) / 2
        left, right, top, bottom = -x, grid.width + x, -y, grid.height + y
        self.figure.x_range.update(start=left, end=right, reset_start=left, reset_end=right)
        self.figure.y_range.update(start=bottom, end=top, reset_start=bottom, reset_end=top)

    def _visible(self, raster: Pictured) -> Window:
        x, y = self.figure.x_range, self.figure.y_range
        return visible_window(x.start, x.end, y.end, y.start, raster.grid)

    def _zoom(self, event: RangesUpdate) -> None:
        raster = self._raster
        if raster is not None and max(raster.grid[:2]) > MAX_SHOWN:
            part = visible_window(event.x0, event.x1, event.y1, event.y0, raster.grid)
            self._read(raster, part)

    def _read(self, raster: Pictured, part: Window) -> None:
        if max(raster.grid[:2]) <= MAX_SHOWN:
            # Small enough to be read as a whole, whatever part is visible.
            part = Window(0, 0, raster.grid.height, raster.grid.width)
            if not raster.is_slow:
                fill(self._picture, packed(raster.picture()), part)
                return
            clear(self._picture)  # of another image, until all dates are read

        def show(picture: npt.NDArray[np.uint32]) -> None:
            if raster is self._raster:
                fill(self._picture, picture, part)

        self._session.work(
            f"picture {self._name}", lambda on_progress: packed(raster.picture(part)), show
        )


def visible_window(left: float, right: float, top: float, bottom: float, grid: Grid) -> Window:
    """Return the part of a raster within a frame, at least one pixel."""
    top, bottom = sorted((top, bottom))
    row = int(np.clip(np.floor(top), 0, grid.height - 1))
    col = int(np.clip(np.floor(left), 0, grid.width - 1))
    stop_row = int(np.clip(np.ceil(bottom), row + 1, grid.height))
    stop_col = int(np.clip(np.ceil(right), col + 1, grid.width))
    return Window(row, col, stop_row - row, stop_col - col)


def packed(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Convert `(rows, columns, 4)` uint8 to the `(rows, columns)` uint32 that Bokeh takes."""
    return np.ascontiguousarray(picture).view("<u4")[..., 0]


def clear(source: ColumnDataSource) -> None:
    """Remove the data of a source."""
    source.data = {name: [] for name in source.data}


def fill(source: ColumnDataSource, image: npt.NDArray[Any], part: Window) -> None:
    """Show an image at the position of a part of the raster."""
    source.data = {
        "image": [image],
        "x": [part.col],
        "y": [part.row],
        "dw": [part.width],
        "dh": [part.height],
    }


def paragraph(text: str) -> str:
    """Render a paragraph as HTML."""
    return f"<p>{escape(text)}</p>"


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Render a table, whose first column names the rows, as HTML."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{escape(str(first))}</th>'
        + "".join(f"<td>{escape(str(cell))}</td>" for cell in others)
        + "</tr>"
        for first, *others in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def legend(entries: Iterable[tuple[tuple[int, int, int], str]]) -> str:
    """Render colours and their meanings as HTML."""
    items = "".join(
        f'<li><span class="swatch" style="background: rgb{colour}"></span>{escape(text)}</li>'
        for colour, text in entries
    )
    return f'<ul class="legend">{items}</ul>'


def links(files: Iterable[tuple[str, str, int]]) -> str:
    """Render links to files, with name, address and size in bytes, as HTML."""
    items = "".join(
        f'<li><a href="{escape(address)}" download="{escape(name)}">{escape(name)}</a> '
        f"({size / 1000:,.1f} kB)</li>"
        for name, address, size in files
    )
    return f'<ul class="files">{items}</ul>'
