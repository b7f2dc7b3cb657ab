"""Batches of pairs: random crops at two dates of the same place (section 4.1, Figure 2).

The stream is a pure function of `(seed, step)`: batch k is the same whether the stream starts at
step 0 or at step k, and no global seed changes it.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sits_keras.config import CELL_SIZE, IMAGE_SIZE, ModelConfig, check_crop_size
from sits_keras.data.mapped_records import MappedBlock, map_blocks
from sits_keras.data.radiometry import aligned_empty, network_gain
from sits_keras.data.records import Manifest, read_manifest, select_bands
from sits_keras.data.tiling import reflect
from sits_keras.errors import ConfigError, DataError, KeptErrors
from sits_keras.tensorflow_import import tf

_ORDER, _CROPS = 0, 1  # the random streams of a seed
_BITS_OF_ONE = np.float32(1).view(np.int32)


class PairSampler:
    """Samples batches of pairs: called with a step, it returns the `(x, y)` of that step.

    Args:
        blocks: The records.
        batch_size: Number of pairs in a batch of this worker.
        seed: Seed of the order of the records and of all samples.
        gain: `(bands,)` factors from stored to network values, of the bands wanted.
        positions: Positions of the bands wanted among those stored.
        augment: Whether to rotate and flip.
        pairs_per_record: Number of consecutive batches that share their records.
        context: Numbers of pixels before and after each crop.
        worker: Index of this worker, and number of workers.
        crop_size: Side of a crop without context.
        balance: Rule for the visits of a record, `"records"` or `"dates"`.
    """

    def __init__(
        self,
        blocks: Sequence[MappedBlock],
        batch_size: int,
        *,
        seed: int,
        gain: npt.NDArray[np.float32],
        positions: Sequence[int],
        augment: bool,
        pairs_per_record: int,
        context: tuple[int, int],
        worker: tuple[int, int],
        crop_size: int = IMAGE_SIZE,
        balance: str = "records",
    ):
        self.blocks = blocks
        self.crop_size = crop_size
        self.batch_size = batch_size
        self.seed = seed
        self.positions = positions
        self.augment = augment
        self.pairs_per_record = pairs_per_record
        self.worker = worker
        # (records,) each: dates, rows and columns.
        self.sizes = np.array([(len(b.pixels), b.height, b.width) for b in blocks]).T
        self.steps = np.arange(-context[0], crop_size + context[1])
        repeats = [_num_visits(len(block.pixels), balance) for block in blocks]
        self.visits = np.repeat(np.arange(len(blocks)), repeats)  # of one epoch
        # For a row of pixels at once: four bands are too few to multiply fast.
        self.gain = np.tile(gain, len(self.steps))
        self.checked = bytearray(len(blocks))

    def __call__(self, step: int) -> tuple[npt.NDArray[np.float32], ...]:
        """Return the batch of a step.

        Args:
            step: Number of the batch.

        Returns:
            `x` and `y`, each `(batch_size, side, side, bands)` float32 in [-1, 1], where side is
            crop_size plus the context. For crops larger than 64 px, also the weights of their
            cells of 16 px, `(batch_size, cells, cells)` float32: 0 for a cell that extends beyond
            the record, otherwise 1.

        Raises:
            DataError: A record that is read for the first time has changed since it was written.
        """
        index, num_workers = self.worker
        total = self.batch_size * num_workers
        first_visit = step // self.pairs_per_record * total
        own = slice(index * self.batch_size, (index + 1) * self.batch_size)
        visits = range(first_visit, first_visit + total)[own]
        num_visits = len(self.visits)
        records = np.array(
            [
                self.visits[_order(self.seed, v // num_visits, num_visits)[v % num_visits]]
                for v in visits
            ]
        )
        uniform = np.random.default_rng((self.seed, _CROPS, step)).random((total, 7))
        uniform = uniform[own].T
        num_dates, heights, widths = self.sizes[:, records]
        first = _integers_below(num_dates, uniform[0])
        second = (first + 1 + _integers_below(num_dates - 1, uniform[1])) % num_dates
        where, weights = self._pixels_of_crops(heights, widths, uniform[2:])
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
        x, y = self._to_network(stored.view("<u2").reshape(2, -1, side, side, stored.itemsize // 2))
        return (x, y) if self.crop_size == IMAGE_SIZE else (x, y, weights)

    def _pixels_of_crops(
        self,
        heights: npt.NDArray[np.int64],
        widths: npt.NDArray[np.int64],
        uniform: npt.NDArray[np.float64],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the index in its block of each pixel of each crop, and the weights of cells.

        Indices are `(batch, side * side)`, weights `(batch, cells, cells)`.
        """
        rows = _integers_below(np.maximum(heights - self.crop_size + 1, 1), uniform[0])[:, None]
        cols = _integers_below(np.maximum(widths - self.crop_size + 1, 1), uniform[1])[:, None]
        swap, flip_rows, flip_cols = uniform[2:, :, None] < (0.5 if self.augment else 0)
        # A crop is flipped about its own centre, independent of the context.
        back = self.crop_size - 1 - self.steps
        rows = rows + np.where(flip_rows, back, self.steps)
        cols = cols + np.where(flip_cols, back, self.steps)
        inside = self._inside(rows, heights)[:, :, None] * self._inside(cols, widths)[:, None, :]
        weights: npt.NDArray[np.float32] = np.where(
            swap[:, :, None], inside.transpose(0, 2, 1), inside
        )
        row_starts = reflect(rows, heights[:, None]) * widths[:, None]
        in_row = reflect(cols, widths[:, None])
        down, across = np.where(swap, in_row, row_starts), np.where(swap, row_starts, in_row)
        index = (down[:, :, None] + across[:, None, :]).reshape(len(heights), -1)
        return index, weights

    def _inside(
        self, positions: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Return 1 for each cell of 16 px of a crop whose rows (or columns) lie in the block."""
        first = int(np.argmax(self.steps == 0))
        inside = (positions >= 0) & (positions < sizes[:, None])
        cells = inside[:, first : first + self.crop_size].reshape(len(sizes), -1, CELL_SIZE)
        return np.asarray(cells.all(axis=-1), np.float32)

    def _to_network(
        self, stored: npt.NDArray[np.uint16]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Convert `(2, batch, side, side, stored bands)` to network values of the bands wanted."""
        if list(self.positions) != list(range(stored.shape[-1])):
            stored = stored.take(self.positions, axis=-1)
        values = aligned_empty((*stored.shape[:3], stored.shape[3] * stored.shape[4]))
        for image, target in zip(
            stored.reshape(-1, *values.shape[2:]),
            values.reshape(-1, *values.shape[2:]),
            strict=True,
        ):
            np.multiply(image, self.gain, out=target, dtype=np.float32)
            target -= 1  # at least -1, because no stored value is negative
            # Positive floats have the order of their bits, whose minimum is four times as fast.
            np.minimum(target.view(np.int32), _BITS_OF_ONE, out=target.view(np.int32))
        x, y = values.reshape(stored.shape)
        return x, y


def _integers_below(
    limits: npt.NDArray[np.int64], uniform: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Convert numbers in [0, 1) to integers in [0, limits)."""
    return (uniform * limits).astype(np.int64)


def _num_visits(num_dates: int, balance: str) -> int:
    """Return the number of visits of a record in an epoch."""
    return 1 if balance == "records" else max(1, round((num_dates / 2) ** 0.5))


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_records: int) -> npt.NDArray[np.int64]:
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
    crop_size: int = IMAGE_SIZE,
    balance: Literal["records", "dates"] = "records",
) -> tf.data.Dataset:
    """Return a dataset of batches of pairs `(x, y)`: the same crops at two dates.

    Each visit to a record samples `pairs_per_record` pairs from it, each with its own crop and
    dates. They go to as many consecutive batches, so that all pairs of a batch come from different
    visits. Every record is visited once an epoch, in an order that differs by epoch.

    Files are memory-mapped, and only the pixels of a crop are read. At its first visit, all of a
    record is read to verify its checksum.

    Args:
        records: Folder of records, or its manifest.
        batch_size: Number of pairs in a batch.
        seed: Seed of the order of the records and of all samples.
        bands: Band names, in the order wanted; those of the records by default.
        band_max: Reflectance that becomes 1, for each band; `BAND_MAX` by default.
        augment: Rotate by a random multiple of 90 degrees and flip, both images of a pair alike.
        pairs_per_record: Number of pairs sampled at each visit to a record.
        start_step: Number of the first batch.
        num_steps: Number of batches; endless by default.
        context: Numbers of context pixels before (above, left of) and after (below, right of) each
            crop. Crops lie anywhere in the block of a record; beyond its edges the block is
            reflected, without repeating the edge.
        worker: Index of this worker, and number of workers, which share the records. Its batch k
            is its part of batch k of a single worker with a batch of all their sizes. Each record
            is visited by one worker an epoch.
        crop_size: Side of a crop without context, a multiple of 64. Larger crops than 64 px are
            for the training of the shared encoder alone.
        balance: `"records"` visits each record once an epoch; `"dates"` visits a record of n dates
            sqrt(n / 2) times, rounded.

    Returns:
        A dataset of `(x, y)`, each `(batch_size, side, side, bands)` float32 in [-1, 1], where
        side is crop_size + before + after. Crops larger than 64 px come as `(x, y, weights)` with
        the weights of their cells of 16 px, `(batch_size, cells, cells)` float32: 0 for a cell
        that extends beyond its record, otherwise 1. Iteration raises
        `tf.errors.InvalidArgumentError` at a record that has changed since it was written.

    Raises:
        MissingError: The records do not exist.
        DataError: The records are damaged, are fewer than the workers, or lack a band.
        ConfigError: A number is out of range, or no maximum is known for a band.

    Examples:
        >>> from sits_keras.data import pair_dataset
        >>> pairs = pair_dataset("records", batch_size=64, seed=0)  # doctest: +SKIP
        >>> model.fit(pairs, steps_per_epoch=1000, epochs=10)  # doctest: +SKIP
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
    check_crop_size(crop_size)
    if balance not in ("records", "dates"):
        raise ConfigError(f"balance must be 'records' or 'dates'. Received: balance={balance!r}.")
    index, num_workers = worker
    if not 0 <= index < num_workers:
        raise ConfigError(
            "worker must be an index from 0 and the number of workers, such as (0, 2) and (1, 2). "
            f"Received: worker={worker}."
        )
    manifest = records if isinstance(records, Manifest) else read_manifest(records)
    if not manifest.num_records:
        raise DataError(f"{manifest.folder} does not contain any records.")
    if manifest.num_records < num_workers:
        raise DataError(
            f"{manifest.folder} has {manifest.num_records} records. Expected at least one for "
            f"each of {num_workers} workers."
        )
    bands = tuple(bands or manifest.bands)
    positions = select_bands(manifest.bands, bands, manifest.folder)
    config = ModelConfig(bands=bands, band_max=tuple(band_max))  # checks them
    sampler = PairSampler(
        map_blocks(manifest),
        batch_size,
        seed=seed,
        gain=network_gain(config.band_max),
        positions=positions,
        augment=augment,
        pairs_per_record=pairs_per_record,
        context=context,
        worker=worker,
        crop_size=crop_size,
        balance=balance,
    )
    keep = KeptErrors(sampler)
    side = crop_size + sum(context)
    cells = crop_size // CELL_SIZE
    shape = (batch_size, side, side, len(bands))

    # Nothing here branches on a tensor, so AutoGraph has nothing to rewrite.
    @tf.autograph.experimental.do_not_convert
    def sample(step: Tensor) -> tuple[Tensor, ...]:
        shapes: list[tuple[int, ...]] = [shape, shape]
        if crop_size > IMAGE_SIZE:
            shapes.append((batch_size, cells, cells))
        arrays = tf.numpy_function(keep, [step], [tf.float32] * len(shapes), stateful=False)
        return tuple(map(tf.ensure_shape, arrays, shapes))

    stop = tf.int64.max if num_steps is None else start_step + num_steps
    dataset = tf.data.Dataset.range(start_step, stop).map(
        sample, num_parallel_calls=tf.data.AUTOTUNE
    )
    if num_steps is None:
        dataset = dataset.apply(
            tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )
    options = tf.data.Options()
    options.deterministic = True
    dataset = dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
    dataset.kept_errors = keep  # which fit and evaluate raise in place of TensorFlow's
    return dataset
