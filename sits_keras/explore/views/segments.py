"""The Segments view: clusters of windows as a map."""

import numpy as np
import numpy.typing as npt
from bokeh.models import Div, LayoutDOM, LinearColorMapper, Select

from sits_keras.data.tiling import Window
from sits_keras.explore.engine.analysis import Segments, assign_colours
from sits_keras.explore.engine.cache import STRIDES
from sits_keras.explore.engine.calls import TaskCall, segmentation_call
from sits_keras.explore.engine.sources import DatedRaster
from sits_keras.explore.views.session import Session
from sits_keras.explore.views.widgets import (
    DateSlider,
    ExportPanel,
    RasterFigure,
    clear,
    fill,
    legend,
    paragraph,
    slider,
    stacked,
    wrapped,
)
from sits_keras.tasks.segmentation import class_colours

_MAX_CLUSTERS = 10  # as many colours as colour-blind people can distinguish
_HELP = (
    "Clusters of the shared features of windows. Each window votes for the pixels that it covers "
    "(section 4.5). A cluster keeps its colour when the number of clusters changes. The colours "
    "of an exported map are ordered from the darkest cluster to the brightest instead."
)


class SegmentsView:
    """Map of clusters with a legend.

    Args:
        session: Session of the page.
    """

    label, needs = "Segments", "shared"

    def __init__(self, session: Session):
        self._session, self._explorer = session, session.explorer
        images = session.place.images
        self._date = DateSlider("Date", images, 0, self._update)
        self._count = slider("Clusters", start=2, end=_MAX_CLUSTERS, step=1, value=7, width=320)
        self._opacity = slider("Opacity", start=0, end=1, step=0.05, value=0.6, width=240)
        stride = self._explorer.stride_of(images[0])
        coarser = [other for other in STRIDES if other > stride and other % stride == 0]
        strides = [str(value) for value in (stride, *coarser)]
        self._stride = Select(title="Stride, px", options=strides, value=strides[0], width=120)
        self._count.on_change("value_throttled", lambda attr, old, new: self._update())
        self._stride.on_change("value", lambda attr, old, new: self._update())
        self._map = RasterFigure(session, "segments")
        self._palette = LinearColorMapper(
            palette=["#000000"], low=0.5, high=1.5, low_color="#00000000"
        )
        self._labels, renderer = self._map.layer(0.6, color_mapper=self._palette)
        self._opacity.js_link("value", renderer.glyph, "global_alpha")
        self._shown: DatedRaster | None = None
        self._legend = Div(text="", name="legend")
        self._known: tuple[npt.NDArray[np.float32], list[int]] | None = (
            None  # centres, their colours
        )
        self._export = ExportPanel(session, "segments", self._describe)
        self.root: LayoutDOM = stacked(
            Div(text=paragraph(_HELP)),
            wrapped(self._date.widget, self._count, self._stride, self._opacity),
            wrapped(self._map.figure, self._legend),
            self._export.root,
        )
        self._update()

    def resume(self) -> None:
        """Do nothing: this view does not depend on the others."""

    def _update(self) -> None:
        image, count, stride = self._date.image, int(self._count.value), int(self._stride.value)
        self._map.show(self._explorer.raster(image), image.label)
        self._export.show()
        if image != self._shown:
            clear(self._labels)
            self._legend.text = ""
        self._shown = image
        self._session.work(
            "segments",
            lambda on_progress: self._explorer.segments(image, count, stride, on_progress),
            self._show,
        )

    def _show(self, found: Segments) -> None:
        centres = found.clusters.centres
        colours = list(range(len(centres)))
        if self._known is not None:
            colours = assign_colours(centres, *self._known, _MAX_CLUSTERS)
        self._known = centres, colours
        palette = class_colours(_MAX_CLUSTERS)
        shown = [palette[index] for index in colours]
        self._palette.update(
            palette=["#{:02x}{:02x}{:02x}".format(*colour) for colour in shown],
            low=0.5,
            high=len(centres) + 0.5,
        )
        height, width = self._session.place.grid[:2]
        fill(self._labels, found.labels, Window(0, 0, height, width))
        entries = zip(shown, found.fractions, found.clusters.brightness, strict=True)
        self._legend.text = legend(
            (colour, f"{value}: {fraction:.1%} of the pixels, mean reflectance {brightness:.3f}")
            for value, (colour, fraction, brightness) in enumerate(entries, start=1)
        )
        self._session.show_status(
            f"{len(centres)} clusters of {found.clusters.num_windows} windows."
        )

    def _describe(self) -> TaskCall:
        image = self._date.image
        return segmentation_call(
            self._explorer.model,
            image.path,
            num_clusters=int(self._count.value),
            stride=int(self._stride.value),
            fit_stride=self._explorer.fit_stride(image),
        )
