"""Map a scene by clusters of its windows, and print the fraction of each class.

    python examples/segment_scene.py MODULE SCENE.tif OUT.tif

MODULE is a hub module of the shared encoder: `sits-keras export RUN MODULE`.
"""

import sys

import numpy as np

from sits_keras import hub
from sits_keras.tasks import segment_raster

module, scene, out = sys.argv[1:]
encoder = hub.load(module)
picture = out.replace(".tif", ".png")
clusters, preview = segment_raster(
    scene, out, encoder, stride=16, fit_stride=16, picture=picture, progress=True
)
classes = clusters.classes()  # QGIS shows these colours and names

for value, one in classes.items():
    print(f"{value}  {np.mean(preview == value):6.1%}  {one.name}")
