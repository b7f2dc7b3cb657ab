"""Rasters of any size as the model generates them: windows that overlap, blended (section 4.2)."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from sits_keras.config import IMAGE_SIZE, ModelConfig
from sits_keras.data.radiometry import NODATA, reflectance_from_network, to_network, to_stored
from sits_keras.data.rasters.rows import Strips, check_same_grid, open_strips
from sits_keras.data.rasters.write import open_map
from sits_keras.data.tiling import sliding_offsets
from sits_keras.errors import ConfigError, DataError
from sits_keras.model import DisentangledSITS
from sits_keras.tasks.pictures import draw_series
from sits_keras.tasks.windows.sliding import check_size

Generate = Callable[..., Any]
"""From an array of `(batch, 64, 64, bands)` in [-1, 1] for each input to one of
`(batch, outputs, 64, 64, bands)` in [-1, 1]."""


class BlendedRows(NamedTuple):
    """Some whole rows of what was generated.

    Attributes:
        row: the first one.
        values: `(outputs, rows, width, bands)` float32 in [-1, 1].
        valid: `(rows, width)` bool, where every input holds data.
    """

    row: int
    values: np.ndarray
    valid: np.ndarray


def translate_raster(
    model: DisentangledSITS,
    shared_from: Path | str | np.ndarray,
    exclusive_from: Path | str | np.ndarray,
    out: Path,
    **options: Any,
) -> None:
    """Writes the place of one raster at the date of another.

    Args:
        model: what generates.
        shared_from: the place: a raster, or an array as `open_strips` takes it.
        exclusive_from: the date, on the same pixels.
        out: GeoTIFF to write: reflectance x 10,000, 0 where either has no data, on the grid of
            `shared_from`.
        options: `stride`, `batch_size` and `progress` of `blend_windows`.
    Raises:
        MissingError, DataError: a raster cannot be read, lacks a band, lies on another grid or
            holds no data.
        ConfigError: it is smaller than a window.
    """
    _write(
        model,
        lambda place, date: np.asarray(model.translate(place, date))[:, None],
        [shared_from, exclusive_from],
        [out],
        options,
    )


def sample_rasters(
    model: DisentangledSITS,
    shared_from: Path | str | np.ndarray,
    outs: Sequence[Path],
    seed: int,
    **options: Any,
) -> None:
    """Writes a raster at dates that are drawn: exclusive representations from N(0, I).

    One draw serves the whole of a raster, for its windows are of one date.

    Args:
        model: what generates.
        shared_from: as in `translate_raster`.
        outs: GeoTIFFs to write, one for each draw.
        seed: seed of the draws.
        options: as in `translate_raster`, whose errors are raised, too.
    """
    _write(
        model,
        lambda place: np.asarray(model.sample(place, len(outs), seed)),
        [shared_from],
        outs,
        options,
    )


def interpolate_rasters(
    model: DisentangledSITS,
    shared_from: Path | str | np.ndarray,
    exclusive_from: Path | str | np.ndarray,
    outs: Sequence[Path],
    **options: Any,
) -> None:
    """Writes a raster at dates from its own to that of another, linear between exclusive means.

    Args:
        model: what generates.
        shared_from, exclusive_from: as in `translate_raster`.
        outs: GeoTIFFs to write, from the one date to the other, at least two.
        options: as in `translate_raster`, whose errors are raised, too.
    """
    _write(
        model,
        lambda place, date: np.asarray(model.interpolate(place, place, date, len(outs))),
        [shared_from, exclusive_from],
        outs,
        options,
    )


def blend_windows(
    generate: Generate,
    inputs: Sequence[Strips],
    band_max: Sequence[float],
    *,
    stride: int = IMAGE_SIZE // 2,
    batch_size: int = 64,
    progress: str | None = None,
) -> Iterator[BlendedRows]:
    """Slides over images of one size and generates every window; where windows overlap, blends.

    A window's weight falls from its middle to its edges as a squared sine, so that none of them
    shows. No image is ever whole in memory: that takes a window's height of rows.

    Args:
        generate: what to do with the windows at one place, one array for each input.
        inputs: what to slide over.
        band_max: reflectance of each band that becomes 1.
        stride: pixels from a window to the next, at most half a window for weights that add up to
            a smooth surface.
        batch_size: windows generated at a time.
        progress: title of a progress bar that counts windows; `None` for no bar.
    Yields:
        Rows, from the top, until all are there.
    Raises:
        ConfigError: an image is smaller than a window, or the stride is larger than one.
    """
    if not 1 <= stride <= IMAGE_SIZE:
        raise ConfigError(f"stride must be from 1 to {IMAGE_SIZE}. Received: stride={stride}.")
    for one in inputs:
        check_size(one)
    height, width = inputs[0].grid[:2]
    rows = sliding_offsets(height, IMAGE_SIZE, stride)
    cols = sliding_offsets(width, IMAGE_SIZE, stride)
    window_weight = _window_weight()
    total: np.ndarray | None = None  # of the rows from the current window's first
    weight = np.zeros((IMAGE_SIZE, width), np.float32)
    with tqdm(
        total=len(rows) * len(cols),
        desc=progress,
        unit="window",
        disable=progress is None,
        mininterval=1.0,
    ) as bar:
        for index, row in enumerate(rows):
            stored = [one.read(row, IMAGE_SIZE) for one in inputs]
            valid = np.logical_and.reduce([(one != NODATA).all(axis=-1) for one in stored])
            images = [to_network(one, band_max) for one in stored]
            filled = [col for col in cols if valid[:, col : col + IMAGE_SIZE].any()]
            for start in range(0, len(filled), batch_size):
                batch = filled[start : start + batch_size]
                crops = [np.stack([one[:, c : c + IMAGE_SIZE] for c in batch]) for one in images]
                generated = np.asarray(generate(*crops), np.float32)
                if total is None:
                    num_outputs, *_, num_bands = generated.shape[1:]
                    total = np.zeros((num_outputs, IMAGE_SIZE, width, num_bands), np.float32)
                for image, col in zip(generated, batch, strict=True):
                    part = slice(col, col + IMAGE_SIZE)
                    total[:, :, part] += image * window_weight[..., None]
                    weight[:, part] += window_weight
            done = (rows[index + 1] if index + 1 < len(rows) else height) - row
            if total is None:  # nothing but missing data so far
                yield BlendedRows(row, np.zeros((0, done, width, 0), np.float32), valid[:done])
            else:
                blended = total[:, :done] / np.maximum(weight[:done], 1e-12)[..., None]
                yield BlendedRows(row, blended, valid[:done])
                total = np.concatenate([total[:, done:], np.zeros_like(total[:, :done])], axis=1)
            weight = np.concatenate([weight[done:], np.zeros_like(weight[:done])])
            bar.update(len(cols))


def read_crops(
    images: Sequence[Path | str | np.ndarray],
    config: ModelConfig,
    at: tuple[int, int] | None = None,
) -> np.ndarray:
    """Reads what lies at one place of several rasters.

    Args:
        images: as `shared_from` in `translate_raster`.
        config: whose bands to read, and how to scale them.
        at: (row, column) of the crop's upper left corner; the middle of the rasters by default.
    Returns:
        `(images, 64, 64, bands)` float32 in [-1, 1].
    Raises:
        MissingError, DataError: as `translate_raster`.
        ConfigError: a raster is smaller than a window, or the crop does not lie in it.
    """
    inputs = [open_strips(image, config.bands) for image in images]
    for other in inputs[1:]:
        check_same_grid(inputs[0], other)
    for one in inputs:
        check_size(one)
    height, width = inputs[0].grid[:2]
    row, col = at or ((height - IMAGE_SIZE) // 2, (width - IMAGE_SIZE) // 2)
    if not (0 <= row <= height - IMAGE_SIZE and 0 <= col <= width - IMAGE_SIZE):
        raise ConfigError(
            f"A crop of {IMAGE_SIZE} x {IMAGE_SIZE} px in {inputs[0].name}, which is {height} x "
            f"{width} px, can begin at rows 0 to {height - IMAGE_SIZE} and columns 0 to "
            f"{width - IMAGE_SIZE}. Received: {row},{col}."
        )
    crops = [one.read(row, IMAGE_SIZE)[:, col : col + IMAGE_SIZE] for one in inputs]
    for one, crop in zip(inputs, crops, strict=True):
        if not crop.any():
            raise DataError(f"{one.name} holds no data at {row},{col}. Name another place.")
    return to_network(np.stack(crops), config.band_max)


def _window_weight() -> np.ndarray:
    """`(64, 64)` float32 above 0; at half a window's stride, the weights of neighbours add to 1."""
    line = np.sin(np.pi * (np.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE) ** 2
    return np.outer(line, line).astype(np.float32)


def _write(
    model: DisentangledSITS,
    generate: Generate,
    images: Sequence[Path | str | np.ndarray],
    outs: Sequence[Path],
    options: dict[str, Any],
) -> None:
    bands, band_max = model.config.bands, model.config.band_max
    inputs = [open_strips(image, bands) for image in images]
    for other in inputs[1:]:
        check_same_grid(inputs[0], other)
    num_valid = 0
    with contextlib.ExitStack() as stack:
        maps = [
            stack.enter_context(
                open_map(Path(out), inputs[0].grid, bands, np.uint16, NODATA, resampling="average")
            )
            for out in outs
        ]
        for row, values, valid in blend_windows(generate, inputs, band_max, **options):
            num_valid += int(valid.sum())
            for index, target in enumerate(maps):
                stored = np.zeros((*valid.shape, len(bands)), np.uint16)
                if len(values):
                    reflectance = reflectance_from_network(values[index], band_max)
                    stored = to_stored(
                        reflectance, np.broadcast_to(valid[..., None], reflectance.shape)
                    )
                target.write(row, stored)
        if not num_valid:
            names = " and ".join(one.name for one in inputs)
            raise DataError(f"{names} hold no pixel with data in all of {', '.join(bands)}.")


def draw_snapshot(
    model: DisentangledSITS,
    rasters: Sequence[Path | str],
    path: Path,
    *,
    samples: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    at: tuple[int, int] | None = None,
) -> Path:
    """Draws 64 x 64 px of the first raster's place at other dates, between the real images.

    Args:
        model: what generates.
        rasters: the place and, unless `samples` are drawn, the date to show it at.
        path: of the PNG.
        samples: dates to draw from N(0, I) in place of the second raster's.
        seed: seed of the draws.
        steps: images from the first raster's date to the second one's, both ends included.
        at: (row, column) of the upper left corner; the middle by default.
    Returns:
        The path.
    Raises:
        MissingError, DataError, ConfigError: see `mosaics.read_crops`.
    """
    crops = read_crops(rasters, model.config, at)
    place = crops[:1]
    if samples:
        images = model.sample(place, samples, seed)[0]
        before, after, titles = [place[0]], [], [f"drawn {i}" for i in range(1, samples + 1)]
    elif steps:
        images = model.interpolate(place, place, crops[1:], steps)[0]
        before, after = [place[0]], [crops[1]]
        titles = [f"{index / (steps - 1):.0%}" for index in range(steps)]
    else:
        images = model.translate(place, crops[1:])
        before, after, titles = [place[0]], [crops[1]], ["translated"]
    names = [Path(one).stem for one in rasters]
    return draw_series(
        [("", np.stack([*before, *np.asarray(images), *after]))],
        [names[0], *titles, *names[1:]],
        path,
        bands=model.config.bands,
        band_max=model.config.band_max,
    )
