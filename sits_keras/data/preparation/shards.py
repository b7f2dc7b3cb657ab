"""Writing of one shard: reads each patch once, screens its blocks, stores the rest (section 4.1).

A shard depends on its arguments alone, whichever process writes it, and is complete or absent.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.config import PrepareConfig
from sits_keras.data.preparation.granule_reader import GranuleReader, KeptPixels
from sits_keras.data.preparation.screening import count_coverage, rejection
from sits_keras.data.radiometry import NODATA
from sits_keras.data.rasters.read import Grid
from sits_keras.data.records import (
    Block,
    Shard,
    describe_shard,
    read_records,
    serialize,
    series_of,
    write_shard,
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
    path: Path, parts: Sequence[SeriesPart], config: PrepareConfig, tick: Tick | None = None
) -> WrittenShard:
    """Write a shard.

    Args:
        path: Output file.
        parts: Content of the shard.
        config: Thresholds, bands and sizes.
        tick: Function to call with the number of bytes of each patch when it is done.

    Raises:
        DataError: A raster cannot be read.
        OSError: The disk is full or the folder is not writable; no partial file is left.
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
    part: SeriesPart, config: PrepareConfig, tick: Tick | None
) -> Iterator[tuple[Block, npt.NDArray[np.uint16]]]:
    with contextlib.ExitStack() as opened:
        sources = [
            kept or opened.enter_context(GranuleReader(granule, config.bands, part.onto))
            for granule, kept in zip(part.granules, part.kept, strict=True)
        ]
        for index, patch in part.patches:
            shape = (len(sources), patch.height, patch.width, len(config.bands))
            images = np.empty(shape, np.uint16)
            cloudy = []
            for image, source in zip(images, sources, strict=True):
                if isinstance(source, KeptPixels):
                    cloudy.append(source.read(index, image))
                else:
                    for band, values in enumerate(np.moveaxis(source.read(patch), -1, 0)):
                        image[..., band] = values
                    cloudy.append(source.cloudy(patch))
            valid = images[..., 0] != NODATA
            for window in blocks_of(patch, config):
                rows = slice(window.row - patch.row, window.row - patch.row + window.height)
                cols = slice(window.col - patch.col, window.col - patch.col + window.width)
                coverages = (
                    count_coverage(
                        valid[date, rows, cols],
                        None if mask is None else mask[rows, cols],
                    )
                    for date, mask in enumerate(cloudy)
                )
                passed = [date for date, one in enumerate(coverages) if not rejection(one, config)]
                if len(passed) >= config.min_dates:
                    dates = tuple(str(part.granules[date].date) for date in passed)
                    block = Block(part.series, index, window, dates)
                    if len(passed) == len(images):
                        yield block, images[:, rows, cols]
                    else:
                        yield block, images[passed, rows, cols]
            if tick:
                tick(images.nbytes)


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
