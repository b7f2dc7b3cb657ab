"""Training a classifier to keep on a labelled set (section 4.4)."""

import hashlib
import importlib.metadata
from typing import Literal

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.labelled.eurosat import LabelledImages
from sits_keras.data.labelled.splits import take_fraction
from sits_keras.errors import ConfigError
from sits_keras.hub import HubEncoder, wrap
from sits_keras.model import DisentangledSITS
from sits_keras.networks import build_shared_encoder
from sits_keras.tasks.classification.classifier import (
    FORMAT,
    FORMAT_VERSION,
    Classifier,
    ClassifierModule,
)
from sits_keras.tasks.classification.finetuning import EPOCHS, train_head, train_network
from sits_keras.tasks.classification.probes import encode_images
from sits_keras.tasks.classification.scores import score
from sits_keras.tasks.classification.table_3 import check_bands, draw_split

Mode = Literal["pooled", "frozen", "full", "scratch"]
MODES: tuple[Mode, ...] = ("pooled", "frozen", "full", "scratch")


def train_classifier(
    model: DisentangledSITS | HubEncoder,
    images: LabelledImages,
    *,
    mode: Mode = "pooled",
    epochs: int | None = None,
    fraction: float = 1.0,
    split: Literal["stratified", "spatial"] = "stratified",
    seed: int = 0,
    progress: bool = False,
) -> Classifier:
    """Trains a classifier on 80 % of a labelled set and scores it on the rest.

    Args:
        model: whose shared encoder it builds on; or a hub module, which stays frozen.
        images: the labelled set, of the model's bands.
        mode: `"pooled"` trains two fully-connected layers on means and deviations of every layer
            (`hub.pooling`), `"frozen"`, the paper's, on the shared representation, `"full"`
            the encoder too, `"scratch"` both from random weights.
        epochs: in place of the paper's (`EPOCHS`).
        fraction: share of the training labels that are used.
        split: `"stratified"`, as in the paper, or `"spatial"` (see `data.splits`).
        seed: seed of split, labels, weights and order.
        progress: show progress bars.
    Raises:
        ConfigError: an option is out of range, the images' bands are not the model's, or a hub
            module is to be trained.
        DataError: the images cannot be split so.
    """
    if mode not in MODES:
        raise ConfigError(f"mode must be one of {', '.join(MODES)}. Received: {mode!r}.")
    check_bands(model, images)
    epochs = EPOCHS[mode] if epochs is None else epochs
    train, test = draw_split(images, split, seed)
    taken = take_fraction(images.labels, train, fraction, seed)
    if mode in ("pooled", "frozen"):
        module, history = _train_frozen(model, images, taken, mode, epochs, seed, progress)
    elif isinstance(model, DisentangledSITS):
        module, history = _train_whole(model, images, taken, mode, epochs, seed, progress)
    else:
        raise ConfigError(
            f"mode={mode!r} trains the encoder itself, and a hub module holds it frozen. Name the "
            "run or .keras file that the module was exported from."
        )
    predicted = encode_images(module, images.select(test), progress=progress).argmax(axis=1)
    result = score(images.labels[test], predicted, len(images.classes))
    return Classifier(
        module,
        {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "classes": list(images.classes),
            "bands": list(images.bands),
            "input": {
                "shape": [None, IMAGE_SIZE, IMAGE_SIZE, len(images.bands)],
                "range": "reflectance, 0 to 1",
                "clipped_at": images.clipped_at,
            },
            "settings": {
                "mode": mode,
                "epochs": len(history),
                "fraction": fraction,
                "split": split,
                "seed": seed,
            },
            "encoder": {"sha256": None if mode == "scratch" else _checksum(model)},
            "data": {"images": len(images.labels), "sha256": images.sha256},
            "scores": {
                "accuracy": result.accuracy,
                "interval_95": [result.low, result.high],
                "num_train": len(taken),
                "num_test": result.num_test,
                "confusion": result.confusion.tolist(),
            },
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("sits_keras", "keras", "tensorflow", "numpy")
            },
        },
        history,
    )


def _checksum(model: DisentangledSITS | HubEncoder) -> str:
    """Of the shared encoder's weights: the same for a model and for the module of it."""
    holder = model.module if isinstance(model, HubEncoder) else model.shared_encoder
    digest = hashlib.sha256()
    for variable in holder.variables:
        digest.update(np.asarray(variable, np.float32).tobytes())
    return digest.hexdigest()


def _train_frozen(
    model: DisentangledSITS | HubEncoder,
    images: LabelledImages,
    indices: np.ndarray,
    mode: Mode,
    epochs: int,
    seed: int,
    progress: bool,
) -> tuple[ClassifierModule, list[dict[str, float]]]:
    encoder = model if isinstance(model, HubEncoder) else wrap(model)
    encode = encoder.pooled if mode == "pooled" else encoder
    chosen = images.select(indices)
    features = encode_images(encode, chosen, progress=progress)
    head, history = train_head(
        features, chosen.labels, len(images.classes), seed=seed, epochs=epochs, progress=progress
    )
    encode = encoder.module.pooled if mode == "pooled" else encoder.module
    module = ClassifierModule(encode, head, encoder.module, len(images.bands), images.clipped_at)
    return module, history


def _train_whole(
    model: DisentangledSITS,
    images: LabelledImages,
    indices: np.ndarray,
    mode: Mode,
    epochs: int,
    seed: int,
    progress: bool,
) -> tuple[ClassifierModule, list[dict[str, float]]]:
    config = model.config
    start = model.shared_encoder if mode == "full" else build_shared_encoder(config, seed)
    network, history = train_network(
        start, config.band_max, images, indices, seed=seed, epochs=epochs, progress=progress
    )
    module = ClassifierModule(
        lambda values: network(values, training=False),
        None,
        [variable.value for variable in network.variables],
        len(images.bands),
        images.clipped_at,
        config.band_max,
    )
    return module, history
