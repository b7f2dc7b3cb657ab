"""Selection of granules that are clear and complete enough, and checks of their masks (4.1)."""

import datetime
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.bands import is_like_a_mask
from sits_keras.config import PrepareConfig
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


def is_classified(scl: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which pixels a scene classification (SCL) has a class for, `(height, width)` bool."""
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


_MANY_CLEAR = 5  # dates, of which few series have no cloud


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
