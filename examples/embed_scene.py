"""Embed a scene, and find the windows most similar to one of them.

    python examples/embed_scene.py MODULE SCENE.tif OUT.parquet [ROW COL]

MODULE is a hub module of the shared encoder: `sits-keras export RUN MODULE`. Requires pyarrow
(`pip install pyarrow`). ROW and COL are a pixel of the scene.
"""

import sys

import numpy as np
import pyarrow.parquet

from sits_keras import hub
from sits_keras.tasks import embed_raster

module, scene, out = sys.argv[1:4]
row, col = map(int, sys.argv[4:6]) if len(sys.argv) > 4 else (32, 32)
embed_raster(scene, out, hub.load(module), stride=16, progress=True)

table = pyarrow.parquet.read_table(out)  # geopandas.read_parquet(out) has the outlines, too
places = np.stack([table["row"], table["col"]], axis=1)
features = np.stack(table["features"].to_numpy())
query = np.abs(places + 32 - (row, col)).sum(axis=1).argmin()
distances = np.abs(features - features[query]).sum(axis=1)
for index in distances.argsort()[:5]:
    print(f"row {places[index][0]:5} col {places[index][1]:5}  distance {distances[index]:.2f}")
