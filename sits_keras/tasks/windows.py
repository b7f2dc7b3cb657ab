"""Features of the windows that slide over an image (sections 4.3, 4.5 and 4.6)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.tiling import Window, sliding_windows

Encoder = Callable[[np.ndarray], Any]
"""From `(batch, 64, 64, bands)` reflectance to `(batch, num_features)`: a hub module, say."""


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


def _crop(image: np.ndarray, window: Window) -> np.ndarray:
    return image[window.row : window.row + window.height, window.col : window.col + window.width]
