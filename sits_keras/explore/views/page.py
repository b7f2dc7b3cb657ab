"""The page: the choice of a place and of one of several views, and a status line."""

from importlib import resources

from bokeh.core.templates import get_env
from bokeh.document import Document
from bokeh.models import Column, Div, LayoutDOM, RadioGroup, Select
from bokeh.themes import Theme

from sits_keras.explore.engine.explorer import Explorer
from sits_keras.explore.views.change import ChangeView
from sits_keras.explore.views.dates import DatesView
from sits_keras.explore.views.embeddings import EmbeddingsView
from sits_keras.explore.views.places import PlacesView
from sits_keras.explore.views.segments import SegmentsView
from sits_keras.explore.views.session import Downloads, Session, View
from sits_keras.explore.views.widgets import paragraph

_VIEWS: tuple[type[View], ...] = (PlacesView, ChangeView, DatesView, SegmentsView)

_FOCUS = ":focus-visible { outline: 3px solid #0072b2 !important; outline-offset: 1px; }"
_BUTTON = ".bk-btn-primary { background: #0b5394; border-color: #0b5394; color: #ffffff; }"
_RADIO = ".bk-input-group { font-size: 1rem; } label { margin-right: 0.8rem; }"
_TEXT = "textarea { font-family: ui-monospace, monospace; font-size: 0.85rem; }"
_DIV = """
p { margin: 0.2rem 0; max-width: 60rem; font-size: 0.95rem; }
p.error { border-left: 0.4rem solid #d55e00; padding: 0.2rem 0.6rem; font-weight: bold; }
table { border-collapse: collapse; font-size: 0.85rem; }
caption { text-align: left; font-weight: bold; padding: 0.3rem 0; max-width: 26rem; }
th, td { padding: 0.1rem 0.7rem; text-align: left; border-bottom: 1px solid #cccccc; }
th[scope="row"] { font-weight: normal; }
ul { margin: 0.2rem 0; padding: 0; list-style: none; font-size: 0.95rem; }
ul.files li { display: inline-block; margin-right: 1.5rem; }
.swatch { display: inline-block; width: 1.1em; height: 1.1em; margin-right: 0.5em;
  border: 1px solid #333333; vertical-align: text-bottom; }
a { color: #0b5394; }
"""

_THEME = Theme(
    json={
        "attrs": {
            "Widget": {"stylesheets": [_FOCUS]},
            "RadioGroup": {"stylesheets": [_FOCUS, _RADIO]},
            "Button": {"stylesheets": [_FOCUS, _BUTTON]},
            "TextAreaInput": {"stylesheets": [_FOCUS, _TEXT]},
            "Div": {"stylesheets": [_FOCUS, _DIV]},
        }
    }
)


def add_page(doc: Document, explorer: Explorer, downloads: Downloads) -> Session:
    """Fill a document with a page.

    Args:
        doc: Document of one client.
        explorer: Rasters and model that all pages share.
        downloads: Files that pages offer.

    Returns:
        The page's session, to be closed with the page.
    """
    session = Session(doc, explorer, downloads)
    page = _Page(session)
    doc.theme = _THEME
    doc.title = "sits_keras explore"
    text = (
        resources.files("sits_keras.explore.views")
        .joinpath("templates/page.html")
        .read_text("utf-8")
    )
    doc.template = get_env().from_string("{% extends base %}\n" + text)
    doc.template_variables["model"] = explorer.model.name
    doc.add_root(page.root)
    return session


class _Page:
    def __init__(self, session: Session):
        self._session = session
        explorer = session.explorer
        self._views: list[type[View]] = [*_VIEWS]
        if explorer.embeddings is not None:
            self._views.append(EmbeddingsView)
        self._built: dict[tuple[int, str], tuple[View | None, LayoutDOM]] = {}
        names = [place.name for place in explorer.places]
        self._place = Select(
            title="Place",
            options=[(str(index), name) for index, name in enumerate(names)],
            value="0",
            width=320,
            visible=len(names) > 1,
        )
        self._view = RadioGroup(
            labels=[view.label for view in self._views],
            active=self._first(),
            inline=True,
            html_attributes={"role": "group", "aria-label": "View"},
        )
        self._place.on_change("value", self._choose_place)
        self._view.on_change("active", lambda attr, old, new: self._show_view())
        self._stage = Column(sizing_mode="stretch_width")
        self.root = Column(
            self._place,
            self._view,
            session.status,
            self._stage,
            sizing_mode="stretch_width",
            name="page",
        )
        self._show_view()

    def _first(self) -> int:
        """Return the index of the first view that the model and the place serve."""
        return next(index for index, view in enumerate(self._views) if not self._reason(view))

    def _reason(self, view: type[View]) -> str:
        """Return why the model or the place does not serve a view, or an empty string."""
        if view.needs is not None and (
            reason := self._session.explorer.model.missing_reason(view.needs)
        ):
            return reason
        if view.needs_dates and not self._session.place.images:
            return (
                f"This view needs dates that are single rasters. {self._session.place.name} is "
                "made of products or STAC items, whose mean the views Places and Segments show."
            )
        return ""

    def _choose_place(self, attr: str, old: str, new: str) -> None:
        self._session.go_to(self._session.explorer.places[int(new)])
        self._show_view()

    def _show_view(self) -> None:
        """Show the chosen view of the chosen place, which is made at its first use."""
        index = self._view.active
        key = index, self._place.value if self._views[index].needs_place else ""
        if key not in self._built:
            reason = self._reason(self._views[index])
            view = None if reason else self._views[index](self._session)
            root = view.root if view else Div(text=paragraph(reason), name="missing")
            self._built[key] = view, root
        else:
            view, root = self._built[key]
            if view is not None:
                view.resume()
        self._stage.children = [root]
