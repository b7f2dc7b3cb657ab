"""One place as the model generates it, beside what was really there, as a picture (section 4.2)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sits_keras.model import DisentangledSITS
from sits_keras.tasks.figures import draw_series
from sits_keras.tasks.translation.rasters import read_crops


def draw_snapshot(
    model: DisentangledSITS,
    rasters: Sequence[Path | str],
    path: Path,
    *,
    samples: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    at: tuple[int, int] | None = None,
) -> Path:
    """Draws 64 x 64 px of the first raster's place at other dates, between the real images.

    Args:
        model: what generates.
        rasters: the place and, unless `samples` are drawn, the date to show it at.
        path: of the PNG.
        samples: dates to draw from N(0, I) in place of the second raster's.
        seed: seed of the draws.
        steps: images from the first raster's date to the second one's, both ends included.
        at: (row, column) of the upper left corner; the middle by default.
    Returns:
        The path.
    Raises:
        MissingError, DataError, ConfigError: see `mosaics.read_crops`.
    """
    crops = read_crops(rasters, model.config, at)
    place = crops[:1]
    if samples:
        images = model.sample(place, samples, seed)[0]
        before, after, titles = [place[0]], [], [f"drawn {i}" for i in range(1, samples + 1)]
    elif steps:
        images = model.interpolate(place, place, crops[1:], steps)[0]
        before, after = [place[0]], [crops[1]]
        titles = [f"{index / (steps - 1):.0%}" for index in range(steps)]
    else:
        images = model.translate(place, crops[1:])
        before, after, titles = [place[0]], [crops[1]], ["translated"]
    names = [Path(one).stem for one in rasters]
    return draw_series(
        [("", np.stack([*before, *np.asarray(images), *after]))],
        [names[0], *titles, *names[1:]],
        path,
        bands=model.config.bands,
        band_max=model.config.band_max,
    )
