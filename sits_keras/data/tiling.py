"""Arithmetic of windows over a raster, without pixels (sections 4.1 and 4.3)."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.errors import ConfigError


class Window(NamedTuple):
    """A rectangle of pixels: offsets from the upper left corner, and size."""

    row: int
    col: int
    height: int
    width: int


def split_evenly(length: int, largest: int) -> list[tuple[int, int]]:
    """Split a line of pixels into the fewest parts of at most `largest`, equal to within a pixel.

    The parts cover the line and do not overlap. If the line has some smallest size, and `largest`
    is at least twice that size, every part has it too.

    Args:
        length: Pixels of the line, at least 1.
        largest: Largest number of pixels in a part.

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
    """Return disjoint windows that cover a raster from its upper left, row by row.

    In a tiled raster of the same tile size, each window is one tile. The last window of a row or
    column takes the remainder; if that is below `smallest`, the last two have equal sizes.

    Args:
        height: Height of the raster, in pixels.
        width: Width of the raster, in pixels.
        size: Side of a window, at least twice `smallest`.
        smallest: Smallest useful side of a window.
        central: Keep the `central` x `central` full windows nearest to the middle; 0 for all.

    Raises:
        ConfigError: The raster has fewer full windows.
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
        rows, cols = (_full_line(length, size, smallest) for length in (height, width))
    return [Window(row, col, h, w) for row, h in rows for col, w in cols]


def _full_line(length: int, size: int, smallest: int) -> list[tuple[int, int]]:
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


def row_blocks(height: int, num_rows: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the number of rows of each block, from the top.

    Args:
        height: Number of all rows.
        num_rows: Rows of a block; the last block has the remaining rows.
    """
    for row in range(0, height, num_rows):
        yield row, min(num_rows, height - row)


def grid_windows(height: int, width: int, largest: int) -> list[Window]:
    """Return disjoint windows of at most `largest` a side that cover a raster, row by row.

    Args:
        height: Height of the raster, in pixels.
        width: Width of the raster, in pixels.
        largest: Largest side of a window.
    """
    rows, cols = split_evenly(height, largest), split_evenly(width, largest)
    return [Window(row, col, h, w) for row, h in rows for col, w in cols]


def sliding_offsets(length: int, size: int, stride: int) -> list[int]:
    """Return the offsets of windows that slide along a line to its end.

    If the stride does not divide the distance, the last window is shifted in.

    Args:
        length: Pixels of the line.
        size: Pixels of a window.
        stride: Pixels between two windows.

    Raises:
        ConfigError: The line is shorter than a window, or a number is below 1.
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
    """Return square windows that slide over a raster, row by row, the last ones shifted in.

    Args:
        height: Height of the raster, in pixels.
        width: Width of the raster, in pixels.
        size: Side of a window.
        stride: Pixels between two windows.

    Raises:
        ConfigError: The raster is smaller than a window, or a number is below 1.
    """
    cols = sliding_offsets(width, size, stride)
    return [
        Window(row, col, size, size)
        for row in sliding_offsets(height, size, stride)
        for col in cols
    ]


def spread_out(
    rows: npt.NDArray[Any], cols: npt.NDArray[Any], num_places: int, min_distance: int
) -> list[int]:
    """Return the first places that are far enough from each other.

    Args:
        rows: `(places,)` rows, the best place first.
        cols: `(places,)` columns.
        num_places: Maximum number of places.
        min_distance: Minimum distance between two places along rows or columns.

    Returns:
        Indices of the chosen places, in order.
    """
    is_left = np.ones(len(rows), bool)
    chosen: list[int] = []
    while len(chosen) < num_places and is_left.any():
        index = int(is_left.argmax())
        chosen.append(index)
        distance = np.maximum(np.abs(rows - rows[index]), np.abs(cols - cols[index]))
        is_left &= distance >= min_distance
        is_left[index] = False
    return chosen


def reflect(
    positions: npt.NDArray[np.integer], length: npt.NDArray[np.integer] | int
) -> npt.NDArray[np.integer]:
    """Reflect positions beyond the ends of a line of pixels, as often as needed.

    Args:
        positions: Integer array.
        length: Pixels of the line, at least 2, or of each line, broadcast against `positions`.

    Returns:
        Positions in [0, length). The pixel at an end is not repeated.
    """
    period = 2 * (length - 1)
    folded = positions % period
    reflected: npt.NDArray[np.integer] = np.minimum(folded, period - folded)
    return reflected


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1 pixel. Received: {name}={value}.")


def diagonal_windows(height: int, width: int, size: int = 64) -> list[Window]:
    """Return three windows on the diagonal of an image, from corner to corner."""
    rows, cols = min(size, height), min(size, width)
    return [
        Window(round(part * (height - rows)), round(part * (width - cols)), rows, cols)
        for part in (0.0, 0.5, 1.0)
    ]
