"""Batches of pairs: random crops at two dates of the same place (section 4.1, Figure 2).

The stream is a pure function of `(seed, step)`: batch k is the same whether the stream began at
step 0 or at step k, and no global seed changes it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sits_keras.config import IMAGE_SIZE, ModelConfig
from sits_keras.data.draws import PairDraws
from sits_keras.data.mapped_records import map_blocks
from sits_keras.data.radiometry import network_gain
from sits_keras.data.records import Manifest, read_manifest, select_bands
from sits_keras.errors import ConfigError, DataError
from sits_keras.tensorflow_import import tf

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
    draws = PairDraws(
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
