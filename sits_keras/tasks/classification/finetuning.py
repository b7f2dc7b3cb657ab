"""Networks that learn classes: a head on features, or on an encoder that learns too (section 4.4).

The head is the paper's: fully-connected layers of 64 units and of as many as there are classes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers
from tqdm import tqdm

from sits_keras.config import GRID_SIZE, IMAGE_SIZE
from sits_keras.data.eurosat import LabelledImages
from sits_keras.errors import ConfigError
from sits_keras.layers import seeded_initializer
from sits_keras.tasks.windows.sliding import Encoder

HEAD_UNITS = 64
BATCH_SIZE = 64

MIN_STEPS = 500
"""With few labels an epoch is a handful of steps: by default, epochs go on until there are this
many."""

LEARNING_RATE = 3e-3
"""Adam's first learning rate, which falls to zero along half a cosine: of 3e-4, 1e-3 and 3e-3 the
best for the head and for a network from scratch alike, on a held-out part of EuroSAT's training
images."""

MOMENTUM = 0.9
"""Of the encoder's moving statistics where it learns too. Keras' 0.99 follows so slowly that a
hundred steps end with the statistics of weights that are gone."""

EPOCHS = {"pooled": 10, "frozen": 10, "full": 10, "scratch": 50}
"""The paper's (Table 3), which has no pooled features."""


class Trained(NamedTuple):
    """What training ended with.

    Attributes:
        network: a `keras.Model` to `(batch, classes)` logits, from features or network values.
        history: loss and accuracy on the training images, of each epoch.
    """

    network: keras.Model
    history: list[dict[str, float]]


def train_head(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    seed: int,
    epochs: int = EPOCHS["frozen"],
    min_steps: int | None = None,
    learning_rate: float = LEARNING_RATE,
    progress: bool = False,
) -> Trained:
    """Trains the two fully-connected layers on features of a frozen encoder.

    Features are standardised by those that are trained on, so that one learning rate serves every
    encoder; the first layer could do the same.

    Args:
        features: `(images, num_features)` float32.
        labels: `(images,)` int.
        num_classes: how many classes there are.
        seed: seed of the weights and of the order of the images.
        epochs: how often each image is seen; more often where that is under `min_steps` steps.
        min_steps: in place of `MIN_STEPS`; 0 for no more epochs than are asked for.
        learning_rate: Adam's, at first.
        progress: show a progress bar.
    """
    inputs = keras.Input((features.shape[1],), name="features")
    standardise = layers.Normalization(
        mean=features.mean(axis=0), variance=features.var(axis=0), name="standardise"
    )
    network = keras.Model(inputs, _head(standardise(inputs), num_classes, seed), name="head")
    return _fit(
        network,
        lambda batch: features[batch],
        labels,
        seed,
        epochs,
        min_steps,
        learning_rate,
        progress,
    )


def train_network(
    encoder: keras.Model,
    band_max: Sequence[float],
    images: LabelledImages,
    indices: np.ndarray,
    *,
    seed: int,
    epochs: int = EPOCHS["full"],
    min_steps: int | None = None,
    learning_rate: float = LEARNING_RATE,
    progress: bool = False,
) -> Trained:
    """Trains a copy of an encoder together with the two fully-connected layers.

    All weights learn, and batch normalization uses and gathers statistics of its batches.

    Args:
        encoder: from `(batch, 64, 64, bands)` network values; it is left as it is.
        band_max: reflectance of each band that the encoder sees as 1.
        images: the labelled images.
        indices: those to train on.
        seed, epochs, min_steps, learning_rate, progress: as in `train_head`.
    Raises:
        ConfigError: the images have another number of bands than the encoder.
    """
    _check_bands(encoder, images)
    copy = keras.models.clone_model(encoder)
    copy.set_weights(encoder.get_weights())
    for layer in copy.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = MOMENTUM
    inputs = keras.Input((IMAGE_SIZE, IMAGE_SIZE, len(images.bands)), name="image")
    # Said in numbers, for under padding="context" Keras does not know the sides of the grid.
    length = GRID_SIZE**2 * copy.output_shape[-1]
    features = layers.Reshape((length,), name="features")(copy(inputs))
    network = keras.Model(inputs, _head(features, len(images.classes), seed), name="classifier")

    def load(batch: np.ndarray) -> np.ndarray:
        return scale_to_network(images.reflectance(indices[batch]), band_max)

    return _fit(
        network,
        load,
        images.labels[indices],
        seed,
        epochs,
        min_steps,
        learning_rate,
        progress,
    )


def network_encoder(network: keras.Model, band_max: Sequence[float]) -> Encoder:
    """A network that takes network values, as an encoder that takes reflectance.

    Its batch normalization is that of inference. What comes out is flattened to
    `(batch, num_features)`.
    """

    def encode(images: np.ndarray) -> np.ndarray:
        output = network(scale_to_network(images, band_max), training=False)
        return np.reshape(output, (len(images), -1))

    return encode


def scale_to_network(reflectance: np.ndarray, band_max: Sequence[float]) -> np.ndarray:
    """Reflectance as network values, float32 in [-1, 1]."""
    gain = 2 / np.asarray(band_max, np.float32)
    return np.clip(np.asarray(reflectance, np.float32) * gain - 1, -1, 1)


def _head(features: Any, num_classes: int, seed: int) -> Any:
    # The paper does not say what is between its two layers.
    hidden = layers.Dense(
        HEAD_UNITS,
        activation="relu",
        kernel_initializer=seeded_initializer(seed, "head_1"),
        name="head_1",
    )(features)
    return layers.Dense(
        num_classes,
        kernel_initializer=seeded_initializer(seed, "head_2"),
        dtype="float32",
        name="head_2",
    )(hidden)


def _fit(
    network: keras.Model,
    load: Any,
    labels: np.ndarray,
    seed: int,
    epochs: int,
    min_steps: int | None,
    learning_rate: float,
    progress: bool,
) -> Trained:
    if epochs < 1:
        raise ConfigError(f"epochs must be at least 1. Received: epochs={epochs}.")
    steps = -(-len(labels) // BATCH_SIZE)
    least = MIN_STEPS if min_steps is None else min_steps
    epochs = max(epochs, -(-least // steps))
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps)
    network.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # XLA is slower on CPU.
    )
    rng = np.random.default_rng(seed)
    history = []
    bar = tqdm(range(1, epochs + 1), "train", unit="epoch", disable=not progress, leave=False)
    # Not `fit`, which takes longer to begin an epoch than a few labels take to go through.
    for epoch in bar:
        order = rng.permutation(len(labels))
        network.reset_metrics()
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            logs = network.train_on_batch(load(batch), labels[batch], return_dict=True)
        history.append({"epoch": epoch, **{name: float(value) for name, value in logs.items()}})
        bar.set_postfix({name: f"{float(v):.3f}" for name, v in logs.items()}, refresh=False)
    return Trained(network, history)


def _check_bands(encoder: keras.Model, images: LabelledImages) -> None:
    # Not of its sides, which an encoder of padding="context" leaves open.
    if encoder.input_shape[-1] != len(images.bands):
        raise ConfigError(
            f"The images have {len(images.bands)} bands, {', '.join(images.bands)}. The encoder "
            f"takes {encoder.input_shape[-1]}."
        )
