"""Intermediate layers of encoders at every pixel of a raster, in bounded memory.

Maps at pixel resolution are made of these. A raster is encoded in tiles; each tile has the cells of
every layer (`hub.layers`) and interpolates values of cells at its pixels. Sums over channels,
projections and distances are computed for cells and then interpolated: a fourth, a sixteenth or a
sixty-fourth of the work, and for linear functions the same result.

    layers = open_layers([shared, exclusive], (1, 2, 3))
    for tile in iterate_tiles(layers, open_strips("scene.tif", layers[0].bands)):
        reduced = [cells @ axes for cells, axes in zip(tile.cells, axes_of_layers)]
        at_pixels = sum(tile.upsample(i, values) for i, values in enumerate(reduced))

`encode_pixels` returns the activations of a whole image at its pixels, for small images and tests.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sits_keras.data.execution import read_ahead
from sits_keras.data.radiometry import QUANTIFICATION, has_data
from sits_keras.data.rasters.read import Grid
from sits_keras.data.rasters.rows import Strips, open_strips
from sits_keras.data.tiling import Window, reflect
from sits_keras.errors import ConfigError
from sits_keras.hub import HubEncoder
from sits_keras.hub.layers import LayerEncoder, LayerGrid

TILE_SIDE = 1024
"""Side of a tile, in pixels: a multiple of every stride."""

BORDER = 2
"""Cells around a tile, of each layer, that the interpolation at its edges needs."""


class LayerTile(NamedTuple):
    """Part of a raster and the layers of its cells.

    Attributes:
        window: Pixels of the tile.
        valid: `(height, width)` bool, pixels with data.
        grids: Cells of each layer, of all encoders.
        cells: For each layer, `(rows, cols, channels)` float32: the activations of the cells of
            the tile and of `BORDER` cells around it.
    """

    window: Window
    valid: npt.NDArray[np.bool_]
    grids: tuple[LayerGrid, ...]
    cells: tuple[npt.NDArray[np.float32], ...]

    def upsample(
        self, layer: int, values: npt.NDArray[Any], rows: slice = slice(None)
    ) -> npt.NDArray[np.float32]:
        """Interpolate values of the cells of a layer bilinearly at the pixels of the tile.

        A cell's value is placed at the centre of what the cell sees.

        Args:
            layer: Index of the layer in `grids`.
            values: `(rows, cols, ...)`, a value for each cell as in `cells`.
            rows: Rows of the tile to return; all by default.

        Returns:
            `(height, width, ...)` float32, of these rows.
        """
        result = np.asarray(values, np.float32)
        lines = np.arange(self.window.height)[rows], np.arange(self.window.width)
        for axis, line in enumerate(lines):
            first, after = self._weights(layer, line)
            after = after.reshape(-1, *[1] * (result.ndim - 1 - axis))
            low, high = result.take(first, axis), result.take(first + 1, axis)
            high -= low
            high *= after
            high += low
            result = high
        return result

    def block_means(
        self, layer: int, values: npt.NDArray[Any], side: int
    ) -> npt.NDArray[np.float32]:
        """Return means over blocks of pixels of what `upsample` returns, without all pixels.

        Args:
            layer: Index of the layer in `grids`.
            values: `(rows, cols, channels)`, a value for each cell as in `cells`.
            side: Side of a block in pixels. The last blocks may be cut off.

        Returns:
            `(ceil(height / side), ceil(width / side), channels)` float32.
        """
        result = np.asarray(values, np.float32)
        for axis, length in enumerate(self.window[2:]):
            first, after = self._weights(layer, np.arange(length))
            block = np.arange(length) // side
            count = np.bincount(block).astype(np.float32)[block]
            weights = csr_array(
                (
                    np.concatenate([(1 - after) / count, after / count]),
                    (np.tile(block, 2), np.concatenate([first, first + 1])),
                ),
                shape=(-(-length // side), result.shape[axis]),
                dtype=np.float32,
            )
            moved = np.moveaxis(result, axis, 0)
            means = weights @ moved.reshape(len(moved), -1)
            result = np.moveaxis(means.reshape(-1, *moved.shape[1:]), 0, axis)
        return result

    def _weights(
        self, layer: int, line: npt.NDArray[np.integer[Any]]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """Return the cell before each pixel of a line, and the weight of the next one."""
        grid = self.grids[layer]
        position = (line - grid.centre) / grid.stride + BORDER
        first = np.floor(position).astype(int)
        return first, (position - first).astype(np.float32)

    def at(
        self,
        layer: int,
        values: npt.NDArray[Any],
        rows: npt.NDArray[np.integer[Any]],
        cols: npt.NDArray[np.integer[Any]],
    ) -> npt.NDArray[np.float32]:
        """Interpolate values of the cells of a layer at some pixels, as `upsample` does at all.

        Args:
            layer: Index of the layer in `grids`.
            values: `(rows, cols, channels)`, a value for each cell as in `cells`.
            rows: `(pixels,)` int, rows in the tile.
            cols: `(pixels,)` int, columns in the tile.

        Returns:
            `(pixels, channels)` float32.
        """
        grid = self.grids[layer]
        positions = [(line - grid.centre) / grid.stride + BORDER for line in (rows, cols)]
        row, col = (np.floor(one).astype(int) for one in positions)
        down, along = ((one % 1).astype(np.float32)[:, None] for one in positions)
        upper = values[row, col] * (1 - along) + values[row, col + 1] * along
        lower = values[row + 1, col] * (1 - along) + values[row + 1, col + 1] * along
        result: npt.NDArray[np.float32] = upper * (1 - down) + lower * down
        return result

    def inner(self, layer: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return values of the cells of the tile itself, those of which every pixel has data.

        Args:
            layer: Index of the layer in `grids`.
            values: `(rows, cols, ...)`, a value for each cell as in `cells`.

        Returns:
            `(cells, ...)`.
        """
        stride = self.grids[layer].stride
        rows, cols = (-(-side // stride) for side in self.valid.shape)
        whole = np.ones((rows * stride, cols * stride), bool)
        whole[: self.valid.shape[0], : self.valid.shape[1]] = self.valid
        is_valid = whole.reshape(rows, stride, cols, stride).all(axis=(1, 3))
        inside: npt.NDArray[Any] = values[BORDER : BORDER + rows, BORDER : BORDER + cols][is_valid]
        return inside


def open_layers(
    encoders: Sequence[HubEncoder], layers: Sequence[int] = (1, 2, 3)
) -> tuple[LayerEncoder, ...]:
    """Return the same layers of one or several encoders.

    Args:
        encoders: Encoders of the same bands: of a preset, a hub module or a wrapped model.
        layers: Numbers of the layers, 1 (stride 2 px) to 4 (stride 16 px), ascending.

    Raises:
        ConfigError: If an encoder has no layers, the bands differ, or there are no such layers.
        DataError: If a module's weights are not those of its configuration.
    """
    opened = tuple(LayerEncoder(encoder, layers) for encoder in encoders)
    bands = sorted({one.bands for one in opened})
    if len(bands) != 1:
        raise ConfigError(
            "Expected encoders of the same bands. Received: "
            + (" and ".join(", ".join(one) for one in bands) or "no encoder")
            + ". Use encoders of one model."
        )
    return opened


def require_layers(encoder: object) -> HubEncoder:
    """Return an encoder that has layers.

    Args:
        encoder: Encoder that a task received for its method "layers".

    Raises:
        ConfigError: If it is a plain function of windows.
    """
    if not isinstance(encoder, HubEncoder):
        raise ConfigError(
            "Method 'layers' needs the layers of an encoder. Expected a preset's encoder, a hub "
            f"module or a wrapped model. Received: {type(encoder).__name__}. For a function of "
            "windows, pass method='windows'."
        )
    return encoder


def check_sides(name: object, grid: Grid) -> None:
    """Check that an image can be reflected beyond its edges, which takes two pixels a side.

    Args:
        name: Name of the image, for the message.
        grid: Grid of the image.

    Raises:
        ConfigError: If a side is shorter.
    """
    if min(grid[:2]) < 2:
        raise ConfigError(
            f"{name} is {grid.height} x {grid.width} px. Expected at least 2 px a side. Use a "
            "larger raster."
        )


def iterate_tiles(
    layers: Sequence[LayerEncoder],
    image: Strips,
    tile_side: int = TILE_SIDE,
    tile_step: int = 1,
) -> Iterator[LayerTile]:
    """Encode an image in tiles, row by row; the values do not depend on the tiles.

    Pixels without data have reflectance 0 for the encoders, and the image is reflected beyond its
    edges. Cells of a tile without any data are 0.

    Args:
        layers: Layers to compute, see `open_layers`.
        image: Image of any size from 2 px, with the bands of the encoders.
        tile_side: Side of a tile in pixels, a multiple of 16. Memory grows with `tile_side` times
            the image's width.
        tile_step: Encode every `tile_step`-th tile of a row and a column: a sample of the image.

    Yields:
        Tiles, from the upper left. The last ones of a row or column are smaller.

    Raises:
        ConfigError: If the image is smaller than 2 px, or the side of a tile is not a multiple.
    """
    check_sides(image.name, image.grid)
    height, width = image.grid[:2]
    if tile_side < 16 or tile_side % 16:
        raise ConfigError(f"Expected a tile_side that is a multiple of 16. Received: {tile_side}.")
    grids = tuple(grid for one in layers for grid in one.grids)
    margin = max(one.margin(BORDER) for one in layers)
    cols = [(left, min(tile_side, width - left)) for left in range(0, width, tile_side * tile_step)]
    blocks = (
        (top, _read(image, top, min(tile_side, height - top), margin))
        for top in range(0, height, tile_side * tile_step)
    )
    for top, block in read_ahead(blocks):
        for left, num_cols in cols:
            shown = reflect(np.arange(left - margin, left + num_cols + margin), width)
            pixels = block[:, shown]
            window = Window(top, left, len(block) - 2 * margin, num_cols)
            inside = pixels[margin : margin + window.height, margin : margin + window.width]
            valid = has_data(inside)
            if valid.any():
                reflectance = np.divide(pixels, np.float32(QUANTIFICATION))
                found = [cells for one in layers for cells in one(reflectance, margin, BORDER)]
            else:
                shapes = [[-(-side // g.stride) + 2 * BORDER for side in window[2:]] for g in grids]
                found = [
                    np.zeros((*shape, grid.num_channels), np.float32)
                    for shape, grid in zip(shapes, grids, strict=True)
                ]
            yield LayerTile(window, valid, grids, tuple(found))


def encode_pixels(
    encoders: Sequence[HubEncoder],
    image: Any,
    layers: Sequence[int] = (1, 2, 3),
    *,
    bands: Sequence[str] | None = None,
    tile_side: int = TILE_SIDE,
) -> npt.NDArray[np.float32]:
    """Return the activations of some layers at every pixel of an image, in memory.

    The result takes 4 bytes for each pixel and channel: 900 MB for 1,024 x 1,024 px and 224
    channels. Larger images are processed in tiles (`iterate_tiles`).

    Args:
        encoders: Encoders of the same bands: of a preset, a hub module or a wrapped model.
        image: Path of a raster, or a `(height, width, bands)` array of uint16 stored values or
            float reflectance.
        layers: Numbers of the layers, 1 (stride 2 px) to 4 (stride 16 px), ascending.
        bands: Band names to read. By default those of the encoders.
        tile_side: See `iterate_tiles`.

    Returns:
        `(height, width, channels)` float32, the layers of the first encoder first; NaN where a
        pixel has no data.

    Raises:
        MissingError: If the raster does not exist.
        DataError: If the raster cannot be read or lacks a band.
        ConfigError: See `open_layers` and `iterate_tiles`.

    Examples:
        >>> model = "sits_rgbn_small"
        >>> encoders = [sits_keras.from_preset(model, one) for one in ("shared", "exclusive")]
        >>> encode_pixels(encoders, "scene.tif", (1, 2)).shape
    """
    opened = open_layers(encoders, layers)
    strips = open_strips(image, bands or opened[0].bands)
    count = sum(grid.num_channels for one in opened for grid in one.grids)
    result = np.empty((*strips.grid[:2], count), np.float32)
    for tile in iterate_tiles(opened, strips, tile_side):
        row, col, height, width = tile.window
        target = result[row : row + height, col : col + width]
        first = 0
        for index, cells in enumerate(tile.cells):
            stop = first + cells.shape[-1]
            target[..., first:stop] = tile.upsample(index, cells)
            first = stop
        target[~tile.valid] = np.nan
    return result


def _read(image: Strips, top: int, num_rows: int, margin: int) -> npt.NDArray[np.uint16]:
    """Return some rows of an image and a margin above and below, reflected beyond its edges."""
    shown = reflect(np.arange(top - margin, top + num_rows + margin), image.grid.height)
    first = int(shown.min())
    rows: npt.NDArray[np.uint16] = image.read(first, int(shown.max()) + 1 - first)
    return rows if len(rows) == len(shown) else rows[shown - first]
