"""Fine-tune an encoder in TensorFlow 2.15 with tensorflow-addons, without sits_keras.

    python3.11 -m venv legacy && legacy/bin/pip install -r examples/legacy/requirements.txt
    legacy/bin/python examples/legacy/transfer_with_addons.py MODULE EuroSAT.zip --limit 2000

MODULE is a hub module with the bands B04, B03 and B02: `savedmodels/<name>/shared_encoder`, or the
output of `sits-keras export`. EuroSAT.zip is the official archive of RGB images, or its folder.
First, two layers are trained on frozen features, then the encoder as well. LAMB is the optimizer
of tensorflow-addons, Cohen's kappa its metric.
"""

import argparse
import io
import json
import sys
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image
import tensorflow as tf
import tensorflow_addons as tfa
import tensorflow_hub as hub

PICTURE_MAX = 0.275  # reflectance of the value 255 in EuroSAT's images
PICTURE_BANDS = ["B04", "B03", "B02"]  # red, green, blue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("module", type=Path)
    parser.add_argument("data", type=Path, help="zip or folder of <Class>/<file>.jpg")
    parser.add_argument("--limit", type=int, default=0, help="images, as many of each class")
    parser.add_argument("--epochs", type=int, default=5, help="of each of the two trainings")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    bands = json.loads((args.module / "module.json").read_text())["bands"]
    if not set(bands) <= set(PICTURE_BANDS):
        sys.exit(f"Error: pictures show {PICTURE_BANDS}; the module takes {bands}.")

    tf.keras.utils.set_random_seed(args.seed)
    images, labels, classes = read_pictures(args.data, args.limit, args.seed)
    images = images[..., [PICTURE_BANDS.index(band) for band in bands]]
    train, test = split(labels, args.seed)
    print(f"TensorFlow {tf.__version__}, tensorflow-addons {tfa.__version__}")
    print(f"{len(train)} images to learn from, {len(test)} to test on, {len(classes)} classes")

    rows = []
    encoder = hub.KerasLayer(str(args.module), trainable=False, input_shape=(64, 64, len(bands)))
    head = [
        tf.keras.layers.BatchNormalization(),  # features have any scale
        tf.keras.layers.Dense(64, activation="relu"),
        tf.keras.layers.Dense(len(classes)),
    ]
    for title, trainable, rate in (("frozen", False, 3e-3), ("full", True, 1e-3)):
        encoder.trainable = trainable
        classifier = tf.keras.Sequential([encoder, *head])
        classifier.compile(
            tfa.optimizers.LAMB(rate),
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        batches = tf.data.Dataset.from_tensor_slices((images[train], labels[train]))
        batches = batches.shuffle(len(train), seed=args.seed).batch(64, drop_remainder=True)
        history = classifier.fit(batches.map(to_reflectance), epochs=args.epochs, verbose=2).history
        kappa = tfa.metrics.CohenKappa(num_classes=len(classes), sparse_labels=True)
        tests = tf.data.Dataset.from_tensor_slices((images[test], labels[test])).batch(256)
        predicted = classifier.predict(tests.map(to_reflectance), verbose=0).argmax(axis=1)
        kappa.update_state(labels[test], predicted)
        rows.append(
            (
                title,
                f"{np.mean(predicted == labels[test]):.3f}",
                f"{float(kappa.result()):.3f}",
                f"{history['loss'][0]:.3f} to {history['loss'][-1]:.3f}",
            )
        )
    print("| encoder | accuracy | Cohen's kappa | loss |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def read_pictures(path: Path, limit: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return images `(n, 64, 64, 3)` uint8, labels and classes, up to the limit per class."""
    if path.is_dir():
        files = {str(p.relative_to(path)): p for p in path.rglob("*.jpg")}
        read = lambda name: files[name].read_bytes()  # noqa: E731
    else:
        archive = zipfile.ZipFile(path)
        files = {name: path / name for name in archive.namelist() if name.endswith(".jpg")}
        read = archive.read
    by_class: dict[str, list[str]] = {}
    for name in sorted(files):
        by_class.setdefault(PurePosixPath(name).parent.name, []).append(name)
    if len(by_class) < 2:
        sys.exit(f"Error: expected folders <Class>/<file>.jpg of two classes or more in {path}.")
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for label, names in enumerate(by_class.values()):
        count = limit // len(by_class) if limit else len(names)
        for name in rng.permutation(names)[:count]:
            images.append(np.asarray(PIL.Image.open(io.BytesIO(read(str(name)))).convert("RGB")))
            labels.append(label)
    return np.stack(images), np.array(labels), list(by_class)


def split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices of training and test images; a fifth of each class is held out."""
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for one in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == one))
        held_out[members[: max(1, len(members) // 5)]] = True
    return rng.permutation(np.flatnonzero(~held_out)), np.flatnonzero(held_out)


def to_reflectance(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cast(images, tf.float32) * (PICTURE_MAX / 255), labels


if __name__ == "__main__":
    main()
