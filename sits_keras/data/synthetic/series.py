"""Series of images of a synthetic place: drawn from a seed, and written to files."""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.synthetic.land import make_land
from sits_keras.data.synthetic.states import SUPPORTED_BANDS
from sits_keras.data.synthetic.surface import make_events, states_on
from sits_keras.data.synthetic.view import add_clouds, render_view
from sits_keras.errors import ConfigError

_CRS: Final = "EPSG:32631"  # UTM zone 31 north
_PIXEL_SIZE: Final = 10.0  # metres


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticSeries:
    """An image time series of one synthetic place, with its exact truth.

    Attributes:
        images: `(time, height, width, bands)` uint16 digital numbers, reflectance x 10,000. Every
            pixel is valid, hence at least 1: 0 would mean no data.
        clouds: `(time, height, width)` bool, true under a cloud or its shadow. Elsewhere the image
            is exactly what it would be under a clear sky.
        dates: of the images, ascending and distinct.
        states: `(time, height, width)` uint8, index into `STATES`: the true surface, under clouds
            too.
        parcels: `(height, width)` int32, from 0 and without gaps: the id of the object (field,
            forest stand, lake, town block, road ...) a pixel belongs to, whatever the date.
        bands: names of the bands, in the order of the last axis of `images`.
    """

    images: npt.NDArray[np.uint16]
    clouds: npt.NDArray[np.bool_]
    dates: tuple[datetime.date, ...]
    states: npt.NDArray[np.uint8]
    parcels: npt.NDArray[np.int32]
    bands: tuple[str, ...]

    def changed(self, before: int, after: int) -> npt.NDArray[np.bool_]:
        """Where the surface differs between two dates.

        Args:
            before: index of a date.
            after: index of another date.
        Returns:
            `(height, width)` bool, true where the states differ.
        Raises:
            IndexError: an index is beyond the dates.
        """
        return self.states[before] != self.states[after]

    def clear_dates(self, max_cloud: float = 0.02) -> tuple[int, ...]:
        """Indices of the dates with at most a share `max_cloud` of cloudy pixels."""
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
    """Draws a place and a series of images of it.

    The place depends on `seed`, `height` and `width` alone, and dates and surface on the sum of
    `num_dates` and `num_cloudy`: asking for clear dates in place of the cloudy ones gives the same
    series without its clouds. One forest stand is felled and one parcel is built over, each on a
    day between the first and the last date.

    Args:
        seed: at least 0; equal arguments give equal series.
        height: rows, at least 64; a pixel stands for 10 m.
        width: columns, at least 64.
        num_dates: dates without a cloud, at least 2.
        num_cloudy: further dates, at least 0, of which clouds and shadows hide 10 to 60 %.
        start: the first date; the last is 13 to 22 months later, or more where the dates would be
            less than about 5 days apart.
        bands: names out of `SUPPORTED_BANDS`, each at most once, in the order wanted.
    Returns:
        The series, with `num_dates + num_cloudy` dates.
    Raises:
        ConfigError: an argument is outside the range given above.
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
    """Writes a series as the files that `sits_keras.data.sources.series` finds.

    Each date becomes `<YYYY-MM-DD>.tif`, uint16 with the names of the bands, and
    `<YYYY-MM-DD>_cloud.tif`, uint8: 1 under a cloud or its shadow and 0 elsewhere. Both lie in UTM
    zone 31 north (EPSG:32631), with pixels of 10 m.

    Args:
        series: what to write.
        folder: to write to. It is made where it is not there; files of the same dates are
            replaced, and others stay.
        origin: easting and northing of the upper left corner, in metres. Series lie on top of each
            other unless they are given different ones.
    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    height, width = series.parcels.shape
    easting, northing = origin
    transform = (_PIXEL_SIZE, 0.0, easting, 0.0, -_PIXEL_SIZE, northing)
    grid = Grid(height, width, _CRS, transform)
    for date, image, clouds in zip(series.dates, series.images, series.clouds, strict=True):
        # The mask first: where writing is cut short, no cloudy image is left without one.
        mask = clouds[..., np.newaxis].astype(np.uint8)
        write_raster(folder / f"{date}_cloud.tif", mask, ("cloud",), grid)
        write_raster(folder / f"{date}.tif", image, series.bands, grid)
    return folder


def _check_arguments(sizes: dict[str, tuple[int, int]], bands: tuple[str, ...]) -> None:
    for name, (value, least) in sizes.items():
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}")
    if not bands or len(set(bands)) < len(bands) or not set(bands) <= set(SUPPORTED_BANDS):
        supported = ", ".join(SUPPORTED_BANDS)
        raise ConfigError(f"bands must be distinct names out of {supported}, got {bands!r}")


def _make_dates(
    rng: np.random.Generator, start: datetime.date, num: int
) -> tuple[datetime.date, ...]:
    span = max(int(rng.integers(400, 660)), 5 * num)
    steps = rng.uniform(0.5, 1.5, num - 1).cumsum()
    days = np.rint(steps / steps[-1] * span)
    return (start, *(start + datetime.timedelta(days=int(day)) for day in days))
