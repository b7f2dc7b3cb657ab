"""From what files hold to what the networks see, and back (section 4.2).

Three units are in use. A *digital number* (DN) is what a product stores. *Stored values* are what
this package keeps in records and arrays: uint16, reflectance x 10,000 with the product's own
offset taken in, 0 where there is no data. *Network values* are in [-1, 1], linear from reflectance
0 to the band's maximum, and clipped.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sits_keras.errors import DataError

QUANTIFICATION = 10_000
"""Stored value of reflectance 1."""

NODATA = 0
"""Stored value of a pixel without data."""

MAX_STORED = 65_535

MAX_REFLECTANCE = 10.0
"""Above this, floats are taken to be digital numbers, not reflectance (snow and glint reach 2)."""

DARK = 255
"""A raster with no stored value above this holds bytes, more likely than reflectance."""

DISPLAY_MAX = 0.275
"""Reflectance shown as white: the brightness of EuroSAT's JPEGs, and of most Sentinel-2 views."""


def to_stored(
    reflectance: np.ndarray, valid: np.ndarray, quantification: int = QUANTIFICATION
) -> np.ndarray:
    """Reflectance as stored values.

    Args:
        reflectance: float array; entries that are not valid may be anything, NaN too.
        valid: bool array of the same shape.
        quantification: stored value of reflectance 1.
    Returns:
        uint16 array. Valid entries are at least 1, so that a reflectance of zero or below (deep
        shade, after atmospheric correction) is not taken for missing data.
    """
    scaled = np.rint(np.where(valid, reflectance, 0) * quantification)
    return np.where(valid, np.clip(scaled, 1, MAX_STORED), NODATA).astype(np.uint16)


def values_to_stored(
    values: np.ndarray, valid: np.ndarray, path: Path | str, scale: float, offset: float
) -> np.ndarray:
    """One band's pixels as stored values.

    Args:
        values: `(height, width)` as the raster holds them.
        valid: same shape, bool.
        path: of the raster, for messages.
        scale, offset: `reflectance = value * scale + offset`.
    Returns:
        `(height, width)` uint16.
    Raises:
        DataError: the raster is 8-bit or complex, or the reflectance is far above 1.
    """
    if values.dtype.itemsize == 1:
        raise picture_error(path)
    if values.dtype.kind not in "iuf":
        raise DataError(
            f"{path} holds values of type {values.dtype}, expected uint16 digital numbers "
            "(reflectance x 10,000) or float reflectance. Convert it."
        )
    if np.issubdtype(values.dtype, np.integer) and scale * MAX_STORED <= MAX_REFLECTANCE:
        return _numbers_to_stored(values, valid, scale, offset)
    with np.errstate(invalid="ignore"):
        reflectance = values * scale + offset
    highest = reflectance.max(initial=0.0, where=valid)
    if highest > MAX_REFLECTANCE:
        raise DataError(
            f"{path} holds reflectance up to {highest:g}, expected about 0 to 1. Keep digital "
            "numbers as integers (gdal_translate -ot UInt16), or state their scale in the band "
            "metadata, or divide them by 10,000; divide percent by 100."
        )
    return to_stored(reflectance, valid)


def _numbers_to_stored(
    numbers: np.ndarray, valid: np.ndarray, scale: float, offset: float
) -> np.ndarray:
    """Digital numbers as stored values: `reflectance = number * scale + offset`.

    Args:
        numbers: integer array.
        valid: bool array of the same shape.
        scale: reflectance of one digital number.
        offset: reflectance of digital number 0.
    Returns:
        uint16 array; see `to_stored`.
    """
    shift = offset * QUANTIFICATION
    if not (math.isclose(scale * QUANTIFICATION, 1) and math.isclose(shift, round(shift))):
        return to_stored(numbers * scale + offset, valid)
    if round(shift) or numbers.dtype != np.uint16:
        numbers = np.clip(numbers.astype(np.int64) + round(shift), 1, MAX_STORED)
    return np.where(valid, numbers, NODATA).astype(np.uint16)


def picture_error(path: Path | str) -> DataError:
    """What to say of a raster of 8 bits."""
    return DataError(
        f"{path} holds 8-bit values, which are display values, not reflectance. Expected uint16 "
        "digital numbers (reflectance x 10,000) or float reflectance: take the bands themselves "
        "from the product, not the picture of them."
    )


def warn_if_dark(samples: Iterable[np.ndarray], path: Path | str) -> None:
    """Warns where no sample of a raster is as bright as land is.

    Args:
        samples: arrays of stored values.
        path: of the raster, for the message.
    """
    highest = max(int(one.max(initial=0)) for one in samples)
    if 0 < highest <= DARK:
        warnings.warn(
            f"{path} is very dark: where it was looked at, no reflectance is above "
            f"{highest / QUANTIFICATION:g} ({highest} of {QUANTIFICATION:,}). If its values are "
            "bytes, 0 to 255, they are no reflectance, and the outcome means nothing.",
            stacklevel=3,
        )


def network_gain(band_max: Sequence[float]) -> np.ndarray:
    """Factor from stored to network values for each band: `network = stored * gain - 1`.

    Args:
        band_max: reflectance of each band that becomes 1.
    Returns:
        `(bands,)` float32.
    """
    return (2.0 / (QUANTIFICATION * np.asarray(band_max, np.float64))).astype(np.float32)


def to_network(stored: np.ndarray, band_max: Sequence[float]) -> np.ndarray:
    """Stored values as network values.

    Args:
        stored: `(..., bands)` array of stored values.
        band_max: reflectance of each band that becomes 1.
    Returns:
        Same shape, float32 in [-1, 1]. Pixels without data become -1.
    """
    return np.clip(stored.astype(np.float32) * network_gain(band_max) - 1, -1, 1)


def reflectance_from_network(values: np.ndarray, band_max: Sequence[float]) -> np.ndarray:
    """Network values as reflectance, for pictures and for rasters of generated images.

    Args:
        values: `(..., bands)` float in [-1, 1].
        band_max: reflectance of each band that is 1.
    Returns:
        Same shape, float32 in [0, band_max].
    """
    return ((values + 1) / 2 * np.asarray(band_max)).astype(np.float32)


def show_reflectance(reflectance: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Reflectance as it is looked at.

    Args:
        reflectance: `(..., bands)` float.
        bands: band names; B04, B03 and B02 give the colours, or the first band greys.
    Returns:
        `(..., 3)` float in [0, 1].
    """
    shown = [list(bands).index(band) for band in ("B04", "B03", "B02") if band in bands]
    if len(shown) != 3:
        shown = [0, 0, 0]
    return np.clip(reflectance[..., shown] / DISPLAY_MAX, 0, 1)


def true_colour(values: np.ndarray, bands: Sequence[str], band_max: Sequence[float]) -> np.ndarray:
    """Network values as they are looked at.

    Args:
        values: `(..., bands)` float in [-1, 1].
        bands: as in `show_reflectance`.
        band_max: reflectance of each band that is 1.
    Returns:
        `(..., 3)` float in [0, 1].
    """
    return show_reflectance(reflectance_from_network(values, band_max), bands)


_ALIGNMENT = 64  # bytes; TensorFlow copies an array that does not begin on a multiple


def aligned_empty(shape: Sequence[int]) -> np.ndarray:
    """A float32 array, its values whatever was there, that TensorFlow takes as it is."""
    size = int(np.prod(shape))
    buffer = np.empty(size + _ALIGNMENT // 4, np.float32)
    skipped = -buffer.ctypes.data % _ALIGNMENT // 4
    return buffer[skipped : skipped + size].reshape(shape)
