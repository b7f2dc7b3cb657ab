"""Writing of one shard: reads each patch once, screens its blocks, stores the rest (section 4.1).

A shard depends on its arguments alone, whichever process writes it, and is complete or absent.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.config import PrepareConfig
from sits_keras.data.execution import Unfinished
from sits_keras.data.preparation.granule_reader import (
    BlockPixels,
    BlockReader,
    GranuleReader,
    KeptPixels,
    interleaved,
)
from sits_keras.data.preparation.screening import count_coverage, rejection
from sits_keras.data.radiometry import NODATA
from sits_keras.data.rasters.read import Grid
from sits_keras.data.records import (
    Block,
    Shard,
    begin_shard,
    describe_shard,
    read_records,
    serialize,
    series_of,
)
from sits_keras.data.sources.granules import Granule
from sits_keras.data.tiling import Window, grid_windows
from sits_keras.errors import DataError

Tick = Callable[[int], object]


class SeriesPart(NamedTuple):
    """Part of one series in a shard.

    Attributes:
        series: Name of the series.
        granules: Granules of its kept dates.
        onto: Grid to resample to, or `None`.
        patches: Index and window of each patch.
        kept: Pixels of each granule that screening kept, or `None`.
    """

    series: str
    granules: tuple[Granule, ...]
    onto: Grid | None
    patches: tuple[tuple[int, Window], ...]
    kept: tuple[KeptPixels | None, ...]


class WrittenShard(NamedTuple):
    """A shard, and the number of blocks of each series in it."""

    shard: Shard
    blocks: Mapping[str, int]


def write_patches(
    path: Path,
    parts: Sequence[SeriesPart],
    config: PrepareConfig,
    tick: Tick | None = None,
    num_threads: int = 1,
) -> Unfinished:
    """Write a shard.

    Args:
        path: Output file.
        parts: Content of the shard.
        config: Thresholds, bands and sizes.
        tick: Function to call with the number of bytes of each patch when it is done.
        num_threads: Number of threads to read with. With 1 this thread also writes.

    Returns:
        The shard before it is complete, which becomes a `WrittenShard`.

    Raises:
        DataError: A raster cannot be read.
        OSError: The disk is full or the folder is not writable; no partial file is left.
    """
    blocks: Counter[str] = Counter()

    def records() -> Iterator[bytes]:
        for part in parts:
            for block, images in _read_blocks(part, config, tick, num_threads):
                blocks[block.series] += 1
                yield serialize(block, images)

    finish = begin_shard(path, records(), config.compression, num_threads)
    return Unfinished(lambda: WrittenShard(finish(), blocks))


def find_complete_shard(
    path: Path, compression: str, known: Mapping[str, Shard]
) -> WrittenShard | None:
    """Return a shard that exists as it was written; shards get their name when complete.

    Args:
        path: Path of the shard.
        compression: Compression of its records.
        known: Manifest entries of the shards by file; empty without a manifest.

    Returns:
        The shard; `None` if it does not exist, is damaged, or differs from the manifest.
    """
    if not path.is_file():
        return None
    try:
        blocks = _count_records(path, compression)
    except DataError:
        return None
    shard = describe_shard(path, sum(blocks.values()))
    return WrittenShard(shard, blocks) if known.get(path.name, shard) == shard else None


def blocks_of(patch: Window, config: PrepareConfig) -> list[Window]:
    """Return the windows in the raster of the blocks of a patch."""
    return [
        Window(patch.row + row, patch.col + col, height, width)
        for row, col, height, width in grid_windows(patch.height, patch.width, config.block_size)
    ]


def _read_blocks(
    part: SeriesPart, config: PrepareConfig, tick: Tick | None, num_threads: int
) -> Iterator[tuple[Block, list[npt.NDArray[np.uint16]]]]:
    with contextlib.ExitStack() as opened:
        sources: list[GranuleReader | BlockReader] = [
            opened.enter_context(kept.opened())
            if kept
            else opened.enter_context(GranuleReader(granule, config.bands, part.onto))
            for granule, kept in zip(part.granules, part.kept, strict=True)
        ]
        for source in sources:
            if isinstance(source, GranuleReader):
                source.check_mask()  # opens it, in the thread that closes it
        threads = opened.enter_context(ThreadPoolExecutor(num_threads))
        is_full = [bool(kept and kept.is_full and not kept.has_mask) for kept in part.kept]
        for index, patch in part.patches:
            readers = list(threads.map(_patch_reader, sources, itertools.repeat(patch)))
            for window in blocks_of(patch, config):
                dates, images = [], []
                for granule, read, full in zip(part.granules, readers, is_full, strict=True):
                    stored, cloudy = read(window)
                    if full or not rejection(
                        count_coverage(stored[..., 0] != NODATA, cloudy), config
                    ):
                        dates.append(str(granule.date))
                        images.append(stored)
                if len(images) >= config.min_dates:
                    yield Block(part.series, index, window, tuple(dates)), images
            if tick:
                tick(2 * len(config.bands) * len(sources) * patch.height * patch.width)


def _patch_reader(source: GranuleReader | BlockReader, patch: Window) -> BlockReader:
    """Read a patch at once, for its file may not be tiled as its blocks are."""
    if not isinstance(source, GranuleReader):
        return source
    stored, cloudy = source.read(patch), source.cloudy(patch)

    def read(block: Window) -> BlockPixels:
        row, col = block.row - patch.row, block.col - patch.col
        where = slice(row, row + block.height), slice(col, col + block.width)
        return interleaved(stored[where]), None if cloudy is None else cloudy[where]

    return read


def _count_records(path: Path, compression: str) -> Counter[str]:
    """Return the number of records of each series in a shard.

    Raises:
        DataError: The shard is truncated or damaged.
    """
    try:
        return Counter(series_of(record) for record in read_records(path, compression))
    except (ValueError, LookupError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged: {error}. Write it again.") from error
