"""Looks at the granules of a series: whether they fit each other, and are fit to keep (4.1)."""

import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from sits_keras.config import IMAGE_SIZE, PrepareConfig
from sits_keras.data.execution import Run, default_workers
from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.preparation.screening import Coverage, rejection, spread_over_period
from sits_keras.data.radiometry import warn_if_dark
from sits_keras.data.rasters.read import (
    Grid,
    read_info,
    same_crs,
    same_grid,
    same_transform,
)
from sits_keras.data.records import FORMAT_VERSION
from sits_keras.data.sources.granules import Granule, Series
from sits_keras.data.tiling import Window, patch_windows, sample_windows
from sits_keras.errors import DataError

_FEW_SHARDS = 4


class Screening(NamedTuple):
    """What was found of a granule.

    Attributes:
        granule: which one.
        coverage: its cloud and completeness.
        cloud_source: what says where cloud is; see `GranuleReader`.
        is_resampled: whether it lies on another grid than its series.
        rejected: why it is not kept; empty where it is.
    """

    granule: Granule
    coverage: Coverage
    cloud_source: str
    is_resampled: bool
    rejected: str


def common_grids(series: Sequence[Series], config: PrepareConfig) -> list[Grid]:
    """The grid of each series, from the headers of all its rasters.

    Warns of a series whose first raster is read by its colours, or is too dark for reflectance.

    Raises:
        DataError: a raster cannot be opened, is smaller than a crop, lacks a band, or lies on
            another grid than the first of its series (with `align`, in another CRS).
    """
    return [_common_grid(one, config) for one in series]


def workers_for(
    workers: int | None, series: Sequence[Series], grids: Sequence[Grid], config: PrepareConfig
) -> int:
    """How many processes to use: as many as are asked for, else what the work is worth.

    To start processes takes seconds, for each imports TensorFlow: a few shards are not worth it.

    Args:
        workers: what is asked for; `None` to decide here.
        series, grids, config: as in `screen`.
    """
    if workers is not None:
        return workers
    pixels = sum(
        grid.height * grid.width * len(one.granules)
        for one, grid in zip(series, grids, strict=True)
    )
    is_large = 2 * len(config.bands) * pixels > _FEW_SHARDS * config.shard_bytes
    return default_workers() if is_large else 1


def screen(
    series: Sequence[Series], grids: Sequence[Grid], config: PrepareConfig, run: Run, bar: tqdm
) -> list[list[Screening]]:
    """Screens every granule of every series.

    Args:
        series: what to screen.
        grids: of each series, from `common_grids`.
        config: thresholds and bands.
        run: what runs the work; see `sits_keras.data.execution`.
        bar: moves on by one a granule.
    Raises:
        DataError: a raster is damaged.
    """
    work = [
        (granule, config, grid if config.align else None)
        for one, grid in zip(series, grids, strict=True)
        for granule in one.granules
    ]
    found = dict(run(screen_granule, work, bar, [1] * len(work)))
    screenings = iter([found[index] for index in range(len(work))])
    return [[next(screenings) for _ in one.granules] for one in series]


def screen_granule(
    granule: Granule,
    config: PrepareConfig,
    onto: Grid | None,
    tick: Callable[[int], object] | None = None,
) -> Screening:
    """Screens one granule (see `GranuleReader.coverage`)."""
    with GranuleReader(granule, config.bands, onto) as reader:
        coverage = reader.coverage()
        rejected = rejection(coverage, config) or ""
        if tick:
            tick(1)
        return Screening(granule, coverage, reader.cloud_source, reader.is_resampled, rejected)


def _common_grid(series: Series, config: PrepareConfig) -> Grid:
    first, *others = series.granules
    with GranuleReader(first, config.bands) as reader:
        grid = reader.grid
        if min(grid.height, grid.width) < IMAGE_SIZE:
            raise DataError(
                f"{first.name} has {grid.height} x {grid.width} pixels, smaller than a crop of "
                f"{IMAGE_SIZE} x {IMAGE_SIZE}. Leave the series out (exclude {series.id!r})."
            )
        reader.check_mask()
        if first.level is None:  # what is no product may hold anything
            warn_if_dark(map(reader.read, sample_windows(*grid[:2])), first.name)
    if first.image is not None:
        read_info(first.image).warn_of_colours(config.bands, first.image)
    for granule in others:
        with GranuleReader(granule, config.bands) as reader:
            _check_grid(granule.name, reader.grid, first.name, grid, config.align)
            reader.check_mask()
    return grid


def _check_grid(name: str, grid: Grid, first_name: str, first: Grid, align: bool) -> None:
    if same_grid(grid, first):
        return
    one_crs = same_crs(grid.crs, first.crs)
    if align and first.crs and one_crs and grid.transform and first.transform:
        return
    for what, received, expected, fits in (
        ("CRS", grid.crs, first.crs, one_crs),  # first: no resampling mends another UTM zone
        ("size", grid[:2], first[:2], grid[:2] == first[:2]),
        ("transform", grid.transform, first.transform, same_transform(grid, first)),
    ):
        if not fits:
            remedy = (
                "split the series by CRS: UTM zones are never mixed"
                if what == "CRS"
                else "resample them to one (align, --align, where they have a CRS), or split it"
            )
            raise DataError(
                f"{name} has {what} {received}, but {first_name} has {expected}. All dates of a "
                f"series must lie on one grid: {remedy}."
            )


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
