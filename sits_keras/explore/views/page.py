"""The page: a place to choose, the four views, and a line of what is going on."""

from importlib import resources
from typing import Any

from bokeh.core.templates import get_env
from bokeh.document import Document
from bokeh.models import Column, Div, LayoutDOM, RadioGroup, Select

from sits_keras.explore.engine.explorer import Explorer
from sits_keras.explore.views.change import ChangeView
from sits_keras.explore.views.dates import DatesView
from sits_keras.explore.views.html import THEME, paragraph
from sits_keras.explore.views.places import PlacesView
from sits_keras.explore.views.segments import SegmentsView
from sits_keras.explore.views.session import Downloads, Session

_VIEWS: tuple[Any, ...] = (PlacesView, ChangeView, DatesView, SegmentsView)


def add_page(doc: Document, explorer: Explorer, downloads: Downloads) -> Session:
    """Fills a document with a page of its own.

    Args:
        doc: of one client.
        explorer: what all pages share.
        downloads: where files are offered.
    Returns:
        The page's session, to be closed with it.
    """
    session = Session(doc, explorer, downloads)
    page = _Page(session)
    doc.theme = THEME
    doc.title = "sits_keras explore"
    text = (
        resources.files("sits_keras.explore.views")
        .joinpath("templates/page.html")
        .read_text("utf-8")
    )
    doc.template = get_env().from_string("{% extends base %}\n" + text)
    doc.template_variables["model"] = explorer.subject.name
    doc.add_root(page.root)
    return session


class _Page:
    def __init__(self, session: Session):
        self._session = session
        explorer = session.explorer
        self._built: dict[tuple[int, str], tuple[Any, LayoutDOM]] = {}
        names = [place.name for place in explorer.places]
        self._place = Select(
            title="Place",
            options=[(str(index), name) for index, name in enumerate(names)],
            value="0",
            width=320,
            visible=len(names) > 1,
        )
        self._view = RadioGroup(
            labels=[view.label for view in _VIEWS],
            active=self._first(),
            inline=True,
            html_attributes={"role": "group", "aria-label": "View"},
        )
        self._place.on_change("value", self._go)
        self._view.on_change("active", lambda attr, old, new: self._enter())
        self._stage = Column(sizing_mode="stretch_width")
        self.root = Column(
            self._place,
            self._view,
            session.status,
            self._stage,
            sizing_mode="stretch_width",
            name="page",
        )
        self._enter()

    def _first(self) -> int:
        """The first view that the model has what it takes for."""
        subject = self._session.explorer.subject
        return next(i for i, view in enumerate(_VIEWS) if not subject.why_not(view.needs))

    def _go(self, attr: str, old: str, new: str) -> None:
        self._session.go_to(self._session.explorer.places[int(new)])
        self._enter()

    def _enter(self) -> None:
        """Shows the chosen view of the chosen place, made when it is first asked for."""
        index = self._view.active
        key = index, self._place.value
        if key not in self._built:
            why_not = self._session.explorer.subject.why_not(_VIEWS[index].needs)
            view = None if why_not else _VIEWS[index](self._session)
            root = view.root if view else Div(text=paragraph(why_not), name="why not")
            self._built[key] = view, root
        else:
            view, root = self._built[key]
            if view is not None:
                view.resume()
        self._stage.children = [root]
