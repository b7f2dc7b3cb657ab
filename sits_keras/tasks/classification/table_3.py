"""Measure land-cover classification by the shared representation (section 4.4, Table 3)."""

import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from sits_keras.config import ModelConfig
from sits_keras.data.chips import PICTURE_BANDS
from sits_keras.data.eurosat import (
    LabelledImages,
    Split,
    SplitName,
    sample_fraction,
    split_images,
)
from sits_keras.errors import ConfigError
from sits_keras.hub.pooling import build_pooled_encoder
from sits_keras.model import DisentangledSITS, Whitening
from sits_keras.networks import build_shared_encoder
from sits_keras.tasks.classification.finetuning import (
    EPOCHS,
    network_encoder,
    train_head,
    train_whole,
)
from sits_keras.tasks.classification.peers import (
    has_imagenet_weights,
    imagenet_features,
    random_convolutions,
)
from sits_keras.tasks.classification.probes import (
    Score,
    encode_images,
    image_statistics,
    predict_linear,
    predict_nearest,
    score,
    wilson_interval,
)
from sits_keras.tasks.windows import Encoder

Features = Literal[
    "encoder",
    "pooled",
    "untrained",
    "untrained pooled",
    "statistics",
    "random",
    "imagenet",
    "network",
]


class TableRow(NamedTuple):
    """A row of Table 3.

    Attributes:
        title: Title of the row.
        features: Features that are classified: of the encoder or of an untrained one, on the grid
            or pooled (`sits_keras.hub.pooling`); band statistics; those of
            `sits_keras.tasks.classification.peers` (`random`, `imagenet`); or trained ones
            (`network`).
        probe: Classifier that is trained.
        is_baseline: Whether the row is a baseline.
        paper: Accuracy in the paper, or None.
    """

    title: str
    features: Features
    probe: Literal["linear", "nearest", "frozen", "full", "scratch"]
    is_baseline: bool
    paper: float | None


METHODS: Mapping[str, TableRow] = {
    "frozen": TableRow("Frozen, FC(64), FC(classes)", "encoder", "frozen", False, 0.9238),
    "full": TableRow("Pretrained, full training", "network", "full", False, 0.9454),
    "linear": TableRow("Frozen, linear", "encoder", "linear", False, None),
    "nearest": TableRow("Frozen, 5 nearest", "encoder", "nearest", False, None),
    "pooled_frozen": TableRow("Pooled, FC(64), FC(classes)", "pooled", "frozen", False, None),
    "pooled_linear": TableRow("Pooled, linear", "pooled", "linear", False, None),
    "pooled_nearest": TableRow("Pooled, 5 nearest", "pooled", "nearest", False, None),
    "scratch": TableRow("From scratch", "network", "scratch", True, 0.6213),
    "untrained_frozen": TableRow(
        "Untrained, FC(64), FC(classes)", "untrained", "frozen", True, None
    ),
    "untrained_linear": TableRow("Untrained, linear", "untrained", "linear", True, None),
    "untrained_nearest": TableRow("Untrained, 5 nearest", "untrained", "nearest", True, None),
    "untrained_pooled_frozen": TableRow(
        "Untrained, pooled, FC(64), FC(classes)", "untrained pooled", "frozen", True, None
    ),
    "untrained_pooled_linear": TableRow(
        "Untrained, pooled, linear", "untrained pooled", "linear", True, None
    ),
    "untrained_pooled_nearest": TableRow(
        "Untrained, pooled, 5 nearest", "untrained pooled", "nearest", True, None
    ),
    "statistics_linear": TableRow("Band statistics, linear", "statistics", "linear", True, None),
    "statistics_nearest": TableRow(
        "Band statistics, 5 nearest", "statistics", "nearest", True, None
    ),
    "random_linear": TableRow("Random convolutions, linear", "random", "linear", True, None),
    "random_nearest": TableRow("Random convolutions, 5 nearest", "random", "nearest", True, None),
    "imagenet_linear": TableRow(
        "EfficientNet-Lite0 of ImageNet, linear", "imagenet", "linear", True, None
    ),
    "imagenet_nearest": TableRow(
        "EfficientNet-Lite0 of ImageNet, 5 nearest", "imagenet", "nearest", True, None
    ),
}
"""Rows of Table 3, and baselines."""

QUICK_METHODS = tuple(name for name, one in METHODS.items() if one.features != "network")
"""All methods but `full` and `scratch`, which take hours on a CPU for all of EuroSAT."""

FRACTIONS = (1.0, 0.1, 0.01)


def fill_table(
    model: DisentangledSITS | Encoder,
    images: LabelledImages,
    *,
    methods: Sequence[str] = tuple(METHODS),
    fractions: Sequence[float] = FRACTIONS,
    split: SplitName = "stratified",
    seeds: Sequence[int] = (0,),
    epochs: Mapping[str, int] | None = None,
    progress: bool = False,
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Fill Table 3.

    Each seed has its own split, labels, initial weights and order. With several seeds, `accuracy`
    is the mean, the interval is that of the mean for one test set, and the confusion matrix is the
    sum.

    Args:
        model: Model whose shared encoder is measured. An encoder alone, such as a hub module, has
            no rows `full`, `scratch` and `untrained_*`, and no rows `pooled_*` without pooled
            features.
        images: Labelled images with the model's bands. Images without B04, B03 or B02 have no rows
            `imagenet_*`; nor has any without the extra `[peers]`.
        methods: Names in `METHODS`. `QUICK_METHODS` omits the expensive ones.
        fractions: Fractions of the training labels to use.
        split: "stratified", as in the paper, or for chips with georeferencing "spatial" or
            "longitude" (see `sits_keras.data.eurosat.split_images`).
        seeds: Seeds, one measurement each.
        epochs: Epochs of `frozen`, `full` and `scratch`, instead of `EPOCHS`.
        progress: Show progress bars.
        on_row: Called with each finished row.

    Returns:
        A row for each fraction and method, as plain values: `method`, `title`, `is_baseline`,
        `paper`, `split`, `fraction`, `num_train`, `num_test`, `epochs` (maximum over seeds, None if
        nothing is trained by epochs), `seeds`, `accuracies` (of each seed), `accuracy`, `std` (None
        for one seed), `low`, `high`, `classes`, `confusion`, `seconds`.

    Raises:
        ConfigError: If an argument is unknown or out of range, or the images' bands are not the
            model's.
        DataError: If the images cannot be split.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not seeds:
        raise ConfigError(
            f"Expected methods of {', '.join(METHODS)}, and at least one seed. "
            f"Received: methods={list(methods)}, seeds={list(seeds)}."
        )
    check_bands(model, images)
    possible = _list_features(model, images)
    methods = [name for name in methods if METHODS[name].features in possible]
    table = _Table(model, images, {**EPOCHS, **(epochs or {})}, progress)
    splits = {seed: split_images(images, split, seed) for seed in seeds}
    rows = []
    for fraction in fractions:
        for name in methods:
            started = time.monotonic()
            outcomes = []
            for seed, (train, test) in splits.items():
                taken = sample_fraction(images.labels, train, fraction, seed)
                outcomes.append(table.measure(METHODS[name], Split(taken, test), seed))
            row = {
                "method": name,
                "title": METHODS[name].title,
                "is_baseline": METHODS[name].is_baseline,
                "paper": METHODS[name].paper if fraction == 1 else None,
                "split": split,
                "fraction": fraction,
                "num_train": len(taken),
                **_summarise([outcome for outcome, _ in outcomes]),
                "epochs": max((e for _, e in outcomes if e is not None), default=None),
                "seeds": list(seeds),
                "classes": list(images.classes),
                "seconds": round(time.monotonic() - started, 1),
            }
            rows.append(row)
            if on_row:
                on_row(row)
    return rows


def _list_features(model: DisentangledSITS | Encoder, images: LabelledImages) -> list[Features]:
    """List the features that can be computed."""
    features: list[Features] = ["encoder", "statistics", "random"]
    if isinstance(model, DisentangledSITS):
        features += ["pooled", "untrained", "untrained pooled", "network"]
    elif getattr(model, "metadata", {}).get("num_pooled"):
        features.append("pooled")
    if set(PICTURE_BANDS) <= set(images.bands) and has_imagenet_weights():
        features.append("imagenet")
    return features


def check_bands(model: DisentangledSITS | Encoder, images: LabelledImages) -> None:
    """Check that images have the bands of a model, in its order.

    Args:
        model: Model or encoder. An encoder that does not state its bands is not checked.
        images: Labelled images.

    Raises:
        ConfigError: If the bands differ.
    """
    holder = model.config if isinstance(model, DisentangledSITS) else model
    bands = getattr(holder, "bands", None)
    if bands is not None and tuple(bands) != images.bands:
        raise ConfigError(
            f"The model takes the bands {', '.join(bands)}. Received images of "
            f"{', '.join(images.bands)}: read them with the model's bands."
        )


def predict_network(
    network: keras.Model,
    band_max: Sequence[float],
    images: LabelledImages,
    indices: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Predict classes of some images with a network that `train_whole` returned.

    Args:
        network: Trained network.
        band_max: Reflectance of each band that the network sees as 1.
        images: Labelled images.
        indices: Indices of the images to classify.

    Returns:
        `(indices,)` predicted classes.
    """
    encoder = network_encoder(network, band_max)
    predicted: npt.NDArray[np.int64] = encode_images(encoder, images.select(indices)).argmax(axis=1)
    return predicted


class _Table:
    """Measures one row at a time; features that several rows use are encoded once."""

    def __init__(
        self,
        model: DisentangledSITS | Encoder,
        images: LabelledImages,
        epochs: Mapping[str, int],
        progress: bool,
    ):
        self.model = model
        self.images = images
        self.epochs = epochs
        self.progress = progress
        self._trained = functools.cache(self._encode_trained)
        self._fixed = functools.cache(self._encode_fixed)
        # Grid features of three seeds are 330 MB for all of EuroSAT; pooled features are less.
        self._untrained = functools.lru_cache(maxsize=6)(self._encode_untrained)

    def measure(self, method: TableRow, split: Split, seed: int) -> tuple[Score, int | None]:
        """Return the score of a method, and its number of epochs or None."""
        labels = self.images.labels
        history = None
        if method.features == "network":
            predicted, history = self._train_network(method, split, seed)
        else:
            features = self._features(method.features, seed)
            train, test = features[split.train], features[split.test]
            if method.probe == "frozen":
                network, history = train_head(
                    train,
                    labels[split.train],
                    len(self.images.classes),
                    seed=seed,
                    epochs=self.epochs["frozen"],
                    progress=self.progress,
                )
                predicted = np.asarray(network(test, training=False)).argmax(axis=1)
            elif method.probe == "linear":
                predicted = predict_linear(train, labels[split.train], test, seed=seed)
            else:
                predicted = predict_nearest(train, labels[split.train], test)
        outcome = score(labels[split.test], predicted, len(self.images.classes))
        return outcome, len(history) if history is not None else None

    def _features(self, name: str, seed: int) -> npt.NDArray[np.float32]:
        pooled = "pooled" in name
        if name in ("statistics", "random", "imagenet"):
            return self._fixed(name)
        if name.startswith("untrained"):
            return self._untrained(seed, pooled=pooled)
        return self._trained(pooled=pooled)

    def _train_network(
        self, method: TableRow, split: Split, seed: int
    ) -> tuple[npt.NDArray[np.int64], list[dict[str, float]]]:
        model = self._whole_model
        network, history = train_whole(
            model,
            self.images,
            split.train,
            from_scratch=method.probe == "scratch",
            seed=seed,
            epochs=self.epochs[method.probe],
            progress=self.progress,
        )
        return predict_network(network, model.config.band_max, self.images, split.test), history

    @property
    def _whole_model(self) -> DisentangledSITS:
        if not isinstance(self.model, DisentangledSITS):
            raise ConfigError("Expected a whole model. Received an encoder.")
        return self.model

    def _encode_trained(self, *, pooled: bool) -> npt.NDArray[np.float32]:
        encoder = self.model
        if isinstance(encoder, DisentangledSITS):
            encoder = _encoder_of(encoder.shared_encoder, encoder.config, pooled, encoder.whitening)
        elif not pooled:
            encoder = getattr(encoder, "flattened", encoder)
        return self._encode(encoder, "pool" if pooled else "encode")

    def _encode_fixed(self, name: str) -> npt.NDArray[np.float32]:
        """Encode the images by an encoder that depends on neither the model nor the seed."""
        encoders: dict[str, Callable[[], Encoder]] = {
            "statistics": lambda: image_statistics,
            "random": lambda: random_convolutions(self.images),
            "imagenet": lambda: imagenet_features(self.images),
        }
        return self._encode(encoders[name](), name)

    def _encode_untrained(self, seed: int, *, pooled: bool) -> npt.NDArray[np.float32]:
        config = self._whole_model.config
        untrained = _encoder_of(build_shared_encoder(config, seed), config, pooled)
        return self._encode(untrained, "untrained")

    def _encode(self, encoder: Encoder, title: str) -> npt.NDArray[np.float32]:
        return encode_images(encoder, self.images, progress=self.progress, title=title)


def _encoder_of(
    network: keras.Model, config: ModelConfig, pooled: bool, whitening: Whitening | None = None
) -> Encoder:
    """Return an encoder from reflectance to the grid of a shared encoder, or to pooled features."""
    network = build_pooled_encoder(network, config, whitening) if pooled else network
    return network_encoder(network, config.band_max)


def _summarise(scores: Sequence[Score]) -> dict[str, Any]:
    accuracies = [one.accuracy for one in scores]
    accuracy = statistics.fmean(accuracies)
    low, high = wilson_interval(accuracy, scores[0].num_test)
    return {
        "num_test": scores[0].num_test,
        "accuracies": accuracies,
        "accuracy": accuracy,
        "std": statistics.stdev(accuracies) if len(scores) > 1 else None,
        "low": low,
        "high": high,
        "confusion": np.sum([one.confusion for one in scores], axis=0).tolist(),
    }
