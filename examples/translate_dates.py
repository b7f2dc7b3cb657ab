"""Translate one place to the dates of its series: scores, a raster, and pictures.

    python examples/translate_dates.py MODEL SERIES

MODEL is a .keras file or the folder of a run, SERIES a folder of <YYYY-MM-DD>.tif rasters of one
place that the model was not trained on.
"""

import sys
from pathlib import Path

import numpy as np

import sits_keras
from sits_keras.data.rasters.read import read_stored
from sits_keras.data.sources.series import find_series
from sits_keras.tasks import pictures, translate_raster
from sits_keras.tasks.translation import table_1
from sits_keras.tasks.translation.rasters import read_crops

model = sits_keras.load_model(sys.argv[1])
bands, band_max = model.config.bands, model.config.band_max
(series,) = find_series([sys.argv[2]])
dates = [Path(granule.image) for granule in series.granules if granule.image]
first, last = dates[0], dates[-1]

# Table 1 for this place. The baseline "unchanged" takes one date for the other.
images = np.stack([read_stored(date, bands) for date in dates])
crops = table_1.sample_crops([images], 64, band_max, seed=0)
for row, distance in table_1.measure_translation(model, crops)._asdict().items():
    print(f"{row:<12} {distance.mean:.4f} +- {distance.std:.4f}")

# The whole raster at the date of another, in bounded memory.
translate_raster([first, last], f"{first.stem}-as-{last.stem}.tif", model)

# Figure 4: the series, and the place of its first date at each date.
generated = np.asarray(model.reconstruct_series(crops[0]))
pictures.plot_series(
    [("real", crops[0][:8]), ("generated", generated[:8])],
    [date.stem for date in dates[:8]],
    Path("series.png"),
    bands=bands,
    band_max=band_max,
)
# From the first date to the last.
place, other = read_crops([first, last], model.config)[:, None]
steps = np.asarray(model.interpolate(place, place, other, 5))[0]
pictures.plot_series(
    [("", np.concatenate([place, steps, other]))],
    [first.stem, "0%", "25%", "50%", "75%", "100%", last.stem],
    Path("steps.png"),
    bands=bands,
    band_max=band_max,
)
