"""Change of each pixel between two dates, from layers of an encoder or from the bands.

The difference that a whole scene has in common is its season, its light and its haze. The bands are
therefore compared by multivariate alteration detection (IR-MAD), which predicts each date from the
other, and channels of layers are centred on the scene's median difference and scaled by its
deviation (1.4826 times the median absolute deviation). Scenes are processed in tiles and in blocks
of rows; results between two passes are kept in temporary files.
"""

import copy
import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.tiling import Window, row_blocks
from sits_keras.errors import ConfigError, DataError
from sits_keras.hub import HubEncoder
from sits_keras.hub.layers import LayerEncoder
from sits_keras.tasks.change.detection import Change, ImagePair, no_common_pixel, otsu_threshold
from sits_keras.tasks.layers import TILE_SIDE, LayerTile, iterate_tiles, open_layers
from sits_keras.tasks.translation.rasters import blend_windows

if TYPE_CHECKING:
    from sits_keras.model import DisentangledSITS

Floats = npt.NDArray[np.float32]
PixelMethod = Literal["layers", "pixels", "irmad", "irmad smoothed"]

_ROWS = 256  # in memory at once
_MAX_SAMPLES = 200_000  # pixels that statistics are computed on
_SAMPLE_TILE = 256  # px, of large scenes
_WIDE = 4096  # px; rows of tiles of both images are in memory, so tiles of wider images are smaller
_MAX_TILES = 64  # of these
_CLIP = 8.0  # deviations; more is an artefact or a certain change
_NUM_BINS = 512

_LAYERS = (1, 3)
_PIXEL_SIGMA = 2.0  # px
_IMAGE_SIGMA = 1.0  # px, of the images that variates are computed of
_RARE_KURTOSIS = (8.0, 12.0)
_EXTENT = (0.45, 0.65)
_COMPACTNESS = 8  # power: the least ragged map has most of the weight
_IRMAD_ROUNDS = 10
# Thresholds where change is common and where it is rare, in 99th percentiles above the median.
_THRESHOLDS = (0.4, 0.65)


class Calibration(NamedTuple):
    """Distances of the pixels of a scene without change, estimated from their lower half.

    Attributes:
        quantiles: `(1001,)` float64 distances that 0 to 100 % of the pixels do not exceed.
        log_mean: Mean of the logarithm of distances without change.
        log_deviation: Its standard deviation.
    """

    quantiles: npt.NDArray[np.float64]
    log_mean: float
    log_deviation: float

    def percentile(self, distance: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the percentage of the scene's pixels below some distances."""
        index = np.interp(distance, self.quantiles, np.linspace(0, 100, len(self.quantiles)))
        return np.asarray(index, np.float64)

    def false_alarm_rate(self, distance: float) -> float:
        """Return the estimated fraction of the unchanged pixels above a distance."""
        from scipy.stats import norm

        if distance <= 0:
            return 1.0
        return float(norm.sf((np.log(distance) - self.log_mean) / self.log_deviation))


def calibrate(distances: npt.NDArray[np.floating[Any]]) -> Calibration:
    """Fit the distances of unchanged pixels to a log-normal distribution.

    More than half of a scene is taken to be unchanged, so the median and the 16th percentile
    are those of a distribution whose upper half is hidden by the change.

    Args:
        distances: `(pixels,)` positive distances.
    """
    quantiles = np.quantile(distances, np.linspace(0, 1, 1001)).astype(np.float64)
    low, middle = np.log(np.maximum(np.quantile(distances, (0.16, 0.5)), 1e-12))
    return Calibration(quantiles, float(middle), float(max(middle - low, 1e-6)))


class PixelChange(Change):
    """Change between two images at pixel resolution. Pixels are read from temporary files.

    Args:
        pair: The two images.
        method: Name of the method.
        score: Distance of some rows, from the first row and the number of rows.
        threshold: Distance above which a pixel has changed, or None for Otsu's threshold.

    Attributes:
        method: Name of the method.
        score: Function of the distances of some rows.
        calibration: Distances of unchanged pixels.
    """

    bands = ("distance", "changed", "percentile")

    def __init__(
        self,
        pair: ImagePair,
        method: str,
        score: Callable[[int, int], Floats],
        threshold: float | None,
    ):
        self.pair = pair
        self.method = method
        self.score = score
        samples = _samples(pair, score)
        self.calibration = calibrate(samples)
        self.threshold = _otsu(samples) if threshold is None else threshold

    def rows(self) -> Iterator[tuple[int, Floats]]:
        """Yield the first of some rows, and `(rows, width)` float32 distances, NaN without data."""
        for row, num_rows in _blocks(self.pair):
            valid = self.pair.valid(row, num_rows)
            yield row, np.where(valid, self.score(row, num_rows), np.float32(np.nan))

    def tags(self) -> dict[str, str]:
        """Return the metadata of a written map."""
        return {
            "method": self.method,
            "threshold": repr(self.threshold),
            "false_alarm_rate": f"{self.calibration.false_alarm_rate(self.threshold):.4g}",
        }

    def values(self, distance: Floats) -> npt.NDArray[np.float32]:
        """Return the bands of a written map, `(rows, width, 3)`."""
        percentile = self.calibration.percentile(distance)
        both = super().values(distance)
        percentile = np.where(np.isfinite(distance), percentile, np.nan)
        return np.concatenate([both, percentile[..., None]], axis=-1).astype(np.float32)


def detect_pixel_change(
    pair: ImagePair,
    method: PixelMethod = "layers",
    encoders: Sequence[HubEncoder] = (),
    *,
    threshold: float | None = None,
    progress: bool = False,
) -> PixelChange:
    """Detect change between two images of any size at pixel resolution, in bounded memory.

    `layers` begins with IR-MAD of both images, smoothed by 1 px: the distance of its variates,
    smoothed by 2 px. If few pixels stand out from all others (a kurtosis of the distances of the
    layers above 8 to 12), change is rare and of many kinds: the centred differences of layers 1 and
    3 of the encoders and of the bands are added, with the same weight. Else change is common, and
    mostly of one kind: two linear discriminants between the 5 % most different and the 60 % least
    different pixels are candidates as well, fitted to the signed variates and to the centred
    differences of the smoothed images. The candidate whose regions are most compact has most of the
    weight. Distances are in units of their 99th percentile above the median. No part uses a mask.

    `pixels` is the mean of the bands' centred absolute differences, smoothed by 2 px. `irmad` is
    the iteratively reweighted multivariate alteration detection of Nielsen (2007); `irmad smoothed`
    smooths it as `pixels`.

    Args:
        pair: The two images.
        method: "layers", "pixels", "irmad" or "irmad smoothed".
        encoders: Encoders for "layers": usually the shared one.
        threshold: Distance above which a pixel has changed, or None for the automatic one: 0.4 to
            0.65 for "layers", higher where change is rarer, and Otsu's for the others.
        progress: Show a progress bar.

    Raises:
        ConfigError: If there is no such method, or an encoder has no layers.
        DataError: If fewer than 20 pixels have data in both images.
    """
    if method not in get_args(PixelMethod):
        names = ", ".join(map(repr, get_args(PixelMethod)))
        raise ConfigError(f"method must be one of {names}. Received: {method!r}.")
    if method in ("irmad", "irmad smoothed"):
        plain, smoothed = irmad_changes(pair, threshold=threshold)
        return plain if method == "irmad" else smoothed
    difference = _centred_difference(pair, functools.partial(_reflectance, pair))

    def strength(row: int, num_rows: int) -> Floats:
        mean: Floats = np.abs(difference(row, num_rows)).mean(axis=-1)
        return mean

    pixels = _Smoothed(pair, strength, _PIXEL_SIGMA).store()
    if method == "pixels":
        return PixelChange(pair, method, pixels.read, threshold)
    layers = _layer_distances(pair, encoders, progress)
    unit = float(max(np.median(_samples(pair, pixels.read)), 1e-6))

    def total(row: int, num_rows: int) -> Floats:
        return layers.read(row, num_rows) + pixels.read(row, num_rows) / unit

    rare = _ramp(_kurtosis(_samples(pair, total)), _RARE_KURTOSIS)
    variates = smooth_variates(pair)
    altered, direction = _altered(pair, variates)
    parts = [(rare / 2, altered)]
    if rare > 0:
        sigma = 1 + 2 * _extent(pair, strength)
        parts.append((rare / 2, _Smoothed(pair, total, sigma).store()))
    if rare < 1:
        smooth = _centred_difference(pair, functools.partial(_smooth_reflectance, pair))
        candidates = [
            altered,
            _along(pair, variates, direction),
            _along(pair, smooth, _altered(pair, smooth)[1]),
        ]
        ragged = np.array([max(_raggedness(pair, one), 1e-3) for one in candidates])
        weights = (ragged / ragged.min()) ** -_COMPACTNESS
        weights *= (1 - rare) / weights.sum()
        parts += zip(weights.tolist(), candidates, strict=True)
    scaled_parts = [(weight, _Scale(_samples(pair, one.read)), one) for weight, one in parts]

    def score(row: int, num_rows: int) -> Floats:
        found = [weight * scale(one.read(row, num_rows)) for weight, scale, one in scaled_parts]
        return _positive(np.sum(found, axis=0))

    if threshold is None:
        threshold = float(np.interp(rare, (0, 1), _THRESHOLDS))
    return PixelChange(pair, method, score, threshold)


def irmad_changes(
    pair: ImagePair, *, threshold: float | None = None
) -> tuple[PixelChange, PixelChange]:
    """Return the changes of `irmad` and of `irmad smoothed`, which is fitted once.

    Args:
        pair: See `detect_pixel_change`.
        threshold: See `detect_pixel_change`.

    Raises:
        DataError: See `detect_pixel_change`.
    """
    variates = _irmad(pair, lambda row, num_rows: _reflectance(pair, row, num_rows))
    plain = RowStore.filled(pair, lambda row, num_rows: _length(variates(row, num_rows)))
    smoothed = _Smoothed(pair, plain.read, _PIXEL_SIGMA).store()
    return (
        PixelChange(pair, "irmad", plain.read, threshold),
        PixelChange(pair, "irmad smoothed", smoothed.read, threshold),
    )


def detect_translation_change(
    pair: ImagePair,
    model: "DisentangledSITS",
    *,
    threshold: float | None = None,
    progress: bool = False,
) -> PixelChange:
    """Detect change that a model does not explain as season.

    Both places are generated at both dates. At one date, `G(S_x, E_x)` and `G(S_y, E_x)` differ in
    the shared representation alone, so the season does not count; the distance is their mean
    absolute difference over the bands and the two dates, in network units. Generated images are
    smoother than real ones, and so is the map.

    Args:
        pair: The two images, of at least 64 px a side.
        model: Model with both encoders and the decoder.
        threshold: Distance above which a pixel has changed, or None for the automatic one.
        progress: Show a progress bar.

    Raises:
        ConfigError: If an image is smaller than a window.
        DataError: If no pixel has data in both images.
    """

    def generate(before: Floats, after: Floats) -> Floats:
        places = np.concatenate([before, after, before, after])
        dates = np.concatenate([before, before, after, after])
        images = np.asarray(model.translate(places, dates))
        places_of_dates = images.reshape(2, 2, *before.shape)
        distance: Floats = np.abs(places_of_dates[:, 1] - places_of_dates[:, 0]).mean(axis=(0, -1))
        return distance[:, None, ..., None]

    store = RowStore(*pair.before.grid[:2])
    title = "translate" if progress else None
    num_valid = 0
    for part in blend_windows(generate, pair, model.config.band_max, progress=title):
        if part.values.size:
            store.write(part.row, part.values[0, ..., 0])
        num_valid += int(part.valid.sum())
    if not num_valid:
        raise no_common_pixel(pair)
    return PixelChange(pair, "translation", store.read, threshold)


def smooth_variates(pair: ImagePair) -> Callable[[int, int], Floats]:
    """Return a function of the IR-MAD variates of both images, smoothed by 1 px.

    Args:
        pair: The two images.

    Returns:
        Function from the first row and the number of rows to `(rows, width, bands)`: variates in
        their deviations where nothing changed, 0 without data.

    Raises:
        DataError: If fewer than 20 pixels have data in both images.
    """
    return _irmad(pair, lambda row, num_rows: _smooth_reflectance(pair, row, num_rows))


def robust_scale(
    values: npt.NDArray[np.floating[Any]],
) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.floating[Any]]]:
    """Return the median and the deviation of each column.

    Args:
        values: `(samples, columns)`.

    Returns:
        Medians, and 1.4826 times the median absolute deviations, at least 1e-6; each `(columns,)`.
    """
    centre = np.median(values, axis=0)
    return centre, 1.4826 * np.median(np.abs(values - centre), axis=0) + 1e-6


class RowStore:
    """Map in a temporary file, written and read some rows at a time.

    Args:
        height: Rows of the map.
        width: Columns of the map.
    """

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the store
        self._file.truncate(4 * height * width)  # what is not written is 0

    @classmethod
    def filled(cls, pair: ImagePair, values: Callable[[int, int], Floats]) -> "RowStore":
        """Return a map of the values of each block of rows."""
        store = cls(*pair.before.grid[:2])
        for row, num_rows in _blocks(pair):
            store.write(row, values(row, num_rows))
        return store

    def write(self, row: int, values: Floats) -> None:
        """Write some rows, `(rows, width)`."""
        content = memoryview(np.ascontiguousarray(values, np.float32).data).cast("B")
        offset = 4 * row * self.width
        while content:
            done = os.pwrite(self._file.fileno(), content, offset)
            content, offset = content[done:], offset + done

    def write_tiles(self, tiles: Iterable[tuple[Window, Floats]]) -> None:
        """Write the whole map, tile by tile: each row of tiles from the left to the right edge."""
        block: Floats = np.zeros((0, self.width), np.float32)
        for (row, col, num_rows, num_cols), values in tiles:
            if col == 0:
                block = np.empty((num_rows, self.width), np.float32)
            block[:, col : col + num_cols] = values
            if col + num_cols == self.width:
                self.write(row, block)

    def read(self, row: int, num_rows: int) -> Floats:
        """Return some rows, `(num_rows, width)` float32. Several threads may read."""
        values: Floats = np.empty((num_rows, self.width), np.float32)
        content = memoryview(values.data).cast("B")
        offset = 4 * row * self.width
        while content:
            part = os.pread(self._file.fileno(), len(content), offset)
            content[: len(part)] = part
            content, offset = content[len(part) :], offset + len(part)
        return values


class _Smoothed:
    """Rows smoothed by a Gaussian over the pixels with data."""

    def __init__(self, pair: ImagePair, values: Callable[[int, int], Floats], sigma: float):
        self._pair, self._values, self._sigma = pair, values, sigma

    def __call__(self, row: int, num_rows: int) -> Floats:
        height = self._pair.before.grid.height
        margin = int(4 * self._sigma + 0.5)
        top, bottom = max(0, row - margin), min(height, row + num_rows + margin)
        valid = self._pair.valid(top, bottom - top)
        values = np.where(valid, self._values(top, bottom - top), 0).astype(np.float32)
        smoothed = gaussian_filter(values, self._sigma)
        if not valid.all():
            weights = gaussian_filter(valid.astype(np.float32), self._sigma)
            smoothed /= np.maximum(weights, 1e-6)
        result: Floats = smoothed[row - top : row - top + num_rows]
        return result

    def store(self) -> RowStore:
        return RowStore.filled(self._pair, self)


class _Scale:
    """Distances in units of the 99th percentile, 0 at the median."""

    def __init__(self, samples: Floats):
        self._centre, high = np.quantile(samples, (0.5, 0.99))
        self._unit = max(float(high - self._centre), 1e-6)

    def __call__(self, values: Floats) -> Floats:
        return np.asarray((values - self._centre) / self._unit, np.float32)


def _positive(values: npt.NDArray[np.floating[Any]]) -> Floats:
    """Map distances around 0 to positive ones, in the same order: softplus, sharp above 0."""
    sharp = 8 * values.astype(np.float64)
    return (np.logaddexp(0, sharp) / 8).astype(np.float32)


def _blocks(pair: ImagePair) -> Iterator[tuple[int, int]]:
    return row_blocks(pair.before.grid.height, _ROWS)


def _reflectance(pair: ImagePair, row: int, num_rows: int) -> tuple[Floats, Floats]:
    scale = np.float32(QUANTIFICATION)
    before, after = (one.read(row, num_rows).astype(np.float32) / scale for one in pair)
    return before, after


def _smooth_reflectance(pair: ImagePair, row: int, num_rows: int) -> tuple[Floats, Floats]:
    """Return the reflectance of some rows, smoothed over the pixels with data."""
    margin = int(4 * _IMAGE_SIGMA + 0.5)
    top, bottom = max(0, row - margin), min(pair.before.grid.height, row + num_rows + margin)
    weights = gaussian_filter(pair.valid(top, bottom - top).astype(np.float32), _IMAGE_SIGMA)
    weights = np.maximum(weights, 1e-6)[..., None]
    inner = slice(row - top, row - top + num_rows)
    before, after = (  # pixels without data are 0 in both
        (gaussian_filter(one, (_IMAGE_SIGMA, _IMAGE_SIGMA, 0)) / weights)[inner]
        for one in _reflectance(pair, top, bottom - top)
    )
    return before, after


def _samples(pair: ImagePair, values: Callable[[int, int], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return the values of every n-th row and column where there is data, `(pixels, ...)`."""
    height, width = pair.before.grid[:2]
    step = int(np.ceil(np.sqrt(height * width / _MAX_SAMPLES)))
    samples = []
    for row, num_rows in _blocks(pair):
        kept = slice(-row % step, None, step), slice(None, None, step)
        samples.append(values(row, num_rows)[kept][pair.valid(row, num_rows)[kept]])
    return np.concatenate(samples)


def _sampled_pair(
    pair: ImagePair, reflectance: Callable[[int, int], tuple[Floats, Floats]]
) -> Floats:
    """Return the reflectance of a sample of the pixels with data, `(pixels, 2 * bands)`."""
    both: Floats = _samples(pair, lambda *rows: np.concatenate(reflectance(*rows), axis=-1))
    if len(both) < 20:
        raise DataError(
            f"{pair.before.name} and {pair.after.name} have too few pixels with data in both. "
            "Expected two dates that overlap."
        )
    return both


def _centred_difference(
    pair: ImagePair, reflectance: Callable[[int, int], tuple[Floats, Floats]]
) -> Callable[[int, int], Floats]:
    """Return a function of the difference of each band without its median, in its deviations."""
    both = _sampled_pair(pair, reflectance)
    count = both.shape[1] // 2
    centre, scale = robust_scale(both[:, count:] - both[:, :count])

    def compute(row: int, num_rows: int) -> Floats:
        before, after = reflectance(row, num_rows)
        scaled = np.clip((after - before - centre) / scale, -_CLIP, _CLIP)
        scaled[~pair.valid(row, num_rows)] = 0
        return np.asarray(scaled, np.float32)

    return compute


def layer_differences(
    layers: Sequence[LayerEncoder], pair: ImagePair, **options: Any
) -> Iterator[LayerTile]:
    """Yield tiles whose cells are the differences of two images.

    Args:
        layers: Layers to compute.
        pair: The two images.
        **options: Of `iterate_tiles`.
    """
    # Both are read ahead in threads, and an image is also read to learn where the other has data.
    images = [copy.deepcopy(one) for one in pair]
    tiles = zip(*(iterate_tiles(layers, one, **options) for one in images), strict=True)
    for before, after in tiles:
        changes = zip(before.cells, after.cells, strict=True)
        yield before._replace(cells=tuple(second - first for first, second in changes))


def _layer_distances(pair: ImagePair, encoders: Sequence[HubEncoder], progress: bool) -> RowStore:
    """Return the sum of the layers' distances, each relative to its median."""
    layers = open_layers(encoders, _LAYERS)
    height, width = pair.before.grid[:2]
    num_grids = sum(len(one.grids) for one in layers)

    options: dict[str, Any] = {}
    num_tiles = np.ceil(height / _SAMPLE_TILE) * np.ceil(width / _SAMPLE_TILE)
    if num_tiles > _MAX_TILES:
        step = int(np.ceil(np.sqrt(num_tiles / _MAX_TILES)))
        options = {"tile_side": _SAMPLE_TILE, "tile_step": step}
    cells: list[list[Floats]] = [[] for _ in range(num_grids)]
    for tile in layer_differences(layers, pair, **options):
        for index, values in enumerate(tile.cells):
            cells[index].append(tile.inner(index, values))
    scales: list[Any] = []
    for parts in cells:
        values = np.concatenate(parts)
        if not len(values):
            raise DataError(
                f"{pair.before.name} and {pair.after.name} have no square of 8 px with data in "
                "both. Use --method pixels."
            )
        centre, scale = robust_scale(values)
        middle = np.median(np.abs(np.clip((values - centre) / scale, -_CLIP, _CLIP)).mean(axis=-1))
        scales.append((centre, scale, float(max(middle, 1e-6))))

    def distances(tile: LayerTile) -> Floats:
        total: Floats = np.zeros(tile.valid.shape, np.float32)
        for index, (values, (centre, scale, middle)) in enumerate(
            zip(tile.cells, scales, strict=True)
        ):
            values = np.abs(np.clip((values - centre) / scale, -_CLIP, _CLIP)).mean(axis=-1)
            total += np.float32(1 / middle / len(layers)) * tile.upsample(index, values)
        bar.update(total.size)
        return total

    store = RowStore(height, width)
    with tqdm(total=height * width, desc="layers", unit="px", disable=not progress) as bar:
        tiles = layer_differences(layers, pair, tile_side=TILE_SIDE // (2 if width > _WIDE else 1))
        store.write_tiles((tile.window, distances(tile)) for tile in tiles)
    return store


def _altered(pair: ImagePair, signals: Callable[[int, int], Floats]) -> tuple[RowStore, Floats]:
    """Return the smoothed length of signals, and the direction of the most altered pixels."""
    lengths = RowStore(*pair.before.grid[:2])

    def store(row: int, num_rows: int) -> Floats:  # in one pass with the samples
        found = signals(row, num_rows)
        lengths.write(row, _length(found))
        return found

    samples = _signed(_samples(pair, store)).astype(np.float64)
    altered = _Smoothed(pair, lengths.read, _PIXEL_SIGMA).store()
    prior = _Scale(_samples(pair, altered.read))(_samples(pair, altered.read))
    weights = np.zeros(samples.shape[1])
    ranking = prior
    for _ in range(2):
        changed = samples[ranking >= np.quantile(ranking, 0.95)]
        unchanged = samples[ranking <= np.quantile(ranking, 0.6)]
        if min(len(changed), len(unchanged)) < 2:
            break
        covariance = (np.cov(changed.T) + np.cov(unchanged.T)) / 2
        ridge = max(0.3 * np.trace(covariance) / len(covariance), 1e-9)
        covariance += ridge * np.eye(len(covariance))
        weights = np.linalg.solve(covariance, changed.mean(axis=0) - unchanged.mean(axis=0))
        found = (samples @ weights).astype(np.float32)
        ranking = prior + _Scale(found)(found)
    return altered, weights.astype(np.float32)


def _along(pair: ImagePair, signals: Callable[[int, int], Floats], direction: Floats) -> RowStore:
    """Return signals in a direction, smoothed."""

    def project(row: int, num_rows: int) -> Floats:
        return _signed(signals(row, num_rows)) @ direction

    raw = RowStore.filled(pair, project)
    return _Smoothed(pair, raw.read, _PIXEL_SIGMA).store()


def _raggedness(pair: ImagePair, distances: RowStore) -> float:
    """Return how ragged the regions above Otsu's threshold are.

    It is the number of borders between pixels above and below it, relative to the number that as
    many pixels would have at random positions (join counts): 0 for compact regions, 1 for noise.
    """
    threshold = _otsu(_samples(pair, distances.read))
    num_above = num_valid = num_borders = num_neighbours = 0
    for row, num_rows in _blocks(pair):
        first = max(row - 1, 0)  # for the borders to the row above
        valid = pair.valid(first, row + num_rows - first)
        above = (distances.read(first, row + num_rows - first) > threshold) & valid
        own = slice(row - first, None)
        num_above += int(np.count_nonzero(above[own]))
        num_valid += int(np.count_nonzero(valid[own]))
        for one, other in (
            ((own, slice(1, None)), (own, slice(None, -1))),
            ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ):
            are_valid = valid[one] & valid[other]
            num_neighbours += int(np.count_nonzero(are_valid))
            num_borders += int(np.count_nonzero((above[one] != above[other]) & are_valid))
    fraction = num_above / max(num_valid, 1)
    expected = 2 * fraction * (1 - fraction) * num_neighbours
    return num_borders / expected if expected else 1.0


def _signed(variates: Floats) -> Floats:
    """Return bounded variates, their absolute values and their squares, `(..., 3 * bands)`."""
    unit = np.tanh(np.clip(variates, -_CLIP, _CLIP) / 3)
    return np.concatenate([unit, np.abs(unit), unit**2], axis=-1)


def _length(variates: Floats) -> Floats:
    length: Floats = np.linalg.norm(variates, axis=-1).astype(np.float32)
    return length


def _kurtosis(values: Floats) -> float:
    deviations = (values - values.mean()).astype(np.float64)
    return float((deviations**4).mean() / max((deviations**2).mean() ** 2, 1e-12))


def _extent(pair: ImagePair, strength: Callable[[int, int], Floats]) -> float:
    """Return how extended the differences are, 0 to 1: their variance that smoothing leaves."""
    near, far = _Smoothed(pair, strength, 1.0), _Smoothed(pair, strength, 6.0)
    both = _samples(
        pair, lambda row, num_rows: np.stack([near(row, num_rows), far(row, num_rows)], axis=-1)
    )
    variance = both.var(axis=0)
    return _ramp(float(variance[1] / max(variance[0], 1e-12)), _EXTENT)


def _ramp(value: float, bounds: tuple[float, float]) -> float:
    """Return 0 below the bounds, 1 above them, and a straight line between."""
    low, high = bounds
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _irmad(
    pair: ImagePair, reflectance: Callable[[int, int], tuple[Floats, Floats]]
) -> Callable[[int, int], Floats]:
    """Return iteratively reweighted MAD variates, in their deviations (Nielsen, 2007)."""
    from scipy.linalg import eigh
    from scipy.stats import chi2

    both = _sampled_pair(pair, reflectance).astype(np.float64)
    count = both.shape[1] // 2
    weights = np.ones(len(both))
    for _ in range(_IRMAD_ROUNDS):
        mean = np.average(both, axis=0, weights=weights)
        covariance = np.cov(both.T, aweights=weights) + 1e-10 * np.eye(2 * count)
        first, second = covariance[:count, :count], covariance[count:, count:]
        cross = covariance[:count, count:]
        squares, a = eigh(cross @ np.linalg.solve(second, cross.T), first)
        b = np.linalg.solve(second, cross.T @ a)
        b /= np.sqrt(np.maximum(np.einsum("ij,ik,kj->j", b, second, b), 1e-12))
        correlation = np.sqrt(np.clip(squares, 0, 1))
        deviation = np.sqrt(np.maximum(2 * (1 - correlation), 1e-6))
        variates = (both[:, :count] - mean[:count]) @ a - (both[:, count:] - mean[count:]) @ b
        weights = chi2.sf(((variates / deviation) ** 2).sum(axis=1), count) + 1e-6

    def compute(row: int, num_rows: int) -> Floats:
        one, two = reflectance(row, num_rows)
        found = ((one - mean[:count]) @ a - (two - mean[count:]) @ b) / deviation
        return np.where(pair.valid(row, num_rows)[..., None], found, 0).astype(np.float32)

    return compute


def _otsu(samples: npt.NDArray[np.floating[Any]]) -> float:
    """Return Otsu's threshold; the highest percent of the distances counts as equal."""
    kept = np.minimum(samples, np.quantile(samples, 0.99))
    if kept.max() - kept.min() < 1e-6:  # only rounding
        return float(max(samples.max(), 1e-6))
    return otsu_threshold(*np.histogram(kept, _NUM_BINS))
