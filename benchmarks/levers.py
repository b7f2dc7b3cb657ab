"""Effect of changes to the objective on held-out places and on EuroSAT: one short run for each.

    python benchmarks/levers.py TRAIN TEST EUROSAT OUT [--steps 1200] [--rows paper demo ...]

TRAIN and TEST are folders of records of different places, EUROSAT is EuroSAT.zip. All other
settings are equal (B04, B03, B02, padding="context", the same pairs). Each row trains a model and
prints

- L1 of translation, and Recall@1 of windows of TEST at the other dates;
- accuracy of kNN-5, linear and FC(64, 10) probes on EuroSAT, for the mean of the shared grid and
  for pooled features, with a quarter of the training split of the first seed of `evaluate`.

Rerun to resume. Results are in OUT/<row>/scores.json.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from update_forms import recall_of

import sits_keras
from sits_keras.config import (
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from sits_keras.data.eurosat import LabelledImages, read_labelled, sample_fraction, split_stratified
from sits_keras.data.records import read_blocks, read_manifest, select_bands
from sits_keras.files import written_aside
from sits_keras.tasks.classification.finetuning import train_head
from sits_keras.tasks.classification.probes import (
    encode_images,
    image_statistics,
    predict_linear,
    predict_nearest,
)
from sits_keras.tasks.translation import table_1
from sits_keras.tasks.windows import Encoder, raw_pixels

BANDS = ("B04", "B03", "B02")
DEMO = {"lambda_l1": 100.0, "lambda_shared": 5.0, "lambda_kl": 0.1}
# Learning rate, settings of the objective, settings of the model.
ROWS: dict[str, tuple[float, dict, dict]] = {
    "paper": (2e-4, {}, {}),
    "demo": (1e-3, DEMO, {}),
    "layer norm": (1e-3, DEMO, {"shared_norm": "layer"}),
    "contrast 1": (1e-3, {**DEMO, "lambda_info_nce": 1.0}, {"shared_norm": "layer"}),
    "contrast 4": (1e-3, {**DEMO, "lambda_info_nce": 4.0}, {"shared_norm": "layer"}),
    "contrast 10": (1e-3, {**DEMO, "lambda_info_nce": 10.0}, {"shared_norm": "layer"}),
    "contrast 10, plain": (1e-3, {**DEMO, "lambda_info_nce": 10.0}, {}),
}
BASELINES = {"raw pixels": raw_pixels, "image statistics": image_statistics}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("train", type=Path, metavar="TRAIN")
    parser.add_argument("test", type=Path, metavar="TEST")
    parser.add_argument("eurosat", type=Path, metavar="EUROSAT")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    args = parser.parse_args()
    records = read_manifest(args.test)
    positions = select_bands(records.bands, BANDS, records.folder)
    series = [images[..., positions] for _, images in read_blocks(records)]
    images = read_labelled(args.eurosat, BANDS)
    for name in args.rows:
        model = sits_keras.train(
            args.train, args.out / name, run_config(args, name), progress=sys.stderr.isatty()
        )
        file = args.out / name / "scores.json"
        if not file.is_file():
            scores = measure(model, series, images)
            with written_aside(file) as aside:
                aside.write_text(json.dumps(scores))
        print_row(name, json.loads(file.read_text()))
    untrained = sits_keras.DisentangledSITS(run_config(args, args.rows[0]).model, seed=1000)
    print_row("untrained", measure(untrained, series, images))
    for name, encoder in BASELINES.items():
        scores = {"recall": recall_of(encoder, series, 8)}
        if name == "image statistics":
            scores |= probe(name, encoder, images)
        print_row(name, scores)


def run_config(args: argparse.Namespace, name: str) -> RunConfig:
    rate, objective, model = ROWS[name]
    return RunConfig(
        model=ModelConfig(bands=BANDS, width=args.width, padding="context", **model),
        objective=ObjectiveConfig(**objective),
        optimizer=OptimizerConfig(learning_rate=rate, decay_steps=max(args.steps // 2, 1)),
        train=TrainConfig(steps=args.steps, batch_size=args.batch_size, steps_per_epoch=100),
    )


def measure(
    model: sits_keras.DisentangledSITS, series: list[np.ndarray], images: LabelledImages
) -> dict[str, float]:
    encoder = sits_keras.hub.wrap(model)
    crops = table_1.sample_crops(series, 192, model.config.band_max, seed=0)
    translated = table_1.measure_translation(model, crops, seed=0).translation.mean

    def mean_of_grid(batch: np.ndarray) -> np.ndarray:
        return np.asarray(encoder.spatial(batch)).mean(axis=(1, 2))

    return {
        "translation": translated,
        "recall": recall_of(encoder, series, 8),
        **probe("mean", mean_of_grid, images),
        **probe("pooled", encoder, images),
    }


def probe(name: str, encoder: Encoder, images: LabelledImages) -> dict[str, float]:
    train, test = split_stratified(images.labels, seed=0)
    train = sample_fraction(images.labels, train, 0.25, 0)
    known, new = (encode_images(encoder, images.select(part)) for part in (train, test))
    labels, truth = images.labels[train], images.labels[test]
    head, _ = train_head(known, labels, len(images.classes), seed=0)
    told = {
        "kNN-5": predict_nearest(known, labels, new),
        "linear": predict_linear(known, labels, new),
        "FC": np.asarray(head(new)).argmax(axis=1),
    }
    return {f"{name} {key}": float((found == truth).mean()) for key, found in told.items()}


def print_row(name: str, scores: dict[str, float]) -> None:
    print(f"| {name} | " + " | ".join(f"{k} {v:.3f}" for k, v in scores.items()) + " |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except sits_keras.SitsKerasError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. Rerun to resume.")
