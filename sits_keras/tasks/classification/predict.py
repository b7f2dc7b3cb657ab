"""A classifier on what has no labels: a class map of a raster, and a list of chips."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from tqdm import tqdm

from sits_keras.data.chips import find_chips, read_chips
from sits_keras.data.radiometry import NODATA
from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.rasters.write import MapClass, open_map
from sits_keras.errors import ConfigError, DataError
from sits_keras.tasks.classification.classifier import Classifier
from sits_keras.tasks.windows.sliding import (
    BATCH_SIZE,
    check_stride,
    iterate_windows,
    sum_over_windows,
)

NO_CLASS = 0
"""Value of a map where there is no data; the first class is 1."""

_COLOURS = {
    "AnnualCrop": (240, 214, 96),
    "Forest": (26, 102, 46),
    "HerbaceousVegetation": (156, 198, 96),
    "Highway": (64, 64, 64),
    "Industrial": (168, 80, 160),
    "Pasture": (92, 184, 92),
    "PermanentCrop": (204, 130, 48),
    "Residential": (214, 56, 48),
    "River": (88, 160, 226),
    "SeaLake": (24, 72, 160),
}


class ChipClass(NamedTuple):
    """What a chip was told to be.

    Attributes:
        file: its name within the folder or archive.
        label: the class.
        probability: of that class, in [0, 1].
    """

    file: str
    label: str
    probability: float


def classify_chips(
    classifier: Classifier, path: Path, *, batch_size: int = 128, progress: bool = False
) -> Iterator[ChipClass]:
    """Tells the class of every chip of a folder or zip archive, however deep they lie.

    Args:
        classifier: what tells.
        path: of the folder or archive.
        batch_size: chips at a time.
        progress: show a progress bar.
    Raises:
        MissingError, DataError: see `data.chips.find_chips` and `read_chips`.
    """
    source = find_chips(path)
    chips = read_chips(source, source.names, classifier.bands)
    bar = iter(
        tqdm(
            zip(source.names, chips, strict=True),
            "classify",
            len(source.names),
            unit="chip",
            disable=not progress,
        )
    )
    while batch := list(itertools.islice(bar, batch_size)):
        values = np.stack([chip.values for _, chip in batch]).astype(np.float32)
        probabilities = classifier(values * np.float32(source.unit))
        for (name, _), row in zip(batch, probabilities, strict=True):
            best = int(row.argmax())
            yield ChipClass(name, classifier.classes[best], float(row[best]))


def classify_raster(
    classifier: Classifier,
    image: Path | np.ndarray,
    out: Path,
    *,
    stride: int = 32,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> dict[str, float]:
    """Writes a map of the class of every pixel of a raster.

    A window of 64 x 64 pixels slides over the raster. A pixel is of the class with the largest mean
    probability over the windows that cover it, each by its share of pixels with data. Neither the
    raster nor the map is ever whole in memory.

    Args:
        classifier: what tells.
        image: path of a raster that has the classifier's bands, or an array as
            `data.strips.open_strips` takes it.
        out: of the map, a cloud-optimised GeoTIFF of the raster's grid: 0 where there is no data,
            then the classes, with their names and a colour table.
        stride: pixels from a window to the next.
        batch_size: windows at a time.
        progress: show a progress bar.
    Returns:
        Share of each class among the pixels with data, in the classifier's order.
    Raises:
        MissingError: no such file.
        DataError: the raster cannot be read, lacks a band, or holds no data at all.
        ConfigError: it is smaller than a window, or the stride is not in [1, 64].
    """
    check_stride(stride)
    strips = open_strips(image, classifier.bands)
    rows = iterate_windows(
        classifier,
        strips,
        stride,
        batch_size=batch_size,
        progress="classify" if progress else None,
    )
    counts = np.zeros(len(classifier.classes) + 1, np.int64)
    first = next(rows)  # what cannot be classified is told before a file is begun
    with open_map(
        out,
        strips.grid,
        ["class"],
        np.uint8,
        NO_CLASS,
        resampling="mode",
        classes=map_classes(classifier.classes),
    ) as target:
        # Windows are read ahead of the rows that are written, and strips do not go back.
        mask_strips = copy.deepcopy(strips)
        weighted = (
            (one.row, one.cols, np.nan_to_num(one.features) * one.valid_fraction[:, None])
            for one in itertools.chain([first], rows)
        )
        for part in sum_over_windows(weighted, *strips.grid[:2]):
            best = part.sums.argmax(axis=-1) + 1
            best[part.sums.max(axis=-1) == 0] = NO_CLASS
            is_valid = mask_strips.read(part.row, part.num_rows)[..., 0] != NODATA
            values = np.where(is_valid, part.spread(best.astype(np.uint8)), np.uint8(NO_CLASS))
            counts += np.bincount(values.ravel(), minlength=len(counts))
            target.write(part.row, values)
        if not counts[1:].any():
            raise DataError(f"{strips.name} holds no data at all in {', '.join(strips.bands)}.")
    shares = counts[1:] / counts[1:].sum()
    return dict(zip(classifier.classes, shares.tolist(), strict=True))


def map_classes(names: Sequence[str]) -> dict[int, MapClass]:
    """Values, names and colours of a class map: EuroSAT's classes in colours that suit them.

    Raises:
        ConfigError: there are more classes than a byte holds.
    """
    if len(names) > 255:
        raise ConfigError(f"A class map holds 255 classes at most. Received: {len(names)}.")
    palette = matplotlib.colormaps["tab20"]
    classes = {NO_CLASS: MapClass("no data", (0, 0, 0))}
    for index, name in enumerate(names):
        red, green, blue = (round(255 * part) for part in palette(index % palette.N)[:3])
        classes[index + 1] = MapClass(name, _COLOURS.get(name, (red, green, blue)))
    return classes
