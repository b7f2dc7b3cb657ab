"""A procedural place in the countryside, seen many times by a Sentinel-2-like sensor.

The demo data and the tests need image time series whose truth is known exactly: where every field
is, what covers each pixel on each date, what changed and when. `make_series` draws them from a
seed. The place (field pattern, forest, water, towns, roads) stays; crops, leaves, light, haze and
soil moisture come and go, so that two dates of one place can look less alike than two places.
`write_series` writes them as the rasters that the rest of the package reads.
"""

from sits_keras.data.synthetic.series import SyntheticSeries, make_series, write_series
from sits_keras.data.synthetic.states import STATES, SUPPORTED_BANDS

__all__ = ["STATES", "SUPPORTED_BANDS", "SyntheticSeries", "make_series", "write_series"]
