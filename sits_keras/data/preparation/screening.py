"""Selection of granules that are clear and complete enough, and checks of their values (4.1)."""

import datetime
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.bands import is_like_a_mask
from sits_keras.config import PrepareConfig
from sits_keras.data.radiometry import MAX_STORED, QUANTIFICATION, dark_words, is_dark
from sits_keras.data.sources.granules import MaskKind

MASK_BANDS = {"SCL": 1, "QA60": 1, "MSK_CLASSI": 2, "mask": 1}
"""Number of bands of each kind of mask: opaque cloud and cirrus in MSK_CLASSI."""

_CLASSI = ("MSK_CLASSI_OPAQUE", "MSK_CLASSI_CIRRUS")
_QA60_GAP = (datetime.date(2022, 1, 25), datetime.date(2024, 2, 28))
"""Acquisitions whose QA60 holds nothing: Earth Engine's catalogue states these dates."""

_SCL_NODATA = 0
_SCL_CLOUDY = (3, 8, 9, 10)  # cloud shadow; cloud of medium and of high probability; thin cirrus
_QA60_CLOUDY = 1 << 10 | 1 << 11  # opaque cloud, cirrus


def find_masks(
    names: Sequence[str | None],
) -> tuple[dict[MaskKind, tuple[int, ...]], tuple[str, ...]]:
    """Find the cloud masks among the bands of a raster, by their names.

    Args:
        names: Name of each band, `None` if it has none.

    Returns:
        Indices from 1 of the bands of each mask: SCL if there is one, or else MSK_CLASSI and QA60;
        and names of bands that look like masks, but cannot be read.
    """
    found = {(name or "").upper(): index for index, name in enumerate(names, start=1)}
    masks: dict[MaskKind, tuple[int, ...]] = {}
    if "SCL" in found:
        masks["SCL"] = (found["SCL"],)
    else:
        if classi := tuple(found[name] for name in _CLASSI if name in found):
            masks["MSK_CLASSI"] = classi
        if "QA60" in found:
            masks["QA60"] = (found["QA60"],)
    return masks, tuple(name for name in names if name and is_like_a_mask(name))


def in_qa60_gap(date: datetime.date) -> bool:
    """Return whether QA60 is empty for products of a date, so that it is not a mask."""
    return _QA60_GAP[0] <= date <= _QA60_GAP[1]


def is_cloudy(values: npt.NDArray[Any], kind: MaskKind) -> npt.NDArray[np.bool_]:
    """Return where a mask marks cloud or cloud shadow.

    Args:
        values: `(bands, height, width)` of the mask's raster, `MASK_BANDS[kind]` bands.
        kind: Kind of the mask.

    Returns:
        `(height, width)` bool.
    """
    match kind:
        case "SCL":
            return np.isin(values[0], _SCL_CLOUDY)
        case "QA60":
            return np.asarray(values[0].astype(np.int64) & _QA60_CLOUDY != 0)
        case _:
            return np.asarray((values != 0).any(axis=0))


def has_data(scl: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return where a scene classification (SCL) has data, `(height, width)` bool."""
    return np.asarray(scl != _SCL_NODATA)


class Coverage(NamedTuple):
    """Pixel counts of a granule, or of a part of one.

    Attributes:
        pixels: All pixels.
        valid: Pixels that hold data.
        cloudy: Pixels that hold data and lie under cloud or shadow.
    """

    pixels: int
    valid: int
    cloudy: int

    @property
    def complete(self) -> float:
        """Fraction of the pixels that hold data, in [0, 1]."""
        return self.valid / self.pixels

    @property
    def cloud(self) -> float:
        """Fraction of the valid pixels under cloud or shadow, in [0, 1]; 1 if none is valid."""
        return self.cloudy / self.valid if self.valid else 1.0


def count_coverage(valid: npt.NDArray[np.bool_], cloudy: npt.NDArray[np.bool_] | None) -> Coverage:
    """Count pixels.

    Args:
        valid: `(height, width)` bool, true where there is data.
        cloudy: Same shape, true under cloud or shadow; `None` without a mask.
    """
    num_cloudy = 0 if cloudy is None else np.count_nonzero(cloudy & valid)
    return Coverage(valid.size, int(np.count_nonzero(valid)), int(num_cloudy))


def add_coverages(parts: Iterable[Coverage]) -> Coverage:
    """Return the counts of several parts together."""
    return Coverage(*(sum(column) for column in zip(*parts, strict=True)))


def rejection(coverage: Coverage, config: PrepareConfig) -> str | None:
    """Return why a granule, or a part of one, is rejected; `None` if it passes."""
    if coverage.complete < config.min_complete:
        return f"complete {coverage.complete:.2%} < {config.min_complete:.2%}"
    if coverage.cloud > config.max_cloud:
        return f"cloud {coverage.cloud:.2%} > {config.max_cloud:.2%}"
    return None


def spread_over_period(dates: Sequence[datetime.date], count: int) -> list[int]:
    """Choose dates that are spread over the period.

    The first and the last are kept; the others are, one after the other, the dates nearest to
    equal steps between those two.

    Args:
        dates: Ascending and distinct.
        count: Number of dates to keep, at least 2; all are kept if there are no more.

    Returns:
        Ascending indices.
    """
    if len(dates) <= count:
        return list(range(len(dates)))
    days = [date.toordinal() for date in dates]
    chosen: list[int] = []
    for position in range(count):
        target = days[0] + (days[-1] - days[0]) * position / (count - 1)
        # As many dates must be left after this one as are still to be chosen.
        low = chosen[-1] + 1 if chosen else 0
        high = len(dates) - (count - position)
        chosen.append(min(range(low, high + 1), key=lambda index: abs(days[index] - target)))
    return chosen


_CLIPPED = 0.05  # of the valid pixels, at the lowest stored value in one band
_BRIGHT, _MOST_BRIGHT = 1.5, 0.05  # reflectance, and fraction of the valid pixels above it
_EXTREME, _MOST_EXTREME = 3.0, 0.01
_UNUSUAL = 0.01  # of all pixels, missing for another reason than declared no data
_OFFSET = 0.1  # reflectance, of 1,000 digital numbers
_OFFSET_BASELINE = re.compile(r"_N(0[4-9]|[1-9]\d)\d\d_")
_LISTED = 5
_MANY_CLEAR = 5  # dates, of which few series have no cloud


class ValueCounts(NamedTuple):
    """Counts of the stored values of a granule, or of a part, that reveal wrong radiometry.

    Attributes:
        pixels: All pixels.
        valid: Pixels that hold data.
        lowest: Of each band, valid pixels at the lowest stored value: reflectance 0 or below.
        bright: Valid pixels with reflectance above 1.5 in any band.
        extreme: Valid pixels with reflectance above 3 in any band.
        below_offset: Valid pixels with reflectance below 0.1 in any band.
        above_offset: Valid pixels whose lowest reflectance is in [0.1, 0.2).
        highest: Highest stored value.
        partly_zero: Pixels that are missing for being 0 in some bands, but not in all.
        undeclared: Pixels that are missing by a value that the file does not declare as no data.
        example: One of those values; 0 if there is none.
    """

    pixels: int
    valid: int
    lowest: tuple[int, ...]
    bright: int
    extreme: int
    below_offset: int
    above_offset: int
    highest: int
    partly_zero: int
    undeclared: int
    example: float


def count_values(
    stored: npt.NDArray[np.uint16],
    partly_zero: npt.NDArray[np.bool_],
    undeclared: npt.NDArray[np.bool_],
    example: float | None,
) -> ValueCounts:
    """Count stored values.

    Args:
        stored: `(height, width, bands)` stored values, 0 in all bands where there is no data.
        partly_zero: `(height, width)` bool; see `ValueCounts`.
        undeclared: Same shape; see `ValueCounts`.
        example: One of the undeclared values.
    """
    # Band by band, which is much faster than along the last axis.
    bands = np.moveaxis(stored, -1, 0)
    least = functools.reduce(np.minimum, bands)
    lowest, highest = int(least.min(initial=MAX_STORED)), int(bands.max(initial=0))
    offset = round(_OFFSET * QUANTIFICATION)
    valid = least.size if lowest else int(np.count_nonzero(least))
    below = [int(np.count_nonzero(least < bound)) for bound in (offset, 2 * offset)]

    def count_above(reflectance: float) -> int:
        bound = round(reflectance * QUANTIFICATION)
        if highest <= bound:
            return 0
        return int(np.count_nonzero((bands > bound).any(axis=0)))

    return ValueCounts(
        pixels=least.size,
        valid=valid,
        lowest=tuple(int(np.count_nonzero(band == 1)) if lowest <= 1 else 0 for band in bands),
        bright=count_above(_BRIGHT),
        extreme=count_above(_EXTREME),
        below_offset=below[0] - (least.size - valid),
        above_offset=below[1] - below[0],
        highest=highest,
        partly_zero=int(np.count_nonzero(partly_zero)),
        undeclared=int(np.count_nonzero(undeclared)),
        example=example or 0.0,
    )


def add_counts(parts: Sequence[ValueCounts]) -> ValueCounts:
    """Return the counts of several parts together."""
    sums = {
        name: sum(getattr(part, name) for part in parts)
        for name in ValueCounts._fields
        if name not in ("lowest", "highest", "example")
    }
    return ValueCounts(
        **sums,
        lowest=tuple(map(sum, zip(*(part.lowest for part in parts), strict=True))),
        highest=max(part.highest for part in parts),
        example=next((part.example for part in parts if part.undeclared), 0.0),
    )


class Radiometry(NamedTuple):
    """Conversion of a band: `reflectance = value * scale + offset`.

    Attributes:
        scale: Reflectance of a difference of 1.
        offset: Reflectance of the value 0.
        origin: Origin of these numbers, in words.
        contradiction: Another statement of them that differs, in words; empty if there is none.
    """

    scale: float
    offset: float
    origin: str
    contradiction: str = ""

    def __str__(self) -> str:
        return f"scale {self.scale:g}, offset {self.offset:g}: {self.origin}"


_PROBLEMS = {
    "contradiction": (
        "Two statements about the scale and offset of a band differ: {granules}. If the one that "
        "is used is wrong, correct the item, or the tags (gdal_edit.py -scale 0.0001 -offset 0)."
    ),
    "clipped": (
        "At least {clipped:.0%} of the valid pixels have a reflectance of 0 or below, and are "
        "stored as 0.0001: {granules}. Expected a few pixels in deep shade. The offset or the "
        "scale is probably wrong: the pixels may contain it already, though their catalogue or "
        "tags still state it. Compare with another product of the place, and correct the item or "
        "the tags."
    ),
    "undeclared": (
        "Values that cannot be reflectance, and are not declared as no data, count as missing: "
        "{granules}. Declare the fill value (gdal_edit.py -a_nodata VALUE FILE). If they are "
        "no fill values, the scale or offset is wrong."
    ),
    "partly zero": (
        "Pixels that are 0 in some bands, but not in all, count as missing: {granules}. A digital "
        "number of 0 means no data. If the values were clipped at 0 after an offset was "
        "subtracted, clip them at 1 instead."
    ),
    "extreme": (
        "Reflectance is above {extreme:g} in at least {most_extreme:.0%} of the valid pixels: "
        "{granules}. If 1,000 was subtracted from unsigned integers, dark pixels have wrapped "
        "around to about 65,000: subtract in int32 and clip at 1. If 65,535 is a fill value, "
        "declare it as no data (gdal_edit.py -a_nodata 65535 FILE)."
    ),
    "bright": (
        "Reflectance is above {bright:g} in at least {most_bright:.0%} of the valid pixels: "
        "{granules}. Expected about 0 to 1; snow reaches 1.3. Divide percent by 100, and check "
        "the scale."
    ),
}


class Problem(NamedTuple):
    """Something unlikely about the values of a granule.

    Attributes:
        kind: Key of the message that it belongs to.
        granule: Name and figures of the granule.
    """

    kind: str
    granule: str


def find_problems(
    name: str,
    counts: ValueCounts,
    radiometry: Mapping[str, Radiometry],
    *,
    may_be_bytes: bool,
) -> list[Problem]:
    """Check the values of a granule.

    Args:
        name: Name of the granule.
        counts: Counts of its values.
        radiometry: Conversion of each band, in the order of `counts.lowest`.
        may_be_bytes: Whether it is not a product, so that it may hold bytes instead of reflectance.
    """
    problems = []
    for band, one in radiometry.items():
        if one.contradiction:
            words = f"{name}, {band}: {one}, which are used; but {one.contradiction}"
            problems.append(Problem("contradiction", words))
            break
    valid, pixels = max(counts.valid, 1), counts.pixels
    clipped, band = max(zip(counts.lowest, radiometry, strict=True), key=lambda one: one[0])
    figures = (
        ("clipped", clipped / valid, _CLIPPED, f" of {band} ({radiometry[band]})"),
        (
            "undeclared",
            counts.undeclared / pixels,
            _UNUSUAL,
            f" are such as {counts.example:g} ({next(iter(radiometry.values()))})",
        ),
        ("partly zero", counts.partly_zero / pixels, _UNUSUAL, ""),
        ("extreme", counts.extreme / valid, _MOST_EXTREME, ""),
        ("bright", counts.bright / valid, _MOST_BRIGHT, ""),
    )
    for kind, fraction, least, words in figures:
        if fraction >= least and not (
            kind == "bright" and problems[-1:] and problems[-1].kind == "extreme"
        ):
            problems.append(Problem(kind, f"{name}: {fraction:.1%}{words}"))
    if may_be_bytes and is_dark(counts.highest) and clipped < valid:
        problems.append(Problem("dark", f"{name} {dark_words(counts.highest)}"))
    return problems


def problem_messages(problems: Iterable[Problem]) -> list[str]:
    """Return a message for each kind of problem, which names the granules that have it."""
    by_kind: dict[str, list[str]] = {}
    for kind, granule in problems:
        by_kind.setdefault(kind, []).append(granule)
    messages = by_kind.pop("dark", [])
    if len(messages) > 1:
        messages = [f"{messages[0]} So are {len(messages) - 1} more."]
    for kind, granules in by_kind.items():
        more = len(granules) - _LISTED
        listed = "; ".join(granules[:_LISTED]) + (f"; and {more} more" if more > 0 else "")
        messages.append(
            _PROBLEMS[kind].format(
                granules=listed,
                clipped=_CLIPPED,
                bright=_BRIGHT,
                most_bright=_MOST_BRIGHT,
                extreme=_EXTREME,
                most_extreme=_MOST_EXTREME,
            )
        )
    return messages


def mask_messages(
    series: str, dates: Sequence[tuple[datetime.date, str, Coverage]], unread: Sequence[str]
) -> list[str]:
    """Return warnings about cloud masks that mark nothing, or are not read.

    Args:
        series: Name of the series.
        dates: Date, source of the cloud cover and coverage of each granule, by date.
        unread: Names of bands that look like masks, but cannot be read.
    """
    messages = []
    if unread:
        messages.append(
            f"{series}: bands {', '.join(unread)} look like cloud masks, but are not read. "
            "Expected bands SCL, MSK_CLASSI_OPAQUE, MSK_CLASSI_CIRRUS or QA60, or a raster "
            "<date>_cloud.tif that is not 0 under cloud."
        )
    last: list[datetime.date] = []
    for date, source, coverage in reversed(dates):
        if coverage.cloudy or source in ("none", "product"):
            break
        last.append(date)
    before = [one for _, source, one in dates[: len(dates) - len(last)] if source != "none"]
    if len(last) == len(dates) >= _MANY_CLEAR and "SCL" not in {source for _, source, _ in dates}:
        messages.append(
            f"{series}: the cloud masks of all {len(dates)} dates mark nothing. Check that they "
            "contain data: an empty mask is read as a clear sky."
        )
    num_clear = sum(not one.cloudy for one in before)
    # The chance of so many clear dates in a row, if they are as frequent as before.
    chance = ((num_clear + 1) / (len(before) + 2)) ** len(last)
    if len(last) >= 3 and len(before) > num_clear and chance < 0.02:
        messages.append(
            f"{series}: the cloud masks of the last {len(last)} dates, from {last[-1]} on, mark "
            "nothing. Check that they contain data: an empty mask is read as a clear sky."
        )
    return messages


def offset_message(
    series: str, dates: Sequence[tuple[datetime.date, str, ValueCounts]]
) -> str | None:
    """Return a warning if some dates of a series seem to contain an offset of 1,000.

    Digital numbers of processing baseline 04.00 and later contain one. A raster does not state it,
    but then no pixel is below 0.1, and as many as usual lie just above it.

    Args:
        series: Name of the series.
        dates: Date, name and counts of each granule.

    Returns:
        The message; `None` if there is nothing to say.
    """
    dark, lifted = [], []
    for date, name, counts in dates:
        if counts.below_offset >= 0.05 * counts.valid > 0:
            dark.append(counts.below_offset / counts.valid)
        elif (
            counts.below_offset
            <= 0.0005 * counts.valid
            < 0.05 * counts.valid
            <= counts.above_offset
        ):
            lifted.append((date, name))
    if not (dark and lifted):
        return None
    days = [str(date) for date, _ in lifted]
    listed = ", ".join(days[:_LISTED]) + (
        f" and {len(days) - _LISTED} more" if days[_LISTED:] else ""
    )
    sure = (
        " Their names state such a baseline."
        if all(_OFFSET_BASELINE.search(name) for _, name in lifted)
        else ""
    )
    others = f"{len(dark)} other date{'s' if dark[1:] else ''}"
    return (
        f"{series}: no reflectance is below {_OFFSET:g} on {listed}, but at least {min(dark):.0%} "
        f"of the pixels are on {others}. From processing baseline 04.00 on (January 2022, and all "
        "of Collection 1) the digital numbers of Sentinel-2 contain an offset of "
        f"1,000.{sure} If these values contain it, subtract it (in int32, clipped at 1), state it "
        "in the band metadata (gdal_edit.py -offset -0.1 -scale 0.0001), or prepare the products "
        "themselves."
    )
