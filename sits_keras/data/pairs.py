"""Batches of pairs: random crops at two dates of the same place (section 4.1, Figure 2).

The stream is a pure function of `(seed, step)`: batch k is the same whether the stream began at
step 0 or at step k, and no global seed changes it.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sits_keras.config import IMAGE_SIZE, ModelConfig
from sits_keras.data.mapped_records import MappedBlock, map_blocks
from sits_keras.data.radiometry import aligned_empty, network_gain
from sits_keras.data.records import Manifest, read_manifest, select_bands
from sits_keras.data.tiling import reflect
from sits_keras.errors import ConfigError, DataError
from sits_keras.tensorflow_import import tf

_ORDER, _DRAWS = 0, 1  # the random streams of a seed
_BITS_OF_ONE = np.float32(1).view(np.int32)


class PairSampler:
    """Draws batches of pairs: called with a step, it returns its `(x, y)`.

    Args:
        blocks: the records.
        batch_size: pairs in a batch of this worker.
        seed: of the order of the records and of every draw.
        gain: `(bands,)` from stored to network values, of the bands wanted.
        positions: of the bands wanted, among those stored.
        augment: turn and flip.
        pairs_per_record: consecutive batches that share their records.
        context: pixels before and after each crop.
        worker: index of this worker, and how many there are.
    """

    def __init__(
        self,
        blocks: Sequence[MappedBlock],
        batch_size: int,
        *,
        seed: int,
        gain: np.ndarray,
        positions: Sequence[int],
        augment: bool,
        pairs_per_record: int,
        context: tuple[int, int],
        worker: tuple[int, int],
    ):
        self.blocks = blocks
        self.batch_size = batch_size
        self.seed = seed
        self.positions = positions
        self.augment = augment
        self.pairs_per_record = pairs_per_record
        self.worker = worker
        # (records,) each: dates, rows and columns.
        self.sizes = np.array([(len(b.pixels), b.height, b.width) for b in blocks]).T
        self.steps = np.arange(-context[0], IMAGE_SIZE + context[1])
        # Of a row of pixels at once: four bands are too few to multiply fast.
        self.gain = np.tile(gain, len(self.steps))
        self.checked = bytearray(len(blocks))

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The batch of a step.

        Returns:
            `x` and `y`, each `(batch_size, side, side, bands)` float32 in [-1, 1], where side is
            64 and the context.
        Raises:
            DataError: a record that was not read before has changed since it was written.
        """
        index, num_workers = self.worker
        total = self.batch_size * num_workers
        first_visit = step // self.pairs_per_record * total
        own = slice(index * self.batch_size, (index + 1) * self.batch_size)
        visits = range(first_visit, first_visit + total)[own]
        num_records = len(self.blocks)
        records = np.array(
            [_order(self.seed, v // num_records, num_records)[v % num_records] for v in visits]
        )
        draws = np.random.default_rng((self.seed, _DRAWS, step)).random((total, 7))
        draws = draws[own].T
        num_dates, heights, widths = self.sizes[:, records]
        first = _below(num_dates, draws[0])
        second = (first + 1 + _below(num_dates - 1, draws[1])) % num_dates
        where = self._pixels_of_crops(heights, widths, draws[2:])
        side = len(self.steps)
        stored = np.empty((2, self.batch_size, side * side), self.blocks[0].pixels.dtype)
        for item, record in enumerate(records):
            block = self.blocks[record]
            if not self.checked[record]:
                block.check()
                self.checked[record] = True
            for images, date in zip(stored, (first[item], second[item]), strict=True):
                # No index is out of range; "clip" is the mode that writes into `out` directly.
                block.pixels[date].take(where[item], out=images[item], mode="clip")
        return self._to_network(stored.view("<u2").reshape(2, -1, side, side, stored.itemsize // 2))

    def _pixels_of_crops(
        self, heights: np.ndarray, widths: np.ndarray, draws: np.ndarray
    ) -> np.ndarray:
        """`(batch, side * side)`: which pixel of its block each pixel of each crop is."""
        rows = _below(heights - IMAGE_SIZE + 1, draws[0])[:, None]
        cols = _below(widths - IMAGE_SIZE + 1, draws[1])[:, None]
        swap, flip_rows, flip_cols = draws[2:, :, None] < (0.5 if self.augment else 0)
        # A crop is flipped about its own centre, whatever the context.
        back = IMAGE_SIZE - 1 - self.steps
        rows = rows + np.where(flip_rows, back, self.steps)
        cols = cols + np.where(flip_cols, back, self.steps)
        rows = reflect(rows, heights[:, None]) * widths[:, None]
        cols = reflect(cols, widths[:, None])
        down, across = np.where(swap, cols, rows), np.where(swap, rows, cols)
        return (down[:, :, None] + across[:, None, :]).reshape(len(heights), -1)

    def _to_network(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`(2, batch, side, side, stored bands)` uint16 as network values of the bands wanted."""
        if list(self.positions) != list(range(stored.shape[-1])):
            stored = stored.take(self.positions, axis=-1)
        values = aligned_empty((*stored.shape[:3], stored.shape[3] * stored.shape[4]))
        for image, target in zip(
            stored.reshape(-1, *values.shape[2:]),
            values.reshape(-1, *values.shape[2:]),
            strict=True,
        ):
            np.multiply(image, self.gain, out=target, dtype=np.float32)
            target -= 1  # at least -1, for no stored value is negative
            # Floats are in the order of their bits, whose minimum takes a quarter of the time.
            np.minimum(target.view(np.int32), _BITS_OF_ONE, out=target.view(np.int32))
        x, y = values.reshape(stored.shape)
        return x, y


def _below(limits: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 to below `limits`, of draws in [0, 1)."""
    return (draws * limits).astype(np.int64)


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_records: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(num_records)


Tensor = Any


def pair_dataset(
    records: Path | str | Manifest,
    batch_size: int = 64,
    *,
    seed: int,
    bands: Sequence[str] | None = None,
    band_max: Sequence[float] = (),
    augment: bool = True,
    pairs_per_record: int = 4,
    start_step: int = 0,
    num_steps: int | None = None,
    context: tuple[int, int] = (0, 0),
    worker: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Batches of pairs `(x, y)`: the same crops at two dates.

    Each visit to a record draws `pairs_per_record` pairs from it, each with a crop and two dates
    of its own. They go to as many consecutive batches, so that within a batch every pair is of
    another visit. Every record is visited once an epoch, in an order of the epoch's own.

    Files are mapped into memory and only the pixels of a crop are read, but for a record's first
    visit, when all of it is read to check it.

    Args:
        records: a folder of records, or its manifest.
        batch_size: pairs in a batch.
        seed: seed of the order of the records and of every draw.
        bands: band names, in the order wanted; the records' own by default.
        band_max: reflectance that becomes 1, for each band; `BAND_MAX` by default.
        augment: turn by a random multiple of 90 degrees and flip, both images of a pair alike.
        pairs_per_record: pairs drawn at each visit of a record.
        start_step: the batch to begin with.
        num_steps: how many batches; endless by default.
        context: pixels of surroundings given before (above, left of) and after (below, right of)
            each crop. Crops lie anywhere in a record's block; what is outside of the block is its
            reflection, the edge not repeated.
        worker: index of this worker, and the number of workers, which share the records: its batch
            k is its part of batch k of a single worker, whose `batch_size` is as many times as
            large. Each record is visited by one worker an epoch.
    Returns:
        A dataset of `(x, y)`, each `(batch_size, side, side, bands)` float32 in [-1, 1], where
        side is 64 + before + after. Reading on raises `tf.errors.InvalidArgumentError` at a
        record that has changed since it was written.
    Raises:
        MissingError, DataError: the records are missing, damaged, fewer than the workers, or lack
            a band.
        ConfigError: a number is out of range, or no maximum is known for a band.
    """
    for name, value, low in (
        ("batch_size", batch_size, 1),
        ("pairs_per_record", pairs_per_record, 1),
        ("seed", seed, 0),
        ("start_step", start_step, 0),
        ("num_steps", num_steps, 0),
        ("context", context, 0),
    ):
        if value is not None and np.any(np.less(value, low)):
            raise ConfigError(f"{name} must be at least {low}. Received: {name}={value}.")
    index, num_workers = worker
    if not 0 <= index < num_workers:
        raise ConfigError(
            "worker must be an index from 0 and the number of workers, such as (0, 2) and (1, 2). "
            f"Received: worker={worker}."
        )
    manifest = records if isinstance(records, Manifest) else read_manifest(records)
    if not manifest.num_records:
        raise DataError(f"{manifest.folder} holds no records.")
    if manifest.num_records < num_workers:
        raise DataError(
            f"{manifest.folder} holds {manifest.num_records} records. Expected at least one for "
            f"each of {num_workers} workers."
        )
    bands = tuple(bands or manifest.bands)
    positions = select_bands(manifest.bands, bands, manifest.folder)
    config = ModelConfig(bands=bands, band_max=tuple(band_max))  # checks them
    draws = PairSampler(
        map_blocks(manifest),
        batch_size,
        seed=seed,
        gain=network_gain(config.band_max),
        positions=positions,
        augment=augment,
        pairs_per_record=pairs_per_record,
        context=context,
        worker=worker,
    )
    side = IMAGE_SIZE + sum(context)
    shape = (batch_size, side, side, len(bands))

    # Nothing here branches on a tensor, so AutoGraph has nothing to rewrite.
    @tf.autograph.experimental.do_not_convert
    def draw(step: Tensor) -> tuple[Tensor, Tensor]:
        x, y = tf.numpy_function(draws, [step], [tf.float32, tf.float32], stateful=False)
        return tf.ensure_shape(x, shape), tf.ensure_shape(y, shape)

    stop = tf.int64.max if num_steps is None else start_step + num_steps
    dataset = tf.data.Dataset.range(start_step, stop).map(draw, num_parallel_calls=tf.data.AUTOTUNE)
    if num_steps is None:
        dataset = dataset.apply(
            tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )
    options = tf.data.Options()
    options.deterministic = True
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
