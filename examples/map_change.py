"""Map changes between two dates of a place, with your own threshold.

    python examples/map_change.py MODULE BEFORE.tif AFTER.tif OUT.tif

MODULE is a hub module: `sits-keras export RUN MODULE --encoder exclusive`.
"""

import sys

import numpy as np

from sits_keras import hub
from sits_keras.tasks.change.detection import detect_change
from sits_keras.tasks.change.maps import plot_change

module, before, after, out = sys.argv[1:]
change = detect_change(before, after, hub.load(module), stride=16, progress=True)

distance = change.map().distance  # (height, width), NaN where there is no data
change.threshold = float(np.nanpercentile(distance, 95))  # the 5 % with the largest distance

fraction = change.write(out)  # band 1: distance; band 2: changed (0 or 1)
plot_change(change, out.replace(".tif", ".png"))
print(f"{out}: {fraction:.1%} changed")
