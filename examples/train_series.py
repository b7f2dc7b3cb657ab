"""Train on your own series with `model.fit`, and export the encoder.

    python examples/train_series.py SERIES

SERIES is a folder with a sub-folder of <YYYY-MM-DD>.tif rasters for each place, of the bands B02,
B03, B04 and B08 (see `sits-keras prepare --help`).
"""

import sys

import keras

from sits_keras import DisentangledSITS, ModelConfig, hub
from sits_keras.data import pair_dataset, prepare

records = prepare(sys.argv[1], "records")
pairs = pair_dataset(records, batch_size=32, seed=0)  # (x, y): two dates of the same crops

model = DisentangledSITS(ModelConfig(width=16))  # the paper's losses and optimizers
model.compile()
model.fit(
    pairs, steps_per_epoch=100, epochs=20, callbacks=[keras.callbacks.CSVLogger("history.csv")]
)
model.save("model.keras")
hub.export(model, "shared_encoder")  # tensorflow_hub.load("shared_encoder")(images)
