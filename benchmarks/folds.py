"""Accuracy of frozen features on a few hundred labelled chips, in folds and from west to east.

    python benchmarks/folds.py sits_rgb_small CHIPS.zip [CHIPS.zip ...]

CHIPS are labelled sets with the same classes, joined to one. Prints the accuracy of 5-NN and of
logistic regression, both on standardised features: the mean of five folds, and trained in the west
and tested on the easternmost fifth, if the chips are georeferenced. The features are the preset's
pooled features, their statistics without whitening, those of an untrained encoder, and the peers of
Table 3.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sits_keras import DisentangledSITS, hub
from sits_keras.data.chips import PICTURE_BANDS
from sits_keras.data.eurosat import LabelledImages, read_labelled, split_longitude
from sits_keras.tasks.classification.peers import (
    has_imagenet_weights,
    imagenet_features,
    random_convolutions,
)
from sits_keras.tasks.classification.probes import encode_images, image_statistics
from sits_keras.tasks.windows import Encoder

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
    images = join([read_labelled(path, model.config.bands) for path in args.data])
    splits = {
        "folds": list(
            StratifiedKFold(5, shuffle=True, random_state=0).split(images.labels, images.labels)
        )
    }
    if images.longitudes is not None:
        splits["east"] = [split_longitude(images.labels, images.longitudes)]
    columns = [f"{split}: {probe}" for split in splits for probe in PROBES]
    print(f"{len(images.labels)} chips, {', '.join(images.bands)}\n")
    print(f"| features | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, encoder in encoders(model, images).items():
        features = encode_images(encoder, images)
        scores = [
            f"{100 * accuracy(probe, features, images.labels, parts):.1f}"
            for parts in splits.values()
            for probe in PROBES.values()
        ]
        print(f"| {name} | {' | '.join(scores)} |", flush=True)


def join(sets: list[LabelledImages]) -> LabelledImages:
    """Return the images of several sets as those of one."""
    first = sets[0]
    if any((one.classes, one.unit) != (first.classes, first.unit) for one in sets):
        raise SystemExit("Expected sets with the same classes and units.")
    longitudes = [one.longitudes for one in sets if one.longitudes is not None]
    return first._replace(
        values=np.concatenate([one.values for one in sets]),
        labels=np.concatenate([one.labels for one in sets]),
        files=sum((one.files for one in sets), ()),
        longitudes=np.concatenate(longitudes) if len(longitudes) == len(sets) else None,
    )


def encoders(model: DisentangledSITS, images: LabelledImages) -> dict[str, Encoder]:
    """Return encoders of reflectance by name."""
    plain = DisentangledSITS(model.config, seed=0)
    plain.copy_networks(model)
    found: dict[str, Encoder] = {
        "pooled features": hub.wrap(model),
        "their statistics": hub.wrap(plain),
        "statistics of an untrained encoder": hub.wrap(DisentangledSITS(model.config, seed=1)),
        "random convolutional features": random_convolutions(images),
        "band statistics": image_statistics,
    }
    if has_imagenet_weights() and set(PICTURE_BANDS) <= set(images.bands):
        found["EfficientNet-Lite0 of ImageNet"] = imagenet_features(images)
    return found


def accuracy(probe, features: np.ndarray, labels: np.ndarray, splits: list) -> float:
    found = []
    for train, test in splits:
        classifier = make_pipeline(StandardScaler(), probe).fit(features[train], labels[train])
        found.append(classifier.score(features[test], labels[test]))
    return float(np.mean(found))


if __name__ == "__main__":
    main()
