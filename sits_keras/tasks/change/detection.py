"""Detect change between two dates by their exclusive representations (section 4.6)."""

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.data.execution import runner_in_order
from sits_keras.data.plausibility import warn_of_pair
from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.preparation.screening import find_masks
from sits_keras.data.radiometry import NODATA
from sits_keras.data.rasters.read import read_info
from sits_keras.data.rasters.rows import (
    CommonStrips,
    ImageSource,
    Strips,
    check_same_grid,
    open_strips,
)
from sits_keras.data.rasters.write import open_map
from sits_keras.data.sources.folders import find_mask, named_mask
from sits_keras.data.sources.granules import Granule
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import refuse_existing
from sits_keras.tasks.window_sums import check_stride, sum_over_windows
from sits_keras.tasks.windows import (
    Encoder,
    Mode,
    check_size,
    is_dense,
    iterate_windows,
)

BANDS = ("distance", "changed")
"""Bands of a written map."""

_NUM_BINS = 512  # bins of the histogram for Otsu's threshold


class WindowDistances(NamedTuple):
    """Distance between two images for each window.

    Attributes:
        rows: `(rows,)` int, first row of the windows.
        cols: `(cols,)` int, first column of the windows.
        distances: `(rows, cols)` float64, 0 where there is no data.
        weights: `(rows, cols)` float64, fraction of a window's pixels with data in both images.
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


class ChangeMap(NamedTuple):
    """Change of each pixel.

    Attributes:
        distance: `(height, width)` float32, NaN where either image has no data.
        changed: `(height, width)` bool, whether the distance is above the threshold.
    """

    distance: npt.NDArray[np.float32]
    changed: npt.NDArray[np.bool_]


class ImagePair(NamedTuple):
    """Two images of the same pixels; each lacks data where the other does.

    Attributes:
        before: The earlier image.
        after: The later image.
    """

    before: CommonStrips
    after: CommonStrips

    def valid(self, row: int, num_rows: int) -> npt.NDArray[np.bool_]:
        """Return which pixels of some rows have data in both images, `(num_rows, width)` bool."""
        return self.before.valid(row, num_rows)


class _ClearStrips:
    """Raster without the pixels that its cloud mask marks as cloud or shadow."""

    def __init__(self, image: Strips, granule: Granule):
        self.name, self.grid, self.bands = image.name, image.grid, image.bands
        self.is_raster = image.is_raster
        self.values = image.values
        self._image, self._granule = image, granule
        self._clear: tuple[tuple[int, int], npt.NDArray[np.bool_]] | None = None
        with GranuleReader(granule, self.bands) as reader:
            reader.check_mask()

    def read(self, row: int, num_rows: int) -> npt.NDArray[np.uint16]:
        """Read some rows; see `Strips`."""
        rows = self._image.read(row, num_rows)
        key = row, num_rows
        if self._clear is None or self._clear[0] != key:
            with GranuleReader(self._granule, self.bands) as reader:
                cloudy = reader.cloudy(Window(row, 0, num_rows, self.grid.width))
            self._clear = key, np.ones(rows.shape[:2], bool) if cloudy is None else ~cloudy
        return np.where(self._clear[1][..., None], rows, NODATA)


def _without_clouds(image: ImageSource, strips: Strips, mask: Path | str | None) -> Strips:
    """Return an image without cloudy pixels, by a given mask or by the image's own."""
    if isinstance(image, np.ndarray):
        if mask is not None:
            raise ConfigError(
                f"The cloud mask {mask} is for an array. Expected a raster. Set cloudy pixels of "
                "the array to 0, or to NaN."
            )
        return strips
    path = Path(image)
    found = find_mask(path) if mask is None else named_mask(Path(mask))
    if found is None and not find_masks(read_info(path).bands)[0]:
        return strips
    day = datetime.date.min  # of no importance here
    return _ClearStrips(strips, Granule(day, str(path), {}, image=str(path), mask=found))


def open_pair(
    before: ImageSource,
    after: ImageSource,
    bands: Sequence[str] | None = None,
    *,
    clouds: Sequence[Path | str] = (),
    any_size: bool = False,
) -> ImagePair:
    """Open two images of the same pixels, without cloud and shadow.

    Args:
        before: The earlier image, see `data.rasters.rows.open_strips`.
        after: The later image.
        bands: Band names to read. By default those of `before`.
        clouds: Cloud masks of the earlier and of the later image, or one for both, on their grid or
            a coarser one. The end of a name states the kind: `SCL`, `QA60` or `MSK_CLASSI`; any
            other raster is not 0 where there is cloud. By default, a mask of that name beside an
            image (`2020-06-01_SCL.tif` or `2020-06-01_cloud.tif` beside `2020-06-01.tif`) is used,
            and a mask among its bands.
        any_size: Accept images that are smaller than a window.

    Raises:
        MissingError: If a raster does not exist.
        DataError: If a raster cannot be read or lacks a band, the two differ in size, CRS or
            transform, or a mask does not fit its image.
        ConfigError: If the images are smaller than a window, or there are more than two masks.
    """
    if len(clouds) > 2:
        raise ConfigError(
            f"Expected cloud masks of the earlier and of the later image. Received: {len(clouds)}."
        )
    first = open_strips(before, bands)
    second = open_strips(after, first.bands if bands is None else bands)
    check_same_grid(first, second)
    warn_of_pair([(one.name, one.values) for one in (first, second)])
    masks: list[Path | str | None] = [*clouds] or [None]
    first = _without_clouds(before, first, masks[0])
    second = _without_clouds(after, second, masks[-1])
    if not any_size:
        check_size(first)
    return ImagePair(CommonStrips(first, [second]), CommonStrips(second, [first]))


def window_distances(
    pair: ImagePair,
    encoder: Encoder,
    stride: int,
    *,
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool = False,
) -> WindowDistances:
    """Return L1 distances between the features of two images, for each window of both.

    Args:
        pair: The two images.
        encoder: See `detect_change`.
        stride: See `detect_change`.
        mode: See `detect_change`.
        workers: See `detect_change`.
        scheduler: See `detect_change`.
        progress: See `detect_change`.

    Raises:
        ConfigError: If the stride is not in [1, 64], or the encoder does not support dense mode
            although it is required.
        DataError: If no pixel has data in both images.
    """
    check_stride(stride)
    is_dense(encoder, stride, mode)
    with runner_in_order(workers, scheduler) as run:
        found = [
            (one.row, one.cols, np.nan_to_num(one.features), one.valid_fraction)
            for one in iterate_windows(
                encoder,
                pair,
                stride,
                reduce=_l1_distance,
                mode=mode,
                run=run,
                progress="encode" if progress else None,
            )
        ]
    rows, cols, distances, weights = zip(*found, strict=True)
    if not np.any(weights):
        raise no_common_pixel(pair)
    return WindowDistances(
        np.array(rows), cols[0], np.stack(distances), np.stack(weights).astype(np.float64)
    )


def no_common_pixel(pair: ImagePair) -> DataError:
    """Return the error for two images without a pixel that has data in both."""
    return DataError(
        f"{pair.before.name} and {pair.after.name} have no pixel with data in both. "
        "Expected two dates that overlap."
    )


def pixel_distances(
    pair: ImagePair, windows: WindowDistances
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Yield the mean distance of the windows that cover each pixel, some rows at a time.

    A window is weighted by its valid-data fraction.

    Args:
        pair: The two images.
        windows: Distance of each window.

    Yields:
        First row, and `(rows, width)` float32, NaN where either image has no data.
    """
    values = np.stack([windows.distances * windows.weights, windows.weights], axis=-1)
    height, width = pair.before.grid[:2]
    by_row = ((int(row), windows.cols, one) for row, one in zip(windows.rows, values, strict=True))
    for part in sum_over_windows(by_row, height, width):
        weighted, weight = part.sums.T
        means = np.divide(weighted, weight, out=np.zeros(len(weight)), where=weight > 0)
        valid = pair.valid(part.row, part.num_rows)
        yield part.row, np.where(valid, part.spread(means.astype(np.float32)), np.float32(np.nan))


def otsu_threshold(counts: npt.NDArray[Any], edges: npt.NDArray[Any]) -> float:
    """Return the threshold that best separates a histogram into two parts (Otsu, 1979).

    It maximises the variance between the parts. Of equally good edges, as in an empty stretch
    between two peaks, it is the middle one.

    Args:
        counts: `(bins,)` counts.
        edges: `(bins + 1,)` ascending edges.

    Returns:
        An edge between two bins.
    """
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sum_below = np.cumsum(counts * centres)[:-1]
    sum_above = (counts * centres).sum() - sum_below
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = below * above * (sum_below / below - sum_above / above) ** 2
    variance = np.nan_to_num(variance)
    best = np.flatnonzero(variance >= variance.max() * (1 - 1e-9))
    return float(edges[1 + best[len(best) // 2]])


def check_threshold(threshold: float | Literal["auto"]) -> float | None:
    """Return a given threshold, None for "auto".

    Raises:
        ConfigError: If it is neither "auto" nor a number of at least 0.
    """
    if threshold == "auto":
        return None
    if not isinstance(threshold, int | float) or not 0 <= threshold < np.inf:
        raise ConfigError(
            f"The threshold must be 'auto' or a number of at least 0. Received: {threshold!r}."
        )
    return float(threshold)


class Change:
    """Change between two images. Pixels are computed on demand.

    Args:
        pair: The two images.
        windows: Distance of each window.
        stride: Distance between windows, in pixels.
        threshold: Distance above which a pixel has changed, or None for Otsu's threshold.

    Attributes:
        pair: The two images.
        windows: Distance of each window.
        stride: Distance between windows, in pixels.
        threshold: Distance above which a pixel has changed.
    """

    bands: tuple[str, ...] = BANDS

    def __init__(
        self, pair: ImagePair, windows: WindowDistances, stride: int, threshold: float | None
    ):
        self.pair = pair
        self.windows = windows
        self.stride = stride
        self.threshold = self._otsu() if threshold is None else threshold

    def rows(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield the first of some rows and their distances, see `pixel_distances`."""
        return pixel_distances(self.pair, self.windows)

    def map(self) -> ChangeMap:
        """Return the whole map, in memory."""
        distance = np.concatenate([part for _, part in self.rows()])
        return ChangeMap(distance, distance > self.threshold)

    def write(self, path: Path | str, *, overwrite: bool = False) -> float:
        """Write the map as a cloud-optimised GeoTIFF, in bounded memory.

        Band 1 is the distance, band 2 is 1 where it is above the threshold and else 0. Both are
        float32, NaN where either image has no data.

        Args:
            path: Output GeoTIFF.
            overwrite: Overwrite an existing file.

        Returns:
            Fraction of the pixels with data that changed.

        Raises:
            ExistsError: If `path` exists and `overwrite` is false, or is one of the images.
            OutputError: If `path` cannot be written.
        """
        path = Path(path)
        images = [one.name for one in self.pair if one.is_raster]
        refuse_existing(path, overwrite, images)
        num_valid = num_changed = 0
        grid, tags = self.pair.before.grid, self.tags()
        with open_map(path, grid, self.bands, "float32", np.nan, tags=tags) as target:
            for row, distance in self.rows():
                target.write(row, self.values(distance))
                num_valid += int(np.isfinite(distance).sum())
                num_changed += int((distance > self.threshold).sum())
        return num_changed / num_valid

    def tags(self) -> dict[str, str]:
        """Return the metadata of a written map."""
        return {"stride": str(self.stride), "threshold": repr(self.threshold)}

    def values(self, distance: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the bands of a written map, `(rows, width, bands)`, for some rows of distances."""
        changed = np.where(np.isfinite(distance), distance > self.threshold, np.nan)
        return np.stack([distance, changed], axis=-1).astype(np.float32)

    def _otsu(self) -> float:
        # Pixel distances are means of window distances, so they are within this range.
        known = self.windows.distances[self.windows.weights > 0]
        edges = np.linspace(known.min(), known.max(), _NUM_BINS + 1)
        if edges[0] == edges[-1]:
            return float(edges[-1])
        counts = np.zeros(_NUM_BINS, np.int64)
        for _, distance in self.rows():
            inside = np.clip(distance[np.isfinite(distance)], edges[0], edges[-1])
            counts += np.histogram(inside, edges)[0]
        return otsu_threshold(counts, edges)


def detect_change(
    before: ImageSource,
    after: ImageSource,
    encoder: Encoder,
    *,
    stride: int = 32,
    threshold: float | Literal["auto"] = "auto",
    bands: Sequence[str] | None = None,
    clouds: Sequence[Path | str] = (),
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool = False,
) -> Change:
    """Detect change between two images of any size, in bounded memory.

    The distance of a window is the L1 distance of its features in the two images. The distance of a
    pixel is the mean over all windows that cover it.

    Args:
        before: The earlier image: path of a raster, or a `(height, width, bands)` array of uint16
            stored values or float reflectance.
        after: The later image, on the same grid.
        encoder: Encoder to apply to each window, such as the exclusive encoder.
        stride: Distance between windows, in pixels, 1 to 64. The paper uses 32.
        threshold: Distance above which a pixel has changed, or "auto" for Otsu's threshold on the
            histogram of pixel distances.
        bands: Band names of the encoder. By default those that it states.
        clouds: Cloud masks, see `open_pair`.
        mode: "exact" or "dense". By default dense where the encoder supports it at this stride.
        workers: Processes that encode windows. With more than 1 the encoder must be picklable.
        scheduler: Address of a Dask scheduler to use instead of processes.
        progress: Show a progress bar.

    Returns:
        The change: `map()` returns it as arrays, `write(path)` writes it.

    Raises:
        MissingError: If a raster does not exist.
        DataError: If a raster cannot be read or lacks a band, the images are on different grids, or
            no pixel has data in both.
        ConfigError: If the images are smaller than a window, an argument is out of range, or the
            encoder does not support dense mode although it is required.

    Examples:
        >>> change = detect_change("2020.tif", "2021.tif", exclusive_encoder, stride=8)
        >>> change.threshold = 1.5
        >>> change.write("change.tif")
    """
    limit = check_threshold(threshold)
    pair = open_pair(before, after, bands or getattr(encoder, "bands", None), clouds=clouds)
    windows = window_distances(
        pair,
        encoder,
        stride,
        mode=mode,
        workers=workers,
        scheduler=scheduler,
        progress=progress,
    )
    return Change(pair, windows, stride, limit)


def _l1_distance(
    before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return the L1 distance of features, `(windows,)` float64; a `Reduce`."""
    distances: npt.NDArray[np.float64] = np.abs(before - after).sum(axis=1, dtype=np.float64)
    return distances
