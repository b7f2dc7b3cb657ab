"""Effect of the form of the updates and of the adversarial loss: four forms, several seeds.

    python benchmarks/update_forms.py TRAIN TEST OUT [--steps 1500] [--seeds 3]

TRAIN and TEST are folders of records of different places (`sits-keras prepare`). Trains a model
for each form and seed with otherwise equal settings, and prints and plots

- L1 of translation, autoencoding and "unchanged" (between the two dates) in TEST;
- Recall@1 of their windows at the other dates, with raw pixels and the untrained encoder as
  baselines;
- the mean outputs of the discriminator for real and generated images during training.

Rerun to resume. Results are in OUT/table.md, OUT/forms.json and OUT/forms.png.
"""

import argparse
import csv
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import sys
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
import numpy as np

import sits_keras
from sits_keras.config import (
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.records import read_blocks, read_manifest
from sits_keras.files import written_aside
from sits_keras.tasks.retrieval import table_2
from sits_keras.tasks.translation import table_1
from sits_keras.tasks.windows import raw_pixels

FORMS = list(itertools.product(("alternating", "simultaneous"), ("lsgan", "paper")))
NUM_CROPS = 192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("train", type=Path, metavar="TRAIN")
    parser.add_argument("test", type=Path, metavar="TEST")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--stride", type=int, default=8, help="of the windows that are searched")
    args = parser.parse_args()
    records = read_manifest(args.test)
    series = [images for _, images in read_blocks(records)]
    runs = {}
    for seed, (update, adversarial) in itertools.product(range(args.seeds), FORMS):
        name = f"{update}-{adversarial}-{seed}"
        print(name, flush=True)
        model = sits_keras.train(
            args.train,
            args.out / name,
            run_config(args, records.bands, update, adversarial, seed),
            validation=records,
            progress=sys.stderr.isatty(),
        )
        runs[name] = measured(model, series, seed, args.stride, args.out / name / "scores.json")
    baselines = measure_baselines(series, args, records.bands)
    table = render(runs, baselines, args)
    print(table)
    (args.out / "table.md").write_text(table + "\n", encoding="utf-8")
    results = {"settings": vars(args), "runs": runs, "baselines": baselines}
    (args.out / "forms.json").write_text(json.dumps(results, indent=1, default=str))
    draw(args)


def run_config(
    args: argparse.Namespace, bands: tuple[str, ...], update: str, adversarial: str, seed: int
) -> RunConfig:
    return RunConfig(
        model=ModelConfig(bands=bands, width=args.width),
        objective=ObjectiveConfig.from_dict({"update": update, "adversarial": adversarial}),
        optimizer=OptimizerConfig(
            learning_rate=args.learning_rate, decay_steps=max(args.steps // 2, 1)
        ),
        train=TrainConfig(
            steps=args.steps, batch_size=args.batch_size, seed=seed, steps_per_epoch=100
        ),
    )


def measured(
    model: sits_keras.DisentangledSITS, series: list[np.ndarray], seed: int, stride: int, file: Path
) -> dict[str, float]:
    """Return scores on held-out places, cached in `file`."""
    if not file.is_file():
        crops = table_1.sample_crops(series, NUM_CROPS, model.config.band_max, seed=0)
        distances = table_1.measure_translation(model, crops, seed=seed)
        scores = {name: distance.mean for name, distance in distances._asdict().items()}
        scores["recall"] = recall_of(sits_keras.hub.wrap(model), series, stride)
        with written_aside(file) as aside:
            aside.write_text(json.dumps(scores))
    return json.loads(file.read_text())


def recall_of(encoder: object, series: list[np.ndarray], stride: int) -> float:
    images = [one.astype(np.float32) / QUANTIFICATION for one in series]
    recall = table_2.measure_recall(
        encoder, images, num_queries=16, stride=stride, seed=0, method="grid"
    )
    return recall.at_1


def measure_baselines(
    series: list[np.ndarray], args: argparse.Namespace, bands: tuple[str, ...]
) -> dict[str, float]:
    untrained = [
        sits_keras.DisentangledSITS(ModelConfig(bands=bands, width=args.width), seed=1000 + seed)
        for seed in range(args.seeds)
    ]
    return {
        "raw pixels": recall_of(raw_pixels, series, args.stride),
        "untrained encoder": statistics.mean(
            recall_of(sits_keras.hub.wrap(one), series, args.stride) for one in untrained
        ),
    }


def render(
    runs: dict[str, dict[str, float]], baselines: dict[str, float], args: argparse.Namespace
) -> str:
    lines = [
        f"Width {args.width}, {args.steps} steps of {args.batch_size} pairs, learning rate "
        f"{args.learning_rate:g}, the paper's weights; mean of {args.seeds} seeds, in brackets "
        "each.",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(
            f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "keras")
        ),
        "",
        "| update | adversarial | translation | autoencoding | unchanged | Recall@1 "
        "| D(real) | D(generated) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for update, adversarial in FORMS:
        names = [f"{update}-{adversarial}-{seed}" for seed in range(args.seeds)]
        columns = [
            [runs[name][key] for name in names]
            for key in ("translation", "autoencoding", "unchanged", "recall")
        ]
        histories = [read_history(args.out / name / "history.csv") for name in names]
        columns += [[history[key][-1] for history in histories] for key in ("d_real", "d_fake")]
        lines.append(
            f"| {update} | {adversarial} | "
            + " | ".join(
                f"{statistics.mean(values):.3f} ({', '.join(f'{one:.3f}' for one in values)})"
                for values in columns
            )
            + " |"
        )
    lines += ["", "Recall@1 of " + ", of ".join(f"{k}: {v:.3f}" for k, v in baselines.items())]
    return "\n".join(lines)


def read_history(file: Path) -> dict[str, list[float]]:
    with file.open(newline="", encoding="utf-8") as source:
        rows = list(csv.DictReader(source))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def draw(args: argparse.Namespace) -> None:
    figure, axes = plt.subplots(2, 4, figsize=(13, 5), sharex=True, sharey="row")
    for (top, bottom), (update, adversarial) in zip(axes.T, FORMS, strict=True):
        for seed in range(args.seeds):
            history = read_history(args.out / f"{update}-{adversarial}-{seed}" / "history.csv")
            for key, color, label in (
                ("d_real", "#0072b2", "real"),
                ("d_fake", "#d55e00", "generated"),
            ):
                top.plot(
                    history["step"], history[key], color=color, lw=1, label=None if seed else label
                )
            for key, color, label in (
                ("l1", "#000000", "trained on"),
                ("val_l1", "#009e73", "held out"),
            ):
                bottom.plot(
                    history["step"], history[key], color=color, lw=1, label=None if seed else label
                )
        top.set_title(f"{update}, {adversarial}")
        bottom.set_xlabel("step")
    axes[0, 0].set_ylabel("output of D, mean")
    axes[1, 0].set_ylabel("translation, L1")
    axes[0, -1].legend(frameon=False)
    axes[1, -1].legend(frameon=False)
    axes[1, 0].set_ylim(0, 0.5)
    figure.tight_layout()
    figure.savefig(args.out / "forms.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    try:
        main()
    except sits_keras.SitsKerasError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. Rerun to resume.")
