"""Score an encoder's change maps on labelled pairs, with two baselines.

    python examples/change_scores.py MODULE PAIRS [STRIDE]

MODULE is a hub module: `sits-keras export RUN MODULE --encoder exclusive`. PAIRS contains
folders `<family>-<name>`, each with before.tif, after.tif and mask.tif.
"""

import sys

from sits_keras import hub
from sits_keras.tasks.change.scores import mean_by_family, score_pairs

stride = int(sys.argv[3]) if len(sys.argv) > 3 else 32
scores = score_pairs(sys.argv[2], {"exclusive": hub.load(sys.argv[1])}, stride=stride)

for family, methods in mean_by_family(scores).items():
    print(f"{family}: {methods['exclusive']['num_pairs']} pairs")
    for method, mean in methods.items():
        print(f"  {method:<28}F1 {mean['f1']:.3f}  IoU {mean['iou']:.3f}", end="  ")
        print(f"AP {mean['average_precision']:.3f} (chance {mean['chance']:.3f})")
