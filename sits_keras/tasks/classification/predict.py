"""Apply a classifier: class maps of rasters, and lists of the classes of chips."""

import copy
import csv
import datetime
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from sits_keras.data.chips import find_chips, read_chips
from sits_keras.data.radiometry import NODATA
from sits_keras.data.rasters.rows import preview_step, thin
from sits_keras.data.rasters.write import MapClass, open_map
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import check_suffix, refuse_existing, written_aside
from sits_keras.tasks.classification.classifier import Classifier
from sits_keras.tasks.pictures import check_picture, plot_classes
from sits_keras.tasks.series import check_period, open_image, paths_of
from sits_keras.tasks.window_sums import check_stride, sum_over_windows
from sits_keras.tasks.windows import iterate_windows

NO_CLASS = 0
"""Value of pixels without data; classes are 1, 2, ..."""

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
    """Predicted class of a chip.

    Attributes:
        file: Name of the chip within the folder or archive.
        label: Predicted class.
        probability: Probability of that class, in [0, 1].
    """

    file: str
    label: str
    probability: float


def classify_chips(
    data: Path | str,
    out: Path | str,
    classifier: Classifier,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, int]:
    """Write a CSV with the class of every chip of a folder or zip archive.

    The columns are `file`, `class` and `probability`.

    Args:
        data: Folder or archive of chips, at any depth.
        out: Output CSV.
        classifier: Trained classifier, see `load_classifier`.
        overwrite: Overwrite an existing file.
        progress: Show a progress bar.

    Returns:
        Number of chips of each class, in the classifier's order.

    Raises:
        ExistsError: If `out` exists and `overwrite` is false, or is the input.
        OutputError: If `out` cannot be written.
        MissingError: If `data` does not exist or contains no chips.
        DataError: If a chip cannot be read or lacks a band.
        ConfigError: If `out` does not end in .csv.

    Examples:
        >>> classifier = load_classifier("classifier")
        >>> classify_chips("chips.zip", "classes.csv", classifier)
    """
    data, out = Path(data), Path(out)
    check_suffix(out, "OUT, a list of the classes of chips,", ".csv")
    refuse_existing(out, overwrite, [data])
    counts = dict.fromkeys(classifier.classes, 0)
    chips = iterate_chips(classifier, data, progress=progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(out) as aside, aside.open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(["file", "class", "probability"])
        for chip in chips:
            writer.writerow([chip.file, chip.label, f"{chip.probability:.4f}"])
            counts[chip.label] += 1
    return counts


def iterate_chips(
    classifier: Classifier, path: Path, *, batch_size: int = 128, progress: bool = False
) -> Iterator[ChipClass]:
    """Yield the class of every chip of a folder or zip archive, at any depth.

    Args:
        classifier: Trained classifier.
        path: Folder or archive.
        batch_size: Number of chips classified at a time.
        progress: Show a progress bar.

    Yields:
        File, class and probability of each chip.

    Raises:
        MissingError: See `data.chips.find_chips` and `read_chips`.
        DataError: See `data.chips.find_chips` and `read_chips`.
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
    image: Path | str | npt.NDArray[Any] | Sequence[Path | str],
    out: Path | str,
    classifier: Classifier,
    *,
    stride: int = 32,
    first: datetime.date | None = None,
    last: datetime.date | None = None,
    newest: bool = False,
    picture: Path | str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, float]:
    """Write a class map of a raster as a cloud-optimised GeoTIFF, in bounded memory.

    A window of 64 x 64 px slides over the raster. A pixel has the class with the largest mean
    probability over the windows that cover it, weighted by their valid-data fraction. The map has
    a colour table and class names; 0 is no data.

    The probabilities of a window of a series are averaged over the dates. A date counts by the
    fraction of the window that is clear, to the fourth power.

    Args:
        image: Path of a raster that has the classifier's bands, or a `(height, width, bands)` array
            of uint16 stored values or float reflectance; or a series, as `embed_raster` takes it.
        out: Output GeoTIFF.
        classifier: Trained classifier, see `load_classifier`.
        stride: Distance between windows, in pixels, 1 to 64.
        first: First acquisition date of a series to use.
        last: Last acquisition date of a series to use.
        newest: Use the newest of several products of one tile and date; else they are an error.
        picture: PNG to write as well: the image beside the map, with a legend.
        overwrite: Overwrite existing files.
        progress: Show a progress bar.

    Returns:
        Fraction of each class among the pixels with data, in the classifier's order.

    Raises:
        ExistsError: If an output exists and `overwrite` is false, or is the input.
        OutputError: If an output cannot be written.
        MissingError: If the raster does not exist.
        DataError: If the raster cannot be read, lacks a band or has no valid data; if scenes of a
            series are not on one grid, or no date is in the period.
        ConfigError: If the stride is out of range or the raster is smaller than a window.

    Examples:
        >>> classifier = load_classifier("classifier")
        >>> fractions = classify_raster("scene.tif", "classes.tif", classifier, stride=16)
        >>> print(f"{fractions['Forest']:.1%} forest")
    """
    out = Path(out)
    check_suffix(out, "OUT, a map of the classes of a raster,", ".tif", ".tiff")
    refuse_existing(out, overwrite, paths_of(image))
    picture = check_picture(picture, overwrite)
    check_stride(stride)
    period = first, last
    check_period([image], period, newest)
    strips = open_image(image, classifier.bands, period=period, newest=newest)
    rows = iterate_windows(
        classifier,
        strips,
        stride,
        progress="classify" if progress else None,
    )
    counts = np.zeros(len(classifier.classes) + 1, np.int64)
    classes = map_classes(classifier.classes)
    step = preview_step(*strips.grid[:2])
    preview = []
    first_row = next(rows)  # errors are raised before the file is created
    with open_map(
        out,
        strips.grid,
        ["class"],
        np.uint8,
        NO_CLASS,
        resampling="mode",
        classes=classes,
    ) as target:
        # Separate copy: windows are read ahead of the rows that are written.
        mask_strips = copy.deepcopy(strips)
        weighted = (
            (one.row, one.cols, np.nan_to_num(one.features) * one.valid_fraction[:, None])
            for one in itertools.chain([first_row], rows)
        )
        for part in sum_over_windows(weighted, *strips.grid[:2]):
            best = part.sums.argmax(axis=-1) + 1
            best[part.sums.max(axis=-1) == 0] = NO_CLASS
            is_valid = mask_strips.read(part.row, part.num_rows)[..., 0] != NODATA
            values = np.where(is_valid, part.spread(best.astype(np.uint8)), np.uint8(NO_CLASS))
            counts += np.bincount(values.ravel(), minlength=len(counts))
            target.write(part.row, values)
            preview.append(thin([(part.row, values)], step))
        if not counts[1:].any():
            raise DataError(f"{strips.name} has no data in {', '.join(strips.bands)}.")
    if picture is not None:
        labels = np.concatenate(preview)
        plot_classes(strips, labels, classes, picture, overwrite=overwrite)
    fractions = counts[1:] / counts[1:].sum()
    return dict(zip(classifier.classes, fractions.tolist(), strict=True))


def map_classes(names: Sequence[str]) -> dict[int, MapClass]:
    """Return the values, names and colours of a class map; EuroSAT's classes have fixed colours.

    Args:
        names: Class names.

    Raises:
        ConfigError: If there are more than 255 classes.
    """
    if len(names) > 255:
        raise ConfigError(f"Expected at most 255 classes in a map. Received: {len(names)}.")
    palette = matplotlib.colormaps["tab20"]
    classes = {NO_CLASS: MapClass("no data", (0, 0, 0))}
    for index, name in enumerate(names):
        red, green, blue = (round(255 * part) for part in palette(index % palette.N)[:3])
        classes[index + 1] = MapClass(name, _COLOURS.get(name, (red, green, blue)))
    return classes
