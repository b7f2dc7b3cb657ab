"""What changed between two dates: the distance of the exclusive representations, by a threshold."""

from pathlib import Path

import contourpy
import numpy as np
from bokeh.models import (
    Button,
    ColorBar,
    ColumnDataSource,
    Div,
    LayoutDOM,
    LinearAxis,
    LinearColorMapper,
    Range1d,
    Select,
    Span,
)
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from sits_keras.data.tiling import Window
from sits_keras.explore.engine.explorer import ChangeState
from sits_keras.explore.engine.exports import ChangeMap
from sits_keras.explore.engine.state import histogram
from sits_keras.explore.views.html import paragraph
from sits_keras.explore.views.session import Session
from sits_keras.explore.views.widgets import (
    DateSlider,
    ExportPanel,
    RasterFigure,
    clear,
    fill,
    slider,
    stacked,
    wrapped,
)

_CHANGED = "#d55e00"  # Okabe and Ito's vermilion
_REFERENCE = "#f0e442"
_STRIDES = ("8", "16", "32", "64")
_NUM_STEPS = 500  # of the slider
_HELP = (
    "The distance of the exclusive representations of two dates, the mean over all windows that "
    "cover a pixel (section 4.6). Above the threshold, in vermilion, a pixel has changed; a "
    "reference, where there is one, is outlined in yellow."
)


class ChangeView:
    """Maps a change."""

    label, needs = "Change", "exclusive"

    def __init__(self, session: Session):
        self._session, self._explorer = session, session.explorer
        images = session.place.images
        self._before = DateSlider("Before", images, 0, self._choose)
        self._after = DateSlider("After", images, len(images) - 1, self._choose)
        stride = max(8, self._explorer.stride_of(images[0]))
        self._stride = Select(
            title="Stride, px",
            value=str(stride),
            options=sorted({*_STRIDES, str(stride)}, key=int),
            width=120,
        )
        self._stride.on_change("value", lambda attr, old, new: self._choose())
        self._threshold = slider(
            "Threshold", start=0, end=1, step=0.001, value=0, width=500, name="threshold"
        )
        otsu = Button(label="Otsu's threshold")
        otsu.on_click(self._take_otsu)
        self._is_auto = True
        self._state: ChangeState | None = None
        self._old, self._new, self._map = (
            RasterFigure(session, name) for name in ("before", "after", "distance")
        )
        self._marks = LinearColorMapper(
            palette=[_CHANGED], low=0, high=1, low_color="#00000000", nan_color="#00000000"
        )
        self._colours = LinearColorMapper(palette=Cividis256, nan_color="#00000000")
        self._changed, _ = self._new.layer(0.75, color_mapper=self._marks)
        self._distance, _ = self._map.layer(1.0, color_mapper=self._colours)
        self._map.figure.add_layout(ColorBar(color_mapper=self._colours, width=12), "right")
        self._outline = ColumnDataSource({"x": [], "y": []})
        for one in (self._new, self._map):
            for colour, width in (("#000000", 4), (_REFERENCE, 2)):
                one.figure.multi_line(
                    "x", "y", source=self._outline, line_color=colour, line_width=width
                )
        self._make_histogram()
        self._text = Div(text="", name="scores", html_attributes={"aria-live": "polite"})
        # In the browser, without a way to here and back.
        self._threshold.js_link("value", self._marks, "low")
        self._threshold.js_link("value", self._line, "location")
        self._threshold.on_change("value", lambda attr, old, new: self._score())
        self._threshold.on_change("value_throttled", lambda attr, old, new: self._take())
        self._export = ExportPanel(session, "change", self._request)
        self.root: LayoutDOM = stacked(
            Div(text=paragraph(_HELP)),
            wrapped(self._before.widget, self._after.widget, self._stride),
            wrapped(self._threshold, otsu),
            self._text,
            wrapped(self._old.figure, self._new.figure, self._map.figure, self._histogram),
            self._export.root,
        )
        self._choose()

    def resume(self) -> None:
        """Nothing of it depends on other views."""

    def _make_histogram(self) -> None:
        self._histogram = figure(
            name="histogram",
            title="Pixels by distance",
            width=440,
            height=360,
            tools="",
            x_axis_label="distance",
            y_axis_label="share of the pixels",
            x_range=Range1d(0, 1),
            y_range=Range1d(0, 1),
            toolbar_location=None,
        )
        self._bars = ColumnDataSource({"left": [], "right": [], "top": []})
        self._histogram.quad(
            left="left", right="right", top="top", bottom=0, source=self._bars, color="#666666"
        )
        self._curve = ColumnDataSource({"x": [], "y": []})
        self._histogram.extra_y_ranges = {"f1": Range1d(0, 1)}
        self._f1_axis = LinearAxis(y_range_name="f1", axis_label="F1 (blue)", visible=False)
        self._histogram.add_layout(self._f1_axis, "right")
        self._histogram.line(
            "x", "y", source=self._curve, y_range_name="f1", line_width=2, color="#0072b2"
        )
        self._line = Span(dimension="height", location=0, line_color=_CHANGED, line_width=3)
        self._histogram.add_layout(self._line)

    def _choose(self) -> None:
        before, after = self._before.image, self._after.image
        for one, image in ((self._old, before), (self._new, after), (self._map, after)):
            one.show(self._explorer.raster(image), image.label)
        self._map.figure.title.text = "Distance"
        # What is of other dates does not stay over these.
        self._state, self._is_auto = None, True
        self._text.text = ""
        for source in (self._changed, self._distance, self._outline, self._bars, self._curve):
            clear(source)
        self._export.show()
        if before == after:
            self._session.say("Choose two dates: a change is between two.", is_error=True)
            return
        stride = int(self._stride.value)
        self._session.work(
            "change",
            lambda tell: self._explorer.change(before, after, stride, tell),
            self._show,
        )

    def _show(self, state: ChangeState) -> None:
        self._state = state
        height, width = self._session.place.grid[:2]
        part = Window(0, 0, height, width)
        known = state.distance[np.isfinite(state.distance)]
        lowest, highest = float(known.min()), float(known.max())
        highest = max(highest, lowest + 1e-6)
        self._colours.update(low=lowest, high=highest)
        self._marks.high = highest
        for source in (self._changed, self._distance):
            fill(source, state.distance, part)
        counts, edges = histogram(known)
        self._histogram.x_range.update(start=lowest, end=highest)
        self._histogram.y_range.end = 1.1 * counts.max()
        self._bars.data = {"left": edges[:-1], "right": edges[1:], "top": counts}
        self._outline.data = outline(state.reference, part)
        self._f1_axis.visible = state.scores is not None
        self._curve.data = {"x": [], "y": []}
        if state.scores is not None:
            thresholds = np.linspace(lowest, highest, 200)
            self._curve.data = {"x": thresholds, "y": state.scores.f1(thresholds)}
        step = (highest - lowest) / _NUM_STEPS
        self._threshold.update(
            start=lowest, end=highest, step=step, format=f"0.{'0' * decimals(step)}"
        )
        self._take_otsu()
        self._session.say(f"Compared {self._before.image.label} and {self._after.image.label}.")

    def _take_otsu(self) -> None:
        if self._state is not None:
            self._set(self._state.change.threshold)
            self._is_auto = True
            self._export.show()

    def _set(self, threshold: float) -> None:
        self._threshold.value = threshold
        self._marks.low = self._line.location = threshold
        self._score()

    def _take(self) -> None:
        self._is_auto = False
        self._export.show()

    def _score(self) -> None:
        state, threshold = self._state, float(self._threshold.value)
        if state is None:
            return
        known = state.distance[np.isfinite(state.distance)]
        text = f"{(known > threshold).mean():.1%} of the pixels changed, above {threshold:.4g}."
        if state.scores is not None:
            at, best = state.scores.best()
            text += (
                f" F1 {float(state.scores.f1(threshold)):.3f} against the reference; with "
                f"Otsu's threshold {float(state.scores.f1(state.change.threshold)):.3f}; "
                f"{best:.3f} at most, at {at:.4g}, which nobody knows without the reference."
            )
        elif state.reference is not None:
            text += " The reference marks all of the pixels or none: there is no F1."
        self._text.text = paragraph(text)

    def _request(self) -> ChangeMap:
        return ChangeMap(
            self._explorer.subject,
            self._before.image.path,
            self._after.image.path,
            int(self._stride.value),
            "auto" if self._is_auto else float(self._threshold.value),
            self._reference(),
        )

    def _reference(self) -> Path | None:
        # A mask that cannot be scored against would end the command.
        scored = self._state is not None and self._state.scores is not None
        return self._session.place.mask if scored else None


def outline(reference: np.ndarray | None, part: Window) -> dict[str, list[np.ndarray]]:
    """Lines around what a mask marks, in pixels of the raster that it is of."""
    if reference is None:
        return {"x": [], "y": []}
    rows, cols = reference.shape
    x = part.col + (np.arange(cols) + 0.5) * part.width / cols
    y = part.row + (np.arange(rows) + 0.5) * part.height / rows
    lines = contourpy.contour_generator(x, y, reference.astype(float)).lines(0.5)
    return {"x": [line[:, 0] for line in lines], "y": [line[:, 1] for line in lines]}


def decimals(step: float) -> int:
    """Digits behind the point that tell two places of a slider apart."""
    return max(1, int(np.ceil(-np.log10(step))) + 1) if step < 1 else 1
