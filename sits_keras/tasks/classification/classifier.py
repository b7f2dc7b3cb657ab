"""Classifiers that are kept: trained on a labelled set, saved, and loaded again (section 4.4).

A classifier's folder is a SavedModel from `(batch, 64, 64, bands)` float32 reflectance to
`(batch, classes)` probabilities, which runs without this package, and beside it:

    classifier.json     classes, bands, scores, settings, and checksums of what it was made of
    confusion.png       its confusion matrix on the test images
    history.csv         loss and accuracy of each epoch
"""

import csv
import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.eurosat import LabelledImages, read_labelled, sample_fraction
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.files import check_place, read_json, write_json, written_aside
from sits_keras.hub import HubEncoder, wrap
from sits_keras.model import DisentangledSITS
from sits_keras.networks import build_shared_encoder
from sits_keras.tasks.classification.finetuning import EPOCHS, train_head, train_network
from sits_keras.tasks.classification.probes import encode_images, plot_confusion, score
from sits_keras.tasks.classification.table_3 import check_bands, sample_split
from sits_keras.tensorflow_import import tf

DESCRIPTION_NAME = "classifier.json"
HISTORY_NAME = "history.csv"
CONFUSION_NAME = "confusion.png"
FORMAT = "sits_keras classifier"
FORMAT_VERSION = 1


class ClassifierModule(tf.train.Checkpoint):
    """What is saved: from reflectance to probabilities.

    Args:
        encode: from reflectance to features, or from network values where `band_max` is given.
        head: from those features to logits; `None` where `encode` gives logits.
        tracked: what holds the variables of `encode`.
        num_bands: bands of an image.
        clipped_at: reflectance at which the training images were clipped, as all will be.
        band_max: reflectance of each band that `encode` sees as 1.
    """

    def __init__(
        self,
        encode: Any,
        head: keras.Model | None,
        tracked: Any,
        num_bands: int,
        clipped_at: float | None,
        band_max: Sequence[float] | None = None,
    ):
        super().__init__()
        # In closures, so that the variables are saved, and Keras' own objects are not.
        self._encode = lambda images: encode(images)
        self._head = (lambda x: head(x, training=False)) if head is not None else lambda x: x
        self._gain = None if band_max is None else 2.0 / np.array(band_max, np.float32)
        self._clipped_at = clipped_at
        self.tracked = tracked
        self.head_variables = [v.value for v in head.variables] if head is not None else []
        self.input_spec = tf.TensorSpec(
            (None, IMAGE_SIZE, IMAGE_SIZE, num_bands), tf.float32, name="inputs"
        )
        self.__call__.get_concrete_function(self.input_spec)

    @tf.function(autograph=False)
    def __call__(self, inputs: Any) -> Any:
        """`(batch, classes)` float32 probabilities of `(batch, 64, 64, bands)` reflectance."""
        images = inputs
        if self._clipped_at is not None:
            images = tf.minimum(images, self._clipped_at)
        if self._gain is not None:
            images = tf.clip_by_value(images * self._gain - 1.0, -1.0, 1.0)
        return tf.nn.softmax(tf.cast(self._head(self._encode(images)), tf.float32))


class Classifier:
    """A classifier, just trained or loaded.

    Attributes:
        classes: names, in the order of the last axis of what it gives.
        bands: band names, in the order of the last axis of what it takes.
        description: what `classifier.json` says.
        module: the TensorFlow object that does the work.
        history: loss and accuracy of each epoch; empty where it was loaded.
    """

    def __init__(
        self,
        module: Any,
        description: dict[str, Any],
        history: Sequence[dict[str, float]] = (),
    ):
        self.module = module
        self.description = description
        self.classes: tuple[str, ...] = tuple(description["classes"])
        self.bands: tuple[str, ...] = tuple(description["bands"])
        self.history = list(history)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities of the classes.

        Args:
            images: `(batch, 64, 64, bands)` reflectance.
        Returns:
            `(batch, classes)` float32; each row sums to 1.
        Raises:
            ConfigError: the images have another shape.
        """
        expected = (IMAGE_SIZE, IMAGE_SIZE, len(self.bands))
        if images.shape[1:] != expected:
            raise ConfigError(
                f"Expected images of shape (batch, {', '.join(map(str, expected))}), bands "
                f"{', '.join(self.bands)}. Received: {images.shape}."
            )
        return np.asarray(self.module(tf.constant(images, tf.float32)))


def save_classifier(classifier: Classifier, path: Path | str, *, overwrite: bool = False) -> Path:
    """Writes a classifier that was just trained, whole or not at all.

    Args:
        classifier: what `fit_classifier` gave.
        path: the folder.
        overwrite: replace a classifier that is there.
    Returns:
        The folder.
    Raises:
        ExistsError: `path` is there already, or, with `overwrite`, is no classifier.
        OutputError: `path` cannot be written.
    """
    path = Path(path)
    check_free(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        module = classifier.module
        serving = tf.function(
            lambda inputs: {"probabilities": module(inputs)}, input_signature=[module.input_spec]
        )
        tf.saved_model.save(module, str(aside), signatures={"serving_default": serving})
        write_json(aside / DESCRIPTION_NAME, classifier.description)
        with (aside / HISTORY_NAME).open("w", newline="", encoding="utf-8") as target:
            writer = csv.DictWriter(target, list(classifier.history[0]))
            writer.writeheader()
            writer.writerows(classifier.history)
        confusion = np.array(classifier.description["scores"]["confusion"])
        plot_confusion(confusion, classifier.classes, aside / CONFUSION_NAME)
    return path


def check_free(path: Path, overwrite: bool) -> None:
    """Sees that a classifier may be written to a folder, before the work is done.

    Raises:
        ExistsError, OutputError: as `save_classifier`.
    """
    if path.exists() and not (overwrite and (path / DESCRIPTION_NAME).is_file()):
        raise ExistsError(
            f"{path} is there already. Name another folder"
            + (": it holds no classifier." if overwrite else ", or pass overwrite (--overwrite).")
        )
    check_place(path)


def load_classifier(path: Path | str) -> Classifier:
    """Loads a classifier that `save_classifier` wrote.

    Raises:
        MissingError: there is none.
        DataError: it is damaged or of another format.
    """
    path = Path(path)
    file = path / DESCRIPTION_NAME
    if not file.is_file():
        raise MissingError(
            f"No classifier at {path}: it has no {DESCRIPTION_NAME}. Make one with `sits-keras "
            "classify train`."
        )
    remedy = "Train the classifier again."
    description = read_json(file, remedy)
    if (description.get("format"), description.get("version")) != (FORMAT, FORMAT_VERSION):
        raise DataError(
            f"{file} is of format {description.get('format')!r}, version "
            f"{description.get('version')!r}. Expected {FORMAT!r}, version {FORMAT_VERSION}. "
            f"{remedy}"
        )
    try:
        return Classifier(tf.saved_model.load(str(path)), description)
    except Exception as error:  # of many kinds, by which file is damaged and where
        cause = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{path} cannot be loaded: {cause}. {remedy}") from error


Mode = Literal["pooled", "frozen", "full", "scratch"]
MODES: tuple[Mode, ...] = ("pooled", "frozen", "full", "scratch")


def train_classifier(
    data: Path | str,
    out: Path | str,
    model: DisentangledSITS | HubEncoder,
    *,
    mode: Mode = "pooled",
    epochs: int | None = None,
    fraction: float = 1.0,
    split: Literal["stratified", "spatial"] = "stratified",
    seed: int = 0,
    model_name: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Classifier:
    """Train a classifier on labelled chips, score it on a held-out fifth, and save it.

    Args:
        data: Folder or zip archive of `<Class>/<file>` chips of 64 x 64 px, such as EuroSAT.
        out: Output folder, see `save_classifier`.
        model: Model or shared encoder to build on. An encoder stays frozen.
        mode: "pooled" trains two layers on means and deviations of every encoder layer, "frozen",
            as in the paper, on the shared representation. "full" also trains the encoder, and
            "scratch" trains everything from random weights.
        epochs: Number of epochs. By default 10, or 50 from random weights.
        fraction: Fraction of the training labels to use, in (0, 1].
        split: "stratified", as in the paper, or "spatial" (see `data.eurosat`).
        seed: Seed of split, labels, weights and order.
        model_name: Name or path of the model, for `classifier.json`.
        overwrite: Overwrite an existing classifier.
        progress: Show progress bars.

    Returns:
        The classifier; its `description` is the content of `classifier.json`.

    Raises:
        ExistsError: If `out` exists and `overwrite` is false, or is not a classifier.
        OutputError: If `out` cannot be written.
        MissingError: If `data` does not exist or holds no chips.
        DataError: If a chip cannot be read or lacks a band, or the images cannot be split.
        ConfigError: If an argument is out of range, or a hub module was to be trained.

    Examples:
        >>> encoder = sits_keras.from_preset("sits_rgb_small", "shared")
        >>> classifier = train_classifier("EuroSAT.zip", "classifier", encoder)
        >>> classifier.description["scores"]["accuracy"]
    """
    out = Path(out)
    check_free(out, overwrite)
    bands = model.bands if isinstance(model, HubEncoder) else model.config.bands
    images = read_labelled(Path(data), bands, progress=progress)
    classifier = fit_classifier(
        model,
        images,
        mode=mode,
        epochs=epochs,
        fraction=fraction,
        split=split,
        seed=seed,
        progress=progress,
    )
    classifier.description["data"]["path"] = str(data)
    classifier.description["model"] = model_name
    save_classifier(classifier, out, overwrite=overwrite)
    return classifier


def fit_classifier(
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
    train, test = sample_split(images, split, seed)
    taken = sample_fraction(images.labels, train, fraction, seed)
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
