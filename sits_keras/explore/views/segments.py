"""Clusters of windows as a map: their number, how finely they vote, how opaque they are."""

import numpy as np
from bokeh.models import Div, LayoutDOM, LinearColorMapper, Select

from sits_keras.data.tiling import Window
from sits_keras.explore.engine.cache import STRIDES
from sits_keras.explore.engine.exports import Segmentation
from sits_keras.explore.engine.sources import Image
from sits_keras.explore.engine.state import Segments, keep_colours
from sits_keras.explore.views.html import legend, paragraph
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
from sits_keras.tasks.segmentation.clusters import class_colours

_MOST_CLUSTERS = 10  # as many colours are told apart by colour-blind eyes
_HELP = (
    "Clusters of the shared features of windows, each of which votes for the pixels that it "
    "covers (section 4.5). A cluster keeps its colour while their number changes; the colours of "
    "an exported map go from the darkest cluster to the brightest instead."
)


class SegmentsView:
    """Maps clusters."""

    label, needs = "Segments", "shared"

    def __init__(self, session: Session):
        self._session, self._explorer = session, session.explorer
        images = session.place.images
        self._date = DateSlider("Date", images, 0, self._choose)
        self._count = slider("Clusters", start=2, end=_MOST_CLUSTERS, step=1, value=7, width=320)
        self._opacity = slider("Opacity", start=0, end=1, step=0.05, value=0.6, width=240)
        stride = self._explorer.stride_of(images[0])
        coarser = [one for one in STRIDES if one > stride and one % stride == 0]
        strides = [str(one) for one in (stride, *coarser)]
        self._stride = Select(title="Stride, px", options=strides, value=strides[0], width=120)
        self._count.on_change("value_throttled", lambda attr, old, new: self._choose())
        self._stride.on_change("value", lambda attr, old, new: self._choose())
        self._map = RasterFigure(session, "segments")
        self._palette = LinearColorMapper(
            palette=["#000000"], low=0.5, high=1.5, low_color="#00000000"
        )
        self._labels, drawn = self._map.layer(0.6, color_mapper=self._palette)
        self._opacity.js_link("value", drawn.glyph, "global_alpha")
        self._shown: Image | None = None
        self._legend = Div(text="", name="legend")
        self._known: tuple[np.ndarray, list[int]] | None = None  # centres, their colours
        self._export = ExportPanel(session, "segments", self._request)
        self.root: LayoutDOM = stacked(
            Div(text=paragraph(_HELP)),
            wrapped(self._date.widget, self._count, self._stride, self._opacity),
            wrapped(self._map.figure, self._legend),
            self._export.root,
        )
        self._choose()

    def resume(self) -> None:
        """Nothing of it depends on other views."""

    def _choose(self) -> None:
        image, count, stride = self._date.image, int(self._count.value), int(self._stride.value)
        self._map.show(self._explorer.raster(image), image.label)
        self._export.show()
        if image != self._shown:
            clear(self._labels)
            self._legend.text = ""
        self._shown = image
        self._session.work(
            "segments",
            lambda tell: self._explorer.segments(image, count, stride, tell),
            self._show,
        )

    def _show(self, found: Segments) -> None:
        centres = found.clusters.centres
        colours = list(range(len(centres)))
        if self._known is not None:
            colours = keep_colours(centres, *self._known, _MOST_CLUSTERS)
        self._known = centres, colours
        palette = class_colours(_MOST_CLUSTERS)
        shown = [palette[index] for index in colours]
        self._palette.update(
            palette=["#{:02x}{:02x}{:02x}".format(*colour) for colour in shown],
            low=0.5,
            high=len(centres) + 0.5,
        )
        height, width = self._session.place.grid[:2]
        fill(self._labels, found.labels, Window(0, 0, height, width))
        entries = zip(shown, found.shares, found.clusters.brightness, strict=True)
        self._legend.text = legend(
            (colour, f"{value}: {share:.1%} of the pixels, mean reflectance {brightness:.3f}")
            for value, (colour, share, brightness) in enumerate(entries, start=1)
        )
        self._session.say(f"{len(centres)} clusters of {found.clusters.num_windows} windows.")

    def _request(self) -> Segmentation:
        image = self._date.image
        return Segmentation(
            self._explorer.subject,
            image.path,
            int(self._count.value),
            int(self._stride.value),
            self._explorer.fit_stride(image),
        )
