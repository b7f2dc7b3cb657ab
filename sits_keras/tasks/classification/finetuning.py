"""Train networks that classify: a head on features, or together with an encoder (section 4.4).

The head is the paper's: fully-connected layers of 64 units and of one unit for each class.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
from keras import layers, ops
from tqdm import tqdm

from sits_keras.config import GRID_SIZE, IMAGE_SIZE, ModelConfig
from sits_keras.data.eurosat import LabelledImages
from sits_keras.data.radiometry import reflectance_to_network
from sits_keras.errors import ConfigError
from sits_keras.hub.pooling import build_pooled_encoder
from sits_keras.layers import seeded_initializer
from sits_keras.model import DisentangledSITS
from sits_keras.networks import build_shared_encoder
from sits_keras.tasks.classification.probes import encode_images
from sits_keras.tasks.windows import Encoder

HEAD_UNITS = 64
BATCH_SIZE = 64

MIN_STEPS = 500
"""Minimum number of steps by default, because an epoch of few labels has few steps."""

MAX_DEVIATIONS = 5.0
"""Standard deviations at which features of a frozen encoder are clipped. The textures of a flat
raster are far outside of the training set, where the head can only extrapolate."""

LEARNING_RATE = 3e-3
"""Initial learning rate of Adam, which decays to zero along half a cosine. Of 3e-4, 1e-3 and 3e-3
it was best for both the head and a network from scratch, on a held-out part of EuroSAT's training
images."""

FINE_TUNING_RATE = 1e-3
"""Initial learning rate for a pretrained encoder."""

MOMENTUM = 0.9
"""Momentum of a trained encoder's moving statistics. Keras' default of 0.99 is too slow: after a
hundred steps, the statistics are those of earlier weights."""

MAX_SAMPLE = 2000
"""Maximum number of images that pooled features are standardised by in `train_network`."""

EPOCHS = {"pooled": 10, "frozen": 10, "full": 10, "scratch": 50}
"""Epochs of each mode, as in the paper (Table 3), which has no pooled features."""


class Trained(NamedTuple):
    """A trained network.

    Attributes:
        network: Keras model from features or network values to `(batch, classes)` logits.
        history: Loss and accuracy on the training images, of each epoch.
    """

    network: keras.Model
    history: list[dict[str, float]]


def train_head(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    num_classes: int,
    *,
    seed: int,
    epochs: int = EPOCHS["frozen"],
    min_steps: int | None = None,
    learning_rate: float = LEARNING_RATE,
    progress: bool = False,
) -> Trained:
    """Train the two fully-connected layers on features of a frozen encoder.

    Features are standardised with the mean and variance of the training set, so that one learning
    rate serves every encoder, and clipped at `MAX_DEVIATIONS`. The first layer could represent the
    same scaling.

    Args:
        features: `(images, num_features)` float32.
        labels: `(images,)` int.
        num_classes: Number of classes.
        seed: Seed of the weights and of the order of the images.
        epochs: Minimum number of epochs; more if they have fewer than `min_steps` steps.
        min_steps: Minimum number of steps, by default `MIN_STEPS`; 0 for exactly `epochs` epochs.
        learning_rate: Initial learning rate of Adam.
        progress: Show a progress bar.

    Returns:
        The trained head.

    Raises:
        ConfigError: If `epochs` is below 1.
    """
    inputs = keras.Input((features.shape[1],), name="features")
    head = _head(_standardise(inputs, features), num_classes, seed)
    network = keras.Model(inputs, head, name="head")
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
    config: ModelConfig,
    images: LabelledImages,
    indices: npt.NDArray[np.int64],
    *,
    seed: int,
    epochs: int = EPOCHS["full"],
    min_steps: int | None = None,
    learning_rate: float = FINE_TUNING_RATE,
    progress: bool = False,
) -> Trained:
    """Train a copy of a shared encoder together with the two fully-connected layers.

    The layers have the grid, as in the paper, and the pooled features, which are standardised and
    clipped as in `train_head`, by the statistics of the encoder that is given. All weights are
    trained, and batch normalization uses and updates batch statistics. Each image of a batch is
    rotated by a multiple of 90 degrees and flipped at random.

    Args:
        encoder: Shared encoder; it is not changed.
        config: Configuration of its model.
        images: Labelled images.
        indices: Indices of the training images.
        seed: See `train_head`; also of rotations and flips.
        epochs: See `train_head`.
        min_steps: See `train_head`.
        learning_rate: See `train_head`.
        progress: See `train_head`.

    Returns:
        The trained network.

    Raises:
        ConfigError: If the images have another number of bands than the encoder.
    """
    _check_bands(encoder, images)
    copy = keras.models.clone_model(encoder)
    copy.set_weights(encoder.get_weights())
    for layer in copy.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = MOMENTUM
    pooled = build_pooled_encoder(copy, config)
    sample = images.select(indices[:: -(-len(indices) // MAX_SAMPLE)])
    features = encode_images(network_encoder(pooled, config.band_max), sample, progress=progress)
    both = keras.Model(copy.input, [copy.output, pooled.output], name=encoder.name)
    inputs = keras.Input((IMAGE_SIZE, IMAGE_SIZE, len(images.bands)), name="image")
    grid, vector = both(inputs)
    # Explicit, because Keras does not know the size of the grid under padding="context".
    flattened = layers.Reshape((GRID_SIZE**2 * copy.output_shape[-1],))(grid)
    joined = ops.concatenate([flattened, _standardise(vector, features)], axis=-1)
    network = keras.Model(inputs, _head(joined, len(images.classes), seed), name="classifier")
    rng = np.random.default_rng([seed, 1])

    def load(batch: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return _turned(
            reflectance_to_network(images.reflectance(indices[batch]), config.band_max), rng
        )

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


def train_whole(
    model: DisentangledSITS,
    images: LabelledImages,
    indices: npt.NDArray[np.int64],
    *,
    from_scratch: bool,
    seed: int,
    epochs: int,
    progress: bool = False,
) -> Trained:
    """Train the shared encoder of a model with the two layers, or one with random weights.

    Args:
        model: Model; it is not changed.
        images: See `train_network`.
        indices: See `train_network`.
        from_scratch: Begin with random weights instead of the model's.
        seed: See `train_network`; also of random weights.
        epochs: See `train_network`.
        progress: See `train_network`.

    Returns:
        The trained network.

    Raises:
        ConfigError: See `train_network`.
    """
    return train_network(
        build_shared_encoder(model.config, seed) if from_scratch else model.shared_encoder,
        model.config,
        images,
        indices,
        seed=seed,
        epochs=epochs,
        learning_rate=LEARNING_RATE if from_scratch else FINE_TUNING_RATE,
        progress=progress,
    )


def network_encoder(network: keras.Model, band_max: Sequence[float]) -> Encoder:
    """Wrap a network on network values as an encoder on reflectance, in inference mode.

    Args:
        network: Keras model from network values.
        band_max: Reflectance of each band that the network sees as 1.

    Returns:
        Encoder whose output is flattened to `(batch, num_features)`.
    """

    def encode(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        output = network(reflectance_to_network(images, band_max), training=False)
        features: npt.NDArray[Any] = np.reshape(output, (len(images), -1))
        return features

    return encode


def _standardise(values: Any, features: npt.NDArray[np.float32]) -> Any:
    """Standardise values by the statistics of features, and clip them."""
    standardise = layers.Normalization(
        mean=features.mean(axis=0), variance=features.var(axis=0), name="standardise"
    )
    return ops.clip(standardise(values), -MAX_DEVIATIONS, MAX_DEVIATIONS)


def _turned(images: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Rotate each image by a multiple of 90 degrees and flip half of them."""
    turned = np.empty_like(images)
    for index, (turns, flip) in enumerate(rng.integers(0, (4, 2), (len(images), 2))):
        image = np.rot90(images[index], turns)
        turned[index] = image[:, ::-1] if flip else image
    return turned


def _head(features: Any, num_classes: int, seed: int) -> Any:
    # The paper does not state the activation between its two layers.
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
    labels: npt.NDArray[np.int64],
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
    # Not `fit`, whose overhead per epoch exceeds the training time of a few labels.
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
    # Height and width are not checked: they are open under padding="context".
    if encoder.input_shape[-1] != len(images.bands):
        raise ConfigError(
            f"The images do not have the encoder's bands. Expected {encoder.input_shape[-1]} "
            f"bands. Received {len(images.bands)}: {', '.join(images.bands)}."
        )
