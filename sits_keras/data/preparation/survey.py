"""Screening of granules, and the plan of what to store (section 4.1)."""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from sits_keras.config import IMAGE_SIZE, PrepareConfig, describe_differences
from sits_keras.data.execution import Run, default_workers
from sits_keras.data.plausibility import (
    Problem,
    ValueCounts,
    offset_message,
    problem_messages,
)
from sits_keras.data.preparation.granule_reader import GranuleReader, KeptPixels, PixelWriter
from sits_keras.data.preparation.screening import (
    Coverage,
    mask_messages,
    rejection,
    spread_over_period,
)
from sits_keras.data.preparation.shards import blocks_of
from sits_keras.data.rasters.read import (
    Grid,
    same_crs,
    same_grid,
    same_transform,
)
from sits_keras.data.records import FORMAT_VERSION
from sits_keras.data.sources.granules import Granule, Series
from sits_keras.data.sources.paths import is_remote, without_signature
from sits_keras.data.sources.series import combined_error
from sits_keras.data.tiling import Window, patch_windows
from sits_keras.errors import DataError, SitsKerasError

_FEW_SHARDS = 4
_LISTED = 3  # changed sources that a message names
_MAX_ERRORS = 20  # that are listed, and after which a screening stops


class Failure(NamedTuple):
    """Granule that cannot be read or does not fit the others of its series, and the error."""

    granule: Granule
    error: SitsKerasError


class Survey(NamedTuple):
    """A series after its headers were read.

    Attributes:
        series: The series, with the granules that can be used.
        grid: Their grid; `None` if none can be used.
        failures: The granules that cannot be used.
    """

    series: Series
    grid: Grid | None
    failures: tuple[Failure, ...]


class Screening(NamedTuple):
    """Result of the screening of a granule.

    Attributes:
        granule: The granule.
        coverage: Its cloud and completeness.
        cloud_source: Source of its cloud cover; see `GranuleReader`.
        is_resampled: Whether it lies on another grid than its series.
        rejected: Reason why it is not kept; empty if it is.
        values: Counts of its values.
        problems: Unlikely properties of its values.
        unread_masks: Names of bands that look like cloud masks, but cannot be read.
        is_mask_empty: Whether it has a cloud mask that contains nothing.
        kept: File with its pixels, if they were read completely and kept.
    """

    granule: Granule
    coverage: Coverage
    cloud_source: str
    is_resampled: bool
    rejected: str
    values: ValueCounts
    problems: tuple[Problem, ...]
    unread_masks: tuple[str, ...]
    is_mask_empty: bool
    kept: KeptPixels | None = None


def survey(series: Sequence[Series], config: PrepareConfig) -> list[Survey]:
    """Read the headers of all rasters of some series.

    Warns of rasters that are read by their colours.
    """
    return [_survey(one, config) for one in series]


def common_grids(series: Sequence[Series], config: PrepareConfig) -> list[Grid]:
    """Return the grid of each series, from the headers of all its rasters.

    Raises:
        DataError: Rasters cannot be opened, are smaller than a crop, lack a band, or lie on another
            grid than the first of their series (with `align`, in another CRS). All are listed.
    """
    return grids_of(survey(series, config))


def grids_of(surveys: Sequence[Survey]) -> list[Grid]:
    """Return the grid of each series.

    Raises:
        DataError: A granule cannot be used; all are listed.
    """
    if errors := [failure.error for one in surveys for failure in one.failures]:
        raise combined_error(errors)
    return [one.grid for one in surveys if one.grid]


def workers_for(
    workers: int | None, series: Sequence[Series], grids: Sequence[Grid], config: PrepareConfig
) -> int:
    """Return the number of processes to use.

    Starting processes takes seconds, so a few shards are written in this process.

    Args:
        workers: Requested number; `None` for one a core if there is enough work.
        series: Series to screen.
        grids: Grid of each series.
        config: Bands and sizes.
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
    series: Sequence[Series],
    grids: Sequence[Grid],
    config: PrepareConfig,
    run: Run,
    bar: "tqdm[Any]",
    keep_in: Path | None = None,
) -> list[list[Screening]]:
    """Screen every granule of every series.

    Args:
        series: Series to screen.
        grids: Grid of each series.
        config: Thresholds and bands.
        run: Runner of the work; see `sits_keras.data.execution`.
        bar: Progress bar, advanced by one for each granule.
        keep_in: Folder in which to keep pixels that are read completely; see `screen_granule`.

    Raises:
        DataError: Rasters cannot be read; up to 20 are listed.
    """
    found = screen_all(series, grids, config, run, bar, keep_in, max_failures=_MAX_ERRORS)
    if errors := [one.error for each in found for one in each if isinstance(one, Failure)]:
        raise combined_error(errors)
    return [[one for one in each if isinstance(one, Screening)] for each in found]


def screen_all(
    series: Sequence[Series],
    grids: Sequence[Grid],
    config: PrepareConfig,
    run: Run,
    bar: "tqdm[Any]",
    keep_in: Path | None = None,
    *,
    max_failures: int | None = None,
) -> list[list[Screening | Failure]]:
    """Screen every granule of every series, those that cannot be read included.

    Args:
        series: Series to screen.
        grids: Grid of each series.
        config: Thresholds and bands.
        run: Runner of the work; see `sits_keras.data.execution`.
        bar: Progress bar, advanced by one for each granule.
        keep_in: Folder in which to keep pixels that are read completely; see `screen_granule`.
        max_failures: Number of granules that cannot be read after which to stop.
    """
    work = [
        (granule, config, grid if config.align else None, keep_in)
        for one, grid in zip(series, grids, strict=True)
        for granule in one.granules
    ]
    found: dict[int, Screening | Failure] = {}
    num_failures = 0
    for index, one in run(screen_granule, work, bar, [1] * len(work)):
        found[index] = one
        num_failures += isinstance(one, Failure)
        if num_failures == max_failures:
            break
    results = (found.get(index) for index in range(len(work)))
    return [
        [result for _ in one.granules if (result := next(results)) is not None] for one in series
    ]


def screen_granule(
    granule: Granule,
    config: PrepareConfig,
    onto: Grid | None,
    keep_in: Path | None = None,
    tick: Callable[[int], object] | None = None,
    num_threads: int = 1,
) -> Screening | Failure:
    """Screen one granule (see `GranuleReader.screen`).

    Args:
        granule: Granule to screen.
        config: Thresholds and bands.
        onto: Grid to resample to, or `None`.
        keep_in: Folder in which to keep the pixels of a granule that is read completely, up to
            `KEPT_BYTES` of all granules. By default nothing is kept.
        tick: Function to call with 1 when it is done.
        num_threads: Number of threads to read with.
    """
    try:
        with GranuleReader(granule, config.bands, onto, num_threads) as reader:
            stated = reader.cloud_source
            with _keeping(reader, config, keep_in) as writer:
                coverage, values = reader.screen(writer)
                rejected = rejection(coverage, config) or ""
                if writer and rejected:
                    writer.is_complete = False
    except SitsKerasError as error:
        # Without its cause: GDAL's errors cannot be sent between processes.
        return Failure(granule, type(error)(*error.args))
    finally:
        if tick:
            tick(1)
    kept = None
    if writer and writer.is_complete:
        kept = dataclasses.replace(writer.kept, is_full=values.valid == values.pixels)
    return Screening(
        granule,
        coverage,
        reader.cloud_source,
        reader.is_resampled,
        rejected,
        values,
        tuple(reader.find_problems(values)),
        reader.unread_masks,
        reader.cloud_source != stated,
        kept,
    )


KEPT_BYTES = 4 * 2**30
"""Pixels on disk that screening keeps for writing; more are read again."""

_KEPT_SUFFIX = ".pixels"


@contextlib.contextmanager
def _keeping(
    reader: GranuleReader, config: PrepareConfig, folder: Path | None
) -> Iterator[PixelWriter | None]:
    """Provide a writer of the pixels of a granule, if they are to be kept."""
    if folder is None or not reader.reads_all or reader.is_resampled or config.central:
        yield None
        return
    patches = patch_windows(*reader.grid[:2], config.patch_size, IMAGE_SIZE)
    blocks = tuple(block for patch in patches for block in blocks_of(patch, config))
    path = folder / f".partial-{uuid.uuid4().hex}{_KEPT_SUFFIX}"
    kept = KeptPixels(path, blocks, len(config.bands), reader.has_mask)
    used = sum(file.stat().st_size for file in folder.glob(f".partial-*{_KEPT_SUFFIX}"))
    if used + kept.num_bytes > KEPT_BYTES:
        yield None
        return
    with PixelWriter(kept) as writer:
        yield writer


def warn_of_values(
    series: Sequence[Series], screenings: Sequence[Sequence[Screening | Failure]]
) -> None:
    """Warn of values that are unlikely for reflectance, each kind once for all granules.

    Args:
        series: Series that were screened.
        screenings: Screenings of each series.
    """
    screened = [[one for one in each if isinstance(one, Screening)] for each in screenings]
    messages = problem_messages(
        problem for each in screened for one in each for problem in one.problems
    )
    for place, each in zip(series, screened, strict=True):
        dates = [  # haze between clouds hides dark land
            (one.granule.date, one.granule.name, one.values)
            for one in each
            if one.coverage.cloud < 0.5
        ]
        if message := offset_message(place.id, dates):
            messages.append(message)
        covers = [(one.granule.date, one.cloud_source, one.coverage) for one in each]
        unread = list(dict.fromkeys(name for one in each for name in one.unread_masks))
        messages += mask_messages(place.id, covers, unread)
        if empty := [str(one.granule.date) for one in each if one.is_mask_empty]:
            messages.append(
                f"{place.id}: the cloud mask is empty on {', '.join(empty)}, so these dates have "
                "none (QA60 holds nothing from 2022-01-25 to 2024-02-28). Supply another mask: "
                "MSK_CLASSI_OPAQUE and MSK_CLASSI_CIRRUS, SCL, or <date>_cloud.tif."
            )
    for message in messages:
        warnings.warn(message, stacklevel=3)


def _survey(series: Series, config: PrepareConfig) -> Survey:
    opened: list[tuple[Granule, Grid]] = []
    mask_errors: dict[str, SitsKerasError] = {}
    failures: list[Failure] = []
    orders: set[tuple[str | None, ...]] = set()
    for granule in series.granules:
        try:
            with GranuleReader(granule, config.bands) as reader:
                _check_size(granule.name, reader.grid, series.id)
                try:
                    reader.check_mask()
                except SitsKerasError as error:
                    mask_errors[granule.name] = error  # unless the image is on another grid
            if reader.info and reader.info.bands not in orders:
                orders.add(reader.info.bands)
                reader.info.warn_of_colours(config.bands, granule.name)
        except SitsKerasError as error:
            failures.append(Failure(granule, error))
        else:
            opened.append((granule, reader.grid))
    if not opened:
        return Survey(series._replace(granules=()), None, tuple(failures))
    reference, grid = opened[0] if config.align else _most_common(opened)
    usable = []
    for granule, own in opened:
        try:
            _check_grid(granule.name, own, reference.name, grid, config.align)
            if granule.name in mask_errors:
                raise mask_errors[granule.name]
            usable.append(granule)
        except SitsKerasError as error:
            failures.append(Failure(granule, error))
    return Survey(series._replace(granules=tuple(usable)), grid, tuple(failures))


def _most_common(granules: Sequence[tuple[Granule, Grid]]) -> tuple[Granule, Grid]:
    """Return the first granule on the grid that most of them have, and that grid."""
    exact = Counter(grid for _, grid in granules)
    counts = {
        grid: sum(count for other, count in exact.items() if same_grid(grid, other))
        for grid in exact
    }
    most = max(counts.values())
    return next((granule, grid) for granule, grid in granules if counts[grid] == most)


def _check_size(name: str, grid: Grid, series: str) -> None:
    if min(grid.height, grid.width) < IMAGE_SIZE:
        raise DataError(
            f"{name} has {grid.height} x {grid.width} pixels, smaller than a crop of "
            f"{IMAGE_SIZE} x {IMAGE_SIZE}. Leave the series out (exclude {series!r})."
        )


def _check_grid(name: str, grid: Grid, first_name: str, first: Grid, align: bool) -> None:
    if same_grid(grid, first):
        return
    one_crs = same_crs(grid.crs, first.crs)
    if align and first.crs and one_crs and grid.transform and first.transform:
        return
    for what, received, expected, fits in (
        ("CRS", grid.crs, first.crs, one_crs),  # first: resampling cannot fix another UTM zone
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
PLAN_VERSION = 3


class SeriesPlan(NamedTuple):
    """Part of one series that is kept.

    Attributes:
        id: Name of the series.
        grid: Grid that all its dates have, or are resampled to.
        dates: Kept dates, ISO, ascending; none if the series is skipped.
        rejected: Reason for each date that is not kept.
        resampled: Dates that are resampled.
        skipped: Reason why the series is not kept; empty if it is.
        patches: Windows that are stored.
    """

    id: str
    grid: Grid
    dates: tuple[str, ...]
    rejected: dict[str, str]
    resampled: tuple[str, ...]
    skipped: str
    patches: tuple[Window, ...]


class Patch(NamedTuple):
    """Patch of a shard: position of its series in the plan, and its own in the series."""

    series: int
    number: int


class Plan(NamedTuple):
    """Plan of what a preparation writes.

    Attributes:
        config: Options of the preparation.
        inputs: Checksum of the sources and options; see `fingerprint`.
        sources: Files of the sources, see `list_files`; empty in plans of earlier versions.
        series: Part of each series that is kept.
        shards: Patches of each shard, in the order in which they are written.
    """

    config: PrepareConfig
    inputs: str
    sources: dict[str, list[int]]
    series: tuple[SeriesPlan, ...]
    shards: tuple[tuple[Patch, ...], ...]

    def num_bytes(self, patch: Patch) -> int:
        """Return the size of the pixels of a patch at all its dates, in bytes."""
        series = self.series[patch.series]
        return _num_bytes(series, series.patches[patch.number], self.config)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain lists and dictionaries."""
        return {
            "format": PLAN_FORMAT,
            "version": PLAN_VERSION,
            "options": self.config.to_dict(),
            "inputs": self.inputs,
            "sources": self.sources,
            "series": [{**one._asdict(), "grid": one.grid._asdict()} for one in self.series],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Plan":
        """Return the plan that `to_json` describes."""
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
        shards = _shards(series, config)
        return cls(config, values["inputs"], values.get("sources", {}), series, shards)


def fingerprint(series: Iterable[Series], config: PrepareConfig) -> str:
    """Return a checksum that changes with the pixels, their radiometry or the options.

    Local rasters count by name, size and time of change. Remote ones count by their URL without
    its signature, so that items may be signed again. Files of items do not count, only what they
    state about a granule.

    Args:
        series: Series to prepare.
        config: The options.
    """
    versions = (FORMAT_VERSION, PLAN_VERSION)
    digest = hashlib.sha256(json.dumps([*versions, config.to_dict()]).encode())
    for one in series:
        for granule in one.granules:
            layers = granule.layers
            paths = [layer.path for layer in layers.values()]
            if granule.mask:
                paths.append(granule.mask.path)
            entry: list[Any] = [
                one.id,
                str(granule.date),
                [(band, *layer[1:]) for band, layer in layers.items()],
                [without_signature(path) for path in paths if is_remote(path)],
                [granule.mask and granule.mask.kind, granule.cloud_cover, granule.baseline],
            ]
            entry += [[file.name, *_facts_of(file)] for file in _pixel_files(granule)]
            digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def list_files(series: Iterable[Series]) -> dict[str, list[int]]:
    """List the local files that `fingerprint` takes into account.

    Args:
        series: Series to prepare.

    Returns:
        Size in bytes and time of change in nanoseconds of each file, by series, date, folder and
        name of the file.
    """
    return {
        f"{one.id}/{granule.date}/{file.parent.name}/{file.name}": _facts_of(file)
        for one in series
        for granule in one.granules
        for file in _pixel_files(granule)
    }


def describe_changes(
    plan: Mapping[str, Any], series: Iterable[Series], config: PrepareConfig
) -> str:
    """Describe how options and files differ from those of an existing plan.

    Args:
        plan: Content of the plan's file.
        series: Series to prepare.
        config: The options.

    Returns:
        Text for a message; empty if nothing is known, as of remote sources.
    """
    parts = []
    options = json.loads(json.dumps(config.to_dict()))  # tuples are lists in the plan
    if differing := describe_differences(plan.get("options", {}), options):
        parts.append(f"options: {differing}")
    there, here = plan.get("sources", {}), list_files(series)
    changes = []
    for name in sorted({*there, *here} if there else ()):
        old, new = there.get(name), here.get(name)
        if old is None or new is None:
            changes.append(f"{name} {'is new' if old is None else 'is missing'}")
        elif old[0] != new[0]:
            changes.append(f"{name} has {new[0]:,} bytes, before {old[0]:,}")
        elif old[1] != new[1]:
            times = f"{_show_time(new[1])}, before at {_show_time(old[1])}"
            changes.append(f"{name} has the same size but was written at {times}")
    if changes:
        more = f"; {len(changes) - _LISTED} more" if len(changes) > _LISTED else ""
        parts.append(f"sources: {'; '.join(changes[:_LISTED])}{more}")
    return "; ".join(parts)


def _show_time(nanoseconds: int) -> str:
    time = datetime.datetime.fromtimestamp(nanoseconds / 1e9, datetime.UTC)
    return time.isoformat(" ", "milliseconds").replace("+00:00", " UTC")


def _pixel_files(granule: Granule) -> Iterator[Path]:
    """Yield the local files of a granule, without the JSON that names them."""
    for file in granule.files:
        if file.suffix.lower() not in (".json", ".geojson"):
            yield file


def _facts_of(file: Path) -> list[int]:
    try:
        status = file.stat()
    except FileNotFoundError:
        return [-1, 0]  # `common_grids` reports all that are missing
    return [status.st_size, status.st_mtime_ns]


def make_plan(
    series: Sequence[Series],
    grids: Sequence[Grid],
    screenings: Sequence[Sequence[Screening]],
    config: PrepareConfig,
) -> Plan:
    """Decide what to store.

    Args:
        series: Series to prepare.
        grids: Grid of each series, from `common_grids`.
        screenings: Screenings of each series, from `screen`.
        config: The options.

    Raises:
        DataError: No series passes the screening.
    """
    plans = tuple(
        plan_series(one.id, grid, found, config)
        for one, grid, found in zip(series, grids, screenings, strict=True)
    )
    if all(plan.skipped for plan in plans):
        raise nothing_left({plan.id: plan.skipped for plan in plans})
    inputs = fingerprint(series, config)
    return Plan(config, inputs, list_files(series), plans, _shards(plans, config))


def nothing_left(skipped: dict[str, str]) -> DataError:
    """Return the error of a preparation that keeps no series.

    Args:
        skipped: Reason for each series, by name.
    """
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
    """Decide what to keep of one series.

    Args:
        name: Name of the series.
        grid: Its grid.
        screenings: Screenings of its granules.
        config: The options.
    """
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
