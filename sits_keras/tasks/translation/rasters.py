"""Generate rasters of any size from overlapping windows that are blended (section 4.2)."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from sits_keras.config import IMAGE_SIZE, ModelConfig
from sits_keras.data.plausibility import warn_of_pair
from sits_keras.data.radiometry import (
    NODATA,
    has_data,
    reflectance_from_network,
    to_network,
    to_stored,
)
from sits_keras.data.rasters.rows import (
    ImageSource,
    Strips,
    check_same_grid,
    open_strips,
    preview_step,
    thin,
)
from sits_keras.data.rasters.write import open_map
from sits_keras.data.tiling import sliding_offsets
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import check_suffix, refuse_existing
from sits_keras.tasks.pictures import (
    check_picture,
    plot_images,
    plot_series,
    preview_image,
    show_stored,
)
from sits_keras.tasks.window_sums import check_stride
from sits_keras.tasks.windows import check_size

if TYPE_CHECKING:
    from sits_keras.model import DisentangledSITS

Generate = Callable[..., Any]
"""From an array of `(batch, 64, 64, bands)` in [-1, 1] for each input to one of
`(batch, outputs, 64, 64, bands)` in [-1, 1]."""


class BlendedRows(NamedTuple):
    """Some whole rows of generated images.

    Attributes:
        row: First row.
        values: `(outputs, rows, width, bands)` float32 in [-1, 1].
        valid: `(rows, width)` bool, whether every input has data.
    """

    row: int
    values: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]


def translate_raster(
    images: Sequence[ImageSource],
    out: Path | str,
    model: "DisentangledSITS",
    *,
    num_samples: int | None = None,
    num_steps: int | None = None,
    seed: int = 0,
    at: tuple[int, int] | None = None,
    stride: int = IMAGE_SIZE // 2,
    picture: Path | str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> list[Path]:
    """Write the place of one raster at the date of another, at sampled dates, or in between.

    A GeoTIFF is on the grid of the first image: reflectance x 10,000, 0 where there is no data.
    Several of them are named `<out>-1.tif`, `<out>-2.tif`, ... A PNG shows 64 x 64 px and all
    generated images in a row, between the real ones.

    Args:
        images: The image of the place and, unless dates are sampled, that of the date, on one grid:
            paths of rasters, or `(height, width, bands)` arrays of uint16 stored values or float
            reflectance.
        out: Output, `.tif` for the whole raster or `.png` for a crop of 64 x 64 px.
        model: Trained model.
        num_samples: Number of exclusive representations to sample from N(0, I), instead of the
            second image's. One sample serves the whole raster, for its windows are of one date.
        num_steps: Number of images from the first image's date to the second's, both included,
            linear between the exclusive means.
        seed: Seed of the samples.
        at: (row, column) of the upper left pixel of a PNG's crop. By default the middle.
        stride: Distance between windows, in pixels, 1 to 64. Overlapping windows are blended.
        picture: PNG to write as well, with a GeoTIFF only: the images and all outputs, side by
            side.
        overwrite: Overwrite existing files.
        progress: Show a progress bar.

    Returns:
        Paths of the outputs, without the picture.

    Raises:
        ExistsError: If an output exists and `overwrite` is false, or is one of the inputs.
        OutputError: If an output cannot be written.
        MissingError: If a raster does not exist.
        DataError: If a raster cannot be read, lacks a band or has no valid data, or the images are
            on different grids.
        ConfigError: If an argument is out of range or does not apply, or an image is smaller than
            a window.

    Examples:
        >>> model = sits_keras.from_preset("sits_rgbn_small")
        >>> translate_raster(["may.tif", "june.tif"], "may-as-june.tif", model)
        >>> translate_raster(["may.tif"], "sampled.png", model, num_samples=5, at=(200, 300))
    """
    out = Path(out)
    outs = plan_outputs(
        len(images), out, num_samples=num_samples, num_steps=num_steps, at=at, picture=picture
    )
    for one in outs:
        refuse_existing(one, overwrite, [one for one in images if isinstance(one, Path | str)])
    picture = check_picture(picture, overwrite)
    if out.suffix.lower() == ".png":
        plot_crops(
            model, images, out, num_samples=num_samples, seed=seed, num_steps=num_steps, at=at
        )
        return outs
    count = len(outs)
    generate: Generate
    if num_samples:
        generate = lambda place: np.asarray(model.sample(place, count, seed))  # noqa: E731
    elif num_steps:
        generate = lambda place, date: np.asarray(  # noqa: E731
            model.interpolate(place, place, date, count)
        )
    else:
        generate = lambda place, date: np.asarray(model.translate(place, date))[:, None]  # noqa: E731
    previews = _write(model, generate, images, outs, stride, "translate" if progress else None)
    if picture is not None:
        inputs = [open_strips(image, model.config.bands) for image in images]
        shown = [(Path(one.name).name, preview_image(one)) for one in inputs]
        made = [(one.name, show_stored(image, model.config.bands)) for one, image in previews]
        plot_images([shown[0], *made, *shown[1:]], picture, overwrite=overwrite)
    return outs


def plan_outputs(
    num_images: int,
    out: Path,
    *,
    num_samples: int | None = None,
    num_steps: int | None = None,
    at: tuple[int, int] | None = None,
    picture: Path | str | None = None,
) -> list[Path]:
    """Check the options of `translate_raster`, and return the paths of its outputs.

    Args:
        num_images: Number of images given.
        out: See `translate_raster`.
        num_samples: See `translate_raster`.
        num_steps: See `translate_raster`.
        at: See `translate_raster`.
        picture: See `translate_raster`.

    Returns:
        `out`, or `out` with a number each if there are several rasters.

    Raises:
        ConfigError: If an option is out of range or does not apply.
    """
    check_suffix(out, "OUT", ".tif", ".tiff", ".png")
    if num_samples is not None and num_steps is not None:
        raise ConfigError("Expected samples (--samples) or steps (--steps). Received both.")
    for name, value, least in (("num_samples", num_samples, 1), ("num_steps", num_steps, 2)):
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}. Received: {name}={value}.")
    expected = "one image, FROM, with samples" if num_samples else "two images, FROM and TO"
    if num_images != (1 if num_samples else 2):
        raise ConfigError(f"Expected {expected}. Received: {num_images}.")
    if out.suffix.lower() == ".png":
        if picture is not None:
            raise ConfigError(
                f"A picture (--picture) shows a whole raster, and {out} is a picture of a crop. "
                "Write a .tif, or leave out the picture."
            )
        return [out]
    if at is not None:
        raise ConfigError(
            f"A position (--at) selects the crop of a picture, and {out} is a raster. Write a .png."
        )
    count = num_samples or num_steps or 1
    if count == 1:
        return [out]
    digits = len(str(count))
    return [
        out.with_name(f"{out.stem}-{index:0{digits}d}{out.suffix}") for index in range(1, count + 1)
    ]


def blend_windows(
    generate: Generate,
    inputs: Sequence[Strips],
    band_max: Sequence[float],
    *,
    stride: int = IMAGE_SIZE // 2,
    batch_size: int = 64,
    progress: str | None = None,
) -> Iterator[BlendedRows]:
    """Generate every window of images of one size, and blend where windows overlap.

    The weight of a window falls from its centre to its edges as a squared sine, so that no edge
    shows. Memory is bounded: one window height of rows is kept.

    Args:
        generate: Function of the windows at one place, one array for each input.
        inputs: Images to slide over.
        band_max: Reflectance of each band that maps to 1.
        stride: Distance between windows, in pixels, 1 to 64; at most 32 for weights that add up to
            a smooth surface.
        batch_size: Windows generated at a time.
        progress: Title of a progress bar that counts windows, or None for no bar.

    Yields:
        Rows, from the top.

    Raises:
        ConfigError: If an image is smaller than a window, or the stride is out of range.
    """
    check_stride(stride)
    for one in inputs:
        check_size(one)
    height, width = inputs[0].grid[:2]
    rows = sliding_offsets(height, IMAGE_SIZE, stride)
    cols = sliding_offsets(width, IMAGE_SIZE, stride)
    window_weight = _window_weight()
    total: npt.NDArray[np.float32] | None = None  # weighted sums, from the window's first row
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
            valid = np.logical_and.reduce([has_data(one) for one in stored])
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
            if total is None:  # no data so far
                yield BlendedRows(row, np.zeros((0, done, width, 0), np.float32), valid[:done])
            else:
                weights = np.maximum(weight[:done], 1e-12)[..., None]
                blended = (total[:, :done] / weights).astype(np.float32, copy=False)
                yield BlendedRows(row, blended, valid[:done])
                total = np.concatenate([total[:, done:], np.zeros_like(total[:, :done])], axis=1)
            weight = np.concatenate([weight[done:], np.zeros_like(weight[:done])])
            bar.update(len(cols))


def read_crops(
    images: Sequence[ImageSource],
    config: ModelConfig,
    at: tuple[int, int] | None = None,
) -> npt.NDArray[np.float32]:
    """Read the crop at one position of several images.

    Args:
        images: See `translate_raster`.
        config: Configuration of the model: bands to read and their scaling.
        at: (row, column) of the crop's upper left pixel. By default the middle.

    Returns:
        `(images, 64, 64, bands)` float32 in [-1, 1].

    Raises:
        MissingError: See `translate_raster`.
        DataError: See `translate_raster`.
        ConfigError: If an image is smaller than a window, or the crop is not inside it.
    """
    inputs = [open_strips(image, config.bands) for image in images]
    for other in inputs[1:]:
        check_same_grid(inputs[0], other)
    warn_of_pair([(one.name, one.values) for one in inputs])
    for one in inputs:
        check_size(one)
    height, width = inputs[0].grid[:2]
    row, col = at or ((height - IMAGE_SIZE) // 2, (width - IMAGE_SIZE) // 2)
    if not (0 <= row <= height - IMAGE_SIZE and 0 <= col <= width - IMAGE_SIZE):
        raise ConfigError(
            f"The crop is outside {inputs[0].name}, which is {height} x {width} px. Expected a "
            f"position (--at) at rows 0 to {height - IMAGE_SIZE} and columns 0 to "
            f"{width - IMAGE_SIZE}. Received: {row},{col}."
        )
    crops = [one.read(row, IMAGE_SIZE)[:, col : col + IMAGE_SIZE] for one in inputs]
    for one, crop in zip(inputs, crops, strict=True):
        if not crop.any():
            raise DataError(
                f"{one.name} has no data in the crop at {row},{col}. Choose another position "
                "(--at)."
            )
    return to_network(np.stack(crops), config.band_max)


def _window_weight() -> npt.NDArray[np.float32]:
    """Return `(64, 64)` float32 weights above 0, which add to 1 at a stride of 32."""
    line = np.sin(np.pi * (np.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE) ** 2
    return np.outer(line, line).astype(np.float32)


def _write(
    model: "DisentangledSITS",
    generate: Generate,
    images: Sequence[ImageSource],
    outs: Sequence[Path],
    stride: int,
    progress: str | None,
) -> list[tuple[Path, npt.NDArray[np.uint16]]]:
    """Write generated rasters, and return a preview of the stored values of each."""
    bands, band_max = model.config.bands, model.config.band_max
    inputs = [open_strips(image, bands) for image in images]
    for other in inputs[1:]:
        check_same_grid(inputs[0], other)
    warn_of_pair([(one.name, one.values) for one in inputs])
    step = preview_step(*inputs[0].grid[:2])
    previews: list[list[npt.NDArray[np.uint16]]] = [[] for _ in outs]
    num_valid = 0
    with contextlib.ExitStack() as stack:
        maps = [
            stack.enter_context(
                open_map(Path(out), inputs[0].grid, bands, np.uint16, NODATA, resampling="average")
            )
            for out in outs
        ]
        for row, values, valid in blend_windows(
            generate, inputs, band_max, stride=stride, progress=progress
        ):
            num_valid += int(valid.sum())
            for index, target in enumerate(maps):
                stored = np.zeros((*valid.shape, len(bands)), np.uint16)
                if len(values):
                    reflectance = reflectance_from_network(values[index], band_max)
                    stored = to_stored(
                        reflectance, np.broadcast_to(valid[..., None], reflectance.shape)
                    )
                target.write(row, stored)
                previews[index].append(thin([(row, stored)], step))
        if not num_valid:
            names = " and ".join(one.name for one in inputs)
            raise DataError(f"{names} have no pixel with data in all of {', '.join(bands)}.")
    return [(out, np.concatenate(parts)) for out, parts in zip(outs, previews, strict=True)]


def plot_crops(
    model: "DisentangledSITS",
    images: Sequence[ImageSource],
    path: Path,
    *,
    num_samples: int | None = None,
    seed: int = 0,
    num_steps: int | None = None,
    at: tuple[int, int] | None = None,
) -> Path:
    """Plot 64 x 64 px of the first image's place at other dates, between the real images.

    Args:
        model: Model that generates.
        images: The image of the place and, unless dates are sampled, that of the date.
        path: Output PNG.
        num_samples: See `translate_raster`.
        seed: See `translate_raster`.
        num_steps: See `translate_raster`.
        at: See `translate_raster`.

    Returns:
        The path.

    Raises:
        MissingError: See `read_crops`.
        DataError: See `read_crops`.
        ConfigError: See `read_crops`.
    """
    crops = read_crops(images, model.config, at)
    place = crops[:1]
    if num_samples:
        generated = model.sample(place, num_samples, seed)[0]
        before, after, titles = [place[0]], [], [f"sample {i}" for i in range(1, num_samples + 1)]
    elif num_steps:
        generated = model.interpolate(place, place, crops[1:], num_steps)[0]
        before, after = [place[0]], [crops[1]]
        titles = [f"{index / (num_steps - 1):.0%}" for index in range(num_steps)]
    else:
        generated = model.translate(place, crops[1:])
        before, after, titles = [place[0]], [crops[1]], ["translated"]
    names = [Path(one).stem if isinstance(one, Path | str) else "image" for one in images]
    return plot_series(
        [("", np.stack([*before, *np.asarray(generated), *after]))],
        [names[0], *titles, *names[1:]],
        path,
        bands=model.config.bands,
        band_max=model.config.band_max,
    )
