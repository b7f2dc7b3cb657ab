"""What a preparation will write, decided before anything is written (section 4.1).

A plan names every block of every shard. It is a function of the sources and the options alone, so
a run that was stopped goes on from the same plan, and ends with the same bytes.
"""

import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sits_keras.config import IMAGE_SIZE, PrepareConfig
from sits_keras.data.products import Granule, Series
from sits_keras.data.raster import Grid, band_indices, read_info, read_mask, read_stored
from sits_keras.data.records import FORMAT_VERSION, Block
from sits_keras.data.screening import Coverage, rejection, spread_over_period
from sits_keras.data.tiling import Window, grid_windows
from sits_keras.errors import DataError

PLAN_FORMAT = "sits_keras plan"
PLAN_VERSION = 1


class SeriesPlan(NamedTuple):
    """What is kept of one series.

    Attributes:
        id: the series' name.
        grid: the grid that all its rasters share.
        dates: kept dates, ISO, ascending; none where the series is skipped.
        rejected: why a date is not kept, by date.
        skipped: why the series is not kept, empty where it is.
        blocks: what is stored of it.
        blocks_skipped: blocks with too few clear dates.
    """

    id: str
    grid: Grid
    dates: tuple[str, ...]
    rejected: dict[str, str]
    skipped: str
    blocks: tuple[Block, ...]
    blocks_skipped: int


class Plan(NamedTuple):
    """What a preparation will write.

    Attributes:
        config: its options.
        inputs: checksum over the sources' files (name, size, time of change) and the options.
        series: what is kept of each series.
        shards: the blocks of each shard, in the order in which they are written.
    """

    config: PrepareConfig
    inputs: str
    series: tuple[SeriesPlan, ...]
    shards: tuple[tuple[Block, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """The plan as plain lists and dictionaries."""
        return {
            "format": PLAN_FORMAT,
            "version": PLAN_VERSION,
            "options": self.config.to_dict(),
            "inputs": self.inputs,
            "series": [
                {
                    **one._asdict(),
                    "grid": one.grid._asdict(),
                    "blocks": [block._asdict() for block in one.blocks],
                }
                for one in self.series
            ],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Plan":
        """The plan that `to_json` describes."""
        config = PrepareConfig.from_dict(values["options"])
        series = tuple(
            SeriesPlan(
                id=one["id"],
                grid=Grid(**{**one["grid"], "transform": _tuple(one["grid"]["transform"])}),
                dates=tuple(one["dates"]),
                rejected=one["rejected"],
                skipped=one["skipped"],
                blocks=tuple(
                    Block(b["series"], b["patch"], Window(*b["window"]), tuple(b["dates"]))
                    for b in one["blocks"]
                ),
                blocks_skipped=one["blocks_skipped"],
            )
            for one in values["series"]
        )
        return cls(config, values["inputs"], series, _shards(series, config))


def fingerprint(series: Iterable[Series], config: PrepareConfig) -> str:
    """Checksum that changes with the sources' files or the options."""
    versions = (FORMAT_VERSION, PLAN_VERSION)
    digest = hashlib.sha256(json.dumps([*versions, config.to_dict()]).encode())
    for one in series:
        for granule in one.granules:
            for path in filter(None, (granule.path, granule.cloud_path)):
                status = path.stat()
                entry = [one.id, path.name, status.st_size, status.st_mtime_ns]
                digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def make_plan(
    series: Sequence[Series], config: PrepareConfig, on_granule: Callable[[], object]
) -> Plan:
    """Reads every granule once, screens it, and decides what to store.

    Args:
        series: what to prepare.
        config: the options.
        on_granule: called after each granule, for a progress bar.
    Raises:
        DataError: a raster is damaged, smaller than a crop, lacks a band, or lies on another grid
            than the rest of its series; or no series passes the screen.
    """
    grids = [_common_grid(one, config) for one in series]  # headers first: they fail fast
    plans = tuple(
        _plan_series(one, grid, config, on_granule) for one, grid in zip(series, grids, strict=True)
    )
    if all(plan.skipped for plan in plans):
        reasons = "; ".join(f"{plan.id}: {plan.skipped}" for plan in plans)
        raise DataError(
            f"No series is left after screening ({reasons}). "
            "Allow more cloud (max_cloud), fewer dates (min_dates) or less complete granules "
            "(min_complete), or add granules."
        )
    return Plan(config, fingerprint(series, config), plans, _shards(plans, config))


def _tuple(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _common_grid(series: Series, config: PrepareConfig) -> Grid:
    first = series.granules[0].path
    grid = read_info(first).grid
    if min(grid.height, grid.width) < IMAGE_SIZE:
        raise DataError(
            f"{first} has {grid.height} x {grid.width} pixels, smaller than a crop of "
            f"{IMAGE_SIZE} x {IMAGE_SIZE}. Leave the series out (exclude {series.id!r})."
        )
    for granule in series.granules:
        info = read_info(granule.path)
        band_indices(info, config.bands, granule.path)
        _check_grid(granule.path, info.grid, first, grid)
        if granule.cloud_path:
            mask = read_info(granule.cloud_path).grid
            size = (mask.height, mask.width)
            if size != (grid.height, grid.width):
                raise DataError(
                    f"{granule.cloud_path} has {size[0]} x {size[1]} pixels, its image "
                    f"{grid.height} x {grid.width}. Resample the mask to the image."
                )
    return grid


def _check_grid(path: Path, grid: Grid, first_path: Path, first: Grid) -> None:
    for what, received, expected in (
        ("size", (grid.height, grid.width), (first.height, first.width)),
        ("CRS", grid.crs, first.crs),
        ("transform", grid.transform, first.transform),
    ):
        if received != expected:
            raise DataError(
                f"{path} has {what} {received}, but {first_path} has {expected}. All dates of a "
                "series must lie on one grid: resample them to one, or split the series."
            )


def _plan_series(
    series: Series, grid: Grid, config: PrepareConfig, on_granule: Callable[[], object]
) -> SeriesPlan:
    patches = grid_windows(grid.height, grid.width, config.patch_size)
    windows = [
        (index, Window(patch.row + w.row, patch.col + w.col, w.height, w.width))
        for index, patch in enumerate(patches)
        for w in grid_windows(patch.height, patch.width, config.block_size)
    ]
    kept: list[tuple[datetime.date, list[Coverage]]] = []
    rejected: dict[str, str] = {}
    for granule in series.granules:
        coverages = [_coverage(granule, window, config.bands) for _, window in windows]
        reason = rejection(_total(coverages), config)
        if reason:
            rejected[granule.date.isoformat()] = reason
        else:
            kept.append((granule.date, coverages))
        on_granule()
    chosen = set(spread_over_period([date for date, _ in kept], config.dates))
    for index, (date, _) in enumerate(kept):
        if index not in chosen:
            rejected[date.isoformat()] = f"{config.dates} other dates are kept"
    kept = [one for index, one in enumerate(kept) if index in chosen]
    blocks = []
    for position, (patch, window) in enumerate(windows):
        dates = tuple(
            date.isoformat()
            for date, coverages in kept
            if rejection(coverages[position], config) is None
        )
        if len(dates) >= config.min_dates:
            blocks.append(Block(series.id, patch, window, dates))
    dates = tuple(date.isoformat() for date, _ in kept)
    skipped = ""
    if not blocks:
        skipped = (
            f"{len(dates)} of {len(series.granules)} dates pass, {config.min_dates} are needed"
            if len(dates) < config.min_dates
            else f"no block has {config.min_dates} dates that pass"
        )
        dates = ()
    return SeriesPlan(
        id=series.id,
        grid=grid,
        dates=dates,
        rejected=dict(sorted(rejected.items())),
        skipped=skipped,
        blocks=tuple(blocks),
        blocks_skipped=len(windows) - len(blocks),
    )


def _coverage(granule: Granule, window: Window, bands: Sequence[str]) -> Coverage:
    valid = read_stored(granule.path, bands, window)[..., 0] > 0
    cloudy = read_mask(granule.cloud_path, window) & valid if granule.cloud_path else valid[:0]
    return Coverage(valid.size, int(valid.sum()), int(cloudy.sum()))


def _total(coverages: Sequence[Coverage]) -> Coverage:
    return Coverage(*(sum(counts) for counts in zip(*coverages, strict=True)))


def _shards(series: Iterable[SeriesPlan], config: PrepareConfig) -> tuple[tuple[Block, ...], ...]:
    shards: list[list[Block]] = []
    size = config.shard_bytes
    for block in (block for one in series for block in one.blocks):
        if size >= config.shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(block)
        size += 2 * len(config.bands) * len(block.dates) * block.window.height * block.window.width
    return tuple(map(tuple, shards))
