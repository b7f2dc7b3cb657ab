"""Checks of stored values that reveal wrong radiometry: scale, offset, and fill values.

Values are counted while a granule is screened, or in samples of a raster that is read by rows.
"""

import datetime
import functools
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.data.radiometry import MAX_STORED, QUANTIFICATION

DARK = 255
"""A raster with no stored value above this holds bytes, more likely than reflectance."""

_CLIPPED = 0.05  # of the valid pixels, at the lowest stored value in one band
_BRIGHT, _MOST_BRIGHT = 1.5, 0.05  # reflectance, and fraction of the valid pixels above it
_EXTREME, _MOST_EXTREME = 3.0, 0.01
_UNUSUAL = 0.01  # of all pixels, missing for another reason than declared no data
_OFFSET = 0.1  # reflectance, of 1,000 digital numbers
_OFFSET_BASELINE = re.compile(r"_N(0[4-9]|[1-9]\d)\d\d_")
_LISTED = 5


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


def count_stored(stored: npt.NDArray[np.uint16]) -> ValueCounts:
    """Count stored values of which it is not known why some are missing.

    Args:
        stored: `(height, width, bands)` stored values, 0 in all bands where there is no data.
    """
    none = np.zeros(stored.shape[:2], bool)
    return count_values(stored, none, none, None)


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
        "declare it as no data (gdal_edit.py -a_nodata 65535 FILE). Divide percent by 100."
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


def is_dark(highest: int) -> bool:
    """Return whether a highest stored value is that of bytes rather than of reflectance."""
    return 0 < highest <= DARK


def dark_words(highest: int) -> str:
    """Return the words of a message on rasters whose highest stored value is that of bytes."""
    return (
        f"is very dark: no sampled reflectance is above {highest / QUANTIFICATION:g} ({highest} of "
        f"{QUANTIFICATION:,}). If its values are bytes, 0 to 255, or percent, they are not "
        "reflectance x 10,000, and the results are meaningless."
    )


def warn_of_problems(problems: Iterable[Problem]) -> None:
    """Warn of unlikely values, each kind once (see `problem_messages`)."""
    for message in problem_messages(problems):
        warnings.warn(message, stacklevel=3)


def warn_of_offset(
    series: str, dates: Sequence[tuple[datetime.date | str, str, ValueCounts]]
) -> None:
    """Warn if some dates of a series seem to contain an offset of 1,000; see `offset_message`."""
    if message := offset_message(series, dates):
        warnings.warn(message, stacklevel=3)


def offset_message(
    series: str, dates: Sequence[tuple[datetime.date | str, str, ValueCounts]]
) -> str | None:
    """Return a warning if some dates of a series seem to contain an offset of 1,000.

    Digital numbers of processing baseline 04.00 and later contain one. A raster does not state it,
    but then no pixel is below 0.1, and as many as usual lie just above it.

    Args:
        series: Name of the series.
        dates: Date (or other label), name and counts of each granule.

    Returns:
        The message; `None` if there is no reason for one.
    """
    dark = [_dark_fraction(counts) for _, _, counts in dates if _is_dark_somewhere(counts)]
    lifted = [(date, name) for date, name, counts in dates if _is_lifted(counts)]
    if not (dark and lifted):
        return None
    days = [str(date) for date, _ in lifted]
    listed = ", ".join(days[:_LISTED]) + (
        f" and {len(days) - _LISTED} more" if days[_LISTED:] else ""
    )
    others = f"{len(dark)} other date{'s' if dark[1:] else ''}"
    return (
        f"{series}: no reflectance is below {_OFFSET:g} on {listed}, but at least {min(dark):.0%} "
        f"of the pixels are on {others}. {_offset_words([name for _, name in lifted])}"
    )


def warn_of_pair(images: Sequence[tuple[str, ValueCounts | None]]) -> None:
    """Warn if some of several images of a place seem to contain an offset of 1,000.

    Args:
        images: Name and counts of each image; without counts it is passed over.
    """
    known = [(name, counts) for name, counts in images if counts is not None]
    dark = [(name, counts) for name, counts in known if _is_dark_somewhere(counts)]
    lifted = [name for name, counts in known if _is_lifted(counts)]
    if dark and lifted:
        name, counts = dark[0]
        warnings.warn(
            f"No reflectance is below {_OFFSET:g} in samples of {', '.join(lifted)}, but "
            f"{_dark_fraction(counts):.0%} of the pixels are in {name}. {_offset_words(lifted)}",
            stacklevel=3,
        )


def _dark_fraction(counts: ValueCounts) -> float:
    return counts.below_offset / counts.valid


def _is_dark_somewhere(counts: ValueCounts) -> bool:
    return counts.below_offset >= 0.05 * counts.valid > 0


def _is_lifted(counts: ValueCounts) -> bool:
    """Return whether no pixel is below 0.1 and many are just above it, in most of the image.

    The rest of a cloudy image is often hazy.
    """
    most, least = 0.0005 * counts.valid, 0.05 * counts.valid
    is_clear = 2 * counts.valid >= counts.pixels
    return is_clear and counts.below_offset <= most < least <= counts.above_offset


def _offset_words(names: Sequence[str]) -> str:
    sure = " Their names state such a baseline." if all(map(_OFFSET_BASELINE.search, names)) else ""
    return (
        "From processing baseline 04.00 on (January 2022, and all of Collection 1) the digital "
        f"numbers of Sentinel-2 contain an offset of 1,000.{sure} If these values contain it, "
        "subtract it (in int32, clipped at 1), state it in the band metadata (gdal_edit.py "
        "-offset -0.1 -scale 0.0001), or prepare the products themselves."
    )
