"""Controls that several views have: a date, a place by its row and column, an export."""

from collections.abc import Callable, Sequence
from typing import Any

from bokeh.layouts import column, row
from bokeh.models import (
    Button,
    CustomJS,
    Div,
    LayoutDOM,
    Slider,
    Spinner,
    TextAreaInput,
)

from sits_keras.config import IMAGE_SIZE
from sits_keras.explore.engine.requests import Request
from sits_keras.explore.engine.sources import Image
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
