"""The surfaces that a place is made of: their names, their spectra, the calendar of crops."""

from typing import Final

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

# Indices into STATES, of those that the rest of the package names.
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
