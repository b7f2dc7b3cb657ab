"""From source rasters to records: discover, screen, cut, write (section 4.1)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sits_keras.config import PrepareConfig
from sits_keras.data.plan import PLAN_FORMAT, Plan, fingerprint, make_plan
from sits_keras.data.products import Granule, find_series, select_series
from sits_keras.data.raster import read_stored
from sits_keras.data.records import (
    MANIFEST_NAME,
    PLAN_NAME,
    Block,
    Manifest,
    Shard,
    describe_shard,
    read_manifest,
    serialize,
    write_manifest,
    write_shard,
)
from sits_keras.errors import DataError, ExistsError, MissingError
from sits_keras.files import read_json, write_json

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
) -> Manifest:
    """Turns folders of dated rasters into a folder of records.

    A run that was stopped goes on where it was when called again with the same sources and
    options, and ends with the same bytes. A finished folder whose shards are whole is left as it
    is.

    Args:
        sources: a source or several (see `sits_keras.data.products`).
        out: the folder to write.
        config: the options; the paper's by default.
        include: shell patterns of the series to take; all by default.
        exclude: shell patterns of the series to leave out.
        overwrite: replace records in `out` that were made from other sources or options.
        progress: show progress bars.
    Returns:
        The manifest of what was written, skips and their reasons included.
    Raises:
        MissingError, DataError: a source is missing or at fault; see `find_series`, `make_plan`.
        ExistsError: `out` holds something else, or records of other sources or options.
        OSError: `out` cannot be written.
    """
    config = config or PrepareConfig()
    paths = [sources] if isinstance(sources, Path | str) else list(sources)
    series = select_series(find_series(paths), include, exclude)
    out = Path(out)
    inputs = fingerprint(series, config)
    begun = _begun(out, inputs, overwrite)
    if begun:
        plan, known = begun
    else:
        num_granules = sum(len(one.granules) for one in series)
        with tqdm(total=num_granules, desc="screen", unit="granule", disable=not progress) as bar:
            plan = make_plan(series, config, bar.update)
        known = {}
        _clear(out)
        write_json(out / PLAN_NAME, plan.to_json())
    granules = {
        (one.id, granule.date.isoformat()): granule for one in series for granule in one.granules
    }
    shards = []
    num_blocks = sum(map(len, plan.shards))
    with tqdm(total=num_blocks, desc="write", unit="block", disable=not progress) as bar:
        for index, blocks in enumerate(plan.shards):
            path = out / f"shard-{index:05d}.tfrecord"
            shard = _whole_shard(path, len(blocks), known)
            if shard is None:
                records = _records(blocks, granules, config.bands, bar)
                shard = write_shard(path, records, config.compression)
            else:
                bar.update(len(blocks))
            shards.append(shard)
    manifest = _manifest(out, plan, tuple(shards))
    write_manifest(manifest)
    return manifest


def _records(
    blocks: Sequence[Block],
    granules: dict[tuple[str, str], Granule],
    bands: Sequence[str],
    bar: tqdm,
) -> Iterator[bytes]:
    for block in blocks:
        images = [
            read_stored(granules[block.series, date].path, bands, block.window)
            for date in block.dates
        ]
        yield serialize(block, np.stack(images))
        bar.update()


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


def _known_shards(out: Path) -> dict[str, Shard]:
    try:
        manifest = read_manifest(out, check_shards=False)
    except MissingError:
        return {}
    return {shard.file: shard for shard in manifest.shards}


def _whole_shard(path: Path, num_records: int, known: dict[str, Shard]) -> Shard | None:
    """The shard's entry if it is there as it was written: shards get their name when whole."""
    if not path.is_file():
        return None
    shard = describe_shard(path, num_records)
    return shard if known.get(path.name, shard) == shard else None


def _manifest(out: Path, plan: Plan, shards: tuple[Shard, ...]) -> Manifest:
    series = tuple(
        {
            "id": one.id,
            "height": one.grid.height,
            "width": one.grid.width,
            "crs": one.grid.crs,
            "transform": list(one.grid.transform) if one.grid.transform else None,
            "dates": list(one.dates),
            "rejected": one.rejected,
            "blocks": len(one.blocks),
            "blocks_skipped": one.blocks_skipped,
        }
        for one in plan.series
        if not one.skipped
    )
    return Manifest(
        folder=out,
        bands=plan.config.bands,
        compression=plan.config.compression,
        shards=shards,
        series=series,
        skipped={one.id: one.skipped for one in plan.series if one.skipped},
        options=plan.config.to_dict(),
        inputs=plan.inputs,
    )
