"""What a preparation will write, decided before anything is written (section 4.1).

A plan names every patch of every shard. It is a function of the sources and the options alone, so
a run that was stopped goes on from the same plan, and ends with the same bytes.
"""

import datetime
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sits_keras.config import IMAGE_SIZE, PrepareConfig
from sits_keras.data.preparation.screening import spread_over_period
from sits_keras.data.preparation.survey import Screening
from sits_keras.data.rasters.read import Grid
from sits_keras.data.records import FORMAT_VERSION
from sits_keras.data.sources.granules import Series
from sits_keras.data.tiling import Window, patch_windows
from sits_keras.errors import DataError

PLAN_FORMAT = "sits_keras plan"
PLAN_VERSION = 2


class SeriesPlan(NamedTuple):
    """What is kept of one series.

    Attributes:
        id: the series' name.
        grid: the grid that all its dates have, or are resampled to.
        dates: kept dates, ISO, ascending; none where the series is skipped.
        rejected: why a date is not kept, by date.
        resampled: those of the dates that are resampled.
        skipped: why the series is not kept, empty where it is.
        patches: what is stored of it, by window.
    """

    id: str
    grid: Grid
    dates: tuple[str, ...]
    rejected: dict[str, str]
    resampled: tuple[str, ...]
    skipped: str
    patches: tuple[Window, ...]


class Patch(NamedTuple):
    """A patch of a shard: position of its series in the plan, its own in the series."""

    series: int
    number: int


class Plan(NamedTuple):
    """What a preparation will write.

    Attributes:
        config: its options.
        inputs: checksum over the sources' files (name, size, time of change) and the options.
        series: what is kept of each series.
        shards: the patches of each shard, in the order in which they are written.
    """

    config: PrepareConfig
    inputs: str
    series: tuple[SeriesPlan, ...]
    shards: tuple[tuple[Patch, ...], ...]

    def num_bytes(self, patch: Patch) -> int:
        """Bytes of the pixels of a patch, all its dates, as they are stored."""
        series = self.series[patch.series]
        return _num_bytes(series, series.patches[patch.number], self.config)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain lists and dictionaries."""
        return {
            "format": PLAN_FORMAT,
            "version": PLAN_VERSION,
            "options": self.config.to_dict(),
            "inputs": self.inputs,
            "series": [{**one._asdict(), "grid": one.grid._asdict()} for one in self.series],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Plan":
        """The plan that `to_json` describes."""
        config = PrepareConfig.from_dict(values["options"])
        series = tuple(
            SeriesPlan(
                **{
                    **one,
                    "grid": Grid(**{**one["grid"], "transform": _tuple(one["grid"]["transform"])}),
                    "dates": tuple(one["dates"]),
                    "resampled": tuple(one["resampled"]),
                    "patches": tuple(Window(*window) for window in one["patches"]),
                }
            )
            for one in values["series"]
        )
        return cls(config, values["inputs"], series, _shards(series, config))


def fingerprint(series: Iterable[Series], config: PrepareConfig) -> str:
    """Checksum that changes with the sources' files, their radiometry or the options."""
    versions = (FORMAT_VERSION, PLAN_VERSION)
    digest = hashlib.sha256(json.dumps([*versions, config.to_dict()]).encode())
    for one in series:
        for granule in one.granules:
            radiometry = [(band, *layer[1:]) for band, layer in granule.layers.items()]
            paths = [layer.path for layer in granule.layers.values()]
            remote = [p for p in paths if p.startswith("/vsi") and not p.startswith("/vsizip")]
            entry: list[Any] = [one.id, str(granule.date), radiometry, remote]
            for file in granule.files:
                status = file.stat()
                entry.append([file.name, status.st_size, status.st_mtime_ns])
            digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def make_plan(
    series: Sequence[Series],
    grids: Sequence[Grid],
    screenings: Sequence[Sequence[Screening]],
    config: PrepareConfig,
) -> Plan:
    """Decides what to store.

    Args:
        series: what to prepare.
        grids: of each series, from `common_grids`.
        screenings: of each series, from `screen`.
        config: the options.
    Raises:
        DataError: no series passes the screen.
    """
    plans = tuple(
        plan_series(one.id, grid, found, config)
        for one, grid, found in zip(series, grids, screenings, strict=True)
    )
    if all(plan.skipped for plan in plans):
        raise nothing_left({plan.id: plan.skipped for plan in plans})
    return Plan(config, fingerprint(series, config), plans, _shards(plans, config))


def nothing_left(skipped: dict[str, str]) -> DataError:
    """The error for a preparation that keeps none of its series, whose names and reasons it has."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
    return DataError(
        f"No series is left after screening ({reasons}). Allow more cloud (max_cloud), fewer "
        "dates (min_dates) or less complete granules (min_complete), or add granules."
    )


def _tuple(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def plan_series(
    name: str, grid: Grid, screenings: Sequence[Screening], config: PrepareConfig
) -> SeriesPlan:
    """Decides what to keep of one series; arguments as in `make_plan`."""
    rejected = {str(one.granule.date): one.rejected for one in screenings if one.rejected}
    passed: list[datetime.date] = [one.granule.date for one in screenings if not one.rejected]
    chosen = [passed[index] for index in spread_over_period(passed, config.dates)]
    for date in passed:
        if date not in chosen:
            rejected[str(date)] = f"{config.dates} other dates are kept"
    skipped = ""
    if len(passed) < config.min_dates:
        skipped = f"{len(passed)} of {len(screenings)} dates pass, {config.min_dates} are needed"
        chosen = []
    dates = tuple(map(str, chosen))
    windows = patch_windows(grid.height, grid.width, config.patch_size, IMAGE_SIZE, config.central)
    return SeriesPlan(
        id=name,
        grid=grid,
        dates=dates,
        rejected=dict(sorted(rejected.items())),
        resampled=tuple(
            str(one.granule.date)
            for one in screenings
            if one.is_resampled and str(one.granule.date) in dates
        ),
        skipped=skipped,
        patches=() if skipped else tuple(windows),
    )


def _num_bytes(series: SeriesPlan, window: Window, config: PrepareConfig) -> int:
    return 2 * len(config.bands) * len(series.dates) * window.height * window.width


def _shards(series: Sequence[SeriesPlan], config: PrepareConfig) -> tuple[tuple[Patch, ...], ...]:
    shards: list[list[Patch]] = []
    size = config.shard_bytes
    for position, one in enumerate(series):
        for index, window in enumerate(one.patches):
            if size >= config.shard_bytes:
                shards.append([])
                size = 0
            shards[-1].append(Patch(position, index))
            size += _num_bytes(one, window, config)
    return tuple(map(tuple, shards))
