"""Procedural image series with exact ground truth of surface and change."""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.errors import ConfigError

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]
Numbers = npt.NDArray[np.floating | np.integer]
Mask = npt.NDArray[np.bool_]

SUPPORTED_BANDS: Final[tuple[str, ...]] = ("B02", "B03", "B04", "B08", "B8A", "B11")
"""Names of the bands that `make_series` can render."""

SPECTRA: Final[dict[str, tuple[float, ...]]] = {
    "water": (0.055, 0.050, 0.030, 0.018, 0.016, 0.008),
    "forest": (0.025, 0.045, 0.026, 0.320, 0.340, 0.140),
    "clear_cut": (0.070, 0.090, 0.115, 0.210, 0.230, 0.280),
    "grass": (0.040, 0.078, 0.052, 0.340, 0.360, 0.220),
    "bare_soil": (0.085, 0.115, 0.150, 0.230, 0.250, 0.330),
    "growing_crop": (0.030, 0.068, 0.035, 0.440, 0.460, 0.190),
    "ripe_crop": (0.080, 0.132, 0.172, 0.300, 0.320, 0.300),
    "stubble": (0.110, 0.155, 0.205, 0.290, 0.310, 0.380),
    "town": (0.115, 0.122, 0.135, 0.200, 0.210, 0.220),
    "road": (0.120, 0.130, 0.142, 0.180, 0.190, 0.220),
    "construction": (0.170, 0.190, 0.220, 0.270, 0.280, 0.330),
}
"""Surface reflectance per state, in the order of `SUPPORTED_BANDS`."""

STATES: Final[tuple[str, ...]] = tuple(SPECTRA)
"""Names of the surface states; a value in `SyntheticSeries.states` is an index into it."""

# Indices into STATES of the states that are named in code.
WATER, FOREST, CLEAR_CUT, GRASS, SOIL, GROWING = range(6)
TOWN, ROAD, CONSTRUCTION = range(8, 11)

CROP_DAYS: Final = (
    (18, 222, 262, 296),  # winter wheat
    (185, 345, 345, 345),  # sugar beet: lifted green
    (148, 240, 272, 328),  # spring barley
    (200, 305, 335, 350),  # maize
)
"""First days of growing, ripe, stubble and bare soil, per crop, counted from 1 November.

All fields are bare then, so that a field can take the next crop of its rotation on that day.
"""

MAX_DELAY: Final = 12
"""Days a field is behind or ahead at most: its year is over before the next 1 November."""


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Floats:
    """Return spatially correlated noise of mean 0 and standard deviation 1."""
    noise = rng.standard_normal(shape, np.float32)
    noise = ndimage.gaussian_filter(noise, sigma, mode="wrap")
    standardised: npt.NDArray[np.floating] = (noise - noise.mean()) / noise.std()
    return standardised


def rotated_axes(offset: Numbers, angle: Floats | float) -> tuple[Floats, Floats]:
    """Return coordinates of (..., 2) row and column offsets along axes rotated by an angle."""
    rows, columns = offset[..., 0], offset[..., 1]
    cos, sin = np.cos(angle), np.sin(angle)
    return rows * cos + columns * sin, columns * cos - rows * sin


def voronoi(
    rng: np.random.Generator, points: Numbers, spacing: float, angle: float
) -> tuple[Floats, Integers, Floats]:
    """Return centres of a jittered grid and, per point, the two nearest ones and the border."""
    size = np.array(points.shape[:2])
    reach = np.hypot(*size) / 2 + 2 * spacing
    steps = np.arange(-reach, reach, spacing)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1)
    grid[::2, :, 0] += spacing / 2
    grid += rng.uniform(-0.28, 0.28, grid.shape) * spacing
    sites = np.stack(rotated_axes(grid.reshape(-1, 2), angle), axis=-1) + size / 2
    distance, nearest = spatial.cKDTree(sites).query(points, k=2)
    separation = np.linalg.norm(sites[nearest[..., 0]] - sites[nearest[..., 1]], axis=-1)
    return sites, nearest, (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * separation)


def distance_to_curve(
    rng: np.random.Generator,
    points: Numbers,
    through: Floats,
    angle: float,
    swing: float,
) -> Floats:
    """Return the distance of each pixel to a line that winds about a straight one."""
    winding = swing * smooth_noise(rng, points.shape[:2], 26)
    level = rotated_axes(points - through, angle)[0] + winding
    # The slope of the level varies; without it, the line would be wide where it is shallow.
    distance: npt.NDArray[np.floating] = np.abs(level) / np.hypot(*np.gradient(level))
    return distance


class Land(NamedTuple):
    """Static properties of a place: `(height, width)` arrays, then one row per parcel."""

    parcels: Integers
    texture: Floats  # around 0
    soil: Floats  # around 0; brightness of the ground
    rows: Floats  # -1 to 1; sown and mown lines
    roofs: Floats  # relative brightness of buildings in towns
    gardens: Floats  # fraction of green in towns
    cover: Integers  # state without events; bare soil stands for arable land
    tints: Floats  # (parcels, SUPPORTED_BANDS); relative reflectance
    variety: Floats  # 0 to 1; fraction of needle trees, yellowness of crops
    first_crop: Integers  # offset in the crop rotation
    delay: Integers  # days behind the crop calendar


def make_land(rng: np.random.Generator, shape: tuple[int, int]) -> Land:
    """Sample a place of `(height, width)` pixels."""
    points = np.moveaxis(np.indices(shape), 0, -1)
    warp = np.stack([smooth_noise(rng, shape, 18) for _ in range(2)], axis=-1)
    fields, turned, blocks, border = _make_fields(rng, points + 3 * warp)
    pairs = blocks.min(axis=-1) * 100_000 + blocks.max(axis=-1)
    has_lane = rng.random(4096)[pairs % 4093] < 0.6
    meadow = rng.random(4096)[fields % 4093] < rng.uniform(0.12, 0.32)

    wood = smooth_noise(rng, shape, 20) + 0.25 * smooth_noise(rng, shape, 4)
    wooded = wood > np.quantile(wood, 1 - rng.uniform(0.12, 0.30))
    stands = voronoi(rng, points + 4 * warp, 32, rng.uniform(0, np.pi))[1][..., 0]

    centre, town, streets, town_blocks, roofs, gardens = _make_towns(rng, points + warp)
    angle = rng.uniform(0, np.pi)
    road = distance_to_curve(rng, points, centre, angle, 6) < 1.1
    road |= distance_to_curve(rng, points, centre, angle + rng.uniform(0.9, 2.2), 6) < 0.8
    through = rng.uniform(0.2, 0.8, 2) * shape
    bank = distance_to_curve(rng, points, through, rng.uniform(0, np.pi), 15)
    has_river, has_lake = ((True, False), (False, True), (True, True))[rng.integers(3)]
    river = has_river & (bank < rng.uniform(1.8, 3.6))
    shore = ndimage.binary_dilation(river, iterations=2)
    lake = has_lake & _make_lake(rng, points, road | town | shore)
    # Later layers cover earlier ones; a parcel is one id of one layer.
    layers: list[tuple[Mask, Integers | int, Integers | int]] = [
        (np.ones(shape, np.bool_), np.where(meadow, GRASS, SOIL), fields),
        ((border < 0.9) & ~has_lane, FOREST, pairs),  # hedges
        ((border < 0.7) & has_lane, ROAD, pairs),
        (wooded, FOREST, stands),
        (shore, GRASS, 0),
        (town, TOWN, town_blocks),
        (town & streets, ROAD, 0),
        (river, WATER, 0),
        (lake, WATER, 0),
        (road, ROAD, 0),
    ]
    keys = states = np.zeros(shape, np.int64)
    for number, (mask, state, ids) in enumerate(layers):
        keys = np.where(mask, number * 2**40 + ids, keys)
        states = np.where(mask, state, states)
    _, first, parcels = np.unique(keys, return_index=True, return_inverse=True)
    num = len(first)
    return Land(
        parcels=parcels.reshape(shape),
        texture=0.8 * smooth_noise(rng, shape, 0.8) + 0.5 * smooth_noise(rng, shape, 3),
        soil=0.7 * smooth_noise(rng, shape, 9) + 0.5 * smooth_noise(rng, shape, 3),
        rows=np.sin(rotated_axes(points, turned)[0] * 2 * np.pi / rng.uniform(3.5, 6.5)),
        roofs=roofs,
        gardens=gardens,
        cover=states.ravel()[first],
        tints=rng.normal(1, 0.06, (num, 1)) * rng.normal(1, 0.04, (num, len(SUPPORTED_BANDS))),
        variety=np.clip(rng.normal(0.4, 0.45, num), 0, 1),
        first_crop=rng.integers(0, len(CROP_DAYS), num),
        delay=rng.integers(-MAX_DELAY, MAX_DELAY + 1, num),
    )


def _make_fields(rng: np.random.Generator, points: Numbers) -> tuple[Any, ...]:
    """Return ids of fields, angles of their rows, the two nearest blocks and their border."""
    angle = rng.uniform(0, np.pi)
    sites, nearest, border = voronoi(rng, points, rng.uniform(62, 82), angle)
    block, num = nearest[..., 0], len(sites)
    turned = (angle + rng.normal(0, 0.12, num) + rng.integers(0, 2, num) * np.pi / 2)[block]
    across, along = rotated_axes(points - sites[block], turned)
    strip = across / rng.uniform(13, 27, num)[block]
    # Monotone, so that strips only get uneven widths.
    strip = strip + 0.3 * np.sin(2.3 * strip + rng.uniform(0, 6, num)[block]) + 100.5
    piece = along / rng.uniform(30, 55, num)[block] + rng.uniform(0, 1, num)[block] + 100
    fields = (block * 200 + strip.astype(np.int64)) * 200 + piece.astype(np.int64)
    # Slivers are too small to be tilled: they become part of the nearest larger field.
    _, inverse, areas = np.unique(fields, return_inverse=True, return_counts=True)
    small = (areas < 40)[inverse.reshape(fields.shape)]
    nearby = ndimage.distance_transform_edt(small, return_distances=False, return_indices=True)
    return fields[tuple(nearby)], turned, nearest, border


def _make_lake(rng: np.random.Generator, points: Numbers, taken: Mask) -> Mask:
    """Return a lake in the middle of the widest free area."""
    room = ndimage.distance_transform_edt(np.pad(~taken, 1))[1:-1, 1:-1]
    centre = np.array(np.unravel_index(room.argmax(), room.shape))
    radius = min(rng.uniform(0.06, 0.12) * min(room.shape), 30, 0.8 * room.max())
    distance = np.linalg.norm(points - centre, axis=-1)
    ragged = 0.3 * radius * smooth_noise(rng, room.shape, max(radius / 2.5, 1))
    inside: npt.NDArray[np.bool_] = (distance + ragged < radius) & (room > 2)
    return inside


def _make_towns(rng: np.random.Generator, points: Numbers) -> tuple[Any, ...]:
    """Return the centre of the first town, and maps of town, streets, blocks, roofs, gardens."""
    shape = points.shape[:2]
    num = max(1, round(shape[0] * shape[1] / 200**2))
    centres = (rng.uniform(0.12, 0.88, (num, 2)) * shape).astype(np.float32)
    radii = np.minimum(rng.uniform(0.05, 0.13, num) * min(shape), 34)
    radii[0] = min(0.14 * min(shape), 36)
    distance, nearest = spatial.cKDTree(centres).query(points)
    town = distance < radii[nearest] * (1 + 0.15 * smooth_noise(rng, shape, 7))

    turned = rng.uniform(0, np.pi, num)[nearest]
    across, along = rotated_axes(points - centres[nearest], turned)
    length, depth = rng.uniform(12, 18), rng.uniform(8, 12)
    streets = (across % length < 1.2) | (along % depth < 1.2)
    blocks = (across // length * 10_000 + along // depth).astype(np.int64)
    houses = (across // 2.6 * 10_007 + along // 2.6 * 31).astype(np.int64) % 4093
    roofs = rng.choice([0.5, 0.7, 1.0, 1.3, 2.0], 4096)[houses]
    gardens = rng.choice([0.0, 0.3, 0.9], 4096)[houses]
    # Halls and warehouses fill their blocks.
    hall = rng.random(4096)[blocks % 4093] < 0.12
    roofs, gardens = np.where(hall, 2.1, roofs), np.where(hall, 0.0, gardens)
    return centres[0], town, streets, blocks + nearest * 10**9, roofs, gardens


# Seasonal end members of the spectra, in the order of SUPPORTED_BANDS.
_LEAFLESS: Final = (0.042, 0.054, 0.062, 0.170, 0.185, 0.190)
_NEEDLES: Final = (0.018, 0.034, 0.020, 0.230, 0.245, 0.095)
_DRY_GRASS: Final = (0.065, 0.095, 0.100, 0.270, 0.290, 0.290)


class Event(NamedTuple):
    """Permanent change of a parcel to a state on a day."""

    parcel: int
    state: int
    since: datetime.date


def make_events(
    rng: np.random.Generator, land: Land, dates: tuple[datetime.date, ...]
) -> tuple[Event, Event]:
    """Sample the felling of a forest stand and the building over of a parcel."""
    areas = np.bincount(land.parcels.ravel())
    forest = areas * (land.cover == FOREST)
    felled = rng.choice(np.flatnonzero(forest > forest.max() / 2))
    # Towns grow at their edge.
    to_town = ndimage.distance_transform_edt(land.cover[land.parcels] != TOWN)
    to_town = np.bincount(land.parcels.ravel(), to_town.ravel()) / areas
    open_land = areas * np.isin(land.cover, (GRASS, SOIL))
    built = np.where(open_land > open_land.max() / 3, to_town, np.inf).argmin()
    waits = rng.uniform(0.25, 0.75, 2) * (dates[-1] - dates[0]).days
    first, second = (dates[0] + datetime.timedelta(days=int(wait)) for wait in waits)
    return Event(int(felled), CLEAR_CUT, first), Event(int(built), CONSTRUCTION, second)


def states_on(day: datetime.date, land: Land, events: Sequence[Event]) -> Integers:
    """Return the state of each parcel on a day."""
    starts, season = _crop_season(day, land)
    stage = (season[:, None] >= starts).sum(axis=1) % 4  # after the stubble, bare soil again
    states = np.where(land.cover == SOIL, SOIL + stage, land.cover)
    for parcel, state, since in events:
        if day >= since:
            states[parcel] = state
    return states


def spectra_on(
    rng: np.random.Generator, day: datetime.date, land: Land, states: Integers
) -> Floats:
    """Return the reflectance of each parcel in all bands, with seasonal vegetation."""
    table = np.array(tuple(SPECTRA.values()))
    spectra = table[states]
    year_day = day.timetuple().tm_yday
    leaves = np.clip((year_day - 98) / 35, 0, 1) * np.clip((326 - year_day) / 40, 0, 1)
    summer = np.exp(-(((year_day - 222) / 38) ** 2))
    winter = np.clip(np.cos((year_day - 25) * 2 * np.pi / 365), 0, 1)
    starts, season = _crop_season(day, land)
    progress = (season - starts[:, 0]) / (starts[:, 1] - starts[:, 0])
    canopy = 0.66 + 0.34 * np.sin(np.pi * np.clip(progress, 0, 1))
    mown = rng.uniform(0.4, 1.2, len(states))
    for state, fraction, other in (
        (FOREST, np.full(len(states), 1 - leaves), _LEAFLESS),
        (FOREST, land.variety, _NEEDLES),
        (GRASS, mown * (0.1 + 0.55 * summer + 0.35 * winter), _DRY_GRASS),
        (GROWING, 0.7 * land.variety, table[GRASS]),
        (GROWING, 1 - canopy, table[SOIL]),
    ):
        spectra += (fraction * (states == state))[:, None] * (np.array(other) - spectra)
    managed = (states >= GRASS) & (states < TOWN)
    managed_tint = 1 + managed * rng.normal(0, 0.08, len(states))
    turbid = 1 + (states == WATER) * rng.uniform(-0.15, 0.3)
    spectra *= land.tints * (managed_tint * turbid)[:, None]
    return spectra


def _crop_season(day: datetime.date, land: Land) -> tuple[Integers, Integers]:
    """Return, per parcel, the crop's days of change and the day of the crop year."""
    sown = datetime.date(day.year - (day.month < 11), 11, 1)
    crop = (land.first_crop + sown.year) % len(CROP_DAYS)
    return np.array(CROP_DAYS)[crop], (day - sown).days - land.delay


TEXTURE: Final = (0.02, 0.24, 0.13, 0.08, 0.05, 0.05, 0.06, 0.06, 0.0, 0.05, 0.10)
"""Amplitude of the fixed pixel texture, per state."""

ROWS: Final = (0.0, 0.0, 0.0, 0.0, 0.03, 0.05, 0.04, 0.07, 0.0, 0.0, 0.0)
"""Amplitude of the rows of a field, per state."""

GROUND: Final = (0.0, 0.0, 0.5, 0.1, 1.0, 0.15, 0.4, 0.6, 0.0, 0.0, 0.7)
"""Contribution of the ground, with its colour and moisture, per state."""

# Path radiance falls steeply with wavelength, so haze affects mainly the blue end.
_HAZE: Final = (0.030, 0.018, 0.011, 0.004, 0.003, 0.001)
_CLOUD: Final = (0.640, 0.620, 0.630, 0.660, 0.660, 0.420)


def render_view(
    rng: np.random.Generator,
    land: Land,
    states: Integers,
    day: datetime.date,
    columns: list[int],
) -> Floats:
    """Render the reflectance of a place on a day under a clear sky.

    Args:
        rng: Generator of soil moisture, light, haze and noise.
        land: Static properties of the place.
        states: State of each parcel.
        day: Acquisition date.
        columns: Indices into `SUPPORTED_BANDS`.

    Returns:
        `(height, width, bands)` float32 reflectance.
    """
    spectra = spectra_on(rng, day, land, states)[:, columns].astype(np.float32)
    reflectance = spectra[land.parcels]
    surface = states[land.parcels]
    town = surface == TOWN
    green = np.array(SPECTRA["grass"], np.float32)[columns]
    reflectance[town] *= land.roofs[town][:, None]
    reflectance[town] += land.gardens[town][:, None] * (green - reflectance[town])

    wetness = rng.uniform(0, 0.25)
    shade = 1 + np.array(TEXTURE)[surface] * land.texture + np.array(ROWS)[surface] * land.rows
    shade += np.array(GROUND)[surface] * (0.1 * land.soil - wetness)
    reflectance *= np.maximum(shade, 0.3)[..., None].astype(np.float32)
    reflectance = ndimage.gaussian_filter(reflectance, (0.55, 0.55, 0))  # point spread

    sun = np.cos((day.timetuple().tm_yday - 172) * 2 * np.pi / 365)
    light = (0.96 + 0.06 * sun) * rng.uniform(0.92, 1.08)
    haze = min(rng.gamma(1.5, 0.35), 1.5)
    noise = rng.standard_normal(reflectance.shape, np.float32) * np.float32(0.0015)
    path = np.array(_HAZE, np.float32)[columns] * haze
    reflectance *= np.float32(light * (1 - 0.08 * haze))
    reflectance += path + noise
    return np.asarray(reflectance)


def add_clouds(
    rng: np.random.Generator, reflectance: Floats, columns: list[int]
) -> tuple[Floats, Mask]:
    """Add clouds and their shadows to a view.

    Args:
        rng: Generator of the clouds.
        reflectance: `(height, width, bands)`, under a clear sky.
        columns: Indices into `SUPPORTED_BANDS`.

    Returns:
        The reflectance with clouds, and `(height, width)` bool, true under a cloud or a shadow of
        any opacity.
    """
    shape = reflectance.shape[:2]
    scale = min(min(shape) / 9, 24)
    thickness = smooth_noise(rng, shape, scale) + 0.3 * smooth_noise(rng, shape, scale / 5)
    # A cloud and its shadow are equally large here, so together they hide 12 to 58 %.
    base = np.quantile(thickness, 1 - rng.uniform(0.12, 0.29))
    opacity = np.clip((thickness - base) / 0.35, 0, 1)
    # Morning sun from the south-east: shadows fall to the north-west.
    shift = -np.rint(rng.uniform(0.08, 0.16, 2) * min(shape)).astype(int)
    shadow = np.roll(opacity, shift, (0, 1))
    relief = 1 + 0.12 * np.tanh(thickness - base)
    bright = relief[..., None] * np.array(_CLOUD, np.float32)[columns]
    hidden = reflectance * (1 - 0.55 * shadow)[..., None]
    return hidden + opacity[..., None] * (bright - hidden), (opacity > 0) | (shadow > 0)


_CRS: Final = "EPSG:32631"  # UTM zone 31 north
_PIXEL_SIZE: Final = 10.0  # metres


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticSeries:
    """An image time series of one synthetic place, with its exact ground truth.

    Attributes:
        images: `(time, height, width, bands)` uint16 stored values, reflectance x 10,000. Every
            pixel is valid, hence at least 1: 0 would mean no data.
        clouds: `(time, height, width)` bool, true under a cloud or its shadow. Elsewhere the image
            is the same as under a clear sky.
        dates: Acquisition dates, ascending and distinct.
        states: `(time, height, width)` uint8 index into `STATES`: the true surface, under clouds
            too.
        parcels: `(height, width)` int32 id, from 0 and without gaps, of the object (field, forest
            stand, lake, town block, road ...) that a pixel belongs to at all dates.
        bands: Names of the bands, in the order of the last axis of `images`.
    """

    images: npt.NDArray[np.uint16]
    clouds: npt.NDArray[np.bool_]
    dates: tuple[datetime.date, ...]
    states: npt.NDArray[np.uint8]
    parcels: npt.NDArray[np.int32]
    bands: tuple[str, ...]

    def changed(self, before: int, after: int) -> npt.NDArray[np.bool_]:
        """Return where the surface differs between two dates.

        Args:
            before: Index of a date.
            after: Index of another date.

        Returns:
            `(height, width)` bool, true where the states differ.

        Raises:
            IndexError: An index is out of range.
        """
        changed: npt.NDArray[np.bool_] = self.states[before] != self.states[after]
        return changed

    def breaks(self) -> npt.NDArray[np.int64]:
        """Return when the felling and the building took place.

        Crops that rotate are no breaks.

        Returns:
            `(height, width)` int64: index of the first date at which a pixel is a clear cut or a
            construction site; -1 where it never is.
        """
        is_changed = np.isin(self.states, (CLEAR_CUT, CONSTRUCTION))
        return np.where(is_changed.any(axis=0), is_changed.argmax(axis=0), -1)

    def clear_dates(self, max_cloud: float = 0.02) -> tuple[int, ...]:
        """Return the indices of the dates with at most a fraction `max_cloud` of cloudy pixels."""
        cover = self.clouds.mean(axis=(1, 2))
        return tuple(int(index) for index in np.flatnonzero(cover <= max_cloud))


def make_series(
    seed: int,
    *,
    height: int = 256,
    width: int = 256,
    num_dates: int = 12,
    num_cloudy: int = 3,
    start: datetime.date = datetime.date(2017, 1, 15),
    bands: Sequence[str] = ("B02", "B03", "B04", "B08"),
) -> SyntheticSeries:
    """Sample a place and a series of images of it.

    The place depends on `seed`, `height` and `width` alone; dates and surface depend also on the
    sum of `num_dates` and `num_cloudy`. With clear dates instead of the cloudy ones, the series is
    therefore the same without its clouds. One forest stand is felled and one parcel is built over,
    each on a day between the first and the last date.

    Args:
        seed: At least 0; equal arguments give equal series.
        height: Rows, at least 64; a pixel is 10 m.
        width: Columns, at least 64.
        num_dates: Number of dates without a cloud, at least 2.
        num_cloudy: Number of further dates, on which clouds and shadows hide 10 to 60 %.
        start: First date; the last is 13 to 22 months later, or more if the dates would be less
            than about 5 days apart.
        bands: Distinct names out of `SUPPORTED_BANDS`, in the order wanted.

    Returns:
        The series, with `num_dates + num_cloudy` dates.

    Raises:
        ConfigError: An argument is out of its range.

    Examples:
        >>> from sits_keras.data.synthetic import make_series
        >>> series = make_series(0, height=64, width=64, num_dates=2, num_cloudy=0)
        >>> series.images.shape
        (2, 64, 64, 4)
    """
    bands = tuple(bands)
    _check_arguments(
        {
            "seed": (seed, 0),
            "height": (height, 64),
            "width": (width, 64),
            "num_dates": (num_dates, 2),
            "num_cloudy": (num_cloudy, 0),
        },
        bands,
    )
    total = num_dates + num_cloudy
    land_seed, date_seed, event_seed, view_seed, cloud_seed = np.random.SeedSequence(seed).spawn(5)
    land = make_land(np.random.default_rng(land_seed), (height, width))
    dates = _make_dates(np.random.default_rng(date_seed), start, total)
    events = make_events(np.random.default_rng(event_seed), land, dates)
    states = np.stack([states_on(day, land, events) for day in dates])  # per parcel

    columns = [SUPPORTED_BANDS.index(band) for band in bands]
    images = np.empty((total, height, width, len(bands)), np.uint16)
    clouds = np.zeros((total, height, width), np.bool_)
    cloud_rng = np.random.default_rng(cloud_seed)
    cloudy = set(cloud_rng.permutation(total)[:num_cloudy].tolist())
    for index, view in enumerate(view_seed.spawn(total)):
        rng = np.random.default_rng(view)
        reflectance = render_view(rng, land, states[index], dates[index], columns)
        if index in cloudy:
            reflectance, clouds[index] = add_clouds(cloud_rng, reflectance, columns)
        images[index] = np.clip(np.rint(reflectance * 10000), 1, 20000)
    surface = states.astype(np.uint8)[:, land.parcels]
    return SyntheticSeries(images, clouds, dates, surface, land.parcels.astype(np.int32), bands)


def write_series(
    series: SyntheticSeries, folder: Path, *, origin: tuple[float, float] = (600000.0, 5000000.0)
) -> Path:
    """Write a series as dated rasters.

    Each date becomes `<YYYY-MM-DD>.tif`, uint16 with the names of the bands, and
    `<YYYY-MM-DD>_cloud.tif`, uint8: 1 under a cloud or its shadow and 0 elsewhere. Both are in UTM
    zone 31 north (EPSG:32631), with pixels of 10 m.

    Args:
        series: Series to write.
        folder: Output folder. It is created if needed; files of the same dates are replaced, and
            others stay.
        origin: Easting and northing of the upper left corner, in metres. Series with the same
            origin overlap.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    height, width = series.parcels.shape
    easting, northing = origin
    transform = (_PIXEL_SIZE, 0.0, easting, 0.0, -_PIXEL_SIZE, northing)
    grid = Grid(height, width, _CRS, transform)
    for date, image, clouds in zip(series.dates, series.images, series.clouds, strict=True):
        # The mask first: if writing is interrupted, no cloudy image is left without one.
        mask = clouds[..., np.newaxis].astype(np.uint8)
        write_raster(folder / f"{date}_cloud.tif", mask, ("cloud",), grid)
        write_raster(folder / f"{date}.tif", image, series.bands, grid)
    return folder


def _check_arguments(sizes: dict[str, tuple[int, int]], bands: tuple[str, ...]) -> None:
    for name, (value, least) in sizes.items():
        if value < least:
            raise ConfigError(f"{name} must be at least {least}. Received: {name}={value}.")
    if not bands or len(set(bands)) < len(bands) or not set(bands) <= set(SUPPORTED_BANDS):
        supported = ", ".join(SUPPORTED_BANDS)
        raise ConfigError(f"bands must be distinct names of {supported}. Received: {bands!r}.")


def _make_dates(
    rng: np.random.Generator, start: datetime.date, num: int
) -> tuple[datetime.date, ...]:
    span = max(int(rng.integers(400, 660)), 5 * num)
    steps = rng.uniform(0.5, 1.5, num - 1).cumsum()
    days = np.rint(steps / steps[-1] * span)
    return (start, *(start + datetime.timedelta(days=int(day)) for day in days))
