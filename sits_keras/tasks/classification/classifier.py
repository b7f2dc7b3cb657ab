"""Train classifiers on a labelled set, save and load them (section 4.4).

A classifier's folder is a SavedModel from `(batch, 64, 64, bands)` float32 reflectance to
`(batch, classes)` probabilities, which runs without this package. It also contains:

    classifier.json     classes, bands, scores, settings, and checksums of model and data
    confusion.png       confusion matrix on the test images
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
import numpy.typing as npt

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.eurosat import (
    LabelledImages,
    SplitName,
    read_labelled,
    sample_fraction,
    split_images,
)
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.files import check_creatable, write_json, written_aside
from sits_keras.formats import CLASSIFIER, read_format
from sits_keras.hub import HubEncoder, wrap
from sits_keras.model import DisentangledSITS
from sits_keras.tasks.classification.finetuning import (
    EPOCHS,
    train_head,
    train_whole,
)
from sits_keras.tasks.classification.probes import encode_images, plot_confusion, score
from sits_keras.tasks.classification.table_3 import check_bands
from sits_keras.tensorflow_import import tf

DESCRIPTION_NAME = CLASSIFIER.file
HISTORY_NAME = "history.csv"
CONFUSION_NAME = "confusion.png"


class ClassifierModule(tf.train.Checkpoint):
    """TensorFlow module that is saved, from reflectance to probabilities.

    Args:
        encode: Function from reflectance, or from network values if `band_max` is given, to
            features.
        head: Model from those features to logits, or None if `encode` returns logits.
        tracked: Object that holds the variables of `encode`.
        num_bands: Number of bands of an image.
        clipped_at: Reflectance at which the training images were clipped, applied to all images; or
            None.
        band_max: Reflectance of each band that `encode` sees as 1.
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
        # Closures: the variables are saved, Keras' own objects are not.
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
        """Return probabilities of the classes.

        Args:
            inputs: `(batch, 64, 64, bands)` float32 reflectance.

        Returns:
            `(batch, classes)` float32.
        """
        images = inputs
        if self._clipped_at is not None:
            images = tf.minimum(images, self._clipped_at)
        if self._gain is not None:
            images = tf.clip_by_value(images * self._gain - 1.0, -1.0, 1.0)
        return tf.nn.softmax(tf.cast(self._head(self._encode(images)), tf.float32))


class Classifier:
    """A trained or loaded classifier.

    Args:
        module: TensorFlow module from reflectance to probabilities.
        description: Content of `classifier.json`.
        history: Loss and accuracy of each epoch; empty for a loaded classifier.

    Attributes:
        classes: Class names, in the order of the output's last axis.
        bands: Band names, in the order of the input's last axis.
        description: Content of `classifier.json`.
        module: TensorFlow module from reflectance to probabilities.
        history: Loss and accuracy of each epoch; empty for a loaded classifier.
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

    def __call__(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return probabilities of the classes.

        Args:
            images: `(batch, 64, 64, bands)` reflectance.

        Returns:
            `(batch, classes)` float32; each row sums to 1.

        Raises:
            ConfigError: If the images have another shape.
        """
        expected = (IMAGE_SIZE, IMAGE_SIZE, len(self.bands))
        if images.shape[1:] != expected:
            raise ConfigError(
                f"Expected images of shape (batch, {', '.join(map(str, expected))}), bands "
                f"{', '.join(self.bands)}. Received: {images.shape}."
            )
        return np.asarray(self.module(tf.constant(images, tf.float32)))


def save_classifier(classifier: Classifier, path: Path | str, *, overwrite: bool = False) -> Path:
    """Save a trained classifier, whole or not at all.

    Args:
        classifier: Output of `fit_classifier`.
        path: Output folder.
        overwrite: Overwrite an existing classifier.

    Returns:
        The folder.

    Raises:
        ExistsError: If `path` exists and `overwrite` is false, or is not a classifier.
        OutputError: If `path` cannot be written.
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
    """Check that a classifier can be saved to a folder, before the work is done.

    Args:
        path: Output folder.
        overwrite: Whether an existing classifier may be replaced.

    Raises:
        ExistsError: See `save_classifier`.
        OutputError: See `save_classifier`.
    """
    if path.exists() and not (overwrite and (path / DESCRIPTION_NAME).is_file()):
        raise ExistsError(
            f"{path} exists and is not a classifier. Choose another folder."
            if overwrite
            else f"{path} already exists. Choose another folder, or overwrite it (--overwrite)."
        )
    check_creatable(path)


def load_classifier(path: Path | str) -> Classifier:
    """Load a classifier that `save_classifier` wrote.

    Args:
        path: Folder of the classifier.

    Returns:
        The classifier.

    Raises:
        MissingError: If there is no classifier.
        DataError: If it is damaged or of another format.

    Examples:
        >>> classifier = load_classifier("classifier")
        >>> probabilities = classifier(images)  # (batch, 64, 64, bands) reflectance
    """
    path = Path(path)
    file = path / DESCRIPTION_NAME
    if not file.is_file():
        raise MissingError(
            f"No classifier at {path}. Expected a folder with {DESCRIPTION_NAME}. Train one with "
            "`sits-keras classify train`."
        )
    description = read_format(path, CLASSIFIER)
    try:
        return Classifier(tf.saved_model.load(str(path)), description)
    except Exception as error:  # TensorFlow raises many types, depending on the damage
        cause = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{path} cannot be loaded: {cause}. {CLASSIFIER.remedy}") from error


TrainMode = Literal["pooled", "frozen", "full", "scratch"]
MODES: tuple[TrainMode, ...] = ("pooled", "frozen", "full", "scratch")


def train_classifier(
    data: Path | str,
    out: Path | str,
    model: DisentangledSITS | HubEncoder,
    *,
    mode: TrainMode = "pooled",
    epochs: int | None = None,
    fraction: float = 1.0,
    split: SplitName = "stratified",
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
        split: "stratified", as in the paper, "spatial" or "longitude" (see
            `sits_keras.data.eurosat.split_images`).
        seed: Seed of split, labels, weights and order.
        model_name: Name or path of the model, for `classifier.json`.
        overwrite: Overwrite an existing classifier.
        progress: Show progress bars.

    Returns:
        The classifier; its `description` is the content of `classifier.json`.

    Raises:
        ExistsError: If `out` exists and `overwrite` is false, or is not a classifier.
        OutputError: If `out` cannot be written.
        MissingError: If `data` does not exist or contains no chips.
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
    mode: TrainMode = "pooled",
    epochs: int | None = None,
    fraction: float = 1.0,
    split: SplitName = "stratified",
    seed: int = 0,
    progress: bool = False,
) -> Classifier:
    """Train a classifier on 80 % of a labelled set and score it on the rest.

    Args:
        model: Model whose shared encoder is used; or a hub module, which stays frozen.
        images: Labelled images with the model's bands.
        mode: "pooled" trains two fully-connected layers on means and deviations of every encoder
            layer (`hub.pooling`), "frozen", as in the paper, on the shared representation. "full"
            also trains the encoder, "scratch" trains everything from random weights.
        epochs: Number of epochs. By default those of `EPOCHS`.
        fraction: Fraction of the training labels to use, in (0, 1].
        split: "stratified", as in the paper, "spatial" or "longitude" (see
            `sits_keras.data.eurosat.split_images`).
        seed: Seed of split, labels, weights and order.
        progress: Show progress bars.

    Returns:
        The classifier.

    Raises:
        ConfigError: If an argument is out of range, the images' bands are not the model's, or a hub
            module was to be trained.
        DataError: If the images cannot be split.
    """
    if mode not in MODES:
        raise ConfigError(f"mode must be one of {', '.join(MODES)}. Received: {mode!r}.")
    check_bands(model, images)
    epochs = EPOCHS[mode] if epochs is None else epochs
    train, test = split_images(images, split, seed)
    taken = sample_fraction(images.labels, train, fraction, seed)
    if mode in ("pooled", "frozen"):
        module, history = _train_frozen(model, images, taken, mode, epochs, seed, progress)
    elif isinstance(model, DisentangledSITS):
        module, history = _train_whole(model, images, taken, mode, epochs, seed, progress)
    else:
        raise ConfigError(
            f"mode={mode!r} trains the encoder, but a hub module is frozen. Use the run or .keras "
            "file that it was exported from."
        )
    predicted = encode_images(module, images.select(test), progress=progress).argmax(axis=1)
    result = score(images.labels[test], predicted, len(images.classes))
    return Classifier(
        module,
        {
            "format": CLASSIFIER.name,
            "version": CLASSIFIER.version,
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
    """Return the checksum of the shared encoder's weights, equal for a model and its hub module."""
    holder = model.module if isinstance(model, HubEncoder) else model.shared_encoder
    digest = hashlib.sha256()
    for variable in holder.variables:
        digest.update(np.asarray(variable, np.float32).tobytes())
    return digest.hexdigest()


def _train_frozen(
    model: DisentangledSITS | HubEncoder,
    images: LabelledImages,
    indices: npt.NDArray[np.int64],
    mode: TrainMode,
    epochs: int,
    seed: int,
    progress: bool,
) -> tuple[ClassifierModule, list[dict[str, float]]]:
    encoder = model if isinstance(model, HubEncoder) else wrap(model)
    encode = encoder if mode == "pooled" else encoder.flattened
    chosen = images.select(indices)
    features = encode_images(encode, chosen, progress=progress)
    head, history = train_head(
        features, chosen.labels, len(images.classes), seed=seed, epochs=epochs, progress=progress
    )
    if mode == "pooled":
        encode = encoder.module.pooled
    else:  # modules of earlier versions return the flattened grid themselves
        encode = getattr(encoder.module, "flattened", encoder.module)
    module = ClassifierModule(encode, head, encoder.module, len(images.bands), images.clipped_at)
    return module, history


def _train_whole(
    model: DisentangledSITS,
    images: LabelledImages,
    indices: npt.NDArray[np.int64],
    mode: TrainMode,
    epochs: int,
    seed: int,
    progress: bool,
) -> tuple[ClassifierModule, list[dict[str, float]]]:
    network, history = train_whole(
        model,
        images,
        indices,
        from_scratch=mode == "scratch",
        seed=seed,
        epochs=epochs,
        progress=progress,
    )
    module = ClassifierModule(
        lambda values: network(values, training=False),
        None,
        [variable.value for variable in network.variables],
        len(images.bands),
        images.clipped_at,
        model.config.band_max,
    )
    return module, history
