"""Map a scene by clusters of what it looks like, and say how much of it each covers.

    python examples/segment_scene.py MODULE SCENE.tif OUT.tif

MODULE is a hub module of the shared encoder: `sits-keras export RUN MODULE`.
"""

import sys

import numpy as np

from sits_keras import hub
from sits_keras.tasks.pictures import draw_classes
from sits_keras.tasks.segmentation.maps import write_segments

module, scene, out = sys.argv[1:]
encoder = hub.load(module)
clusters, preview = write_segments(scene, out, encoder, stride=16, fit_stride=16, progress=True)
classes = clusters.classes()  # opens in QGIS with these colours and names
draw_classes(scene, preview, classes, out.replace(".tif", ".png"), bands=encoder.bands)

for value, one in classes.items():
    print(f"{value}  {np.mean(preview == value):6.1%}  {one.name}")
