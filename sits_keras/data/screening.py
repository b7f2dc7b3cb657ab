"""Which granules are clear and complete enough, and which of those to keep (section 4.1)."""

import datetime
from collections.abc import Sequence
from typing import NamedTuple

from sits_keras.config import PrepareConfig


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
