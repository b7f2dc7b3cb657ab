"""Classify land cover with a trained encoder (section 4.4).

    python examples/classify_eurosat.py EuroSAT.zip MODEL [SCENE.tif]

EuroSAT.zip is the official archive, of pictures for a model of B04, B03 and B02 or of 13 bands, or
a folder of <Class>/<file> chips. MODEL is a .keras file or the folder of a run. SCENE is a raster
that names its bands; its class map is written to classes.tif.
"""

import sys

from sits_keras.tensorflow_import import import_tensorflow

import_tensorflow()  # faster and quieter than a plain import

from sits_keras import load_model  # noqa: E402
from sits_keras.data.eurosat import read_labelled  # noqa: E402
from sits_keras.tasks import classify_raster, train_classifier  # noqa: E402
from sits_keras.tasks.classification.table_3 import (  # noqa: E402
    QUICK_METHODS,
    fill_table,
)

model = load_model(sys.argv[2])
images = read_labelled(sys.argv[1], model.config.bands, progress=True)

# Table 3 with a tenth of the labels: frozen features and baselines.
for row in fill_table(model, images, methods=QUICK_METHODS, fractions=[0.1], progress=True):
    print(f"{row['title']:32} {row['accuracy']:.1%}  ({row['low']:.1%} to {row['high']:.1%})")

# The classifier, with its confusion matrix in classifier/confusion.png.
classifier = train_classifier(sys.argv[1], "classifier", model, overwrite=True, progress=True)
for scene in sys.argv[3:]:
    fractions = classify_raster(scene, "classes.tif", classifier, progress=True)
    print({name: round(fraction, 3) for name, fraction in fractions.items()})
