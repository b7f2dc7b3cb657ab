"""Pictures of maps beside the images they were made of: a look, not a measurement."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.colors
import matplotlib.figure
import matplotlib.patches
import numpy as np

from sits_keras.data.radiometry import DISPLAY_MAX, NODATA, QUANTIFICATION
from sits_keras.data.rasters.rows import Strips, open_strips, preview_step, thin
from sits_keras.data.rasters.write import MapClass
from sits_keras.files import refuse_existing, written_aside
from sits_keras.tasks.change.maps import Change

_ROWS_AT_A_TIME = 512
_RED = (0.84, 0.0, 0.0)


def view(strips: Strips) -> np.ndarray:
    """An image as it is looked at, small enough for a picture.

    Returns:
        `(rows, columns, 3)` float in [0, 1], white where there is no data: red, green and blue
        where the image has B04, B03 and B02, else its first band in grey.
    """
    height, width = strips.grid[:2]
    parts = (
        (row, strips.read(row, min(_ROWS_AT_A_TIME, height - row)))
        for row in range(0, height, _ROWS_AT_A_TIME)
    )
    stored = thin(parts, preview_step(height, width))
    colours = ("B04", "B03", "B02")
    named = all(band in strips.bands for band in colours)
    shown = [strips.bands.index(band) for band in colours] if named else [0, 0, 0]
    image = np.clip(stored[..., shown] / (QUANTIFICATION * DISPLAY_MAX), 0, 1)
    return np.where(stored[..., :1] == NODATA, 1.0, image)


def draw_change(
    change: Change, path: Path | str, *, mask: np.ndarray | None = None, overwrite: bool = False
) -> Path:
    """Draws both images, the distance, and what changed, in red.

    Args:
        change: what changed.
        path: of the PNG.
        mask: `(height, width)` bool reference, outlined in yellow.
        overwrite: replace a picture that is there.
    Returns:
        The path.
    Raises:
        ExistsError: `path` is there, and not to be replaced.
    """
    before, after = (view(strips) for strips in change.pair)
    height, width = change.pair.before.grid[:2]
    step = preview_step(height, width)
    distance = thin(change.rows(), step)
    marked = np.where(
        (distance > change.threshold)[..., None], 0.4 * after + 0.6 * np.array(_RED), after
    )
    figure, axes = _panels(4, before.shape)
    extent = (0, width, height, 0)
    for axis, title, image in (
        (axes[0], "before", before),
        (axes[1], "after", after),
        (axes[3], f"changed: distance above {change.threshold:.3g}", marked),
    ):
        axis.set_title(title, fontsize=10)
        axis.imshow(image, extent=extent, interpolation="nearest")
    axes[2].set_title("distance", fontsize=10)
    shown = axes[2].imshow(distance, extent=extent, cmap="viridis", interpolation="nearest")
    figure.colorbar(shown, cax=axes[2].inset_axes((1.02, 0, 0.04, 1)))  # as high as the image
    if mask is not None and 0 < np.count_nonzero(mask) < mask.size:
        reference = mask[::step, ::step].astype(float)
        rows, cols = np.indices(reference.shape) * step + 0.5 * step
        for axis in axes[2:]:
            axis.contour(cols, rows, reference, [0.5], colors="gold", linewidths=1)
        figure.supxlabel("yellow: outline of the reference", fontsize=9)
    return _save(figure, path, overwrite)


def draw_classes(
    image: Path | str | np.ndarray,
    labels: np.ndarray,
    classes: Mapping[int, MapClass],
    path: Path | str,
    *,
    bands: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Draws an image beside its class map, with a legend.

    Args:
        image: a raster's path, or an array.
        labels: every `preview_step`th row and column of the map, uint8.
        classes: what its values stand for; others are white.
        path: of the PNG.
        bands: band names to read; the raster's own by default.
        overwrite: replace a picture that is there.
    Returns:
        The path.
    Raises:
        ExistsError: `path` is there, and not to be replaced.
    """
    shown_image = view(open_strips(image, bands))
    table = np.full((256, 3), 255, np.uint8)
    for value, one in classes.items():
        table[value] = one.colour
    figure, axes = _panels(2, shown_image.shape)
    for axis, title, shown in (
        (axes[0], "image", shown_image),
        (axes[1], "classes", table[labels]),
    ):
        axis.set_title(title, fontsize=10)
        axis.imshow(shown, interpolation="nearest")
    patches = [
        matplotlib.patches.Patch(color=np.array(one.colour) / 255, label=one.name)
        for value, one in sorted(classes.items())
        if (labels == value).any()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, fontsize=9)
    return _save(figure, path, overwrite)


def _panels(count: int, shape: Sequence[int]) -> tuple[matplotlib.figure.Figure, Any]:
    panel = 4.2
    height = min(max(panel * shape[0] / shape[1], 1.5), 2 * panel)
    figure = matplotlib.figure.Figure(
        figsize=(panel * count + 0.6, height + 0.6), layout="constrained"
    )
    axes = figure.subplots(1, count)
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def _save(figure: matplotlib.figure.Figure, path: Path | str, overwrite: bool) -> Path:
    path = Path(path)
    refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=110, format="png", bbox_inches="tight")
    return path
