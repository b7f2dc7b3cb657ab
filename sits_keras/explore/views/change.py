"""The Change view: the distance between two dates."""

from pathlib import Path
from typing import cast

import contourpy
import numpy as np
import numpy.typing as npt
from bokeh.models import (
    Button,
    ColorBar,
    ColumnDataSource,
    Div,
    LinearAxis,
    LinearColorMapper,
    Range1d,
    Select,
    Span,
)
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from sits_keras.data.rasters.points import Point
from sits_keras.data.tiling import Window
from sits_keras.explore.engine.analysis import histogram
from sits_keras.explore.engine.calls import TaskCall, change_call
from sits_keras.explore.engine.explorer import OnProgress, ShownChange
from sits_keras.explore.views.session import Session, View
from sits_keras.explore.views.widgets import (
    DateSlider,
    ExportPanel,
    PointInput,
    RasterFigure,
    clear,
    fill,
    paragraph,
    slider,
    stacked,
    wrapped,
)
from sits_keras.tasks.change.maps import ChangeMethod

_CHANGED = "#d55e00"  # Okabe and Ito's vermilion
_REFERENCE = "#f0e442"
_STRIDES = ("8", "16", "32", "64")
_NUM_STEPS = 500  # of the slider
_HELP = (
    "The distance between two dates, without what the whole scene has in common: of layers of the "
    "shared encoder and bands (layers), of the bands (pixels, irmad), or of both places as the "
    "model generates them at one date (translation). The distance between the exclusive "
    "representations (exclusive) is the mean over all windows that cover a pixel "
    "(section 4.6). For a hub module, the list contains only the methods that its encoder suffices "
    "for. Pixels above the threshold have changed and are shown in vermilion. A reference, if "
    "there is one, is outlined in yellow."
)
_POINTS_HELP = (
    "Click in the right date or in the distance where the place changed and where it did not, or "
    "enter rows and columns: the points steer the map of the method layers, whose distance is then "
    "the probability of change. Exports contain them as points.geojson, which the command and the "
    "Python lines read."
)


class ChangeView(View):
    """Map of a change, its threshold and its scores.

    Args:
        session: Session of the page.
    """

    label = "Change"  # offers the methods whose parts the model has
    needs_dates = True

    def __init__(self, session: Session):
        super().__init__(session)
        images = session.place.images
        self._before = DateSlider("Before", images, 0, self._choose_dates)
        self._after = DateSlider("After", images, len(images) - 1, self._choose_dates)
        stride = max(8, self._explorer.stride_of(images[0]))
        self._stride = Select(
            title="Stride, px",
            value=str(stride),
            options=sorted({*_STRIDES, str(stride)}, key=int),
            width=120,
        )
        methods = list(self._explorer.model.change_methods)
        self._method = Select(title="Method", value=methods[0], options=methods, width=120)
        self._method.on_change("value", lambda attr, old, new: self._update())
        self._stride.on_change("value", lambda attr, old, new: self._update())
        self._threshold = slider(
            "Threshold", start=0, end=1, step=0.001, value=0, width=500, name="threshold"
        )
        automatic = Button(label="Automatic threshold")
        automatic.on_click(self._use_automatic)
        self._is_auto = True
        self._shown: ShownChange | None = None
        self._points = PointInput(session, self._steer)
        self._old = RasterFigure(session, "before")
        self._new, self._map = (
            RasterFigure(session, name, self._points.tap) for name in ("after", "distance")
        )
        self._marks = LinearColorMapper(
            palette=[_CHANGED], low=0, high=1, low_color="#00000000", nan_color="#00000000"
        )
        self._colours = LinearColorMapper(palette=Cividis256, nan_color="#00000000")
        self._changed, _ = self._new.layer(0.75, color_mapper=self._marks)
        self._distance, _ = self._map.layer(1.0, color_mapper=self._colours)
        self._map.figure.add_layout(ColorBar(color_mapper=self._colours, width=12), "right")
        self._outline = ColumnDataSource({"x": [], "y": []})
        for raster in (self._new, self._map):
            for colour, width in (("#000000", 4), (_REFERENCE, 2)):
                raster.figure.multi_line(
                    "x", "y", source=self._outline, line_color=colour, line_width=width
                )
            self._points.draw(raster)
        self._make_histogram()
        self._text = Div(text="", name="scores", html_attributes={"aria-live": "polite"})
        # In the browser, without a round trip to the server.
        self._threshold.js_link("value", self._marks, "low")
        self._threshold.js_link("value", self._line, "location")
        self._threshold.on_change("value", lambda attr, old, new: self._show_scores())
        self._threshold.on_change("value_throttled", lambda attr, old, new: self._use_given())
        self._export = ExportPanel(session, "change", self._describe)
        self.root = stacked(
            Div(text=paragraph(_HELP)),
            wrapped(self._before.widget, self._after.widget, self._method, self._stride),
            wrapped(self._threshold, automatic),
            self._text,
            wrapped(self._old.figure, self._new.figure, self._map.figure, self._histogram),
            Div(text=paragraph(_POINTS_HELP)),
            self._points.root,
            self._export.root,
        )
        self._update()

    def _make_histogram(self) -> None:
        self._histogram = figure(
            name="histogram",
            title="Pixels by distance",
            width=440,
            height=360,
            tools="",
            x_axis_label="distance",
            y_axis_label="fraction of the pixels",
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

    def _choose_dates(self) -> None:
        self._points.clear()  # they label a change between two dates
        self._update()

    def _update(self) -> None:
        before, after = self._before.image, self._after.image
        for raster, image in ((self._old, before), (self._new, after), (self._map, after)):
            raster.show(self._explorer.raster(image), image.label)
        self._map.figure.title.text = "Distance"
        self._points.enable(self._chosen() == "layers" and before != after)
        self._stride.disabled = self._chosen() != "exclusive"
        # Results of other dates must not cover these dates.
        self._shown, self._is_auto = None, True
        self._text.text = ""
        for source in (self._changed, self._distance, self._outline, self._bars, self._curve):
            clear(source)
        self._export.show()
        if before == after:
            self._session.show_status("Choose two different dates.", is_error=True)
            return
        self._compute()

    def _steer(self) -> None:
        """Compute the map for changed points; the current map is shown until then."""
        self._is_auto = True
        self._export.show()
        self._compute()

    def _compute(self) -> None:
        before, after, points = self._before.image, self._after.image, self._given_points()
        method, stride = self._chosen(), int(self._stride.value)

        def compute(on_progress: OnProgress) -> ShownChange:
            if points:
                return self._explorer.steered_change(before, after, points, on_progress)
            return self._explorer.change(before, after, method, stride, on_progress)

        self._session.work("change", compute, self._show)

    def _show(self, shown: ShownChange) -> None:
        self._shown = shown
        height, width = self._session.place.grid[:2]
        part = Window(0, 0, height, width)
        known = shown.distance[np.isfinite(shown.distance)]
        lowest, highest = float(known.min()), float(known.max())
        highest = max(highest, lowest + 1e-6)
        self._colours.update(low=lowest, high=highest)
        self._marks.high = highest
        for source in (self._changed, self._distance):
            fill(source, shown.distance, part)
        counts, edges = histogram(known)
        self._histogram.x_range.update(start=lowest, end=highest)
        self._histogram.y_range.end = 1.1 * counts.max()
        self._bars.data = {"left": edges[:-1], "right": edges[1:], "top": counts}
        self._outline.data = outline(shown.reference, part)
        self._f1_axis.visible = shown.scores is not None
        self._curve.data = {"x": [], "y": []}
        if shown.scores is not None:
            thresholds = np.linspace(lowest, highest, 200)
            self._curve.data = {"x": thresholds, "y": shown.scores.f1(thresholds)}
        step = (highest - lowest) / _NUM_STEPS
        self._threshold.update(
            start=lowest, end=highest, step=step, format=f"0.{'0' * decimals(step)}"
        )
        self._use_automatic()
        count = len(self._given_points())
        self._map.figure.title.text = "Probability of change" if count else "Distance"
        self._session.show_status(
            f"Compared {self._before.image.label} and {self._after.image.label}"
            + (f", steered by {count} points." if count else ".")
        )

    def _use_automatic(self) -> None:
        if self._shown is not None:
            self._set_threshold(self._shown.change.threshold)
            self._is_auto = True
            self._export.show()

    def _set_threshold(self, threshold: float) -> None:
        self._threshold.value = threshold
        self._marks.low = self._line.location = threshold
        self._show_scores()

    def _use_given(self) -> None:
        self._is_auto = False
        self._export.show()

    def _show_scores(self) -> None:
        shown, threshold = self._shown, float(self._threshold.value)
        if shown is None:
            return
        known = shown.distance[np.isfinite(shown.distance)]
        text = f"{(known > threshold).mean():.1%} of the pixels changed, above {threshold:.4g}."
        if shown.scores is not None:
            best_threshold, best = shown.scores.best()
            text += (
                f" F1 {float(shown.scores.f1(threshold)):.3f} against the reference; "
                f"{float(shown.scores.f1(shown.change.threshold)):.3f} with the automatic "
                f"threshold; at most {best:.3f}, at {best_threshold:.4g}: an oracle upper bound, "
                "not a result."
            )
        elif shown.reference is not None:
            text += " The reference marks all pixels or none, so there is no F1."
        self._text.text = paragraph(text)

    def _describe(self) -> TaskCall:
        return change_call(
            self._explorer.model,
            self._before.image.path,
            self._after.image.path,
            method=self._chosen(),
            stride=int(self._stride.value),
            threshold="auto" if self._is_auto else float(self._threshold.value),
            mask=self._reference(),
            points=self._given_points(),
        )

    def _given_points(self) -> tuple[Point, ...]:
        return tuple(self._points.points) if self._chosen() == "layers" else ()

    def _chosen(self) -> ChangeMethod:
        return cast("ChangeMethod", self._method.value)

    def _reference(self) -> Path | None:
        # The command ends with an error for a mask that nothing can be scored against.
        scored = self._shown is not None and self._shown.scores is not None
        return self._session.place.mask if scored else None


def outline(
    reference: npt.NDArray[np.bool_] | None, part: Window
) -> dict[str, list[npt.NDArray[np.float64]]]:
    """Return the outlines of a mask, in pixels of its raster.

    Args:
        reference: `(rows, columns)` bool mask, decimated or not; `None` gives no outlines.
        part: Part of the raster that the mask covers.

    Returns:
        Columns `x` and rows `y` of each line.
    """
    if reference is None:
        return {"x": [], "y": []}
    rows, cols = reference.shape
    x = part.col + (np.arange(cols) + 0.5) * part.width / cols
    y = part.row + (np.arange(rows) + 0.5) * part.height / rows
    lines = contourpy.contour_generator(x, y, reference.astype(float)).lines(0.5)
    return {"x": [line[:, 0] for line in lines], "y": [line[:, 1] for line in lines]}


def decimals(step: float) -> int:
    """Return the number of decimals that distinguishes two values of a slider."""
    return max(1, int(np.ceil(-np.log10(step))) + 1) if step < 1 else 1
