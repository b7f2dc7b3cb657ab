"""Map a scene by clusters of its pixels, and print the fraction of each class.

    python examples/segment_scene.py MODULE SCENE.tif OUT.tif

MODULE is a hub module of the shared encoder: `sits-keras export RUN MODULE`.
"""

import sys

from sits_keras import hub
from sits_keras.tasks import segment_raster

module, scene, out = sys.argv[1:]
encoder = hub.load(module)
picture = out.replace(".tif", ".png")
done = segment_raster(scene, out, encoder, picture=picture, progress=True)
fractions = done.num_pixels / done.num_pixels.sum()

# QGIS shows these colours and names.
for fraction, one in zip(fractions, done.clusters.classes().values(), strict=True):
    print(f"{fraction:6.1%}  {one.name}")
