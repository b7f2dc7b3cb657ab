"""Windows over a raster: pure arithmetic, no pixels (sections 4.1 and 4.3)."""

import itertools
from typing import NamedTuple

import numpy as np

from sits_keras.errors import ConfigError


class Window(NamedTuple):
    """A rectangle of pixels: offsets from the upper left corner, and size."""

    row: int
    col: int
    height: int
    width: int


def split_evenly(length: int, largest: int) -> list[tuple[int, int]]:
    """Cuts a line of pixels into the fewest parts of at most `largest`, equal to within a pixel.

    No pixel is lost and none is in two parts. Where `largest` is at least twice some size that the
    line itself has, every part has that size too.

    Args:
        length: pixels of the line, at least 1.
        largest: pixels of a part, at most.
    Returns:
        (offset, size) of each part, in order.
    """
    _check_positive(length=length, largest=largest)
    num_parts = -(-length // largest)
    edges = [index * length // num_parts for index in range(num_parts + 1)]
    return [(start, stop - start) for start, stop in itertools.pairwise(edges)]


def patch_windows(
    height: int, width: int, size: int, smallest: int, central: int = 0
) -> list[Window]:
    """Disjoint windows of `size` a side that cover a raster from its upper left, row by row.

    On a tiled raster of the same tile size, each window is one tile. The last of a row or column
    is what is left; where that is under `smallest`, the last two share their pixels evenly.

    Args:
        height, width: of the raster, in pixels.
        size: side of a window, at least twice `smallest`.
        smallest: side of the smallest window that is of use.
        central: keep the `central` x `central` whole windows nearest to the middle; 0 for all.
    Raises:
        ConfigError: the raster has not that many whole windows.
    """
    _check_positive(height=height, width=width, size=size, smallest=smallest)
    if central:
        if central > min(height, width) // size:
            raise ConfigError(
                f"{central} x {central} patches of {size} px do not fit into {height} x {width} "
                "px. Use smaller patches, fewer of them, or all (0)."
            )
        rows, cols = (_central_line(length, size, central) for length in (height, width))
    else:
        rows, cols = (_whole_line(length, size, smallest) for length in (height, width))
    return [Window(row, col, h, w) for row, h in rows for col, w in cols]


def _whole_line(length: int, size: int, smallest: int) -> list[tuple[int, int]]:
    whole, rest = divmod(length, size)
    parts = [(index * size, size) for index in range(whole)]
    if not rest:
        return parts
    if rest >= smallest or not parts:
        return [*parts, (whole * size, rest)]
    start, _ = parts.pop()
    return [*parts, *((start + offset, part) for offset, part in split_evenly(size + rest, size))]


def _central_line(length: int, size: int, count: int) -> list[tuple[int, int]]:
    first = min((length - count * size + size) // (2 * size), length // size - count)
    return [((first + index) * size, size) for index in range(count)]


def grid_windows(height: int, width: int, largest: int) -> list[Window]:
    """Disjoint windows of at most `largest` a side that cover a raster, row by row.

    Args:
        height, width: of the raster, in pixels.
        largest: side of a window, at most.
    """
    rows, cols = split_evenly(height, largest), split_evenly(width, largest)
    return [Window(row, col, h, w) for row, h in rows for col, w in cols]


def sliding_offsets(length: int, size: int, stride: int) -> list[int]:
    """Offsets of windows that slide along a line and reach its end.

    Where the stride does not divide the way, the last window is shifted in rather than left out.

    Raises:
        ConfigError: the line is shorter than a window, or a number is below 1.
    """
    _check_positive(length=length, size=size, stride=stride)
    if length < size:
        raise ConfigError(
            f"A window of {size} px does not fit into {length} px. "
            "Use a larger raster or a smaller window."
        )
    offsets = list(range(0, length - size + 1, stride))
    if offsets[-1] != length - size:
        offsets.append(length - size)
    return offsets


def sliding_windows(height: int, width: int, size: int, stride: int) -> list[Window]:
    """Square windows that slide over a raster, row by row, the last ones shifted in.

    Raises:
        ConfigError: as `sliding_offsets`.
    """
    cols = sliding_offsets(width, size, stride)
    return [
        Window(row, col, size, size)
        for row in sliding_offsets(height, size, stride)
        for col in cols
    ]


def reflect(places: np.ndarray, length: np.ndarray | int) -> np.ndarray:
    """Places on lines of pixels, those beyond the ends reflected as often as needed.

    Args:
        places: int array.
        length: pixels of the line, at least 2, or of each line, broadcast against `places`.
    Returns:
        Places in [0, length). The pixel at an end is not repeated.
    """
    period = 2 * (length - 1)
    folded = places % period
    return np.minimum(folded, period - folded)


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1 pixel. Received: {name}={value}.")


def sample_windows(height: int, width: int, size: int = 64) -> list[Window]:
    """Three windows on the diagonal of an image, its corners included, to look at it quickly."""
    rows, cols = min(size, height), min(size, width)
    return [
        Window(round(share * (height - rows)), round(share * (width - cols)), rows, cols)
        for share in (0.0, 0.5, 1.0)
    ]
