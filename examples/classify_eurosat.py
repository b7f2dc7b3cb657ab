"""Classify land cover with a trained encoder: the paper's section 4.4 in a few lines.

    python examples/classify_eurosat.py EuroSAT.zip MODEL [SCENE.tif]

EuroSAT.zip is the official archive, of pictures for a model of B04, B03 and B02, or of 13 bands; a
folder of <Class>/<file> chips does as well. MODEL is a .keras file or the folder of a run. With a
SCENE that names its bands, a class map of it is written, too.
"""

import sys
from pathlib import Path

from sits_keras.tensorflow_import import import_tensorflow

import_tensorflow()  # faster and quieter than a plain import

from sits_keras import load_model  # noqa: E402
from sits_keras.data.eurosat import read_labelled  # noqa: E402
from sits_keras.tasks.classification.classifier import (  # noqa: E402
    save_classifier,
    train_classifier,
)
from sits_keras.tasks.classification.predict import classify_raster  # noqa: E402
from sits_keras.tasks.classification.table_3 import (  # noqa: E402
    QUICK_METHODS,
    fill_table,
)

model = load_model(sys.argv[2])
images = read_labelled(sys.argv[1], model.config.bands, progress=True)

# Table 3 with a tenth of the labels: frozen features against what knows nothing of the series.
for row in fill_table(model, images, methods=QUICK_METHODS, fractions=[0.1], progress=True):
    print(f"{row['title']:32} {row['accuracy']:.1%}  ({row['low']:.1%} to {row['high']:.1%})")

classifier = train_classifier(model, images, progress=True)
save_classifier(classifier, "classifier", overwrite=True)  # classifier/confusion.png: look at it
for scene in sys.argv[3:]:
    shares = classify_raster(classifier, Path(scene), Path("classes.tif"), progress=True)
    print({name: round(share, 3) for name, share in shares.items()})
