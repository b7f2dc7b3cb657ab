"""Transfer an encoder to EuroSAT (Table 3): frozen under two layers, then trained with them.

    python examples/eurosat_transfer.py EuroSAT.zip sits_rgb_small
    python examples/eurosat_transfer.py EuroSAT.zip MODULE --limit 500 --epochs 1   # a short run

The second argument is a preset's name or folder, or a hub module of `sits-keras export`. A preset
is a Keras model of this package and is trained with `sits_keras.tasks`. A module is a SavedModel,
which any Keras 3 program trains as a TFSMLayer. EuroSAT.zip is the official archive of pictures
(bands B04, B03, B02) or of 13 bands, or a folder of <Class>/<file> chips.
"""

import argparse
from pathlib import Path

from sits_keras.tensorflow_import import import_tensorflow

import_tensorflow()  # faster and quieter than a plain import

import keras  # noqa: E402
import numpy as np  # noqa: E402

import sits_keras  # noqa: E402
from sits_keras import hub  # noqa: E402
from sits_keras.data.eurosat import LabelledImages, Split, read_labelled, split_stratified  # noqa: E402  # noqa: E402
from sits_keras.presets.folders import find_preset  # noqa: E402
from sits_keras.tasks.classification.finetuning import network_encoder, train_head, train_network  # noqa: E402
from sits_keras.tasks.classification.probes import (  # noqa: E402
    Score,
    encode_images,
    score,
)


def main() -> None:
    """Train and score each row of the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("encoder", help="preset, or folder of a hub module")
    parser.add_argument("--limit", type=int, help="number of images to read, about")
    parser.add_argument(
        "--epochs", type=int, default=10, help="epochs of each training (paper: 10)"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    is_module = (Path(args.encoder) / "saved_model.pb").is_file()
    encoder = (
        hub.load(args.encoder) if is_module else sits_keras.from_preset(args.encoder, "shared")
    )
    images = read_labelled(
        args.data, encoder.bands, limit=args.limit, seed=args.seed, progress=True
    )
    split = split_stratified(images.labels, seed=args.seed)
    print(f"{len(split.train)} training images, {len(split.test)} test images")

    rows = {"frozen + FC(64, 10)": train_frozen(encoder, images, split, args)}
    if is_module:
        rows["full, as a TFSMLayer"] = train_module(Path(args.encoder), images, split, args)
    else:
        rows["full, from_preset"] = train_preset(args.encoder, images, split, args)
        module = find_preset(args.encoder) / "shared_encoder"
        rows["full, as a TFSMLayer"] = train_module(module, images, split, args)
    print("| encoder | accuracy | 95 % |\n|---|---|---|")
    for title, one in rows.items():
        print(f"| {title} | {one.accuracy:.1%} | {one.low:.1%} to {one.high:.1%} |")


def train_frozen(
    encoder: hub.HubEncoder, images: LabelledImages, split: Split, args: argparse.Namespace
) -> Score:
    """Train two layers on the encoder's default output, which is computed once."""
    features = encode_images(encoder, images, progress=True)
    head = train_head(
        features[split.train],
        images.labels[split.train],
        len(images.classes),
        seed=args.seed,
        epochs=args.epochs,
        progress=True,
    ).network
    return score_logits(head(features[split.test]), images, split)


def train_preset(
    preset: str, images: LabelledImages, split: Split, args: argparse.Namespace
) -> Score:
    """Train the Keras model of a preset: the paper's second row."""
    model = sits_keras.from_preset(preset)
    network = train_network(
        model.shared_encoder,
        model.config,
        images,
        split.train,
        seed=args.seed,
        epochs=args.epochs,
        min_steps=0,  # exactly `epochs` epochs, as `fit` below
        progress=True,
    ).network
    encoder = network_encoder(network, model.config.band_max)
    return score_logits(encode_images(encoder, images.select(split.test)), images, split)


def train_module(
    module: Path, images: LabelledImages, split: Split, args: argparse.Namespace
) -> Score:
    """Train a module with Keras alone, on its grid; its batch statistics are fixed."""
    keras.utils.set_random_seed(args.seed)
    classifier = keras.Sequential(
        [
            keras.Input((64, 64, len(images.bands))),
            keras.layers.TFSMLayer(module, call_endpoint="flattened", trainable=True),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(len(images.classes)),
        ]
    )
    classifier.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    # Before fit, in which Adam cannot create its slots for the module's variables.
    classifier.optimizer.build(classifier.trainable_variables)
    train = images.select(split.train)
    classifier.fit(Batches(train, args.seed), epochs=args.epochs, verbose=0)
    return score_logits(encode_images(classifier, images.select(split.test)), images, split)


class Batches(keras.utils.PyDataset):
    """Batches of 64 reflectance images and labels, shuffled each epoch."""

    def __init__(self, images: LabelledImages, seed: int):
        super().__init__()
        self.images = images
        self.rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.images.labels) // 64)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        batch = self.order[64 * index : 64 * (index + 1)]
        return self.images.reflectance(batch), self.images.labels[batch]

    def on_epoch_end(self) -> None:
        """Shuffle the images."""
        self.order = self.rng.permutation(len(self.images.labels))


def score_logits(logits: np.ndarray, images: LabelledImages, split: Split) -> Score:
    """Return the accuracy of logits on the test images."""
    predicted = np.asarray(logits).argmax(axis=1)
    return score(images.labels[split.test], predicted, len(images.classes))


if __name__ == "__main__":
    main()
