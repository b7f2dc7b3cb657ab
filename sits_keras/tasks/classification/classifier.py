"""Classifiers that are kept: trained on a labelled set, saved, and loaded again (section 4.4).

A classifier's folder is a SavedModel from `(batch, 64, 64, bands)` float32 reflectance to
`(batch, classes)` probabilities, which runs without this package, and beside it:

    classifier.json     classes, bands, scores, settings, and checksums of what it was made of
    confusion.png       its confusion matrix on the test images
    history.csv         loss and accuracy of each epoch
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.files import check_place, read_json, write_json, written_aside
from sits_keras.tasks.classification.scores import draw_confusion
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
        classifier: what `train_classifier` gave.
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
        draw_confusion(confusion, classifier.classes, aside / CONFUSION_NAME)
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
