"""Preparation of records: find sources, screen, cut into blocks, write (section 4.1)."""

import contextlib
import itertools
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sits_keras.config import PrepareConfig
from sits_keras.data.execution import Run, runner
from sits_keras.data.preparation.granule_reader import RESAMPLING, KeptPixels
from sits_keras.data.preparation.shards import (
    SeriesPart,
    WrittenShard,
    blocks_of,
    find_complete_shard,
    write_patches,
)
from sits_keras.data.preparation.survey import (
    KEPT_BYTES,
    PLAN_FORMAT,
    Failure,
    Plan,
    Screening,
    Survey,
    common_grids,
    describe_changes,
    fingerprint,
    make_plan,
    nothing_left,
    plan_series,
    screen,
    screen_all,
    survey,
    warn_of_values,
    workers_for,
)
from sits_keras.data.rasters.read import Grid
from sits_keras.data.records import (
    MANIFEST_NAME,
    PLAN_NAME,
    Manifest,
    Shard,
    read_manifest,
    write_manifest,
)
from sits_keras.data.sources.granules import Granule, Series
from sits_keras.data.sources.series import (
    Unread,
    check_conflicts,
    combined_error,
    read_sources,
)
from sits_keras.errors import DataError, ExistsError, MissingError, SitsKerasError
from sits_keras.files import check_folder, check_space, read_json, write_json

_PARTIAL = ".partial-*"


def prepare(
    sources: Path | str | Sequence[Path | str],
    out: Path | str,
    config: PrepareConfig | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    newest: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    workers: int | None = 1,
    scheduler: str | None = None,
) -> Manifest:
    """Convert Sentinel-2 products and dated rasters to a folder of records.

    An interrupted run resumes when it is called again with the same sources and options, and ends
    with the same bytes. A finished folder whose shards are complete is left as it is. Each worker
    holds one patch at all its dates in memory: about 0.3 GB with the paper's sizes, however many
    granules there are. Rasters of all bands, and products of up to 2,048 px a side, are read once:
    their pixels are kept in temporary files in `out` between screening and writing, up to 4 GiB
    (`survey.KEPT_BYTES`) where the disk has room.

    Args:
        sources: A source or several (see `sits_keras.data.sources.series`).
        out: Output folder.
        config: Options; the paper's by default.
        include: Shell patterns of the series to use; all by default.
        exclude: Shell patterns of the series to leave out.
        newest: If several products are of one tile and date, use the one of the newest
            processing baseline; of one baseline, the part that covers more of the tile, or the
            last processed. By default such products are an error.
        overwrite: Replace records in `out` that were made from other sources or options.
        progress: Show progress bars.
        workers: Processes on this machine, each of which writes a shard at a time. One process
            decodes with a thread for each core, so a few cores are used by one process as well.
            With more than one, a script must guard its entry with `if __name__ == "__main__":`.
            `None` for one a core, if there is work for them.
        scheduler: Address of a Dask scheduler to use instead of processes on this machine.

    Returns:
        The manifest of the records, which names what was skipped, and why.

    Raises:
        MissingError: A source does not exist.
        DataError: Sources cannot be read or do not fit each other, or no series passes the
            screening. All errors are listed that names, metadata and headers show.
        ExistsError: `out` contains something else, or records of other sources or options.
        ConfigError: An option is out of range, or Dask is needed and not installed.
        OutputError: `out` cannot be written to, or its disk has too little space.

    Examples:
        >>> from sits_keras.data import prepare
        >>> manifest = prepare("series", "records", progress=False)  # doctest: +SKIP
    """
    config = config or PrepareConfig()
    unread: list[Unread] = []
    series = read_sources(
        sources,
        include,
        exclude,
        newest=newest,
        unread=unread,
        absolute=scheduler is not None,
    )
    _check_sources(series, unread, config)
    out = Path(out).absolute()
    inputs = fingerprint(series, config)
    resumed = _resume(out, inputs, overwrite, lambda plan: describe_changes(plan, series, config))
    check_folder(out)  # before the granules are screened
    if resumed:
        plan, known = resumed
        grids = [one.grid for one in plan.series]
    else:
        grids = common_grids(series, config)
    _remove_partial(out)
    with (
        runner(workers_for(workers, series, grids, config), scheduler) as run,
        _folder_for_pixels(out, series, grids, config, bool(resumed)) as keep_in,
    ):
        kept: dict[tuple[str, str], KeptPixels] = {}
        if not resumed:
            num_granules = sum(len(one.granules) for one in series)
            with tqdm(
                total=num_granules, desc="screen", unit="granule", disable=not progress
            ) as bar:
                screenings = screen(series, grids, config, run, bar, keep_in)
            warn_of_values(series, screenings)
            plan, known = make_plan(series, grids, screenings, config), {}
            _clear(out)
            write_json(out / PLAN_NAME, plan.to_json())
            kept = _kept_pixels(series, screenings, plan)
        _warn_of_resampling(plan)
        written = _write(out, plan, series, kept, known, run, progress)
    manifest = _manifest(out, plan, series, written)
    if not manifest.series:
        raise nothing_left(manifest.skipped)
    write_manifest(manifest)
    return manifest


@contextlib.contextmanager
def _folder_for_pixels(
    out: Path,
    series: Sequence[Series],
    grids: Sequence[Grid],
    config: PrepareConfig,
    is_resumed: bool,
) -> Iterator[Path | None]:
    """Provide the folder in which screening keeps pixels, and remove them afterwards.

    Yields:
        `out`; `None` if the disk may have no room for kept pixels beside the records.
    """
    folders = [one for one in (out, *out.parents) if not one.exists()]
    size = sum(
        (2 * len(config.bands) + 1) * grid.height * grid.width * len(one.granules)
        for one, grid in zip(series, grids, strict=True)
    )
    existing = next(one for one in (out, *out.parents) if one.exists())
    if is_resumed or shutil.disk_usage(existing).free < size + min(size, KEPT_BYTES):
        yield None
        return
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield out
    finally:
        _remove_partial(out)
        for folder in folders:  # the innermost first
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _kept_pixels(
    series: Sequence[Series], screenings: Sequence[Sequence[Screening]], plan: Plan
) -> dict[tuple[str, str], KeptPixels]:
    """Return the kept pixels by series and date, and remove those of dates that are left out."""
    kept = {}
    for one, found, part in zip(series, screenings, plan.series, strict=True):
        blocks = tuple(block for patch in part.patches for block in blocks_of(patch, plan.config))
        for screening in found:
            date = str(screening.granule.date)
            if screening.kept is None:
                continue
            if date in part.dates and screening.kept.blocks == blocks:
                kept[one.id, date] = screening.kept
            else:
                screening.kept.path.unlink()
    return kept


def _write(
    out: Path,
    plan: Plan,
    series: Sequence[Series],
    kept: dict[tuple[str, str], KeptPixels],
    known: dict[str, Shard],
    run: Run,
    progress: bool,
) -> list[WrittenShard]:
    """Write the shards that do not exist yet."""
    granules = {one.id: one.granules for one in series}
    written: dict[int, WrittenShard] = {}
    todo: list[int] = []
    weights = [sum(map(plan.num_bytes, patches)) for patches in plan.shards]
    with tqdm(
        total=sum(weights), desc="write", unit="B", unit_scale=True, disable=not progress
    ) as bar:
        for index in range(len(plan.shards)):
            existing = find_complete_shard(_shard_path(out, index), plan.config.compression, known)
            if existing is None:
                todo.append(index)
            else:
                written[index] = existing
                bar.update(weights[index])
        bar.initial = bar.n  # so that the rate is that of this run
        if not plan.config.compression:  # otherwise the size is unknown
            check_space(out, out, sum(weights[index] for index in todo))
        work = [
            (_shard_path(out, index), _parts(plan, index, granules, kept), plan.config)
            for index in todo
        ]
        for position, shard in run(write_patches, work, bar, [weights[index] for index in todo]):
            written[todo[position]] = shard
    _remove_partial(out)  # files of workers that were lost
    return [written[index] for index in range(len(plan.shards))]


def _shard_path(out: Path, index: int) -> Path:
    return out / f"shard-{index:05d}.tfrecord"


def _parts(
    plan: Plan,
    index: int,
    granules: dict[str, tuple[Granule, ...]],
    pixels: dict[tuple[str, str], KeptPixels],
) -> tuple[SeriesPart, ...]:
    """Return the content of a shard by series."""
    parts = []
    for position, patches in itertools.groupby(plan.shards[index], lambda patch: patch.series):
        one = plan.series[position]
        kept = tuple(g for g in granules[one.id] if str(g.date) in one.dates)
        windows = tuple((patch.number, one.patches[patch.number]) for patch in patches)
        onto = one.grid if plan.config.align else None
        found = tuple(pixels.get((one.id, str(granule.date))) for granule in kept)
        parts.append(SeriesPart(one.id, kept, onto, windows, found))
    return tuple(parts)


def _warn_of_resampling(plan: Plan) -> None:
    for one in plan.series:
        if one.resampled:
            warnings.warn(
                f"{one.id}: {', '.join(one.resampled)} lie on another grid and are resampled to "
                f"that of the first date ({RESAMPLING}).",
                stacklevel=3,
            )


def _resume(
    out: Path, inputs: str, overwrite: bool, describe: Callable[[dict[str, Any]], str]
) -> tuple[Plan, dict[str, Shard]] | None:
    """Return the plan and the known shards of an interrupted or finished run with these inputs.

    Raises:
        ExistsError: `out` is not empty, and was not made from these inputs.
        DataError: Its manifest is damaged.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise ExistsError(f"{out} is a file. Expected a folder for the records.")
    if all(path.match(_PARTIAL) for path in out.iterdir()):
        return None
    values = _read_plan(out / PLAN_NAME)
    if not values:
        # Not even with overwrite: the files were not written by this package.
        raise ExistsError(
            f"{out} is not empty and does not contain records. Name another folder, or empty it."
        )
    if values.get("inputs") == inputs:
        try:
            return Plan.from_json(values), _known_shards(out)
        except DataError:
            if not overwrite:
                raise
    elif not overwrite:
        raise ExistsError(
            f"{out} contains records of other sources or options, or the sources have changed "
            f"since{f' ({changes})' if (changes := describe(values)) else ''}. Name another "
            "folder, or pass overwrite (--overwrite) to replace them."
        )
    return None


def _read_plan(path: Path) -> dict[str, Any]:
    """Return the content of a plan file; empty if it is not one of this package."""
    try:
        values = read_json(path, remedy="") if path.is_file() else {}
    except DataError:
        return {}
    return values if values.get("format") == PLAN_FORMAT else {}


def _clear(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    # The manifest first: without it the folder is not complete. The plan last: it marks the folder
    # as one of this package.
    for pattern in (MANIFEST_NAME, "shard-*.tfrecord", PLAN_NAME):
        for path in out.glob(pattern):
            path.unlink()


def _remove_partial(out: Path) -> None:
    for path in out.glob(_PARTIAL):
        path.unlink(missing_ok=True)


def _known_shards(out: Path) -> dict[str, Shard]:
    try:
        manifest = read_manifest(out, check_shards=False)
    except MissingError:
        return {}
    return {shard.file: shard for shard in manifest.shards}


def _manifest(
    out: Path, plan: Plan, series: Sequence[Series], written: Sequence[WrittenShard]
) -> Manifest:
    granules = {one.id: {str(g.date): g for g in one.granules} for one in series}
    stored: Counter[str] = Counter()
    for shard in written:
        stored.update(shard.blocks)
    skipped = {one.id: one.skipped for one in plan.series if one.skipped}
    entries = []
    for one in plan.series:
        if one.skipped:
            continue
        if not stored[one.id]:
            skipped[one.id] = f"no block has {plan.config.min_dates} dates that pass"
            continue
        num_blocks = sum(len(blocks_of(window, plan.config)) for window in one.patches)
        entries.append(
            {
                "id": one.id,
                "height": one.grid.height,
                "width": one.grid.width,
                "crs": one.grid.crs,
                "transform": list(one.grid.transform) if one.grid.transform else None,
                "dates": list(one.dates),
                "products": {
                    date: {"name": Path(granule.name).name, "baseline": granule.baseline}
                    for date in one.dates
                    if (granule := granules[one.id][date]).baseline
                },
                "rejected": one.rejected,
                "resampled": list(one.resampled),
                "blocks": stored[one.id],
                "blocks_skipped": num_blocks - stored[one.id],
            }
        )
    return Manifest(
        folder=out,
        bands=plan.config.bands,
        compression=plan.config.compression,
        shards=tuple(one.shard for one in written if one.shard.records),
        series=tuple(entries),
        skipped=skipped,
        options=plan.config.to_dict(),
        inputs=plan.inputs,
    )


def _check_sources(
    series: Sequence[Series], unread: Sequence[Unread], config: PrepareConfig
) -> None:
    """Raise one error that lists everything that is wrong with some sources.

    Headers are read only if there is an error already; `common_grids` checks them otherwise.
    """
    errors: list[SitsKerasError] = [one.error for one in unread]
    try:
        check_conflicts(series)
    except DataError as error:
        errors.append(error)
    if errors:
        errors += [failure.error for one in survey(series, config) for failure in one.failures]
        raise combined_error(errors)


def inspect(
    sources: Path | str | Sequence[Path | str],
    config: PrepareConfig | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    newest: bool = False,
    progress: bool = True,
    workers: int | None = 1,
    scheduler: str | None = None,
) -> list[dict[str, Any]]:
    """Screen the granules of some sources as `prepare` does, without writing anything.

    Granules that `prepare` would stop at, because they cannot be read, do not fit the others or
    are of one date, have rows too.

    Args:
        sources: As in `prepare`.
        config: As in `prepare`.
        include: As in `prepare`.
        exclude: As in `prepare`.
        newest: As in `prepare`.
        progress: Show a progress bar.
        workers: As in `prepare`.
        scheduler: As in `prepare`.

    Returns:
        A dictionary for each granule, in the order of series and dates, and for each file whose
        name or metadata cannot be read, which have no date: `series`, `date`, `name`;
        `cloud` and `complete`, fractions in [0, 1], or `None` if the granule was not screened;
        `mask`, the source of its cloud cover; `level` and `baseline` of the product, or `None`;
        `kept`, `"kept"` or the reason why not; `crs`, `transform`, `height` and `width` of its
        pixels; `footprint`, (longitude, latitude) of the outline that the product states, or
        `None`.

    Raises:
        MissingError: A source does not exist.
        DataError: A source contains no series, or its files are ambiguous.
        ConfigError: An option is out of range, or Dask is needed and not installed.
    """
    config = config or PrepareConfig()
    unread: list[Unread] = []
    found = read_sources(
        sources,
        include,
        exclude,
        newest=newest,
        unread=unread,
        absolute=scheduler is not None,
    )
    surveys = survey(found, config)
    usable = [one for one in surveys if one.grid]
    series, grids = [one.series for one in usable], [one.grid for one in usable if one.grid]
    num_granules = sum(len(one.granules) for one in series)
    with (
        runner(workers_for(workers, series, grids, config), scheduler) as run,
        tqdm(total=num_granules, desc="screen", unit="granule", disable=not progress) as bar,
    ):
        screenings = screen_all(series, grids, config, run, bar)
    warn_of_values(series, screenings)
    results = {one.series.id: each for one, each in zip(usable, screenings, strict=True)}
    rows = []
    for one in surveys:
        rows += sorted(
            _rows(one, results.get(one.series.id, []), config), key=lambda row: row["date"]
        )
    rows += [
        {**_EMPTY_ROW, "series": n, "name": p, "kept": f"not read: {why}"} for n, p, why in unread
    ]
    return rows


_EMPTY_ROW: dict[str, Any] = dict.fromkeys(
    (
        *("series", "date", "name", "cloud", "mask", "complete", "level", "baseline", "kept"),
        *Grid._fields,
        "footprint",
    )
)


def _rows(
    found: Survey, screenings: Sequence[Screening | Failure], config: PrepareConfig
) -> Iterator[dict[str, Any]]:
    """Return the rows of `inspect` for one series."""
    screened = [one for one in screenings if isinstance(one, Screening)]
    failed = [*found.failures, *(one for one in screenings if isinstance(one, Failure))]
    if found.grid:
        plan = plan_series(found.series.id, found.grid, screened, config)
    for screening in screened:
        granule, date = screening.granule, str(screening.granule.date)
        kept = "kept, resampled" if date in plan.resampled else "kept"
        yield {
            **_row(found, granule, plan.rejected.get(date) or plan.skipped or kept),
            "cloud": screening.coverage.cloud,
            "mask": screening.cloud_source,
            "complete": screening.coverage.complete,
            **plan.grid._asdict(),
        }
    for granule, error in failed:
        yield _row(found, granule, f"not read: {error}")
    for granule, reason, _ in found.series.conflicts:
        yield _row(found, granule, reason)


def _row(found: Survey, granule: Granule, kept: str) -> dict[str, Any]:
    return {
        **_EMPTY_ROW,
        "series": found.series.id,
        "date": str(granule.date),
        "name": granule.name,
        "level": granule.level,
        "baseline": granule.baseline,
        "kept": kept,
        "footprint": granule.footprint,
    }
