"""Measure and plot retrieval of places at another date, compared with raw pixels and chance.

    python examples/retrieve_places.py MODULE SERIES [STRIDE]

MODULE is a hub module (`sits-keras export RUN MODULE`), SERIES a folder of <YYYY-MM-DD>.tif
rasters of one place that the model was not trained on.
"""

import sys
from pathlib import Path

import numpy as np

from sits_keras import hub
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.read import read_stored
from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.rasters.write import write_boxes
from sits_keras.data.sources.series import find_series
from sits_keras.tasks.retrieval import search, table_2
from sits_keras.tasks.windows import raw_pixels

encoder = hub.load(sys.argv[1])
(series,) = find_series([sys.argv[2]])
stride = int(sys.argv[3]) if len(sys.argv) > 3 else search.STRIDE
dates = [granule.image for granule in series.granules if granule.image]

# Table 2 for this place: 64 windows of each date looked up in all the others.
images = np.stack([read_stored(path, encoder.bands) for path in dates])
reflectance = images.astype(np.float32) / QUANTIFICATION
for name, one in (("shared", encoder), ("pixels", raw_pixels)):
    recall = table_2.measure_recall(one, [reflectance], stride=stride)
    print(f"{name:<8} {recall.at_1:.3f} at 1, {recall.at_5:.3f} at 5, {recall.near:.3f} near")
print(f"chance   {recall.chance:.3f} at 1, {recall.chance_at_5:.3f} at 5, {recall.chance_near:.3f}")

# Figure 5: windows of the first date found in the last, as boxes for a GIS and as a picture.
queried, searched = (open_strips(path, encoder.bands) for path in (dates[0], dates[-1]))
queries = search.sample_queries(queried, 8, stride=stride)
found = search.find_windows(encoder, queried, queries, searched, stride=stride)
boxes = [(match.window, {"query": match.query, "distance": match.distance}) for match in found]
write_boxes(Path("found.geojson"), boxes, searched.grid)
search.plot_matches(queried, queries, searched, found, Path("found.png"))
