"""What covers each parcel on a day, and its reflectance."""

import datetime
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy import ndimage

from sits_keras.data.synthetic.land import Land
from sits_keras.data.synthetic.states import (
    CLEAR_CUT,
    CONSTRUCTION,
    CROP_DAYS,
    FOREST,
    GRASS,
    GROWING,
    SOIL,
    SPECTRA,
    TOWN,
    WATER,
)

# What the spectra of states shift to with the season, in the order of SUPPORTED_BANDS.
_LEAFLESS: Final = (0.042, 0.054, 0.062, 0.170, 0.185, 0.190)
_NEEDLES: Final = (0.018, 0.034, 0.020, 0.230, 0.245, 0.095)
_DRY_GRASS: Final = (0.065, 0.095, 0.100, 0.270, 0.290, 0.290)


class Event(NamedTuple):
    """A parcel takes a state for good on a day."""

    parcel: int
    state: int
    since: datetime.date


def make_events(
    rng: np.random.Generator, land: Land, dates: tuple[datetime.date, ...]
) -> tuple[Event, Event]:
    """Draws the felling of a forest stand and the building over of a parcel between two dates."""
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


def states_on(day: datetime.date, land: Land, events: Sequence[Event]) -> np.ndarray:
    """The state of each parcel on a day."""
    starts, season = _crop_season(day, land)
    stage = (season[:, None] >= starts).sum(axis=1) % 4  # after the stubble, bare soil again
    states = np.where(land.cover == SOIL, SOIL + stage, land.cover)
    for parcel, state, since in events:
        if day >= since:
            states[parcel] = state
    return states


def spectra_on(
    rng: np.random.Generator, day: datetime.date, land: Land, states: np.ndarray
) -> np.ndarray:
    """Reflectance of each parcel in all bands, with the season's leaves, grass and canopies."""
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
    for state, share, other in (
        (FOREST, np.full(len(states), 1 - leaves), _LEAFLESS),
        (FOREST, land.variety, _NEEDLES),
        (GRASS, mown * (0.1 + 0.55 * summer + 0.35 * winter), _DRY_GRASS),
        (GROWING, 0.7 * land.variety, table[GRASS]),
        (GROWING, 1 - canopy, table[SOIL]),
    ):
        spectra += (share * (states == state))[:, None] * (np.array(other) - spectra)
    managed = (states >= GRASS) & (states < TOWN)
    managed_tint = 1 + managed * rng.normal(0, 0.08, len(states))
    turbid = 1 + (states == WATER) * rng.uniform(-0.15, 0.3)
    spectra *= land.tints * (managed_tint * turbid)[:, None]
    return spectra


def _crop_season(day: datetime.date, land: Land) -> tuple[np.ndarray, np.ndarray]:
    """Per parcel, the crop's days of change and the day of the crop year."""
    sown = datetime.date(day.year - (day.month < 11), 11, 1)
    crop = (land.first_crop + sown.year) % len(CROP_DAYS)
    return np.array(CROP_DAYS)[crop], (day - sown).days - land.delay
