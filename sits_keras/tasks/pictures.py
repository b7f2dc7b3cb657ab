"""Pictures: the paper's figures, and previews of maps beside their images."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.colors
import matplotlib.figure
import matplotlib.patches
import numpy as np

from sits_keras.data.radiometry import DISPLAY_MAX, NODATA, QUANTIFICATION, true_colour
from sits_keras.data.rasters.rows import Strips, open_strips, preview_step, thin
from sits_keras.data.rasters.write import MapClass
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError
from sits_keras.files import check_suffix, refuse_existing, written_aside

_DPI = 110


def plot_translations(
    columns: Sequence[tuple[str, np.ndarray]],
    path: Path,
    *,
    bands: Sequence[str],
    band_max: Sequence[float],
) -> Path:
    """A grid of images, a row for each place (Figure 3).

    Args:
        columns: of each, its title and `(rows, 64, 64, bands)` float in [-1, 1].
        path: of the PNG.
        bands: band names.
        band_max: reflectance of each band that is 1.
    Returns:
        The path.
    Raises:
        ConfigError: the columns are of different length.
    """
    num_rows = len(columns[0][1])
    if any(len(images) != num_rows for _, images in columns):
        raise ConfigError(
            "Every column needs as many images. Received: "
            + ", ".join(f"{title} {len(images)}" for title, images in columns)
        )
    shown = [true_colour(images, bands, band_max) for _, images in columns]
    return _draw_grid(
        [[column[row] for column in shown] for row in range(num_rows)],
        path,
        col_titles=[title for title, _ in columns],
    )


def plot_matrix(
    shared_from: np.ndarray,
    exclusive_from: np.ndarray,
    generated: np.ndarray,
    path: Path,
    *,
    bands: Sequence[str],
    band_max: Sequence[float],
) -> Path:
    """Every place at every date: places down, dates across (Figure 3).

    Args:
        shared_from: `(places, 64, 64, bands)` float in [-1, 1], the first column.
        exclusive_from: `(dates, 64, 64, bands)`, the first row.
        generated: `(places, dates, 64, 64, bands)`, what lies between.
        path: of the PNG.
        bands, band_max: as in `true_colour`.
    Returns:
        The path.
    Raises:
        ConfigError: the three do not fit together.
    """
    if generated.shape[:2] != (len(shared_from), len(exclusive_from)):
        raise ConfigError(
            f"Expected {len(shared_from)} x {len(exclusive_from)} generated images, one for each "
            f"place and date. Received: {' x '.join(map(str, generated.shape[:2]))}."
        )
    places, dates, images = (
        true_colour(values, bands, band_max) for values in (shared_from, exclusive_from, generated)
    )
    rows: list[list[np.ndarray | None]] = [[None, *dates]]
    rows += [[place, *row] for place, row in zip(places, images, strict=True)]
    return _draw_grid(
        rows,
        path,
        col_titles=["place \u2193   date \u2192", *[""] * len(dates)],
        framed=lambda row, col: row == 0 or col == 0,
    )


def plot_series(
    rows: Sequence[tuple[str, np.ndarray]],
    titles: Sequence[str],
    path: Path,
    *,
    bands: Sequence[str],
    band_max: Sequence[float],
) -> Path:
    """Images side by side: a series and what was made of it (Figure 4), samples, steps.

    Args:
        rows: of each, its title and `(images, 64, 64, bands)` float in [-1, 1].
        titles: of the columns, such as dates.
        path: of the PNG.
        bands, band_max: as in `true_colour`.
    Returns:
        The path.
    Raises:
        ConfigError: a row has not as many images as there are titles.
    """
    for title, images in rows:
        if len(images) != len(titles):
            raise ConfigError(
                f"Expected {len(titles)} images, one for each title, in row {title!r}. "
                f"Received: {len(images)}."
            )
    return _draw_grid(
        [list(true_colour(images, bands, band_max)) for _, images in rows],
        path,
        col_titles=titles,
        row_titles=[title for title, _ in rows],
    )


def plot_boxes(images: Sequence[tuple[str, np.ndarray, Sequence[Window]]], path: Path) -> Path:
    """Windows as coloured boxes on images, one colour through all of them (Figure 5).

    Args:
        images: of each, its title, `(height, width, 3)` float in [0, 1], and windows in its
            pixels; the i-th window of every image has one colour.
        path: of the PNG.
    Returns:
        The path.
    """
    largest = max(max(image.shape[:2]) for _, image, _ in images)
    scale = 5.5 / largest  # inches a pixel
    figure = matplotlib.figure.Figure(
        figsize=(
            sum(image.shape[1] for _, image, _ in images) * scale + 0.3,
            max(image.shape[0] for _, image, _ in images) * scale + 0.45,
        ),
        layout="constrained",
    )
    axes = figure.subplots(1, len(images), squeeze=False)[0]
    colours = matplotlib.colormaps["turbo"]
    for axis, (title, image, windows) in zip(axes, images, strict=True):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
        for index, window in enumerate(windows):
            axis.add_patch(
                matplotlib.patches.Rectangle(
                    # A pixel's middle is its whole number; half a line's width stays inside.
                    (window.col - 0.5, window.row - 0.5),
                    window.width,
                    window.height,
                    fill=False,
                    linewidth=1.4,
                    edgecolor=colours(0.1 + 0.85 * index / max(len(windows) - 1, 1)),
                )
            )
    return _save(figure, path)


def _draw_grid(
    images: Sequence[Sequence[np.ndarray | None]],
    path: Path,
    *,
    col_titles: Sequence[str],
    row_titles: Sequence[str] = (),
    framed: Callable[[int, int], bool] = lambda row, col: False,
) -> Path:
    """Draws rows of `(height, width, 3)` pictures, `None` for an empty field."""
    num_rows, num_cols = len(images), len(images[0])
    figure = matplotlib.figure.Figure(
        figsize=(1.7 * num_cols + (0.3 if row_titles else 0), 1.65 * num_rows + 0.4),
        layout="constrained",
    )
    grid = figure.subplots(num_rows, num_cols, squeeze=False)
    for row, pictures in enumerate(images):
        for col, picture in enumerate(pictures):
            axis = grid[row][col]
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if picture is not None:
                axis.imshow(picture, interpolation="nearest")
                if framed(row, col):
                    axis.spines[:].set(visible=True, linewidth=2.5, color="black")
            if row == 0:
                axis.set_title(col_titles[col], fontsize=10)
            if col == 0 and row_titles:
                axis.set_ylabel(row_titles[row], fontsize=8)
    return _save(figure, path)


def _save(figure: matplotlib.figure.Figure, path: Path) -> Path:
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=_DPI, format="png", metadata={"Software": None})
    return path


_ROWS_AT_A_TIME = 512


def preview_image(strips: Strips) -> np.ndarray:
    """Return an image as a picture of at most 800 px a side.

    Args:
        strips: Image to show.

    Returns:
        `(rows, columns, 3)` float in [0, 1], see `show_stored`.
    """
    height, width = strips.grid[:2]
    parts = (
        (row, strips.read(row, min(_ROWS_AT_A_TIME, height - row)))
        for row in range(0, height, _ROWS_AT_A_TIME)
    )
    return show_stored(thin(parts, preview_step(height, width)), strips.bands)


def show_stored(stored: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Return stored values as display colours.

    Args:
        stored: `(height, width, bands)` uint16 stored values.
        bands: Band names.

    Returns:
        `(height, width, 3)` float in [0, 1], white where there is no data: red, green and blue
        where the image has B04, B03 and B02, else its first band in grey.
    """
    colours = ("B04", "B03", "B02")
    named = all(band in bands for band in colours)
    shown = [bands.index(band) for band in colours] if named else [0, 0, 0]
    image = np.clip(stored[..., shown] / (QUANTIFICATION * DISPLAY_MAX), 0, 1)
    return np.where(stored[..., :1] == NODATA, 1.0, image)


def check_picture(picture: Path | str | None, overwrite: bool) -> Path | None:
    """Check that a picture can be written, before the work is done.

    Args:
        picture: PNG to write, or None.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The path, or None.

    Raises:
        ConfigError: If the name does not end in .png.
        ExistsError: If the file exists and `overwrite` is false.
        OutputError: If the file cannot be written.
    """
    if picture is None:
        return None
    picture = Path(picture)
    check_suffix(picture, "picture (--picture)", ".png")
    refuse_existing(picture, overwrite)
    return picture


def plot_images(
    images: Sequence[tuple[str, np.ndarray]], path: Path | str, *, overwrite: bool = False
) -> Path:
    """Write images side by side as a PNG.

    Args:
        images: Title and `(height, width, 3)` float in [0, 1] of each.
        path: Output PNG.
        overwrite: Whether an existing file is replaced.

    Returns:
        The path.

    Raises:
        ExistsError: If `path` exists and `overwrite` is false.
    """
    figure, axes = make_panels(len(images), images[0][1].shape)
    for axis, (title, image) in zip(axes, images, strict=True):
        axis.set_title(title, fontsize=10)
        axis.imshow(image, interpolation="nearest")
    return save_figure(figure, path, overwrite)


def plot_classes(
    image: Path | str | np.ndarray,
    labels: np.ndarray,
    classes: Mapping[int, MapClass],
    path: Path | str,
    *,
    bands: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Draws an image beside its class map, with a legend.

    Args:
        image: a raster's path, or an array.
        labels: every `preview_step`th row and column of the map, uint8.
        classes: what its values stand for; others are white.
        path: of the PNG.
        bands: band names to read; the raster's own by default.
        overwrite: replace a picture that is there.
    Returns:
        The path.
    Raises:
        ExistsError: `path` is there, and not to be replaced.
    """
    shown_image = preview_image(open_strips(image, bands))
    table = np.full((256, 3), 255, np.uint8)
    for value, one in classes.items():
        table[value] = one.colour
    figure, axes = make_panels(2, shown_image.shape)
    for axis, title, shown in (
        (axes[0], "image", shown_image),
        (axes[1], "classes", table[labels]),
    ):
        axis.set_title(title, fontsize=10)
        axis.imshow(shown, interpolation="nearest")
    patches = [
        matplotlib.patches.Patch(color=np.array(one.colour) / 255, label=one.name)
        for value, one in sorted(classes.items())
        if (labels == value).any()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, fontsize=9)
    return save_figure(figure, path, overwrite)


def make_panels(count: int, shape: Sequence[int]) -> tuple[matplotlib.figure.Figure, Sequence[Any]]:
    """Return a figure with `count` panels in a row for images of a shape `(height, width, ...)`."""
    panel = min(4.2, 21.0 / count)
    height = min(max(panel * shape[0] / shape[1], 1.5), 2 * panel)
    figure = matplotlib.figure.Figure(
        figsize=(panel * count + 0.6, height + 0.6), layout="constrained"
    )
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def save_figure(figure: matplotlib.figure.Figure, path: Path | str, overwrite: bool) -> Path:
    """Write a figure as a PNG, whole or not at all.

    Raises:
        ExistsError: If `path` exists and `overwrite` is false.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=110, format="png", bbox_inches="tight")
    return path
