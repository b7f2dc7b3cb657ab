"""Batches of pairs: random crops at two dates of the same place (section 4.1, Figure 2).

The stream is a pure function of `(seed, step)`: batch k is the same whether the stream began at
step 0 or at step k, and no global seed changes it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sits_keras.config import BAND_MAX, IMAGE_SIZE
from sits_keras.data.radiometry import network_gain
from sits_keras.data.records import Manifest, decode, parse, read_manifest, select_bands
from sits_keras.errors import ConfigError, DataError
from sits_keras.needs_tensorflow import tf

Tensor = Any

_SHARDS_AT_ONCE = 8
_SHUFFLED_RECORDS = 128  # of about 1.5 MB at 12 dates of 128 x 128 x 4

# Nothing here branches on a tensor, so AutoGraph has nothing to rewrite.
_as_written = tf.autograph.experimental.do_not_convert


def pair_dataset(
    records: Path | str | Manifest,
    batch_size: int = 64,
    *,
    seed: int,
    bands: Sequence[str] | None = None,
    band_max: Sequence[float] | None = None,
    augment: bool = True,
    pairs_per_record: int = 4,
    start_step: int = 0,
    num_steps: int | None = None,
) -> tf.data.Dataset:
    """Batches of pairs `(x, y)`: the same crops at two dates.

    Each visit to a record draws `pairs_per_record` pairs from it, each with a crop and two dates
    of its own. They go to as many consecutive batches, so that within a batch every pair is of
    another visit.

    Args:
        records: a folder of records, or its manifest.
        batch_size: pairs in a batch.
        seed: seed of the order of the records and of every draw.
        bands: band names, in the order wanted; the records' own by default.
        band_max: reflectance that becomes 1, for each band; `BAND_MAX` by default.
        augment: turn by a random multiple of 90 degrees and flip, both images of a pair alike.
        pairs_per_record: pairs drawn each time a record is read.
        start_step: the batch to begin with.
        num_steps: how many batches; endless by default.
    Returns:
        A dataset of `(x, y)`, each `(batch_size, 64, 64, bands)` float32 in [-1, 1].
    Raises:
        MissingError, DataError: the records are missing, damaged, empty, or lack a band.
        ConfigError: a number is out of range, or no maximum is known for a band.
    """
    for name, value, low in (
        ("batch_size", batch_size, 1),
        ("pairs_per_record", pairs_per_record, 1),
        ("seed", seed, 0),
        ("start_step", start_step, 0),
        ("num_steps", num_steps, 0),
    ):
        if value is not None and value < low:
            raise ConfigError(f"{name} must be at least {low}. Received: {name}={value}.")
    manifest = records if isinstance(records, Manifest) else read_manifest(records)
    if not manifest.num_records:
        raise DataError(f"{manifest.folder} holds no records.")
    bands = tuple(bands or manifest.bands)
    positions = select_bands(manifest.bands, bands, manifest.folder)
    gain = tf.constant(network_gain(_band_max(bands, band_max)))

    first_batches, skipped_batches = divmod(start_step, pairs_per_record)
    first_visit = first_batches * batch_size
    visits = _visits(manifest, seed, first_visit)

    @_as_written
    def draw(visit: Tensor, serialized: Tensor) -> Tensor:
        return _draw_pairs(serialized, visit, seed, pairs_per_record, augment)

    @_as_written
    def to_network(stored: Tensor) -> tuple[Tensor, Tensor]:
        if positions != list(range(len(manifest.bands))):
            stored = tf.gather(stored, positions, axis=-1)
        values = tf.clip_by_value(tf.cast(stored, tf.float32) * gain - 1.0, -1.0, 1.0)
        return values[:, 0], values[:, 1]

    @_as_written
    def to_batches(stored: Tensor) -> tf.data.Dataset:
        # (visit, pair, date, ...) -> one batch for each pair that a visit draws
        by_pair = tf.transpose(stored, (1, 0, 2, 3, 4, 5))
        return tf.data.Dataset.from_tensor_slices(by_pair)

    dataset = (
        visits.map(draw, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size, drop_remainder=True)
        .flat_map(to_batches)
        .skip(skipped_batches)
    )
    if num_steps is not None:
        dataset = dataset.take(num_steps)
    length = tf.data.INFINITE_CARDINALITY if num_steps is None else num_steps
    dataset = dataset.map(to_network, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(length))
    options = tf.data.Options()
    options.deterministic = True
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def _band_max(bands: Sequence[str], band_max: Sequence[float] | None) -> Sequence[float]:
    if band_max is not None:
        if len(band_max) != len(bands) or min(band_max, default=0) <= 0:
            raise ConfigError(
                f"band_max must give a reflectance above 0 for each of {', '.join(bands)}. "
                f"Received: {tuple(band_max)}."
            )
        return band_max
    unknown = [band for band in bands if band not in BAND_MAX]
    if unknown:
        raise ConfigError(
            f"No default band_max is known for {', '.join(unknown)}: pass band_max, the "
            "reflectance that becomes 1, for each band."
        )
    return [BAND_MAX[band] for band in bands]


def _visits(manifest: Manifest, seed: int, first_visit: int) -> tf.data.Dataset:
    """Endless `(visit, serialized record)`, every record once an epoch, from `first_visit` on."""
    first_epoch, skipped_records = divmod(first_visit, manifest.num_records)

    @_as_written
    def epoch(index: Tensor) -> tf.data.Dataset:
        # Seeds the graph of this function alone: without it, shuffle() would mix in whatever
        # global seed the caller has set.
        tf.random.set_seed(1)
        order = tf.stack([tf.constant(seed, tf.int64), index])
        files = tf.random.experimental.stateless_shuffle(tf.constant(manifest.files), seed=order)
        return (
            tf.data.Dataset.from_tensor_slices(files)
            .interleave(
                lambda file: tf.data.TFRecordDataset(file, manifest.compression),
                cycle_length=_SHARDS_AT_ONCE,
                num_parallel_calls=tf.data.AUTOTUNE,
            )
            .shuffle(
                _SHUFFLED_RECORDS,
                seed=tf.random.stateless_uniform((), order, maxval=tf.int32.max, dtype=tf.int64),
                reshuffle_each_iteration=False,
            )
        )

    return (
        tf.data.Dataset.range(first_epoch, tf.int64.max)
        .flat_map(epoch)
        .skip(skipped_records)
        .enumerate(first_visit)
    )


def _draw_pairs(
    serialized: Tensor, visit: Tensor, seed: int, num_pairs: int, augment: bool
) -> Tensor:
    """Draws pairs from a record: `(num_pairs, 2, 64, 64, bands)` uint16."""
    record = parse(serialized)
    height, width, bands = tf.unstack(record["shape"])
    num_dates = tf.size(record["images"], tf.int64)
    draws = tf.random.stateless_uniform(
        (num_pairs, 7), seed=tf.stack([tf.constant(seed, tf.int64), visit])
    )

    def below(limit: Tensor, column: int) -> Tensor:
        return tf.cast(draws[:, column] * tf.cast(limit, tf.float32), tf.int64)

    first = below(num_dates, 0)
    second = (first + 1 + below(num_dates - 1, 1)) % num_dates
    rows = below(height - IMAGE_SIZE + 1, 2)
    cols = below(width - IMAGE_SIZE + 1, 3)
    pairs = []
    for index in range(num_pairs):
        dates = tf.stack([first[index], second[index]])
        images = decode(tf.gather(record["images"], dates), record["shape"])
        crop = tf.slice(
            images,
            tf.stack([tf.constant(0, tf.int64), rows[index], cols[index], 0]),
            tf.stack([tf.constant(2, tf.int64), IMAGE_SIZE, IMAGE_SIZE, bands]),
        )
        if augment:  # the eight symmetries of the square
            transpose, flip_rows, flip_cols = tf.unstack(draws[index, 4:] < 0.5)
            crop = tf.where(transpose, tf.transpose(crop, (0, 2, 1, 3)), crop)
            crop = tf.where(flip_rows, crop[:, ::-1], crop)
            crop = tf.where(flip_cols, crop[:, :, ::-1], crop)
        pairs.append(crop)
    return tf.stack(pairs)
