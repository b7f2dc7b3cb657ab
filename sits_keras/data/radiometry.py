"""Conversion between the values of files, stored values and network values (section 4.2).

Three units are in use. A *digital number* (DN) is what a product stores. *Stored values* are what
this package keeps in records and arrays: uint16, reflectance x 10,000 after the product's own
offset, 0 where there is no data. *Network values* are in [-1, 1], linear from reflectance 0 to the
band's maximum, and clipped.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sits_keras.errors import DataError

QUANTIFICATION = 10_000
"""Stored value of reflectance 1."""

NODATA = 0
"""Stored value of a pixel without data."""

MAX_STORED = 65_535

MIN_REFLECTANCE = -0.25
"""Lower values are fill values: atmospheric correction reaches -0.2, and an offset -0.1."""

MAX_REFLECTANCE = 10.0
"""Higher floats are digital numbers, not reflectance: snow and glint reach 2."""

DISPLAY_MAX = 0.275
"""Reflectance shown as white: the brightness of EuroSAT's JPEGs, and of most Sentinel-2 views."""

_SMALLEST_FILL = 1e15
"""Positive fill values of netCDF and of models: 9.97e36, 1e20, 3.4e38."""

_COMMON_FILLS = (0, -1, MAX_STORED)
"""Fill values that a single band may hold as data, but not all bands of a pixel at once."""


def to_stored(
    reflectance: npt.NDArray[np.floating],
    valid: npt.NDArray[np.bool_],
    quantification: int = QUANTIFICATION,
) -> npt.NDArray[np.uint16]:
    """Convert reflectance to stored values.

    Args:
        reflectance: Float array. Entries that are not valid may be anything, NaN too.
        valid: Bool array of the same shape.
        quantification: Stored value of reflectance 1.

    Returns:
        uint16 array. Valid entries are at least 1, so that a reflectance of zero or below (deep
        shade, after atmospheric correction) is not mistaken for missing data.
    """
    scaled = np.rint(np.where(valid, reflectance, 0) * quantification)
    return np.where(valid, np.clip(scaled, 1, MAX_STORED), NODATA).astype(np.uint16)


def values_to_stored(
    values: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    path: Path | str,
    scale: float,
    offset: float,
) -> npt.NDArray[np.uint16]:
    """Convert the values of a raster or array to stored values.

    A value is missing where `valid` is false and where `is_missing` finds it.

    Args:
        values: Array of any shape, as the raster holds it.
        valid: Bool array of the same shape, or one that is broadcast to it.
        path: Name of the raster, for messages.
        scale: Reflectance of a difference of 1 in `values`.
        offset: Reflectance of the value 0: `reflectance = value * scale + offset`.

    Returns:
        uint16 array of the same shape, 0 where the value is missing. It is `values` itself if
        nothing has to be converted.

    Raises:
        DataError: The raster is 8-bit or complex, the scale is not a positive number, or the
            reflectance is far above 1.
    """
    if values.dtype.itemsize == 1:
        raise picture_error(path)
    if values.dtype.kind not in "iuf":
        raise DataError(
            f"{path} holds values of type {values.dtype}. Expected uint16 digital numbers "
            "(reflectance x 10,000) or float reflectance. Convert it."
        )
    if not (0 < scale < math.inf and math.isfinite(offset)):
        raise DataError(
            f"{path} has the scale {scale:g} and the offset {offset:g}. Expected a scale above 0, "
            "such as 0.0001, and a finite offset: reflectance = value x scale + offset. Correct "
            "them in the band metadata (gdal_edit.py -scale 0.0001 -offset 0) or in the item."
        )
    if not _holds_reflectance_only(values.dtype, scale, offset):
        valid = valid & ~is_missing(values, scale, offset)
    if np.issubdtype(values.dtype, np.integer) and scale * MAX_STORED <= MAX_REFLECTANCE:
        return _integers_to_stored(values, valid, scale, offset)
    with np.errstate(invalid="ignore", over="ignore"):
        reflectance = values * scale + offset
    highest = reflectance.max(initial=0.0, where=valid)
    if highest > MAX_REFLECTANCE:
        stated = f" (scale {scale:g}, offset {offset:g})" if (scale, offset) != (1, 0) else ""
        raise DataError(
            f"{path} holds reflectance up to {highest:g}{stated}. Expected about 0 to 1. Keep "
            "digital numbers as integers (gdal_translate -ot UInt16), state their scale in the "
            "band metadata, or divide them by 10,000; divide percent by 100. If it is a fill "
            "value, declare it as no data (gdal_edit.py -a_nodata)."
        )
    return to_stored(reflectance, valid)


def is_missing(
    values: npt.NDArray[Any], scale: float = 1.0, offset: float = 0.0
) -> npt.NDArray[np.bool_]:
    """Return where values cannot be reflectance: the one rule for every dtype.

    A value is missing where it is NaN or infinite, where its reflectance is below
    `MIN_REFLECTANCE` (-9999, -10000, -32768, -3.4e38), and where it is one of the large fill values
    of floats (65,535, 1e20, 9.97e36, 3.4e38). What is missing by the values of several bands is
    the matter of `FillFinder`; no data that a file declares, of its reader.

    Args:
        values: Integer or float array.
        scale: Reflectance of a difference of 1 in `values`, above 0.
        offset: Reflectance of the value 0.
    """
    if _holds_reflectance_only(values.dtype, scale, offset):
        return np.zeros(values.shape, bool)
    lowest = (MIN_REFLECTANCE - offset) / scale
    if np.issubdtype(values.dtype, np.integer):
        return np.asarray(values < lowest)
    # NaN fulfils no comparison.
    return np.asarray(~((values >= lowest) & (values < _SMALLEST_FILL) & (values != MAX_STORED)))


def may_hold(values: npt.NDArray[Any], value: int) -> bool:
    """Return whether an array may hold a value: false if it is beyond its lowest or highest one.

    The extremes of an array are found much faster than its elements are compared.

    Args:
        values: Array of at least one element.
        value: The value.
    """
    return not (values.min() > value or values.max() < value)  # true of NaN


def holds_data_only(values: npt.NDArray[Any], scale: float, offset: float) -> bool:
    """Return whether no value can be missing, nor part of a missing pixel, by its bounds alone.

    Args:
        values: Array of at least one element. Floats may always be missing here.
        scale: Reflectance of a difference of 1, above 0.
        offset: Reflectance of the value 0.
    """
    if not (np.issubdtype(values.dtype, np.integer) and scale > 0):
        return False
    lowest = max(NODATA, (MIN_REFLECTANCE - offset) / scale)
    return bool(values.min() > lowest and values.max() < MAX_STORED)


def _holds_reflectance_only(dtype: np.dtype[Any], scale: float, offset: float) -> bool:
    """Return whether no value of a dtype is below `MIN_REFLECTANCE`, as of unsigned integers."""
    if not np.issubdtype(dtype, np.integer):
        return False
    return bool((MIN_REFLECTANCE - offset) / scale <= np.iinfo(dtype).min)


class FillFinder:
    """Finds the pixels that hold the same fill value in all of their bands.

    One band may be 0 in deep shade, or 65,535 where it is saturated; all bands of a pixel are not,
    so such a pixel is missing, whatever the dtype. Bands are added one after the other.

    Attributes:
        some_zero: `(height, width)` bool, pixels that are 0 in a band.
    """

    def __init__(self, height: int, width: int):
        self.some_zero = np.zeros((height, width), bool)
        self._least: npt.NDArray[Any] = self.some_zero  # of the bands so far, as is the highest
        self._most = self._least
        self._num_bands = 0

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take in the `(height, width)` values of a band, as its raster holds them.

        The array must not change afterwards.
        """
        if may_hold(values, 0):
            self.some_zero |= values == 0
        if self._num_bands:
            self._least = np.minimum(self._least, values)
            self._most = np.maximum(self._most, values)
        else:
            self._least = self._most = values
        self._num_bands += 1

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        """Pixels that hold one fill value in all bands; of a single band, only 0 counts."""
        missing = np.zeros(self.some_zero.shape, bool)
        for fill in self._fills():
            missing |= (self._least == fill) & (self._most == fill)
        return missing

    def example(self) -> float | None:
        """Return one of the fill values of the missing pixels; `None` if no pixel is missing."""
        held = (f for f in self._fills() if ((self._least == f) & (self._most == f)).any())
        return max(map(float, held), key=_COMMON_FILLS.index, default=None)

    def _fills(self) -> list[int]:
        """Return the fill values that may occur in all bands."""
        if not self._num_bands:
            return []
        fills = _COMMON_FILLS if self._num_bands > 1 else _COMMON_FILLS[:1]
        return [fill for fill in fills if may_hold(self._least, fill)]


def has_data(stored: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Return which pixels have data in all bands.

    Args:
        stored: `(..., bands)` stored values.

    Returns:
        `(...)` bool.
    """
    if stored.size and stored.min() > NODATA:  # found much faster than where data is missing
        return np.ones(stored.shape[:-1], bool)
    first, *others = np.moveaxis(stored, -1, 0)
    found: npt.NDArray[np.bool_] = first != NODATA
    for band in others:  # five times as fast as `.all(axis=-1)`
        found &= band != NODATA
    return found


def pixels_to_stored(values: npt.NDArray[Any], name: Path | str) -> npt.NDArray[np.uint16]:
    """Convert float reflectance in an array to stored values.

    Args:
        values: `(..., height, width, bands)` float array, NaN where there is no data.
        name: Name of the array, for messages.

    Returns:
        uint16 array of the same shape, 0 in all bands of a pixel where any is missing (see
        `is_missing`). 0 is reflectance here, for arrays have NaN.

    Raises:
        DataError: The reflectance is far above 1.
    """
    stored = values_to_stored(values, np.ones(values.shape, bool), name, 1.0, 0.0)
    return np.where(has_data(stored)[..., None], stored, np.uint16(NODATA))


def _integers_to_stored(
    numbers: npt.NDArray[np.integer], valid: npt.NDArray[np.bool_], scale: float, offset: float
) -> npt.NDArray[np.uint16]:
    """Convert digital numbers exactly where a digital number is 1/10,000; see `to_stored`."""
    shift = offset * QUANTIFICATION
    if not (math.isclose(scale * QUANTIFICATION, 1) and math.isclose(shift, round(shift))):
        return to_stored(numbers * scale + offset, valid)
    shift = round(shift)
    if numbers.dtype == np.uint16 and abs(shift) < MAX_STORED:
        if shift < 0:
            numbers = np.maximum(numbers, np.uint16(1 - shift)) - np.uint16(-shift)
        elif shift > 0:
            numbers = np.minimum(numbers, np.uint16(MAX_STORED - shift)) + np.uint16(shift)
    else:
        if numbers.dtype.itemsize == 8:  # so that no sum wraps around
            numbers = np.clip(numbers, max(np.iinfo(numbers.dtype).min, -(2**40)), 2**40)
        numbers = np.clip(numbers.astype(np.int64) + shift, 1, MAX_STORED).astype(np.uint16)
    stored: npt.NDArray[np.uint16] = numbers.astype(np.uint16, copy=False)
    return stored if valid.all() else stored * valid  # faster than np.where


def picture_error(path: Path | str) -> DataError:
    """Return the error for a raster of 8 bits."""
    return DataError(
        f"{path} holds 8-bit values, which are display values, not reflectance. Expected uint16 "
        "digital numbers (reflectance x 10,000) or float reflectance. Use the product's bands, "
        "not its preview picture."
    )


def network_gain(band_max: Sequence[float]) -> npt.NDArray[np.float32]:
    """Return each band's factor from stored to network values: `network = stored * gain - 1`.

    Args:
        band_max: Reflectance of each band that becomes 1.

    Returns:
        `(bands,)` float32.
    """
    return (2.0 / (QUANTIFICATION * np.asarray(band_max, np.float64))).astype(np.float32)


def to_network(
    stored: npt.NDArray[np.uint16], band_max: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Convert stored values to network values.

    Args:
        stored: `(..., bands)` array of stored values.
        band_max: Reflectance of each band that becomes 1.

    Returns:
        Same shape, float32 in [-1, 1]. Pixels without data become -1.
    """
    values = stored.astype(np.float32) * network_gain(band_max) - 1
    clipped: npt.NDArray[np.float32] = np.clip(values, -1, 1)
    return clipped


def reflectance_to_network(
    reflectance: npt.NDArray[Any], band_max: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Convert reflectance to network values.

    Args:
        reflectance: `(..., bands)` float.
        band_max: Reflectance of each band that becomes 1.

    Returns:
        Same shape, float32 in [-1, 1].
    """
    gain = 2 / np.asarray(band_max, np.float32)
    values: npt.NDArray[np.float32] = np.clip(np.asarray(reflectance, np.float32) * gain - 1, -1, 1)
    return values


def reflectance_from_network(
    values: npt.NDArray[np.floating], band_max: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Convert network values to reflectance, for pictures and for generated rasters.

    Args:
        values: `(..., bands)` float in [-1, 1].
        band_max: Reflectance of each band that is 1.

    Returns:
        Same shape, float32 in [0, band_max].
    """
    reflectance = (values + 1) / 2 * np.asarray(band_max)
    return np.asarray(reflectance, np.float32)


def show_reflectance(
    reflectance: npt.NDArray[np.floating], bands: Sequence[str]
) -> npt.NDArray[np.floating]:
    """Convert reflectance to display values.

    Args:
        reflectance: `(..., bands)` float.
        bands: Band names. B04, B03 and B02 become red, green and blue; where one of them is not
            there, the first band becomes grey.

    Returns:
        `(..., 3)` float in [0, 1].
    """
    shown = [list(bands).index(band) for band in ("B04", "B03", "B02") if band in bands]
    if len(shown) != 3:
        shown = [0, 0, 0]
    clipped: npt.NDArray[np.floating] = np.clip(reflectance[..., shown] / DISPLAY_MAX, 0, 1)
    return clipped


def with_opacity(
    colours: npt.NDArray[np.floating], has_data: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """Convert display values to a picture that is transparent where there is no data.

    Args:
        colours: `(height, width, 3)` float in [0, 1].
        has_data: `(height, width)` bool.

    Returns:
        `(height, width, 4)` uint8: red, green, blue and opacity, which is 0 for no data.
    """
    picture = np.empty((*has_data.shape, 4), np.uint8)
    picture[..., :3] = np.rint(colours * 255)
    picture[..., 3] = np.where(has_data, 255, 0)
    return picture


def true_colour(
    values: npt.NDArray[np.floating], bands: Sequence[str], band_max: Sequence[float]
) -> npt.NDArray[np.floating]:
    """Convert network values to display values.

    Args:
        values: `(..., bands)` float in [-1, 1].
        bands: Band names, as in `show_reflectance`.
        band_max: Reflectance of each band that is 1.

    Returns:
        `(..., 3)` float in [0, 1].
    """
    return show_reflectance(reflectance_from_network(values, band_max), bands)


_ALIGNMENT = 64  # bytes; TensorFlow copies an array that does not begin on a multiple


def is_aligned(values: npt.NDArray[Any]) -> bool:
    """Return whether an array is one that TensorFlow can use without copying it."""
    is_ours = values.dtype == np.float32 and values.flags.c_contiguous and values.flags.writeable
    return is_ours and values.size > 0 and values.ctypes.data % _ALIGNMENT == 0


def aligned_empty(shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return an uninitialized float32 array that TensorFlow can use without copying it."""
    size = int(np.prod(shape))
    buffer = np.empty(size + _ALIGNMENT // 4, np.float32)
    skipped = -buffer.ctypes.data % _ALIGNMENT // 4
    return buffer[skipped : skipped + size].reshape(shape)
