"""Five-fold accuracy of frozen features on a few hundred labelled chips.

    python benchmarks/folds.py sits_rgb_small CHIPS.zip [CHIPS.zip ...]

CHIPS are labelled sets with the same classes. Prints the accuracy of 5-NN and of logistic
regression, both on standardised features: of the preset's pooled features; of their statistics
without whitening; of an untrained encoder; and of the peers of Table 3.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sits_keras import DisentangledSITS, hub
from sits_keras.data.eurosat import LabelledImages, read_labelled
from sits_keras.tasks.classification.peers import (
    has_imagenet_weights,
    imagenet_features,
    random_convolutions,
)
from sits_keras.tasks.classification.probes import encode_images, image_statistics

PROBES = {
    "5 nearest": KNeighborsClassifier(5),
    "linear": LogisticRegression(C=0.1, max_iter=1000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset", help="Name or folder of a preset.")
    parser.add_argument("data", type=Path, nargs="+", metavar="CHIPS", help="Labelled sets.")
    args = parser.parse_args()
    model = DisentangledSITS.from_preset(args.preset)
    sets = [read_labelled(path, model.config.bands) for path in args.data]
    if len({one.classes for one in sets}) > 1:
        parser.error("Expected sets with the same classes.")
    labels = np.concatenate([one.labels for one in sets])
    print(f"{len(labels)} chips, {', '.join(model.config.bands)}, five folds\n")
    print(f"| features | {' | '.join(PROBES)} |\n|---|{'---|' * len(PROBES)}")
    for name, encoder_of in encoders(model).items():
        features = np.concatenate([encode_images(encoder_of(one), one) for one in sets])
        scores = [f"{100 * accuracy(probe, features, labels):.1f}" for probe in PROBES.values()]
        print(f"| {name} | {' | '.join(scores)} |", flush=True)


def encoders(model: DisentangledSITS) -> dict[str, Callable[[LabelledImages], Callable]]:
    """Return functions from a labelled set to an encoder of its images, by name."""
    plain = DisentangledSITS(model.config, seed=0)
    plain.copy_networks(model)
    pooled, statistics = hub.wrap(model), hub.wrap(plain)
    untrained = hub.wrap(DisentangledSITS(model.config, seed=1))
    found: dict[str, Callable[[LabelledImages], Callable]] = {
        "pooled features": lambda images: pooled,
        "their statistics": lambda images: statistics,
        "statistics of an untrained encoder": lambda images: untrained,
        "random convolutional features": random_convolutions,
        "band statistics": lambda images: image_statistics,
    }
    if has_imagenet_weights() and {"B04", "B03", "B02"} <= set(model.config.bands):
        found["EfficientNet-Lite0 of ImageNet"] = imagenet_features
    return found


def accuracy(probe, features: np.ndarray, labels: np.ndarray) -> float:
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return cross_val_score(
        make_pipeline(StandardScaler(), probe), features, labels, cv=folds
    ).mean()


if __name__ == "__main__":
    main()
