"""Batches of pairs from arrays in memory, sampled on the device that trains the model.

The stream is a pure function of `(seed, step)`, the same on TensorFlow and on JAX. On JAX it does
not need TensorFlow.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from keras import ops

from sits_keras.config import IMAGE_SIZE, ModelConfig, check_crop_size
from sits_keras.data.radiometry import network_gain, values_to_stored
from sits_keras.errors import ConfigError, DataError
from sits_keras.trainers import sampled_batches

Tensor = Any

_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return two words of random bits for each counter, by Threefry-2x32 of 20 rounds.

    Args:
        key: Two uint32 words.
        counter: Two uint32 words, of shapes that can be broadcast.

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
    """Return uniformly distributed integers.

    Args:
        seed: Seed of the stream, in [0, 2**31).
        step: uint32 scalar; each step has its own numbers.
        num_rows: Number of integers in a column.
        num_columns: Number of columns.

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
_NUMBERS_PER_PAIR = 8


class Pixels(NamedTuple):
    """Several series of any sizes, laid out so that one gather reads any crops of them.

    Attributes:
        stored: `(pixels, bands)` uint16, every pixel of every date of every series.
        gain: `(bands,)` float32 factors from stored to network values.
        first: `(series,)` int32 positions in `stored` of the first pixel of each series.
        num_dates: `(series,)` int32 numbers of dates.
        heights: `(series,)` int32 heights in pixels.
        widths: `(series,)` int32 widths in pixels.
        ends: `(series,)` int32 cumulative fractions of the area of all series, times 2**24.
    """

    stored: Tensor
    gain: Tensor
    first: Tensor
    num_dates: Tensor
    heights: Tensor
    widths: Tensor
    ends: Tensor


def array_pairs(
    series: npt.NDArray[Any] | Sequence[npt.NDArray[Any]],
    batch_size: int = 64,
    *,
    seed: int,
    bands: Sequence[str] = ModelConfig.bands,
    band_max: Sequence[float] = (),
    augment: bool = True,
    context: tuple[int, int] = (0, 0),
    start_step: int = 0,
    num_steps: int | None = None,
    crop_size: int = IMAGE_SIZE,
) -> Any:
    """Return batches of pairs `(x, y)`: the same crops at two dates, from uniform positions.

    The series are copied to the device once, as uint16. After that the host only counts: series,
    dates, crops and symmetries are sampled, and pixels gathered, on the device (on TensorFlow: by
    tf.data, ahead of the step).

    Args:
        series: One or several arrays `(time, height, width, bands)`: uint16 stored values, or
            float reflectance, where NaN is missing. Sizes and numbers of dates may differ.
        batch_size: Number of pairs in a batch.
        seed: Seed of all samples.
        bands: Names of the bands on the last axis.
        band_max: Reflectance that becomes 1, for each band; `BAND_MAX` by default.
        augment: Rotate by a random multiple of 90 degrees and flip, both images of a pair alike.
        context: Numbers of context pixels before and after the crop, on both axes; beyond its edges
            a series is reflected.
        start_step: Number of the first batch.
        num_steps: Number of batches; endless by default.
        crop_size: Side of a crop without context, a multiple of 64. Crops larger than 64 px are
            for the training of the shared encoder alone.

    Returns:
        Data for `model.fit` (pass `shuffle=False`), which can also be iterated over: a
        `keras.utils.PyDataset` on JAX, a `tf.data.Dataset` on TensorFlow. Batches are `(x, y)`,
        each `(batch_size, side, side, bands)` float32 in [-1, 1], where side is crop_size plus the
        context.

    Raises:
        DataError: There is no series, or an array has another shape, dtype or too small a size.
        ConfigError: A number is out of range, or no maximum is known for a band.

    Examples:
        >>> import numpy as np
        >>> from sits_keras.data import array_pairs
        >>> series = np.full((3, 64, 64, 4), 1000, np.uint16)
        >>> for x, y in array_pairs(series, batch_size=2, seed=0, num_steps=1):
        ...     print(x.shape)
        (2, 64, 64, 4)
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
    check_crop_size(crop_size)
    config = ModelConfig(bands=tuple(bands), band_max=tuple(band_max))
    several = [series] if isinstance(series, np.ndarray) and series.ndim == 4 else list(series)
    sample = functools.partial(
        sample_pairs,
        batch_size=batch_size,
        seed=seed,
        augment=augment,
        context=context,
        crop_size=crop_size,
    )
    return sampled_batches(sample, pack(several, config, crop_size), start_step, num_steps)


def pack(
    series: Sequence[npt.NDArray[Any]], config: ModelConfig, crop_size: int = IMAGE_SIZE
) -> Pixels:
    """Lay several series out in one array.

    Args:
        series: Arrays as in `array_pairs`.
        config: Names and maxima of the bands.
        crop_size: Minimum side of a series in pixels.

    Raises:
        DataError: There is no series; an array does not hold stored values or reflectance of the
            bands, has one date, or is smaller than a crop; or all are too large together.
    """
    if len(series) == 0:
        raise DataError("Expected at least one series. Received none.")
    stored = [_to_stored(one, index, config.bands, crop_size) for index, one in enumerate(series)]
    shapes = np.array([one.shape[:3] for one in stored], np.int64)
    counts = shapes.prod(axis=1)
    if counts.sum() > _MAX_PIXELS:
        raise DataError(
            f"Expected up to 2**31 pixels in all dates and series. Received: {counts.sum()}. "
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


def _to_stored(
    values: npt.NDArray[Any], index: int, bands: Sequence[str], crop_size: int
) -> npt.NDArray[np.uint16]:
    name = f"Series {index}"
    values = np.asarray(values)
    if values.ndim != 4 or values.shape[-1] != len(bands):
        raise DataError(
            f"{name} must have shape (time, height, width, {len(bands)}), bands "
            f"{', '.join(bands)}. Received: {values.shape}."
        )
    num_dates, height, width, _ = values.shape
    if num_dates < 2 or min(height, width) < crop_size:
        raise DataError(
            f"{name} must have at least 2 dates and {crop_size} x {crop_size} pixels. "
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
    crop_size: int = IMAGE_SIZE,
) -> tuple[Tensor, Tensor]:
    """Sample the batch of a step, as in `array_pairs`: a pure function in `keras.ops`.

    Args:
        pixels: Series to sample from.
        step: uint32 scalar.
        batch_size: As in `array_pairs`.
        seed: As in `array_pairs`.
        augment: As in `array_pairs`.
        context: As in `array_pairs`.
        crop_size: As in `array_pairs`.

    Returns:
        `x` and `y`, each `(batch_size, side, side, bands)` float32 in [-1, 1].
    """
    pixel, first, second, row, col, *symmetry = random_words(
        seed, step, batch_size, _NUMBERS_PER_PAIR
    )
    pixel = ops.right_shift(pixel, 7)  # the upper 24 of 31 bits
    index = ops.sum(ops.cast(pixel[:, None] >= pixels.ends, "int32"), axis=1)
    start, num_dates, height, width = (
        ops.take(values, index)
        for values in (pixels.first, pixels.num_dates, pixels.heights, pixels.widths)
    )
    first = first % num_dates
    second = (first + 1 + second % (num_dates - 1)) % num_dates
    row = (row % (height - (crop_size - 1)))[:, None, None]
    col = (col % (width - (crop_size - 1)))[:, None, None]

    # Row and column in the series of each pixel of a crop. Context pixels are counted from the
    # corner of the crop too, so that they surround it in any orientation.
    before, after = context
    steps = ops.arange(-before, crop_size + after, dtype="int32")
    down, right = steps[None, :, None], steps[None, None, :]
    if augment:  # the eight symmetries of the square
        transpose, flip_rows, flip_cols = (one[:, None, None] % 2 == 1 for one in symmetry)
        down, right = ops.where(transpose, right, down), ops.where(transpose, down, right)
        down = ops.where(flip_rows, crop_size - 1 - down, down)
        right = ops.where(flip_cols, crop_size - 1 - right, right)
    height, width = height[:, None, None], width[:, None, None]
    rows, cols = _reflect(row + down, height), _reflect(col + right, width)

    def image(date: Tensor) -> Tensor:
        offset = start[:, None, None] + date[:, None, None] * height * width
        stored = ops.take(pixels.stored, offset + rows * width + cols, axis=0)
        return ops.clip(ops.cast(stored, "float32") * pixels.gain - 1.0, -1.0, 1.0)

    return image(first), image(second)


def _reflect(index: Tensor, size: Tensor) -> Tensor:
    """Reflect indices beyond `[0, size)` at the first and the last, as often as needed."""
    period = 2 * (size - 1)
    index = index % period
    return ops.minimum(index, period - index)
