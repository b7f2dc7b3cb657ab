"""Figure 6: scenes by clusters of their windows (section 4.5)."""

import numpy as np

from sits_keras import hub
from sits_keras.data.rasters.rows import preview_step
from sits_keras.tasks.evaluation.context import Context
from sits_keras.tasks.evaluation.results import Figure, Row, Section, Table
from sits_keras.tasks.quicklooks import draw_classes
from sits_keras.tasks.segmentation.maps import segment

_NUM_FIGURES = 2  # pictures, at most
_NUM_CLUSTERS = 7


def make_section(context: Context) -> Section:
    """Figure 6: scenes by clusters of their windows (section 4.5)."""
    model, config = context.subject.model, context.config
    encoder = hub.wrap(model)
    rows: list[Row] = []
    figures: list[Figure] = []
    for scene in context.stock.scenes:
        labels, clusters = segment(
            scene,
            encoder,
            num_clusters=_NUM_CLUSTERS,
            stride=config.segment_stride,
            mode=config.mode,
            progress=context.progress,
        )
        counts = np.bincount(labels.ravel(), minlength=_NUM_CLUSTERS + 1)[1:]
        rows.append(
            Row(scene.name, [*labels.shape, *(float(share) for share in counts / counts.sum())])
        )
        if len(figures) < _NUM_FIGURES:
            file = f"figures/segmentation-{scene.stem}.png"
            step = preview_step(*labels.shape)
            draw_classes(
                scene,
                labels[::step, ::step],
                clusters.classes(),
                context.out / file,
                bands=model.config.bands,
                overwrite=True,
            )
            figures.append(
                Figure(
                    file,
                    f"Figure 6. {scene.name} in {_NUM_CLUSTERS} clusters of its windows, windows "
                    f"every {config.segment_stride} px, a vote each. There is no reference: a "
                    "picture to look at, not a measurement.",
                    f"{scene.name} beside its map of clusters.",
                )
            )
    table = Table(
        "segmentation",
        "Share of the pixels in each cluster, from the darkest to the brightest.",
        ["height, px", "width, px", *(f"cluster {i}" for i in range(1, _NUM_CLUSTERS + 1))],
        rows,
    )
    settings = {"clusters": _NUM_CLUSTERS, "stride": config.segment_stride, "seed": 0}
    return Section("segmentation", "Segmentation (4.5)", settings, [table], figures, [])
