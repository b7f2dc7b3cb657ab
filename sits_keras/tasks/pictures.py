"""Plot the paper's figures, and previews of maps beside their images."""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sits_keras.data.radiometry import DISPLAY_MAX, NODATA, QUANTIFICATION, true_colour
from sits_keras.data.rasters.embeddings import Embeddings
from sits_keras.data.rasters.rows import PREVIEW_SIDE, Strips, open_strips, preview_step, thin
from sits_keras.data.rasters.write import MapClass
from sits_keras.data.tiling import Window, row_blocks
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import check_suffix, refuse_existing, written_aside

if TYPE_CHECKING:
    import matplotlib.figure

_DPI = 110


def plot_translations(
    columns: Sequence[tuple[str, npt.NDArray[Any]]],
    path: Path,
    *,
    bands: Sequence[str],
    band_max: Sequence[float],
) -> Path:
    """Plot a grid of images, a row for each place (Figure 3).

    Args:
        columns: Title and `(rows, 64, 64, bands)` float in [-1, 1] of each column.
        path: Output PNG.
        bands: Band names.
        band_max: Reflectance of each band that is 1.

    Returns:
        The path.

    Raises:
        ConfigError: If the columns have different lengths.
    """
    num_rows = len(columns[0][1])
    if any(len(images) != num_rows for _, images in columns):
        raise ConfigError(
            "The columns have different lengths. Expected equal lengths. Received: "
            + ", ".join(f"{title} {len(images)}" for title, images in columns)
        )
    shown = [true_colour(images, bands, band_max) for _, images in columns]
    return _plot_grid(
        [[column[row] for column in shown] for row in range(num_rows)],
        path,
        col_titles=[title for title, _ in columns],
    )


def plot_matrix(
    shared_from: npt.NDArray[Any],
    exclusive_from: npt.NDArray[Any],
    generated: npt.NDArray[Any],
    path: Path,
    *,
    bands: Sequence[str],
    band_max: Sequence[float],
) -> Path:
    """Plot every place at every date: places down, dates across (Figure 3).

    Args:
        shared_from: `(places, 64, 64, bands)` float in [-1, 1], the first column.
        exclusive_from: `(dates, 64, 64, bands)` float in [-1, 1], the first row.
        generated: `(places, dates, 64, 64, bands)` float in [-1, 1].
        path: Output PNG.
        bands: Band names.
        band_max: Reflectance of each band that is 1.

    Returns:
        The path.

    Raises:
        ConfigError: If the shapes do not match.
    """
    if generated.shape[:2] != (len(shared_from), len(exclusive_from)):
        raise ConfigError(
            f"Expected {len(shared_from)} x {len(exclusive_from)} generated images, one for each "
            f"place and date. Received: {' x '.join(map(str, generated.shape[:2]))}."
        )
    places, dates, images = (
        true_colour(values, bands, band_max) for values in (shared_from, exclusive_from, generated)
    )
    rows: list[list[npt.NDArray[Any] | None]] = [[None, *dates]]
    rows += [[place, *row] for place, row in zip(places, images, strict=True)]
    return _plot_grid(
        rows,
        path,
        col_titles=["place \u2193   date \u2192", *[""] * len(dates)],
        is_framed=lambda row, col: row == 0 or col == 0,
    )


def plot_series(
    rows: Sequence[tuple[str, npt.NDArray[Any]]],
    titles: Sequence[str],
    path: Path,
    *,
    bands: Sequence[str],
    band_max: Sequence[float],
) -> Path:
    """Plot rows of images: a series and its reconstruction (Figure 4), samples, or steps.

    Args:
        rows: Title and `(images, 64, 64, bands)` float in [-1, 1] of each row.
        titles: Titles of the columns, such as dates.
        path: Output PNG.
        bands: Band names.
        band_max: Reflectance of each band that is 1.

    Returns:
        The path.

    Raises:
        ConfigError: If a row and the titles have different lengths.
    """
    for title, images in rows:
        if len(images) != len(titles):
            raise ConfigError(
                f"Expected {len(titles)} images, one for each title, in row {title!r}. "
                f"Received: {len(images)}."
            )
    return _plot_grid(
        [list(true_colour(images, bands, band_max)) for _, images in rows],
        path,
        col_titles=titles,
        row_titles=[title for title, _ in rows],
    )


def plot_boxes(
    images: Sequence[tuple[str, npt.NDArray[Any], Sequence[Window]]], path: Path
) -> Path:
    """Plot windows as coloured boxes on images, in the same colours on all of them (Figure 5).

    Args:
        images: Title, `(height, width, 3)` float in [0, 1], and windows in pixels of each image.
            The i-th window of every image has the same colour.
        path: Output PNG.

    Returns:
        The path.
    """
    largest = max(max(image.shape[:2]) for _, image, _ in images)
    scale = 5.5 / largest  # inches per pixel
    figure = _matplotlib().figure.Figure(
        figsize=(
            sum(image.shape[1] for _, image, _ in images) * scale + 0.3,
            max(image.shape[0] for _, image, _ in images) * scale + 0.45,
        ),
        layout="constrained",
    )
    axes = figure.subplots(1, len(images), squeeze=False)[0]
    colours = _matplotlib().colormaps["turbo"]
    for axis, (title, image, windows) in zip(axes, images, strict=True):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
        for index, window in enumerate(windows):
            axis.add_patch(
                _matplotlib().patches.Rectangle(
                    # Integers are pixel centres in imshow.
                    (window.col - 0.5, window.row - 0.5),
                    window.width,
                    window.height,
                    fill=False,
                    linewidth=1.4,
                    edgecolor=colours(0.1 + 0.85 * index / max(len(windows) - 1, 1)),
                )
            )
    return _save(figure, path)


def _plot_grid(
    images: Sequence[Sequence[npt.NDArray[Any] | None]],
    path: Path,
    *,
    col_titles: Sequence[str],
    row_titles: Sequence[str] = (),
    is_framed: Callable[[int, int], bool] = lambda row, col: False,
) -> Path:
    """Plot rows of `(height, width, 3)` images, None for an empty cell."""
    num_rows, num_cols = len(images), len(images[0])
    figure = _matplotlib().figure.Figure(
        # Rounded, for Matplotlib 3.8 cuts off a pixel where a product is a trifle too small.
        figsize=(
            round(1.7 * num_cols + (0.3 if row_titles else 0), 2),
            round(1.65 * num_rows + 0.4, 2),
        ),
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
                if is_framed(row, col):
                    axis.spines[:].set(visible=True, linewidth=2.5, color="black")
            if row == 0:
                axis.set_title(col_titles[col], fontsize=10)
            if col == 0 and row_titles:
                axis.set_ylabel(row_titles[row], fontsize=8)
    return _save(figure, path)


def _matplotlib() -> Any:
    """Import Matplotlib when something is plotted, because most maps are written alone."""
    import matplotlib.figure
    import matplotlib.patches

    return matplotlib


def _save(figure: "matplotlib.figure.Figure", path: Path) -> Path:
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=_DPI, format="png", metadata={"Software": None})
    return path


_ROWS_AT_A_TIME = 512


def preview_image(strips: Strips) -> npt.NDArray[np.float64]:
    """Return an image as a picture of at most 800 px a side.

    Args:
        strips: Image to show.

    Returns:
        `(rows, columns, 3)` float in [0, 1], see `show_stored`.
    """
    height, width = strips.grid[:2]
    parts = (
        (row, strips.read(row, num_rows)) for row, num_rows in row_blocks(height, _ROWS_AT_A_TIME)
    )
    return show_stored(thin(parts, preview_step(height, width)), strips.bands)


def show_stored(stored: npt.NDArray[np.uint16], bands: Sequence[str]) -> npt.NDArray[np.float64]:
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


class PrincipalColours:
    """First three principal components of vectors as red, green and blue.

    The same vectors give the same colours: components are in the order of their variance, and the
    largest number of each axis is positive. Each component runs from its 2nd to its 98th
    percentile.

    Args:
        samples: `(samples, num_features)` vectors without NaN, at least one.

    Attributes:
        explained: `(3,)` fraction of the variance in each component; fewer for fewer features.
    """

    def __init__(self, samples: npt.NDArray[np.floating]):
        values = samples.astype(np.float64)
        self._mean = values.mean(axis=0)
        values -= self._mean
        variances, vectors = np.linalg.eigh(values.T @ values)
        axes = vectors[:, ::-1][:, :3]
        largest = axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])]
        self._axes = axes * np.where(largest < 0, -1, 1)
        self.explained = variances[::-1][:3] / max(variances.sum(), np.finfo(np.float64).tiny)
        self._low, high = np.percentile(values @ self._axes, (2, 98), axis=0)
        self._range = np.where(high > self._low, high - self._low, 1)

    def __call__(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return colours.

        Args:
            vectors: `(..., num_features)`, NaN where there is no data.

        Returns:
            `(..., 3)` float in [0, 1], white where there is no data. Components that vectors of
            fewer than three numbers do not have are 0.5.
        """
        known = np.isfinite(vectors[..., 0])
        image = np.ones((*known.shape, 3))
        values = (vectors[known] - self._mean) @ self._axes
        image[known] = 0.5
        image[known, : values.shape[1]] = np.clip((values - self._low) / self._range, 0, 1)
        return image


def fit_colours(embeddings: Embeddings) -> tuple[PrincipalColours, npt.NDArray[np.float64]]:
    """Compute the principal components of embeddings as colours.

    Args:
        embeddings: Embeddings to show.

    Returns:
        The colours, computed on every n-th cell, and a picture of at most 800 px a side in these
        colours, `(rows, columns, 3)` float in [0, 1].

    Raises:
        DataError: If no cell has data, or a file cannot be read.
    """
    vectors = embeddings.thinned(PREVIEW_SIDE)
    samples = vectors[np.isfinite(vectors[..., 0])]
    if not len(samples):
        raise DataError(f"{embeddings.name} has no data: every pixel is nodata.")
    colours = PrincipalColours(samples)
    return colours, colours(vectors)


def apply_colormap(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return quantities as colours from dark to bright.

    Args:
        values: Float in [0, 1], NaN where there is no data.

    Returns:
        `(..., 3)` float in [0, 1], white where there is no data.
    """
    colours = np.asarray(_matplotlib().colormaps["viridis"](np.nan_to_num(values)))[..., :3]
    return np.where(np.isfinite(values)[..., None], colours, 1.0)


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
    images: Sequence[tuple[str, npt.NDArray[Any]]], path: Path | str, *, overwrite: bool = False
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
    image: Path | str | npt.NDArray[Any] | Strips,
    labels: npt.NDArray[np.uint8],
    classes: Mapping[int, MapClass],
    path: Path | str,
    *,
    bands: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Plot an image beside its class map, with a legend.

    Args:
        image: Path of a raster, a `(height, width, bands)` array, or an image that is open.
        labels: Every `preview_step`-th row and column of the map, uint8.
        classes: Names and colours of its values. Other values are white.
        path: Output PNG.
        bands: Band names to read. By default those of the raster.
        overwrite: Overwrite an existing file.

    Returns:
        The path.

    Raises:
        ExistsError: If `path` exists and `overwrite` is false.
    """
    if isinstance(image, Path | str | np.ndarray):
        shown_image = preview_image(open_strips(image, bands))
    else:
        shown_image = preview_image(copy.deepcopy(image))
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
        _matplotlib().patches.Patch(color=np.array(one.colour) / 255, label=one.name)
        for value, one in sorted(classes.items())
        if (labels == value).any()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=2, fontsize=8)
    return save_figure(figure, path, overwrite)


def make_panels(
    count: int, shape: Sequence[int]
) -> "tuple[matplotlib.figure.Figure, Sequence[Any]]":
    """Create a figure with panels in a row.

    Args:
        count: Number of panels.
        shape: `(height, width, ...)` of the images.

    Returns:
        The figure and its axes.
    """
    panel = min(4.2, 21.0 / count)
    height = min(max(panel * shape[0] / shape[1], 1.5), 2 * panel)
    figure = _matplotlib().figure.Figure(
        figsize=(panel * count + 0.6, height + 0.6), layout="constrained"
    )
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def save_figure(figure: "matplotlib.figure.Figure", path: Path | str, overwrite: bool) -> Path:
    """Write a figure as a PNG, whole or not at all.

    Args:
        figure: Figure to write.
        path: Output PNG.
        overwrite: Overwrite an existing file.

    Returns:
        The path.

    Raises:
        ExistsError: If `path` exists and `overwrite` is false.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=110, format="png", bbox_inches="tight")
    return path
