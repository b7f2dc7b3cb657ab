"""The Segments view: clusters of pixels as a map."""

import numpy as np
import numpy.typing as npt
from bokeh.models import Div, LinearColorMapper, Select

from sits_keras.data.tiling import Window
from sits_keras.explore.engine.analysis import assign_colours
from sits_keras.explore.engine.calls import TaskCall, segmentation_call
from sits_keras.explore.engine.sources import ExploredImage
from sits_keras.explore.views.session import Session, View
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
from sits_keras.tasks.segmentation.clusters import class_colours
from sits_keras.tasks.segmentation.maps import MIN_REGION, Segments

_MAX_CLUSTERS = 10  # as many colours as colour-blind people can distinguish
_MIN_REGIONS = (1, 4, MIN_REGION, 64, 256)
_HELP = (
    "Clusters of pixels by their reflectance and by layers of the shared encoder around them. "
    "Regions below a minimum size are merged into their neighbours. A cluster keeps its colour "
    "when the number of clusters changes. The colours of an exported map are ordered from the "
    "darkest cluster to the brightest instead. For the mean of a series, reflectance and layers "
    "are averaged over the clear dates."
)


class SegmentsView(View):
    """Map of clusters with a legend.

    Args:
        session: Session of the page.
    """

    label, needs = "Segments", "shared"

    def __init__(self, session: Session):
        super().__init__(session)
        images = session.place.shown
        self._date = DateSlider("Date", images, 0, self._update)
        self._count = slider("Clusters", start=2, end=_MAX_CLUSTERS, step=1, value=7, width=320)
        self._opacity = slider("Opacity", start=0, end=1, step=0.05, value=0.6, width=240)
        self._min_region = Select(
            title="Smallest region, px",
            options=[str(value) for value in _MIN_REGIONS],
            value=str(MIN_REGION),
            width=150,
        )
        self._count.on_change("value_throttled", lambda attr, old, new: self._update())
        self._min_region.on_change("value", lambda attr, old, new: self._update())
        self._map = RasterFigure(session, "segments")
        self._palette = LinearColorMapper(
            palette=["#000000"], low=0.5, high=1.5, low_color="#00000000"
        )
        self._labels, renderer = self._map.layer(0.6, color_mapper=self._palette)
        self._opacity.js_link("value", renderer.glyph, "global_alpha")
        self._shown: ExploredImage | None = None
        self._legend = Div(text="", name="legend")
        self._known: tuple[npt.NDArray[np.float32], list[int]] | None = (
            None  # centres, their colours
        )
        self._export = ExportPanel(session, "segments", self._describe)
        self.root = stacked(
            Div(text=paragraph(_HELP)),
            wrapped(self._date.widget, self._count, self._min_region, self._opacity),
            wrapped(self._map.figure, self._legend),
            self._export.root,
        )
        self._update()

    def _update(self) -> None:
        image, count = self._date.image, int(self._count.value)
        min_region = int(self._min_region.value)
        self._map.show(self._explorer.raster(image), image.label)
        self._export.show()
        if image != self._shown:
            clear(self._labels)
            self._legend.text = ""
        self._shown = image
        self._session.work(
            "segments",
            lambda on_progress: self._explorer.segments(image, count, min_region, on_progress),
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
        fill(self._labels, found.preview, Window(0, 0, height, width))
        fractions = found.num_pixels / max(found.num_pixels.sum(), 1)
        names = [one.name.partition(": ")[2] for one in found.clusters.classes().values()]
        self._legend.text = legend(
            (colour, f"{value}: {fraction:.1%} of the pixels, {name}")
            for value, (colour, fraction, name) in enumerate(
                zip(shown, fractions, names, strict=True), start=1
            )
        )
        self._session.show_status(
            f"{len(centres)} clusters of {found.clusters.num_samples} pixels."
        )

    def _describe(self) -> TaskCall:
        image = self._date.image
        return segmentation_call(
            self._explorer.model,
            image.path,
            num_clusters=int(self._count.value),
            min_region=int(self._min_region.value),
        )
