"""Batches of pairs from arrays in memory, drawn where the model is trained.

The stream is a pure function of `(seed, step)`, the same one on TensorFlow and on JAX. It needs no
TensorFlow under JAX.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from sits_keras.config import IMAGE_SIZE, ModelConfig
from sits_keras.data.radiometry import network_gain, values_to_stored
from sits_keras.errors import ConfigError, DataError
from sits_keras.trainers import drawn_batches

Tensor = Any

_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two words of random bits for each counter.

    Args:
        key: two uint32 words.
        counter: two uint32 words, of shapes that can be broadcast.
    Returns:
        Two uint32 tensors of the counters' shape.
    """
    words = [*key, ops.bitwise_xor(ops.bitwise_xor(*key), _word(_PARITY))]
    x, y = counter[0] + words[0], counter[1] + words[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = ops.bitwise_or(
                ops.left_shift(y, _word(rotation)), ops.right_shift(y, _word(32 - rotation))
            )
            y = ops.bitwise_xor(x, y)
        x = x + words[(group + 1) % 3]
        y = y + words[(group + 2) % 3] + _word(group + 1)
    return x, y


def random_words(seed: int, step: Tensor, num_rows: int, num_columns: int) -> list[Tensor]:
    """Whole numbers, evenly distributed.

    Args:
        seed: of the whole stream, in [0, 2**31).
        step: uint32 scalar; each has numbers of its own.
        num_rows, num_columns: how many.
    Returns:
        For each column, a `(num_rows,)` int32 tensor of numbers in [0, 2**31).
    """
    num_pairs = -(-num_columns // 2)
    counters = ops.reshape(
        ops.cast(ops.arange(num_rows * num_pairs, dtype="int32"), "uint32"), (num_pairs, num_rows)
    )
    words = threefry((_word(seed), _word(0)), (step + ops.zeros_like(counters), counters))
    positive = [ops.cast(ops.right_shift(word, _word(1)), "int32") for word in words]
    return [half[pair] for pair in range(num_pairs) for half in positive][:num_columns]


def _word(value: int) -> Tensor:
    return ops.convert_to_tensor(value, "uint32")


_MAX_PIXELS = 2**31 - 1  # that an int32 can count
_DRAWS = 8  # random numbers that a pair takes


class Pixels(NamedTuple):
    """Several series of any sizes, laid out so that one gather reads any crops of them.

    Attributes:
        stored: `(pixels, bands)` uint16, every pixel of every date of every series.
        gain: `(bands,)` float32, from stored to network values.
        first: `(series,)` int32, where a series begins in `stored`.
        num_dates, heights, widths: `(series,)` int32.
        ends: `(series,)` int32, cumulative share of the area of all series, times 2**24.
    """

    stored: Tensor
    gain: Tensor
    first: Tensor
    num_dates: Tensor
    heights: Tensor
    widths: Tensor
    ends: Tensor


def array_pairs(
    series: np.ndarray | Sequence[np.ndarray],
    batch_size: int = 64,
    *,
    seed: int,
    bands: Sequence[str] = ModelConfig.bands,
    band_max: Sequence[float] = (),
    augment: bool = True,
    context: tuple[int, int] = (0, 0),
    start_step: int = 0,
    num_steps: int | None = None,
) -> Any:
    """Batches of pairs `(x, y)`: the same crops at two dates, any place as likely as any other.

    The series go to the device once, as uint16. From then on the host only counts: series, dates,
    crops and symmetries are drawn, and pixels gathered, on the device (on TensorFlow: by tf.data,
    ahead of the step).

    Args:
        series: one or several, each `(time, height, width, bands)`: uint16 stored values, or float
            reflectance, where NaN is missing. Sizes and numbers of dates may differ.
        batch_size: pairs in a batch.
        seed: seed of every draw.
        bands: names of the bands on the last axis.
        band_max: reflectance that becomes 1, for each band; `BAND_MAX` by default.
        augment: turn by a random multiple of 90 degrees and flip, both images of a pair alike.
        context: pixels of real surroundings before and after the crop, on both axes; beyond the
            edges of a series, its reflection.
        start_step: the batch to begin with.
        num_steps: how many batches; endless by default.
    Returns:
        What `model.fit` takes, and what can be iterated over; pass `shuffle=False`. Batches are
        `(x, y)`, each `(batch_size, side, side, bands)` float32 in [-1, 1], `side` being 64 and the
        context. It is a `keras.utils.PyDataset` on JAX, a `tf.data.Dataset` on TensorFlow.
    Raises:
        DataError: there is no series, or one is no such array, or is too small.
        ConfigError: a number is out of range, or no maximum is known for a band.
    """
    for name, value, low in (
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("context", min(context), 0),
        ("start_step", start_step, 0),
        ("num_steps", num_steps, 0),
    ):
        if value is not None and not low <= value < 2**31:
            raise ConfigError(f"{name} must be in [{low}, 2**31). Received: {name}={value}.")
    config = ModelConfig(bands=tuple(bands), band_max=tuple(band_max))
    several = [series] if isinstance(series, np.ndarray) and series.ndim == 4 else list(series)
    draw = functools.partial(
        sample_pairs, batch_size=batch_size, seed=seed, augment=augment, context=context
    )
    return drawn_batches(draw, pack(several, config), start_step, num_steps)


def pack(series: Sequence[np.ndarray], config: ModelConfig) -> Pixels:
    """Lays several series out in one array.

    Raises:
        DataError: there is none, or one is no array of stored values or reflectance of the bands,
            has one date, is smaller than a crop, or together they are too many.
    """
    if len(series) == 0:
        raise DataError("Expected at least one series. Received none.")
    stored = [_to_stored(one, index, config.bands) for index, one in enumerate(series)]
    shapes = np.array([one.shape[:3] for one in stored], np.int64)
    counts = shapes.prod(axis=1)
    if counts.sum() > _MAX_PIXELS:
        raise DataError(
            f"Expected up to 2**31 pixels, over all dates and series. Received: {counts.sum()}. "
            "Train on records, or on some of the series at a time."
        )
    areas = np.cumsum(shapes[:, 1] * shapes[:, 2])
    num_dates, heights, widths = shapes.T.astype(np.int32)
    return Pixels(
        stored=np.concatenate([one.reshape(-1, one.shape[-1]) for one in stored]),
        gain=network_gain(config.band_max),
        first=(np.cumsum(counts) - counts).astype(np.int32),
        num_dates=num_dates,
        heights=heights,
        widths=widths,
        ends=np.ceil(areas / areas[-1] * 2**24).astype(np.int32),
    )


def _to_stored(values: np.ndarray, index: int, bands: Sequence[str]) -> np.ndarray:
    name = f"Series {index}"
    values = np.asarray(values)
    if values.ndim != 4 or values.shape[-1] != len(bands):
        raise DataError(
            f"{name} must have shape (time, height, width, {len(bands)}), bands "
            f"{', '.join(bands)}. Received: {values.shape}."
        )
    num_dates, height, width, _ = values.shape
    if num_dates < 2 or min(height, width) < IMAGE_SIZE:
        raise DataError(
            f"{name} must have at least 2 dates and {IMAGE_SIZE} x {IMAGE_SIZE} pixels. "
            f"Received: {num_dates} dates, {height} x {width} pixels."
        )
    if values.dtype == np.uint16:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        raise DataError(
            f"{name} must hold uint16 stored values (reflectance x 10,000) or float reflectance. "
            f"Received: {values.dtype}."
        )
    return values_to_stored(values, np.isfinite(values), name, scale=1.0, offset=0.0)


def sample_pairs(
    pixels: Pixels,
    step: Tensor,
    *,
    batch_size: int,
    seed: int,
    augment: bool,
    context: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """The batch of a step, as in `array_pairs`; a pure function in `keras.ops`.

    Args:
        pixels: what to draw from.
        step: uint32 scalar.
        batch_size, seed, augment, context: as in `array_pairs`.
    """
    place, first, second, row, col, *symmetry = random_words(seed, step, batch_size, _DRAWS)
    place = ops.right_shift(place, 7)  # of 31 bits, the upper 24
    index = ops.sum(ops.cast(place[:, None] >= pixels.ends, "int32"), axis=1)
    start, num_dates, height, width = (
        ops.take(values, index)
        for values in (pixels.first, pixels.num_dates, pixels.heights, pixels.widths)
    )
    first = first % num_dates
    second = (first + 1 + second % (num_dates - 1)) % num_dates
    row = (row % (height - (IMAGE_SIZE - 1)))[:, None, None]
    col = (col % (width - (IMAGE_SIZE - 1)))[:, None, None]

    # Of each pixel of a crop, its row and column in the series. Pixels of the context are counted
    # from the crop's corner too, so that they lie around it however it is turned.
    before, after = context
    steps = ops.arange(-before, IMAGE_SIZE + after, dtype="int32")
    down, right = steps[None, :, None], steps[None, None, :]
    if augment:  # the eight symmetries of the square
        transpose, flip_rows, flip_cols = (one[:, None, None] % 2 == 1 for one in symmetry)
        down, right = ops.where(transpose, right, down), ops.where(transpose, down, right)
        down = ops.where(flip_rows, IMAGE_SIZE - 1 - down, down)
        right = ops.where(flip_cols, IMAGE_SIZE - 1 - right, right)
    height, width = height[:, None, None], width[:, None, None]
    rows, cols = _reflect(row + down, height), _reflect(col + right, width)

    def image(date: Tensor) -> Tensor:
        offset = start[:, None, None] + date[:, None, None] * height * width
        stored = ops.take(pixels.stored, offset + rows * width + cols, axis=0)
        return ops.clip(ops.cast(stored, "float32") * pixels.gain - 1.0, -1.0, 1.0)

    return image(first), image(second)


def _reflect(index: Tensor, size: Tensor) -> Tensor:
    """Indices beyond `[0, size)`, reflected at its first and last, as often as it takes."""
    period = 2 * (size - 1)
    index = index % period
    return ops.minimum(index, period - index)
