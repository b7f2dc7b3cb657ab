"""Writes one shard: reads each patch once, screens its blocks, stores what is left (section 4.1).

A shard is a function of its arguments alone, whoever writes it, and is there whole or not at all.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sits_keras.config import PrepareConfig
from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.preparation.screening import count_coverage, rejection
from sits_keras.data.radiometry import NODATA
from sits_keras.data.rasters.read import Grid
from sits_keras.data.records import (
    Block,
    Shard,
    describe_shard,
    serialize,
    write_shard,
)
from sits_keras.data.sources.granules import Granule
from sits_keras.data.tiling import Window, grid_windows
from sits_keras.errors import DataError
from sits_keras.tensorflow_import import tf

Tick = Callable[[int], object]


class SeriesPart(NamedTuple):
    """What a shard holds of one series.

    Attributes:
        series: name of the series.
        granules: its kept dates.
        onto: a grid to resample to, where that is asked for.
        patches: index and window of each patch.
    """

    series: str
    granules: tuple[Granule, ...]
    onto: Grid | None
    patches: tuple[tuple[int, Window], ...]


class WrittenShard(NamedTuple):
    """A shard, and how many blocks of each series are in it."""

    shard: Shard
    blocks: Mapping[str, int]


def write_patches(
    path: Path, parts: Sequence[SeriesPart], config: PrepareConfig, tick: Tick | None = None
) -> WrittenShard:
    """Writes a shard.

    Args:
        path: of the shard.
        parts: what it holds.
        config: thresholds, bands and sizes.
        tick: called with the number of bytes of each patch when it is done.
    Raises:
        DataError: a raster cannot be read.
        OSError: the disk is full or the folder not writable; nothing is left behind.
    """
    blocks: Counter[str] = Counter()

    def records() -> Iterator[bytes]:
        for part in parts:
            for block, images in _read_blocks(part, config, tick):
                blocks[block.series] += 1
                yield serialize(block, images)

    shard = write_shard(path, records(), config.compression)
    return WrittenShard(shard, blocks)


def find_complete_shard(
    path: Path, compression: str, known: Mapping[str, Shard]
) -> WrittenShard | None:
    """A shard that is there as it was written: shards get their name when they are whole.

    Args:
        path: of the shard.
        compression: of its records.
        known: what the manifest says of the shards, by file, where there is one.
    Returns:
        `None` where it is not there, damaged, or another than the manifest's.
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
    """The blocks that a patch is cut into, in the raster."""
    return [
        Window(patch.row + row, patch.col + col, height, width)
        for row, col, height, width in grid_windows(patch.height, patch.width, config.block_size)
    ]


def _read_blocks(
    part: SeriesPart, config: PrepareConfig, tick: Tick | None
) -> Iterator[tuple[Block, np.ndarray]]:
    with contextlib.ExitStack() as opened:
        readers = [
            opened.enter_context(GranuleReader(granule, config.bands, part.onto))
            for granule in part.granules
        ]
        for index, patch in part.patches:
            images = np.stack([reader.read(patch) for reader in readers])
            cloudy = [reader.cloudy(patch) for reader in readers]
            for window in blocks_of(patch, config):
                rows = slice(window.row - patch.row, window.row - patch.row + window.height)
                cols = slice(window.col - patch.col, window.col - patch.col + window.width)
                coverages = (
                    count_coverage(
                        images[date, rows, cols, 0] != NODATA,
                        None if mask is None else mask[rows, cols],
                    )
                    for date, mask in enumerate(cloudy)
                )
                passed = [date for date, one in enumerate(coverages) if not rejection(one, config)]
                if len(passed) >= config.min_dates:
                    dates = tuple(str(part.granules[date].date) for date in passed)
                    block = Block(part.series, index, window, dates)
                    yield block, images[passed, rows, cols]
            if tick:
                tick(images.nbytes)


def _count_records(path: Path, compression: str) -> Counter[str]:
    """How many records of each series a shard holds.

    Raises:
        DataError: the shard is cut off or damaged.
    """
    records = tf.data.TFRecordDataset(str(path), compression)
    feature = {"series": tf.io.FixedLenFeature([], tf.string)}
    try:
        return Counter(
            tf.io.parse_single_example(record, feature)["series"].numpy().decode()
            for record in records
        )
    except tf.errors.OpError as error:
        raise DataError(f"{path} is damaged: {error.message}. Write it anew.") from error
