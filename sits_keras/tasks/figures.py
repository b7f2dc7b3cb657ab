"""Pictures for people: arrays in, PNG out."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np

from sits_keras.data.radiometry import reflectance_from_network
from sits_keras.errors import ConfigError
from sits_keras.files import written_aside

DISPLAY_MAX = 0.275
"""Reflectance shown as white: the brightness of EuroSAT's JPEGs, and of most Sentinel-2 views."""


def true_colour(values: np.ndarray, bands: Sequence[str], band_max: Sequence[float]) -> np.ndarray:
    """Images as they are looked at.

    Args:
        values: `(..., bands)` float in [-1, 1].
        bands: band names; B04, B03 and B02 give the colours, or the first band greys.
        band_max: reflectance of each band that is 1.
    Returns:
        `(..., 3)` float in [0, 1].
    """
    shown = [list(bands).index(band) for band in ("B04", "B03", "B02") if band in bands]
    if len(shown) != 3:
        shown = [0, 0, 0]
    reflectance = reflectance_from_network(values, band_max)[..., shown]
    return np.clip(reflectance / DISPLAY_MAX, 0, 1)


def draw_translations(
    columns: Sequence[tuple[str, np.ndarray]],
    path: Path,
    *,
    bands: Sequence[str],
    band_max: Sequence[float],
) -> Path:
    """A grid of images, a row for each place (Figure 3).

    Args:
        columns: of each, its title and `(rows, 64, 64, bands)` float in [-1, 1].
        path: of the PNG.
        bands: band names.
        band_max: reflectance of each band that is 1.
    Returns:
        The path.
    Raises:
        ConfigError: the columns are of different length.
    """
    num_rows = len(columns[0][1])
    if any(len(images) != num_rows for _, images in columns):
        raise ConfigError(
            "Every column needs as many images. Received: "
            + ", ".join(f"{title} {len(images)}" for title, images in columns)
        )
    figure = matplotlib.figure.Figure(
        figsize=(1.7 * len(columns), 1.65 * num_rows + 0.3), layout="constrained"
    )
    grid = figure.subplots(num_rows, len(columns), squeeze=False)
    for col, (title, images) in enumerate(columns):
        grid[0][col].set_title(title, fontsize=10)
        for row, image in enumerate(true_colour(images, bands, band_max)):
            grid[row][col].imshow(image, interpolation="nearest")
            grid[row][col].set_axis_off()
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    return path
