"""A place as it would look at another date, between two, or at dates that are drawn."""

from collections.abc import Sequence

import numpy as np
from bokeh.models import Button, ColumnDataSource, Div, LayoutDOM, Range1d, Select, Spinner
from bokeh.plotting import figure

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import reflectance_from_network, true_colour
from sits_keras.data.tiling import Window
from sits_keras.explore.engine.exports import NUM_STEPS, Translation, TranslationKind
from sits_keras.explore.views.html import paragraph
from sits_keras.explore.views.session import Session
from sits_keras.explore.views.widgets import (
    QUERY,
    DateSlider,
    ExportPanel,
    PlaceInput,
    RasterFigure,
    packed,
    slider,
    stacked,
    wrapped,
)

_SIDE = 200  # px of the page
_GAP = 4  # px of the image, between two
_KINDS: dict[str, TranslationKind] = {
    "translated.tif: the whole raster": "raster",
    "translated.png: this window": "picture",
    "between.png: from the one date to the other": "steps",
    "drawn.png: dates that are drawn": "samples",
}
_HELP = (
    "Click a place in the left image. Its shared representation is kept, and the exclusive one is "
    "taken from the other date, from between the two, or drawn from N(0, I)."
)


class DatesView:
    """Generates a place at other dates."""

    label, needs = "This place at that date", "model"

    def __init__(self, session: Session):
        self._session, self._explorer = session, session.explorer
        images = session.place.images
        self._place = DateSlider("Place as of", images, 0, self._choose)
        self._date = DateSlider("At the date of", images, len(images) - 1, self._choose)
        self._input = PlaceInput(session, self._choose)
        self._map = RasterFigure(session, "place", self._input.tap)
        self._draw_window = self._map.boxes(QUERY)
        self._panels = [
            Panel(title)
            for title in ("The place, real", "At that date, generated", "At that date, real")
        ]
        self._share = slider(
            "From the one date (0 %) to the other (100 %), in %",
            start=0,
            end=100,
            step=100 // (NUM_STEPS - 1),
            value=50,
            width=400,
        )
        self._share.on_change("value", lambda attr, old, new: self._show_step())
        self._between = Panel("Between the two dates")
        self._steps: np.ndarray | None = None
        self._samples = Spinner(title="Draws", low=1, high=12, step=1, value=6, width=100)
        self._seed = Spinner(title="Seed", low=0, step=1, value=0, width=100)
        draw = Button(label="Draw dates from N(0, I)", button_type="default")
        draw.on_click(self._draw)
        self._drawn = Panel("Dates that are drawn")
        self._kind = Select(
            title="What to export", options=list(_KINDS), value=next(iter(_KINDS)), width=360
        )
        self._text = Div(text="", name="difference", html_attributes={"aria-live": "polite"})
        self._export = ExportPanel(session, "translate", self._request)
        for one in (self._kind, self._samples, self._seed):
            one.on_change("value", lambda attr, old, new: self._export.show())
        self.root: LayoutDOM = stacked(
            Div(text=paragraph(_HELP)),
            wrapped(self._place.widget, self._date.widget),
            wrapped(self._input.row, self._input.col),
            wrapped(
                self._map.figure,
                *(one.figure for one in self._panels),
                self._between.figure,
            ),
            self._text,
            self._share,
            wrapped(self._samples, self._seed, draw),
            self._drawn.figure,
            self._kind,
            self._export.root,
        )
        self._choose()

    def resume(self) -> None:
        """Shows the session's window, which may have been moved in another view."""
        self._choose()

    def _choose(self) -> None:
        place, date, at = self._place.image, self._date.image, self._session.at
        self._input.show()
        self._map.show(self._explorer.raster(place), f"Place as of {place.label}")
        self._draw_window([Window(*at, IMAGE_SIZE, IMAGE_SIZE)])
        self._drawn.show([])
        self._export.show()
        self._session.work(
            "translate", lambda tell: self._explorer.translate(place, date, at), self._show
        )

    def _show(self, found: tuple[np.ndarray, np.ndarray]) -> None:
        (real, other), self._steps = found
        generated = self._steps[-1]
        for panel, image in zip(self._panels, (real, generated, other), strict=True):
            panel.show([self._colours(image)])
        errors = [self._difference(one, other) for one in (generated, real)]
        self._text.text = paragraph(
            f"Mean difference from the real image of {self._date.image.label}: generated "
            f"{errors[0]:.4f}, the place as it was {errors[1]:.4f} reflectance."
        )
        self._session.say(f"Generated {self._place.image.label} at {self._date.image.label}.")
        self._show_step()

    def _show_step(self) -> None:
        if self._steps is not None:
            step = round(int(self._share.value) / 100 * (NUM_STEPS - 1))
            self._between.show([self._colours(self._steps[step])])

    def _draw(self) -> None:
        place, at = self._place.image, self._session.at
        count, seed = int(self._samples.value or 1), int(self._seed.value or 0)
        self._session.work(
            "draw",
            lambda tell: self._explorer.sample(place, at, count, seed),
            lambda images: self._drawn.show([self._colours(one) for one in images]),
        )

    def _colours(self, image: np.ndarray) -> np.ndarray:
        config = self._explorer.subject.whole().config
        return true_colour(image, config.bands, config.band_max)

    def _difference(self, one: np.ndarray, other: np.ndarray) -> float:
        band_max = self._explorer.subject.whole().config.band_max
        first, second = (reflectance_from_network(image, band_max) for image in (one, other))
        return float(np.abs(first - second).mean())

    def _request(self) -> Translation:
        return Translation(
            self._explorer.subject,
            _KINDS[self._kind.value],
            self._place.image.path,
            self._date.image.path,
            self._session.at,
            int(self._samples.value or 1),
            int(self._seed.value or 0),
        )


class Panel:
    """Images of 64 x 64 px side by side, as a figure."""

    def __init__(self, title: str):
        self.figure = figure(
            title=title,
            name=title,
            frame_width=_SIDE,
            frame_height=_SIDE,
            x_range=Range1d(0, IMAGE_SIZE),
            y_range=Range1d(IMAGE_SIZE, 0),
            tools="",
            toolbar_location=None,
        )
        self.figure.axis.visible = False
        self.figure.grid.visible = False
        self.figure.outline_line_color = None
        self._source = ColumnDataSource({"image": [], "dw": []})
        self.figure.image_rgba("image", x=0, y=0, dw="dw", dh=IMAGE_SIZE, source=self._source)
        self.figure.visible = False

    def show(self, images: Sequence[np.ndarray]) -> None:
        """Shows `(64, 64, 3)` floats in [0, 1]; nothing where there are none."""
        self.figure.visible = bool(len(images))
        if not len(images):
            return
        width = len(images) * (IMAGE_SIZE + _GAP) - _GAP
        canvas = np.zeros((IMAGE_SIZE, width, 4), np.uint8)
        for index, image in enumerate(images):
            left = index * (IMAGE_SIZE + _GAP)
            canvas[:, left : left + IMAGE_SIZE, :3] = np.rint(image * 255)
            canvas[:, left : left + IMAGE_SIZE, 3] = 255
        scale = _SIDE if len(images) == 1 else _SIDE * 0.75
        self.figure.frame_width = round(scale * width / IMAGE_SIZE)
        self.figure.frame_height = round(scale)
        self.figure.x_range.end = width
        self._source.data = {"image": [packed(canvas)], "dw": [width]}
