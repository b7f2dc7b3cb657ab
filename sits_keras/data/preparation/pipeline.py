"""From source rasters to records: discover, screen, cut, write (section 4.1)."""

import itertools
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sits_keras.config import PrepareConfig
from sits_keras.data.execution import Run, runner
from sits_keras.data.preparation.granule_reader import RESAMPLING
from sits_keras.data.preparation.shards import (
    SeriesPart,
    WrittenShard,
    blocks_of,
    find_complete_shard,
    write_patches,
)
from sits_keras.data.preparation.survey import (
    PLAN_FORMAT,
    Plan,
    common_grids,
    fingerprint,
    make_plan,
    nothing_left,
    plan_series,
    screen,
    workers_for,
)
from sits_keras.data.records import (
    MANIFEST_NAME,
    PLAN_NAME,
    Manifest,
    Shard,
    read_manifest,
    write_manifest,
)
from sits_keras.data.sources.granules import Granule, Series
from sits_keras.data.sources.series import read_sources
from sits_keras.errors import DataError, ExistsError, MissingError
from sits_keras.files import check_folder, check_space, read_json, write_json

_PARTIAL = ".partial-*"


def prepare(
    sources: Path | str | Sequence[Path | str],
    out: Path | str,
    config: PrepareConfig | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = True,
    workers: int | None = 1,
    scheduler: str | None = None,
) -> Manifest:
    """Turns Sentinel-2 products and dated rasters into a folder of records.

    A run that was stopped goes on where it was when called again with the same sources and
    options, and ends with the same bytes. A finished folder whose shards are whole is left as it
    is. In memory at a time, in each worker, is one patch at all its dates: about 1 GB with the
    paper's sizes, most of it TensorFlow, however many granules there are.

    Args:
        sources: a source or several (see `sits_keras.data.sources.series`).
        out: the folder to write.
        config: the options; the paper's by default.
        include: shell patterns of the series to take; all by default.
        exclude: shell patterns of the series to leave out.
        overwrite: replace records in `out` that were made from other sources or options.
        progress: show progress bars.
        workers: processes on this machine, each at a shard of its own. With more than one, a
            script must guard its entry with `if __name__ == "__main__":`. `None` for one a core,
            where there is work for them.
        scheduler: address of a Dask scheduler to use in place of processes on this machine.
    Returns:
        The manifest of what was written, skips and their reasons included.
    Raises:
        MissingError, DataError: a source is missing or at fault; see `find_series`, `make_plan`.
        ExistsError: `out` holds something else, or records of other sources or options.
        ConfigError: an option is out of range, or Dask is asked for and cannot be used.
        OutputError: `out` cannot be written to, or its disk has not as much room as is needed.
    """
    config = config or PrepareConfig()
    series = read_sources(sources, include, exclude, absolute=scheduler is not None)
    out = Path(out).absolute()
    inputs = fingerprint(series, config)
    begun = _begun(out, inputs, overwrite)
    check_folder(out)  # before the granules are screened
    if begun:
        plan, known = begun
        grids = [one.grid for one in plan.series]
    else:
        grids = common_grids(series, config)
    with runner(workers_for(workers, series, grids, config), scheduler) as run:
        if not begun:
            num_granules = sum(len(one.granules) for one in series)
            with tqdm(
                total=num_granules, desc="screen", unit="granule", disable=not progress
            ) as bar:
                screenings = screen(series, grids, config, run, bar)
            plan, known = make_plan(series, grids, screenings, config), {}
            _clear(out)
            write_json(out / PLAN_NAME, plan.to_json())
        _warn_of_resampling(plan)
        written = _write(out, plan, series, known, run, progress)
    manifest = _manifest(out, plan, series, written)
    if not manifest.series:
        raise nothing_left(manifest.skipped)
    write_manifest(manifest)
    return manifest


def _write(
    out: Path,
    plan: Plan,
    series: Sequence[Series],
    known: dict[str, Shard],
    run: Run,
    progress: bool,
) -> list[WrittenShard]:
    """Writes the shards that are not there yet."""
    _remove_partial(out)
    granules = {one.id: one.granules for one in series}
    written: dict[int, WrittenShard] = {}
    todo: list[int] = []
    weights = [sum(map(plan.num_bytes, patches)) for patches in plan.shards]
    with tqdm(
        total=sum(weights), desc="write", unit="B", unit_scale=True, disable=not progress
    ) as bar:
        for index in range(len(plan.shards)):
            there = find_complete_shard(_shard_path(out, index), plan.config.compression, known)
            if there is None:
                todo.append(index)
            else:
                written[index] = there
                bar.update(weights[index])
        bar.initial = bar.n  # the rate is of what is written now
        if not plan.config.compression:  # else nobody knows
            check_space(out, out, sum(weights[index] for index in todo))
        work = [
            (_shard_path(out, index), _parts(plan, index, granules), plan.config) for index in todo
        ]
        for position, shard in run(write_patches, work, bar, [weights[index] for index in todo]):
            written[todo[position]] = shard
    _remove_partial(out)  # of workers that were lost
    return [written[index] for index in range(len(plan.shards))]


def _shard_path(out: Path, index: int) -> Path:
    return out / f"shard-{index:05d}.tfrecord"


def _parts(
    plan: Plan, index: int, granules: dict[str, tuple[Granule, ...]]
) -> tuple[SeriesPart, ...]:
    """What a shard is made of, by series."""
    parts = []
    for position, patches in itertools.groupby(plan.shards[index], lambda patch: patch.series):
        one = plan.series[position]
        kept = tuple(g for g in granules[one.id] if str(g.date) in one.dates)
        windows = tuple((patch.number, one.patches[patch.number]) for patch in patches)
        parts.append(SeriesPart(one.id, kept, one.grid if plan.config.align else None, windows))
    return tuple(parts)


def _warn_of_resampling(plan: Plan) -> None:
    for one in plan.series:
        if one.resampled:
            warnings.warn(
                f"{one.id}: {', '.join(one.resampled)} lie on another grid and are resampled to "
                f"that of the first date ({RESAMPLING}).",
                stacklevel=3,
            )


def _begun(out: Path, inputs: str, overwrite: bool) -> tuple[Plan, dict[str, Shard]] | None:
    """The plan that `out` was begun with and its known shards, if they are of these inputs.

    Raises:
        ExistsError: `out` is not empty and not of these inputs.
        DataError: its manifest is damaged.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise ExistsError(f"{out} is a file. Expected a folder to write records to.")
    if all(path.match(_PARTIAL) for path in out.iterdir()):
        return None
    values = _own_plan(out / PLAN_NAME)
    if not values:
        # Not even with overwrite: whatever is there was not made here.
        raise ExistsError(
            f"{out} is not empty and holds no records. Name another folder, or empty this one."
        )
    if values.get("inputs") == inputs:
        try:
            return Plan.from_json(values), _known_shards(out)
        except DataError:
            if not overwrite:
                raise
    elif not overwrite:
        raise ExistsError(
            f"{out} holds records of other sources or options, or the sources have changed since. "
            "Name another folder, or pass overwrite (--overwrite) to replace them."
        )
    return None


def _own_plan(path: Path) -> dict[str, Any]:
    """What a plan file holds, or nothing where it is not one that was written here."""
    try:
        values = read_json(path, remedy="") if path.is_file() else {}
    except DataError:
        return {}
    return values if values.get("format") == PLAN_FORMAT else {}


def _clear(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    # The manifest first: without it the folder does not count as complete. The plan last: it is
    # what tells that the folder was made here.
    for pattern in (MANIFEST_NAME, "shard-*.tfrecord", _PARTIAL, PLAN_NAME):
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


def inspect(
    sources: Path | str | Sequence[Path | str],
    config: PrepareConfig | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    progress: bool = True,
    workers: int | None = 1,
    scheduler: str | None = None,
) -> list[dict[str, Any]]:
    """Screens the granules of some sources as `prepare` does, and writes nothing.

    Errors are those of `sits_keras.data.prepare`.

    Args:
        sources, config, include, exclude, progress, workers, scheduler: as there.
    Returns:
        A dictionary a granule, in the order of series and dates: `series`, `date`, `name`;
        `cloud` and `complete`, shares in [0, 1]; `by`, what says where cloud is; `level` and
        `baseline` of the product, or `None`; `kept`, `"kept"` or why not; `crs`, `transform`,
        `height` and `width` of its pixels; `footprint`, (longitude, latitude) of what the
        product says was seen, or `None`.
    """
    config = config or PrepareConfig()
    series = read_sources(sources, include, exclude, absolute=scheduler is not None)
    grids = common_grids(series, config)
    num_granules = sum(len(one.granules) for one in series)
    with (
        runner(workers_for(workers, series, grids, config), scheduler) as run,
        tqdm(total=num_granules, desc="screen", unit="granule", disable=not progress) as bar,
    ):
        screenings = screen(series, grids, config, run, bar)
    rows = []
    for one, grid, found in zip(series, grids, screenings, strict=True):
        plan = plan_series(one.id, grid, found, config)
        for screening in found:
            granule, date = screening.granule, str(screening.granule.date)
            kept = "kept, resampled" if date in plan.resampled else "kept"
            rows.append(
                {
                    "series": one.id,
                    "date": date,
                    "name": granule.name,
                    "cloud": screening.coverage.cloud,
                    "mask": screening.cloud_source,
                    "complete": screening.coverage.complete,
                    "level": granule.level,
                    "baseline": granule.baseline,
                    "kept": plan.rejected.get(date) or plan.skipped or kept,
                    **grid._asdict(),
                    "footprint": granule.footprint,
                }
            )
    return rows
