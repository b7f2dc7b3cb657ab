"""Looks at the granules of a series: whether they fit each other, and are fit to keep (4.1)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tqdm import tqdm

from sits_keras.config import IMAGE_SIZE, PrepareConfig
from sits_keras.data.execution import Run, default_workers
from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.preparation.screening import Coverage, rejection
from sits_keras.data.radiometry import warn_if_dark
from sits_keras.data.rasters.read import Grid, read_info
from sits_keras.data.sources.granules import Granule, Series
from sits_keras.data.tiling import sample_windows
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
    if grid == first:
        return
    if align and first.crs and first.crs == grid.crs and grid.transform and first.transform:
        return
    for what, received, expected in (
        ("CRS", grid.crs, first.crs),  # first: no resampling mends another UTM zone
        ("size", (grid.height, grid.width), (first.height, first.width)),
        ("transform", grid.transform, first.transform),
    ):
        if received != expected:
            remedy = (
                "split the series by CRS: UTM zones are never mixed"
                if what == "CRS"
                else "resample them to one (align, --align, where they have a CRS), or split it"
            )
            raise DataError(
                f"{name} has {what} {received}, but {first_name} has {expected}. All dates of a "
                f"series must lie on one grid: {remedy}."
            )
