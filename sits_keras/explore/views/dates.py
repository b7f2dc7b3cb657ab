"""The Dates view: a place generated at another date, in between, or at sampled dates."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from bokeh.models import Button, ColumnDataSource, Div, Range1d, Select, Spinner
from bokeh.plotting import figure

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import reflectance_from_network, true_colour
from sits_keras.data.tiling import Window
from sits_keras.explore.engine.calls import (
    NUM_STEPS,
    TaskCall,
    TranslationKind,
    translation_call,
)
from sits_keras.explore.views.session import Session, View
from sits_keras.explore.views.widgets import (
    QUERY,
    DateSlider,
    ExportPanel,
    RasterFigure,
    WindowInput,
    packed,
    paragraph,
    slider,
    stacked,
    wrapped,
)

_SIDE = 200  # px of the page
_GAP = 4  # px of an image, between two images
_KINDS: dict[str, TranslationKind] = {
    "translated.tif: the whole raster": "raster",
    "translated.png: this window": "picture",
    "between.png: steps from one date to the other": "steps",
    "sampled.png: sampled dates": "samples",
}
_HELP = (
    "Click a place in the left image. Its shared representation is combined with the exclusive "
    "representation of the other date, with one in between, or with samples of N(0, I)."
)


class DatesView(View):
    """A window of one date, generated at others.

    Args:
        session: Session of the page.
    """

    label, needs = "Dates", "model"
    needs_dates = True

    def __init__(self, session: Session):
        super().__init__(session)
        images = session.place.images
        self._place = DateSlider("Place as of", images, 0, self._update)
        self._date = DateSlider("At the date of", images, len(images) - 1, self._update)
        self._input = WindowInput(session, self._update)
        self._map = RasterFigure(session, "place", self._input.tap)
        self._show_window = self._map.boxes(QUERY)
        self._panels = [
            Panel(title)
            for title in ("The place, real", "At that date, generated", "At that date, real")
        ]
        self._position = slider(
            "From one date (0 %) to the other (100 %), in %",
            start=0,
            end=100,
            step=100 // (NUM_STEPS - 1),
            value=50,
            width=400,
        )
        self._position.on_change("value", lambda attr, old, new: self._show_step())
        self._between = Panel("Between the two dates")
        self._steps: np.ndarray | None = None
        self._samples = Spinner(title="Samples", low=1, high=12, step=1, value=6, width=100)
        self._seed = Spinner(title="Seed", low=0, step=1, value=0, width=100)
        sample = Button(label="Sample dates from N(0, I)", button_type="default")
        sample.on_click(self._sample)
        self._sampled = Panel("Sampled dates")
        self._kind = Select(
            title="What to export", options=list(_KINDS), value=next(iter(_KINDS)), width=360
        )
        self._text = Div(text="", name="difference", html_attributes={"aria-live": "polite"})
        self._export = ExportPanel(session, "translate", self._describe)
        for control in (self._kind, self._samples, self._seed):
            control.on_change("value", lambda attr, old, new: self._export.show())
        self.root = stacked(
            Div(text=paragraph(_HELP)),
            wrapped(self._place.widget, self._date.widget),
            wrapped(self._input.row, self._input.col),
            wrapped(
                self._map.figure,
                *(panel.figure for panel in self._panels),
                self._between.figure,
            ),
            self._text,
            self._position,
            wrapped(self._samples, self._seed, sample),
            self._sampled.figure,
            self._kind,
            self._export.root,
        )
        self._update()

    def resume(self) -> None:
        """Show the session's window, which another view may have moved."""
        self._update()

    def _update(self) -> None:
        place, date, at = self._place.image, self._date.image, self._session.at
        self._input.show()
        self._map.show(self._explorer.raster(place), f"Place as of {place.label}")
        self._show_window([Window(*at, IMAGE_SIZE, IMAGE_SIZE)])
        self._sampled.show([])
        self._export.show()
        self._session.work(
            "translate",
            lambda on_progress: self._explorer.translate(place, date, at),
            self._show,
        )

    def _show(self, found: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]) -> None:
        (real, other), self._steps = found
        generated = self._steps[-1]
        for panel, image in zip(self._panels, (real, generated, other), strict=True):
            panel.show([self._colours(image)])
        errors = [self._difference(image, other) for image in (generated, real)]
        self._text.text = paragraph(
            f"Mean difference from the real image of {self._date.image.label}, in reflectance: "
            f"generated {errors[0]:.4f}; real image of {self._place.image.label} {errors[1]:.4f}."
        )
        self._session.show_status(
            f"Generated {self._place.image.label} at {self._date.image.label}."
        )
        self._show_step()

    def _show_step(self) -> None:
        if self._steps is not None:
            step = round(int(self._position.value) / 100 * (NUM_STEPS - 1))
            self._between.show([self._colours(self._steps[step])])

    def _sample(self) -> None:
        place, at = self._place.image, self._session.at
        count, seed = int(self._samples.value or 1), int(self._seed.value or 0)
        self._session.work(
            "sample",
            lambda on_progress: self._explorer.sample(place, at, count, seed),
            lambda images: self._sampled.show([self._colours(image) for image in images]),
        )

    def _colours(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        config = self._explorer.model.whole().config
        return true_colour(image, config.bands, config.band_max)

    def _difference(self, image: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
        band_max = self._explorer.model.whole().config.band_max
        first, second = (reflectance_from_network(crop, band_max) for crop in (image, other))
        return float(np.abs(first - second).mean())

    def _describe(self) -> TaskCall:
        return translation_call(
            self._explorer.model,
            _KINDS[self._kind.value],
            self._place.image.path,
            self._date.image.path,
            at=self._session.at,
            num_samples=int(self._samples.value or 1),
            seed=int(self._seed.value or 0),
        )


class Panel:
    """Figure of images of 64 x 64 px, side by side.

    Args:
        title: Title of the figure.
    """

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

    def show(self, images: Sequence[npt.NDArray[np.floating]]) -> None:
        """Show `(64, 64, 3)` floats in [0, 1], or hide the figure if there are none."""
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
