"""Breaks in a series: when each pixel changed, how much, and whether it came back.

A pixel is described at each date by its reflectance and by layers 1 to 3 of the shared encoder
around it. Each feature is centred and scaled by the median and the median absolute deviation of the
scene at that date, which takes out what the whole scene shares: season, light and haze. A break is
a permanent step of a pixel's features against its own history, with the seasonal cycle fitted
together with the step where the series is long enough for one (as in BFAST and CCDC).
"""

import contextlib
import datetime
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from sits_keras.data.plausibility import ValueCounts, warn_of_offset, warn_of_problems
from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.radiometry import NODATA, QUANTIFICATION
from sits_keras.data.rasters.read import Grid, same_grid
from sits_keras.data.rasters.rows import preview_step
from sits_keras.data.rasters.write import open_map
from sits_keras.data.sources.granules import Granule
from sits_keras.data.sources.series import read_sources
from sits_keras.data.tiling import Window, reflect
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import check_suffix, refuse_existing
from sits_keras.hub import HubEncoder
from sits_keras.hub.layers import LayerEncoder
from sits_keras.tasks.change.detection import check_threshold
from sits_keras.tasks.layers import BORDER, LayerTile
from sits_keras.tasks.pictures import check_picture, make_panels, save_figure, show_stored

BANDS = ("break", "magnitude", "recovered", "clear_dates", "strength")
"""Bands of a written map of breaks."""

LAYERS = (1, 2, 3)
"""Layers of the shared encoder that describe a pixel."""

MIN_SEGMENT = 2
"""Clear dates that a pixel must have before and after a break."""

_NUM_AXES = 12  # principal components of all features
_PIXEL_WEIGHT = 3.0  # of reflectance, a layer being 1
_CLIP = 5.0  # deviations
_YEAR = 365.25  # days
_SEASONAL_YEARS = 2.0  # span that a seasonal cycle is fitted from
_NUM_SAMPLES = 4_000  # pixels that a date is centred and scaled by
_MIN_SAMPLES = 100
_MOST_SAMPLED_TILES = 64
_MOST_JUDGED_TILES = 16  # by whose strengths the threshold is chosen
_DEVIATIONS = 2.5  # of the logarithm of the strength, above its median
_LEAST_STRENGTH = 10.0
_FEATURE_BYTES = 2**26  # features of a tile at all dates
_LAST = 3  # clear dates by which recovery is judged
_RECOVERED = 0.5  # of the magnitude

Season = Literal["auto", "none", "harmonic"]


class Steps(NamedTuple):
    """The most likely break of each pixel.

    Attributes:
        first: `(pixels,)` int, date from which a pixel differs; -1 without enough clear dates.
        strength: `(pixels,)` float32, F statistic of the step; 0 without enough clear dates.
        magnitude: `(pixels,)` float32, length of the step.
        recovered: `(pixels,)` bool, whether the last clear dates are nearer to the history.
    """

    first: npt.NDArray[np.intp]
    strength: npt.NDArray[np.float32]
    magnitude: npt.NDArray[np.float32]
    recovered: npt.NDArray[np.bool_]


def find_steps(
    features: npt.NDArray[np.float32],
    clear: npt.NDArray[np.bool_],
    design: npt.NDArray[np.floating],
) -> Steps:
    """Find the step that explains most of each pixel's series, of all dates it could begin at.

    The series is fitted by the columns of `design` and a step from one date on. With S the sums of
    squares that remain over all features, without and with the step, and m clear dates, the
    strength is `(S0 - S1) / (S1 / (m - columns - 1))`.

    Args:
        features: `(dates, pixels, features)` float32, in the order of time.
        clear: `(dates, pixels)` bool. Other features are not used.
        design: `(dates, columns)`, a constant and the season.

    Returns:
        The steps.
    """
    num_dates, num_pixels, _ = features.shape
    weight = clear.astype(np.float32)
    design = design.astype(np.float32)
    columns = design.shape[1]
    # A ridge far below a date's weight, for pixels with fewer clear dates than columns.
    gram = np.einsum("tn,tp,tq->npq", weight, design, design) + 1e-3 * np.eye(columns)
    inverse = np.linalg.inv(gram).astype(np.float32)
    values: npt.NDArray[np.float32] = np.where(clear[..., None], features, np.float32(0))
    fitted = inverse @ np.einsum("tp,tnk->npk", design, values, optimize=True)
    residual = values - np.einsum("tp,npk->tnk", design, fitted, optimize=True) * weight[..., None]
    total = np.square(residual).sum(axis=(0, 2))
    count = weight.sum(axis=0)
    # Sums over the dates from one on.
    residual_after = residual[::-1].cumsum(axis=0)[::-1]
    design_after = (weight[..., None] * design[:, None])[::-1].cumsum(axis=0)[::-1]
    count_after = weight[::-1].cumsum(axis=0)[::-1]

    best = np.zeros(num_pixels, np.float32)
    index = np.full(num_pixels, -1, np.intp)
    length = np.ones(num_pixels, np.float32)
    for date in range(1, num_dates):
        explained = np.einsum(
            "np,npq,nq->n", design_after[date], inverse, design_after[date], optimize=True
        )
        # Squared length of the step once the design is taken out of it.
        free = count_after[date] - explained
        gain = np.square(residual_after[date]).sum(axis=1) / np.maximum(free, 1e-3)
        is_better = (
            clear[date]
            & (count_after[date] >= MIN_SEGMENT)
            & (count - count_after[date] >= MIN_SEGMENT)
            & (free > 0.3)
            & (gain > best)
        )
        best[is_better], index[is_better] = gain[is_better], date
        length[is_better] = free[is_better]

    pixels = np.arange(num_pixels)
    step = residual_after[np.maximum(index, 0), pixels] / length[:, None]
    freedom = np.maximum(count - columns - 1, 1)
    strength = best / np.maximum((total - best) / freedom, 1e-9)
    is_found = (index >= 0) & (count > columns + 1)
    return Steps(
        np.where(is_found, index, -1),
        np.where(is_found, strength, 0).astype(np.float32),
        np.where(is_found, np.linalg.norm(step, axis=1), 0).astype(np.float32),
        is_found & _is_recovered(values, clear, design, index, step),
    )


def _is_recovered(
    values: npt.NDArray[np.float32],
    clear: npt.NDArray[np.bool_],
    design: npt.NDArray[np.float32],
    index: npt.NDArray[np.intp],
    step: npt.NDArray[np.float32],
) -> npt.NDArray[np.bool_]:
    """Return whether the last clear dates are less than half as far as the first after a break.

    Both are measured along the step, from the mean of the dates before it.
    """
    is_after = (np.arange(len(values))[:, None] >= index) & clear
    before = clear & ~is_after
    rank = is_after.cumsum(axis=0)
    left = is_after[::-1].cumsum(axis=0)[::-1]
    along = np.einsum("tnk,nk->tn", values, step, optimize=True)

    def mean(of: npt.NDArray[np.bool_]) -> npt.NDArray[np.floating[Any]]:
        found: npt.NDArray[np.floating[Any]] = (along * of).sum(axis=0) / np.maximum(
            of.sum(axis=0), 1
        )
        return found

    history = mean(before)
    first = mean(is_after & (rank <= _LAST)) - history
    last = mean(is_after & (left <= _LAST)) - history
    has_both = is_after.sum(axis=0) >= 2 * _LAST
    recovered: npt.NDArray[np.bool_] = has_both & (first > 0) & (last < _RECOVERED * first)
    return recovered


def season_design(
    dates: Sequence[datetime.date], season: Season = "auto"
) -> npt.NDArray[np.float64]:
    """Return a constant and, depending on `season`, a yearly cycle at some dates.

    Args:
        dates: Dates, ascending.
        season: "harmonic" for a cosine and a sine of a year, "none" for the constant alone, or
            "auto" for the former from a span of two years on. A shorter series cannot distinguish a
            break from a season.

    Returns:
        `(dates, 1)` or `(dates, 3)` float64.
    """
    days = np.array([(date - dates[0]).days for date in dates], np.float64)
    is_long = days[-1] >= _SEASONAL_YEARS * _YEAR
    if season == "none" or (season == "auto" and not is_long):
        return np.ones((len(dates), 1))
    angle = 2 * np.pi * days / _YEAR
    return np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], axis=1)


class _Scene(NamedTuple):
    """Statistics that the pixels of a scene share at each date.

    Attributes:
        offsets: `(dates, features)` float32, medians.
        scales: `(dates, features)` float32 above 0, deviations.
        axes: `(features, axes)` float32, principal components of the scaled features, times the
            weight of each.
        sizes: Number of bands, then of the channels of each layer.
        is_used: `(dates,)` bool, dates with enough clear pixels.
    """

    offsets: npt.NDArray[np.float32]
    scales: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32]
    sizes: tuple[int, ...]
    is_used: npt.NDArray[np.bool_]


class SeriesTiles:
    """A series that is read in tiles, all dates at once; a context manager that closes its files.

    Args:
        granules: Dates of one place on one grid, ascending.
        encoder: Shared encoder.

    Attributes:
        dates: Acquisition dates.
        grid: Grid of the pixels.
        side: Side of a tile in pixels.

    Raises:
        MissingError: If a file is missing.
        DataError: If a file cannot be read, a band is missing, or a date is on another grid.
        ConfigError: If the encoder has no layers.
    """

    def __init__(self, granules: Sequence[Granule], encoder: HubEncoder):
        self._layers = LayerEncoder(encoder, LAYERS)
        self._margin = self._layers.margin(BORDER)
        self.dates = [granule.date for granule in granules]
        with contextlib.ExitStack() as stack:
            self._readers = []
            for granule in granules:
                reader = stack.enter_context(GranuleReader(granule, encoder.bands))
                reader.check_mask()
                self._readers.append(reader)
                if not same_grid(self._readers[0].grid, reader.grid):
                    raise DataError(
                        f"{granules[0].name} and {granule.name} are not on the same grid. Expected "
                        "dates of one place on one grid. Warp one to the grid of the other first "
                        "(gdalwarp)."
                    )
            counts = [reader.sample_values() for reader in self._readers]
            self._warn_of_values(granules, counts)
            self._stack = stack.pop_all()
        self.grid: Grid = self._readers[0].grid
        side = math.isqrt(_FEATURE_BYTES // (4 * _NUM_AXES * len(granules))) // 16 * 16
        self.side = min(max(side, 64), 512)

    def _warn_of_values(self, granules: Sequence[Granule], counts: Sequence[ValueCounts]) -> None:
        opened = list(zip(self._readers, granules, counts, strict=True))
        warn_of_problems(one for reader, _, own in opened for one in reader.find_problems(own))
        warn_of_offset(
            str(Path(granules[0].name).parent),
            [(one.date, one.name, own) for _, one, own in opened],
        )

    def __enter__(self) -> "SeriesTiles":
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def windows(self) -> list[Window]:
        """Return the windows of all tiles, row by row."""
        height, width = self.grid[:2]
        return [
            Window(row, col, min(self.side, height - row), min(self.side, width - col))
            for row in range(0, height, self.side)
            for col in range(0, width, self.side)
        ]

    def spread_windows(self, most: int) -> list[Window]:
        """Return the windows of some tiles, spread over the scene.

        Args:
            most: Maximum number of tiles.
        """
        windows = self.windows()
        kept = np.linspace(0, len(windows) - 1, min(len(windows), most)).astype(int)
        return [windows[index] for index in kept]

    def fit(self, seed: int, progress: bool) -> _Scene:
        """Measure the statistics of the scene at each date, from at most 64 tiles."""
        windows = self.spread_windows(_MOST_SAMPLED_TILES)
        num_here = -(-_NUM_SAMPLES // len(windows))
        sizes = (len(self._layers.bands), *(one.num_channels for one in self._layers.grids))
        weights = np.repeat([_PIXEL_WEIGHT, *[1.0] * len(LAYERS)] / np.sqrt(sizes), sizes)
        offsets = np.zeros((len(self.dates), sum(sizes)), np.float32)
        scales = np.ones_like(offsets)
        is_used = np.zeros(len(self.dates), bool)
        scaled = []
        title = "fit" if progress else None
        for date in tqdm(range(len(self.dates)), desc=title, unit="date", disable=title is None):
            rng = np.random.default_rng(seed)  # the same pixels at each date
            samples = []
            for window in windows:
                tile, stored = self._read(date, window)
                pixels = rng.choice(tile.valid.size, min(num_here, tile.valid.size), replace=False)
                pixels = pixels[tile.valid.ravel()[pixels]]
                rows, cols = np.divmod(np.sort(pixels), window.width)
                parts: list[npt.NDArray[Any]] = [stored[rows, cols] / np.float32(QUANTIFICATION)]
                parts += [tile.at(i, one, rows, cols) for i, one in enumerate(tile.cells)]
                samples.append(np.concatenate(parts, axis=1))
            values = np.concatenate(samples)
            if len(values) < _MIN_SAMPLES:
                continue
            is_used[date] = True
            offsets[date] = np.median(values, axis=0)
            spread = 1.4826 * np.median(np.abs(values - offsets[date]), axis=0)
            scales[date] = np.maximum(spread, 1e-4)
            scaled.append(np.clip((values - offsets[date]) / scales[date], -_CLIP, _CLIP)[:1000])
        if is_used.sum() < 2 * MIN_SEGMENT:
            raise DataError(
                f"The series has {is_used.sum()} dates with at least {_MIN_SAMPLES} clear pixels. "
                f"Expected at least {2 * MIN_SEGMENT}."
            )
        weighted = np.concatenate(scaled) * weights
        _, axes = np.linalg.eigh(np.cov(weighted, rowvar=False, dtype=np.float64))
        axes = (weights[:, None] * axes[:, ::-1][:, :_NUM_AXES]).astype(np.float32)
        return _Scene(offsets, scales, axes, sizes, is_used)

    def features(
        self, window: Window, scene: _Scene
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return the features of a tile at all dates.

        Args:
            window: A tile.
            scene: Statistics of the scene.

        Returns:
            `(dates, pixels, axes)` float32, and `(dates, pixels)` bool, true where a date is clear.
        """
        num_pixels = window.height * window.width
        features = np.zeros((len(self.dates), num_pixels, scene.axes.shape[1]), np.float32)
        clear = np.zeros((len(self.dates), num_pixels), bool)
        parts = np.cumsum(scene.sizes)[:-1]
        axes = np.split(scene.axes, parts)
        for date in map(int, np.flatnonzero(scene.is_used)):
            tile, stored = self._read(date, window)
            if not tile.valid.any():
                continue
            offsets = np.split(scene.offsets[date], parts)
            scales = np.split(scene.scales[date], parts)
            found = np.zeros((window.height, window.width, scene.axes.shape[1]), np.float32)
            values = [stored / np.float32(QUANTIFICATION), *tile.cells]
            for index, (one, offset, scale, axis) in enumerate(
                zip(values, offsets, scales, axes, strict=True)
            ):
                projected = np.clip((one - offset) / scale, -_CLIP, _CLIP) @ axis
                found += projected if index == 0 else tile.upsample(index - 1, projected)
            features[date] = found.reshape(num_pixels, -1)
            clear[date] = tile.valid.ravel()
        return features, clear

    def _read(self, date: int, window: Window) -> tuple[LayerTile, npt.NDArray[np.uint16]]:
        """Return the layers of a tile and its stored values; clouds count as missing data."""
        reader, margin = self._readers[date], self._margin
        lines = [
            reflect(np.arange(start - margin, start + size + margin), length)
            for start, size, length in zip(window[:2], window[2:], self.grid[:2], strict=True)
        ]
        (top, bottom), (left, right) = ((int(one.min()), int(one.max()) + 1) for one in lines)
        read = reader.read(Window(top, left, bottom - top, right - left))
        pixels = read[np.ix_(lines[0] - top, lines[1] - left)]
        inside = pixels[margin : margin + window.height, margin : margin + window.width]
        valid = inside[..., 0] != NODATA
        cloudy = reader.cloudy(window)
        if cloudy is not None:
            valid &= ~cloudy
        # Encoders see clouds as they are: the edges of holes would be sharper.
        reflectance = np.divide(pixels, np.float32(QUANTIFICATION))
        grids = self._layers.grids
        if valid.any():
            cells = self._layers(reflectance, margin, BORDER)
        else:
            cells = [np.zeros((1, 1, grid.num_channels), np.float32) for grid in grids]
        return LayerTile(window, valid, grids, tuple(cells)), inside

    def preview(self, date: int) -> npt.NDArray[np.float64]:
        """Return a date as a picture of at most 800 px a side, see `pictures.show_stored`."""
        height, width = self.grid[:2]
        step = preview_step(height, width)
        parts = []
        for row in range(0, height, self.side):
            one = self._readers[date].read(Window(row, 0, min(self.side, height - row), width))
            parts.append(one[-row % step :: step, ::step])
        return show_stored(np.concatenate(parts), self._layers.bands)


class WrittenBreaks(NamedTuple):
    """A map of breaks that was written.

    Attributes:
        dates: Acquisition dates of the series that were used.
        threshold: Strength above which a pixel has a break.
        changed_fraction: Fraction of the pixels that have a break, of those with enough clear
            dates.
        recovered_fraction: Fraction of the pixels with a break that came back.
        fractions: For each date, the fraction of the pixels whose break it is.
    """

    dates: tuple[datetime.date, ...]
    threshold: float
    changed_fraction: float
    recovered_fraction: float
    fractions: tuple[float, ...]


def map_breaks(
    series: Path | str | Sequence[Path | str],
    out: Path | str,
    encoder: HubEncoder,
    *,
    threshold: float | Literal["auto"] = "auto",
    season: Season = "auto",
    seed: int = 0,
    picture: Path | str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> WrittenBreaks:
    """Map when each pixel of a series changed as a cloud-optimised GeoTIFF, in bounded memory.

    Each date is compared with the pixel's own history: a break is the date from which a permanent
    step explains most of the series, beside a constant and, from two years on, a yearly cycle.
    Cloud and missing data are gaps. The true break is between the clear date before and the date of
    the map. A pixel needs two clear dates on both sides, and has one break at most.

    Bands, float32, NaN where a pixel has too few clear dates:

    1. `break`: date as year and day of the year (2021213 is 1 August 2021), 0 without a break.
    2. `magnitude`: length of the step, 1 being about the spread between pixels of the scene.
    3. `recovered`: 1 if the last three clear dates are less than half as far from the history as
       the first three after the break. 0 otherwise, and where fewer than six clear dates follow.
    4. `clear_dates`: number of clear dates.
    5. `strength`: F statistic of the step. Breaks are where it is above the threshold.

    Args:
        series: Folder of dated rasters of one place, or other sources of one series as
            `sits-keras prepare` takes them. Cloud masks are used where there are any.
        out: Output GeoTIFF.
        encoder: Shared encoder, such as `hub.load(...)`.
        threshold: Strength above which a pixel has a break, or "auto" for `choose_threshold`.
        season: "harmonic" to fit a yearly cycle, "none" not to, or "auto" to fit one from a span of
            two years on.
        seed: Seed of the pixels by which dates are centred and scaled.
        picture: PNG to write as well: first and last date, date of the break, and magnitude.
        overwrite: Overwrite existing files.
        progress: Show progress bars.

    Returns:
        Dates, threshold and fractions.

    Raises:
        ExistsError: If an output exists and `overwrite` is false.
        OutputError: If an output cannot be written.
        MissingError: If a source or a file of it is missing.
        DataError: If the sources have no or several series, a file cannot be read, dates are on
            different grids, or fewer than four dates are clear enough.
        ConfigError: If an argument is out of range, or the encoder has no layers.

    Examples:
        >>> encoder = sits_keras.from_preset("sits_rgbn_small", "shared")
        >>> done = map_breaks("series/lake", "breaks.tif", encoder, picture="breaks.png")
        >>> print(f"{done.changed_fraction:.1%} changed")
    """
    out = Path(out)
    check_suffix(out, "OUT", ".tif", ".tiff")
    if season not in ("auto", "none", "harmonic"):
        raise ConfigError(f"season must be 'auto', 'none' or 'harmonic'. Received: {season!r}.")
    limit = check_threshold(threshold)
    granules = _find_granules(series)
    refuse_existing(out, overwrite, [file for one in granules for file in one.files])
    picture = check_picture(picture, overwrite)
    with SeriesTiles(granules, encoder) as tiles:
        scene = tiles.fit(seed, progress)
        design = season_design(tiles.dates, season)
        known: dict[Window, _TileBreaks] = {}
        if limit is None:
            windows = tiles.spread_windows(_MOST_JUDGED_TILES)
            known = {window: _find_breaks(tiles, window, scene, design) for window in windows}
            limit = choose_threshold([one.steps.strength for one in known.values()])
        return _write(tiles, scene, design, known, limit, out, picture, overwrite, progress)


def choose_threshold(strengths: Sequence[npt.NDArray[np.floating]]) -> float:
    """Return the strength above which a pixel has a break, from those of a scene.

    Most pixels have no break, but each has a strongest step. The logarithm of its strength is
    nearly normal over a scene; a break is 2.5 deviations above the median. The deviation is that
    of the lower half, which breaks do not reach. The threshold is at least 10.

    Args:
        strengths: Strengths of some pixels; 0 for pixels with too few clear dates.
    """
    values = np.concatenate([one[one > 0] for one in strengths])
    if not len(values):
        return _LEAST_STRENGTH
    low, middle = np.quantile(np.log(values), (0.1587, 0.5))
    return max(_LEAST_STRENGTH, float(np.exp(middle + _DEVIATIONS * (middle - low))))


class _TileBreaks(NamedTuple):
    """Breaks of a tile's pixels, and their number of clear dates, `(pixels,)` int."""

    steps: Steps
    num_clear: npt.NDArray[np.integer[Any]]


def _find_breaks(
    tiles: SeriesTiles, window: Window, scene: _Scene, design: npt.NDArray[np.float64]
) -> _TileBreaks:
    features, clear = tiles.features(window, scene)
    return _TileBreaks(find_steps(features, clear, design), clear.sum(axis=0))


def _find_granules(series: Path | str | Sequence[Path | str]) -> tuple[Granule, ...]:
    found = read_sources(series)
    if len(found) != 1:
        raise DataError(
            f"Expected one series. Received: {len(found)}: {', '.join(one.id for one in found)}. "
            "Name the folder of one of them."
        )
    granules = found[0].granules
    if len(granules) < 2 * MIN_SEGMENT:
        raise DataError(
            f"{found[0].id} has {len(granules)} dates. Expected at least {2 * MIN_SEGMENT}. "
            "For two dates, use `sits-keras change BEFORE AFTER OUT`."
        )
    return granules


def _write(
    tiles: SeriesTiles,
    scene: _Scene,
    design: npt.NDArray[np.float64],
    known: dict[Window, _TileBreaks],
    threshold: float,
    out: Path,
    picture: Path | None,
    overwrite: bool,
    progress: bool,
) -> WrittenBreaks:
    height, width = tiles.grid[:2]
    step = preview_step(height, width)
    codes = np.array([date.year * 1000 + date.timetuple().tm_yday for date in tiles.dates])
    counts = np.zeros(len(tiles.dates), np.int64)
    num_valid = num_recovered = 0
    preview = []
    tags = {"threshold": repr(threshold), "season": "harmonic" if design.shape[1] > 1 else "none"}
    title = "breaks" if progress else None
    with (
        open_map(out, tiles.grid, BANDS, "float32", np.nan, tags=tags) as target,
        tqdm(
            total=height * width, desc=title, unit="px", unit_scale=True, disable=title is None
        ) as bar,
    ):
        for row, windows in itertools.groupby(tiles.windows(), lambda window: window.row):
            block = np.full((min(tiles.side, height - row), width, len(BANDS)), np.nan, np.float32)
            for window in windows:
                found = known.pop(window) if window in known else None
                steps, num_clear = found or _find_breaks(tiles, window, scene, design)
                valid = steps.first >= 0
                changed = valid & (steps.strength > threshold)
                values = np.stack(
                    [
                        np.where(changed, codes[steps.first], 0),
                        steps.magnitude,
                        changed & steps.recovered,
                        num_clear,
                        steps.strength,
                    ],
                    axis=1,
                ).astype(np.float32)
                values[~valid] = np.nan
                shape = (window.height, window.width, len(BANDS))
                block[:, window.col : window.col + window.width] = values.reshape(shape)
                counts += np.bincount(steps.first[changed], minlength=len(counts))
                num_valid += int(valid.sum())
                num_recovered += int((changed & steps.recovered).sum())
                bar.update(len(valid))
            target.write(row, block)
            preview.append(block[-row % step :: step, ::step])
    used = np.flatnonzero(scene.is_used)
    if picture is not None:
        _plot(tiles, np.concatenate(preview), used, picture, overwrite)
    total = int(counts.sum())
    return WrittenBreaks(
        tuple(tiles.dates[date] for date in used),
        threshold,
        total / max(num_valid, 1),
        num_recovered / max(total, 1),
        tuple(float(counts[date]) / max(num_valid, 1) for date in used),
    )


def _plot(
    tiles: SeriesTiles,
    values: npt.NDArray[np.float32],
    used: npt.NDArray[np.intp],
    path: Path,
    overwrite: bool,
) -> None:
    """Plot the first and the last date, the date of the break, and the magnitude."""
    first, last = int(used[0]), int(used[-1])
    figure, axes = make_panels(4, values.shape)
    for axis, date in ((axes[0], first), (axes[1], last)):
        axis.set_title(str(tiles.dates[date]), fontsize=10)
        axis.imshow(tiles.preview(date), interpolation="nearest")
    codes = values[..., 0]
    years, days = np.divmod(np.where(codes > 0, codes, np.nan), 1000)
    magnitude = np.where(codes > 0, values[..., 1], np.nan)
    for axis, title, shown, colours in (
        (axes[2], "break (year)", years + (days - 1) / _YEAR, "turbo"),
        (axes[3], "magnitude of the break", magnitude, "viridis"),
    ):
        axis.set_title(title, fontsize=10)
        image = axis.imshow(shown, cmap=colours, interpolation="nearest")
        figure.colorbar(
            image, cax=axis.inset_axes((1.02, 0, 0.04, 1)), format=lambda value, _: f"{value:.2f}"
        )
    save_figure(figure, path, overwrite)
