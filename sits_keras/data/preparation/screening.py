"""Which granules are clear and complete enough, and which of those to keep (section 4.1)."""

import datetime
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sits_keras.config import PrepareConfig
from sits_keras.data.sources.granules import MaskKind

MASK_BANDS = {"SCL": 1, "QA60": 1, "MSK_CLASSI": 2, "mask": 1}
"""How many bands of a mask's raster say where cloud is: opaque and cirrus in MSK_CLASSI."""

MASKS_AS_BANDS: tuple[MaskKind, ...] = ("SCL", "QA60")
"""What may lie as a band of that name beside the others, the better one first."""

_SCL_NODATA = 0
_SCL_CLOUDY = (3, 8, 9, 10)  # cloud shadow; cloud of medium and of high probability; thin cirrus
_QA60_CLOUDY = 1 << 10 | 1 << 11  # opaque cloud, cirrus


def is_cloudy(values: np.ndarray, kind: MaskKind) -> np.ndarray:
    """Where a mask says cloud, or cloud shadow.

    Args:
        values: `(bands, height, width)` of the mask's raster, `MASK_BANDS[kind]` bands.
        kind: how to read them.
    Returns:
        `(height, width)` bool.
    """
    match kind:
        case "SCL":
            return np.isin(values[0], _SCL_CLOUDY)
        case "QA60":
            return values[0].astype(np.int64) & _QA60_CLOUDY != 0
        case _:
            return (values != 0).any(axis=0)


def has_data(scl: np.ndarray) -> np.ndarray:
    """Where a scene classification (SCL) says that there is data, `(height, width)` bool."""
    return scl != _SCL_NODATA


class Coverage(NamedTuple):
    """Pixel counts of a granule, or of a part of one.

    Attributes:
        pixels: all pixels.
        valid: pixels that hold data.
        cloudy: pixels that hold data and lie under cloud or shadow.
    """

    pixels: int
    valid: int
    cloudy: int

    @property
    def complete(self) -> float:
        """Share of the pixels that hold data, in [0, 1]."""
        return self.valid / self.pixels

    @property
    def cloud(self) -> float:
        """Share of the valid pixels under cloud or shadow, in [0, 1]; 1 where none is valid."""
        return self.cloudy / self.valid if self.valid else 1.0


def count_coverage(valid: np.ndarray, cloudy: np.ndarray | None) -> Coverage:
    """Counts pixels.

    Args:
        valid: `(height, width)` bool, where there is data.
        cloudy: same shape, where cloud or shadow is; `None` where nothing says.
    """
    num_cloudy = 0 if cloudy is None else int((cloudy & valid).sum())
    return Coverage(valid.size, int(valid.sum()), num_cloudy)


def rejection(coverage: Coverage, config: PrepareConfig) -> str | None:
    """Why a granule, or a part of one, does not pass the screen; `None` where it does."""
    if coverage.complete < config.min_complete:
        return f"complete {coverage.complete:.2%} < {config.min_complete:.2%}"
    if coverage.cloud > config.max_cloud:
        return f"cloud {coverage.cloud:.2%} > {config.max_cloud:.2%}"
    return None


def spread_over_period(dates: Sequence[datetime.date], count: int) -> list[int]:
    """Indices of `count` dates that are spread over the period.

    The first and the last are kept; the others are, one after the other, the dates nearest to
    equal steps between those two.

    Args:
        dates: ascending and distinct.
        count: how many to keep, at least 2; all are kept where there are no more.
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
