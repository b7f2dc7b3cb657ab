"""What the sensor sees of a surface: light, haze and clouds."""

import datetime
from typing import Final

import numpy as np
from scipy import ndimage

from sits_keras.data.synthetic.land import Land
from sits_keras.data.synthetic.patterns import smooth_noise
from sits_keras.data.synthetic.states import SPECTRA, TOWN
from sits_keras.data.synthetic.surface import spectra_on

TEXTURE: Final = (0.02, 0.24, 0.13, 0.08, 0.05, 0.05, 0.06, 0.06, 0.0, 0.05, 0.10)
"""How strongly the fixed pixel texture shows, per state."""

ROWS: Final = (0.0, 0.0, 0.0, 0.0, 0.03, 0.05, 0.04, 0.07, 0.0, 0.0, 0.0)
"""How strongly the rows of a field show, per state."""

GROUND: Final = (0.0, 0.0, 0.5, 0.1, 1.0, 0.15, 0.4, 0.6, 0.0, 0.0, 0.7)
"""How much of the ground, with its colour and its moisture, shows, per state."""

# Path radiance falls steeply with wavelength, so haze is a matter of the blue end.
_HAZE: Final = (0.030, 0.018, 0.011, 0.004, 0.003, 0.001)
_CLOUD: Final = (0.640, 0.620, 0.630, 0.660, 0.660, 0.420)


def render_view(
    rng: np.random.Generator,
    land: Land,
    states: np.ndarray,
    day: datetime.date,
    columns: list[int],
) -> np.ndarray:
    """What the sensor sees on a day under a clear sky.

    Args:
        rng: the day's luck: soil moisture, light, haze, noise.
        land: the place.
        states: of each parcel.
        day: of the view.
        columns: indices into `SUPPORTED_BANDS`.
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
    return reflectance


def add_clouds(
    rng: np.random.Generator, reflectance: np.ndarray, columns: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Lays clouds and their shadows over a view.

    Args:
        rng: draws the clouds.
        reflectance: `(height, width, bands)`, under a clear sky.
        columns: indices into `SUPPORTED_BANDS`.
    Returns:
        The reflectance with clouds, and `(height, width)` bool, true where they or their shadows
        are at all.
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
