"""What is known of Sentinel-2's bands: the reflectance that the networks see as 1."""

from collections.abc import Sequence

from sits_keras.errors import ConfigError

BAND_MAX = {
    "B01": 0.30,
    "B02": 0.30,
    "B03": 0.30,
    "B04": 0.40,
    "B05": 0.40,
    "B06": 0.50,
    "B07": 0.60,
    "B08": 0.60,
    "B8A": 0.60,
    "B09": 0.60,
    "B11": 0.60,
    "B12": 0.50,
}
"""Reflectance shown to the networks as 1.0, by band (not given in the paper): close to the 99.9th
percentile over snow-free, cloud-free land, so that [-1, 1] is well used and only snow and cloud
are clipped."""


def default_band_max(bands: Sequence[str]) -> tuple[float, ...]:
    """`BAND_MAX` of some bands.

    Raises:
        ConfigError: none is known of one of them.
    """
    unknown = [band for band in bands if band not in BAND_MAX]
    if unknown:
        raise ConfigError(
            f"No default band_max is known for {', '.join(unknown)}: give band_max, the "
            f"reflectance that 1.0 stands for, for each band. Known: {', '.join(BAND_MAX)}."
        )
    return tuple(BAND_MAX[band] for band in bands)
