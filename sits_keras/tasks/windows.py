"""Features of the windows that slide over an image (sections 4.3, 4.5 and 4.6)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import NODATA, QUANTIFICATION
from sits_keras.data.strips import Strips
from sits_keras.data.tiling import Window, sliding_offsets, sliding_windows
from sits_keras.errors import ConfigError

Encoder = Callable[[np.ndarray], Any]
"""From `(batch, 64, 64, bands)` reflectance to `(batch, num_features)`: a hub module, say."""


class WindowRow(NamedTuple):
    """The windows of an image that begin in one of its rows.

    Attributes:
        row: that row.
        cols: `(windows,)` int, the column that each begins in.
        features: `(windows, num_features)` float32; NaN of a window without any data.
        data_share: `(windows,)` float32, share of a window's pixels that hold data.
        brightness: `(windows,)` float32, mean reflectance of those, 0 where there are none.
    """

    row: int
    cols: np.ndarray
    features: np.ndarray
    data_share: np.ndarray
    brightness: np.ndarray


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """The encoder that encodes nothing: the paper's baseline of section 4.3."""
    return images.reshape(len(images), -1)


def encode_windows(
    encoder: Encoder, image: np.ndarray, stride: int, batch_size: int = 128
) -> tuple[np.ndarray, list[Window]]:
    """Features of every window of an image, the last ones shifted in to reach its edges.

    Args:
        encoder: what to apply to each window.
        image: `(height, width, bands)` float32 reflectance.
        stride: pixels from a window to the next.
        batch_size: windows encoded at a time.
    Returns:
        `(windows, num_features)` float32, and the windows, row by row.
    Raises:
        ConfigError: the image is smaller than a window.
    """
    height, width, _ = image.shape
    windows = sliding_windows(height, width, IMAGE_SIZE, stride)
    features = [
        np.asarray(
            encoder(np.stack([_crop(image, w) for w in windows[start : start + batch_size]])),
            np.float32,
        )
        for start in range(0, len(windows), batch_size)
    ]
    return np.concatenate(features), windows


def iterate_windows(
    encoder: Encoder,
    strips: Strips,
    stride: int,
    *,
    batch_size: int = 128,
    progress: str | None = None,
) -> Iterator[WindowRow]:
    """Features of every window of an image as `encode_windows` gives them, a row at a time.

    Neither the image nor the features are ever whole in memory.

    Args:
        encoder: what to apply to each window.
        strips: the image.
        stride: pixels from a window to the next.
        batch_size: windows encoded at a time.
        progress: title of a progress bar that counts windows; `None` for no bar.
    Yields:
        A row of windows, from the top; the last one is shifted in.
    Raises:
        ConfigError: the image is smaller than a window.
    """
    check_size(strips)
    rows, cols = (sliding_offsets(length, IMAGE_SIZE, stride) for length in strips.grid[:2])
    yield from iterate_offsets(
        encoder, strips, rows, cols, batch_size=batch_size, progress=progress
    )


def iterate_offsets(
    encoder: Encoder,
    strips: Strips,
    rows: Sequence[int],
    cols: Sequence[int],
    *,
    batch_size: int = 128,
    progress: str | None = None,
) -> Iterator[WindowRow]:
    """Features of the windows that begin in some rows and columns.

    Pixels without data are a reflectance of 0 to the encoder; a window that holds nothing else is
    not encoded.

    Args:
        encoder, strips, batch_size, progress: see `iterate_windows`.
        rows, cols: where windows begin, both in ascending order.
    Yields:
        A row of windows, from the top.
    """
    starts = np.array(cols)
    # Narrow images fill a batch with several rows.
    rows_at_a_time = max(1, batch_size // len(cols))
    num_features = None
    with tqdm(
        total=len(rows) * len(cols),
        desc=progress,
        unit="window",
        disable=progress is None,
        mininterval=1.0,
    ) as bar:
        for start in range(0, len(rows), rows_at_a_time):
            some_rows = rows[start : start + rows_at_a_time]
            top = some_rows[0]
            stored = strips.read(top, some_rows[-1] + IMAGE_SIZE - top)
            crops = [
                stored[row - top : row - top + IMAGE_SIZE, col : col + IMAGE_SIZE]
                for row in some_rows
                for col in cols
            ]
            num_valid = np.array([np.count_nonzero(crop[..., 0] != NODATA) for crop in crops])
            filled = np.flatnonzero(num_valid)
            encoded = []
            sums = np.zeros(len(crops))
            for first in range(0, len(filled), batch_size):
                chosen = filled[first : first + batch_size]
                batch = np.stack([crops[i] for i in chosen]).astype(np.float32) / QUANTIFICATION
                sums[chosen] = batch.mean(axis=-1, dtype=np.float64).sum(axis=(1, 2))
                encoded.append(np.asarray(encoder(batch), np.float32))
            if num_features is None:
                blank = np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, len(strips.bands)), np.float32)
                num_features = (encoded[0] if encoded else np.asarray(encoder(blank))).shape[1]
            features = np.full((len(crops), num_features), np.nan, np.float32)
            if encoded:
                features[filled] = np.concatenate(encoded)
            share = (num_valid / IMAGE_SIZE**2).astype(np.float32)
            brightness = (sums / np.maximum(num_valid, 1)).astype(np.float32)
            for index, row in enumerate(some_rows):
                part = slice(index * len(cols), (index + 1) * len(cols))
                yield WindowRow(row, starts, features[part], share[part], brightness[part])
                bar.update(len(cols))


def check_size(strips: Strips) -> None:
    """Raises ConfigError where an image is smaller than a window."""
    height, width = strips.grid[:2]
    if min(height, width) < IMAGE_SIZE:
        raise ConfigError(
            f"{strips.name} is {height} x {width} px, smaller than a window of {IMAGE_SIZE} x "
            f"{IMAGE_SIZE} px. Use a larger raster."
        )


def _crop(image: np.ndarray, window: Window) -> np.ndarray:
    return image[window.row : window.row + window.height, window.col : window.col + window.width]
