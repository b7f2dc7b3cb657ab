"""Run the whole workflow: prepare, train, export, load with TensorFlow Hub, and measure.

    python examples/demo.py --out demo                       # procedural series
    python examples/demo.py --out demo --data FOLDER         # your series, one sub-folder each

`make demo` runs it. It takes about five minutes on 2 cores. An interrupted run is resumed.
"""

import argparse
import json
import sys
from pathlib import Path

from sits_keras.tensorflow_import import import_tensorflow

import_tensorflow()  # faster and quieter than a plain import

import numpy as np  # noqa: E402
import tensorflow_hub  # noqa: E402
from tqdm import tqdm  # noqa: E402

import sits_keras  # noqa: E402
from sits_keras import (  # noqa: E402
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PrepareConfig,
    RunConfig,
    TrainConfig,
)
from sits_keras.data import prepare, read_blocks, synthetic  # noqa: E402
from sits_keras.data.radiometry import QUANTIFICATION  # noqa: E402
from sits_keras.data.sources.series import find_series  # noqa: E402
from sits_keras.files import written_aside  # noqa: E402
from sits_keras.tasks import pictures  # noqa: E402
from sits_keras.tasks.retrieval import table_2  # noqa: E402
from sits_keras.tasks.translation import table_1  # noqa: E402
from sits_keras.tasks.windows import Encoder, raw_pixels  # noqa: E402

NUM_PLACES = 12
NUM_CROPS = 64


def main() -> None:
    """Run the workflow."""
    args = parse_arguments()
    out: Path = args.out
    source = args.data or write_synthetic_series(out / "series")
    test_names = choose_test_series(source, args.test)
    print(f"Held-out places: {', '.join(test_names)}")

    train = prepare(source, out / "records" / "train", exclude=test_names)
    # One block for each held-out place, so that it is measured as a whole.
    large = PrepareConfig(block_size=1024)
    test = prepare(source, out / "records" / "test", large, include=test_names)

    config = RunConfig(
        model=ModelConfig(width=args.width),
        optimizer=OptimizerConfig(learning_rate=args.learning_rate),
        objective=ObjectiveConfig(
            lambda_l1=args.lambda_l1, lambda_shared=args.lambda_shared, lambda_kl=args.lambda_kl
        ),
        train=TrainConfig(
            steps=args.steps, batch_size=args.batch_size, seed=args.seed, steps_per_epoch=100
        ),
    )
    model = sits_keras.train(train, out / "run", config, validation=test)

    module = sits_keras.hub.export(model, out / "module", overwrite=True)
    encoder = tensorflow_hub.load(str(module))

    print("Measuring: half a minute.")
    test_series = [images for _, images in read_blocks(test)]
    places = {
        "trained on": [images for _, images in read_blocks(train)],
        "held out": test_series,
    }
    distances = table_1.translation_table(model, places, num_crops=NUM_CROPS)
    scores = {
        name: {row: distance.mean for row, distance in column._asdict().items()}
        for name, column in distances.items()
    }
    recalls = measure_recall(encoder, model, test_series)
    table = render_table(scores, recalls)
    print("\n" + table)
    (out / "table.md").write_text(table + "\n", encoding="utf-8")
    (out / "scores.json").write_text(
        json.dumps({"translation": scores, "recall": recalls}, indent=1), encoding="utf-8"
    )
    figure = plot_figure(model, test_series, out / "translations.png")
    print(
        f"""
Wrote, in {out}:
  records/train, records/test   {train.num_records} and {test.num_records} records
  run/model.keras               the model, {args.steps} steps; history.csv beside it
  module/                       the shared encoder: tensorflow_hub.load({str(module)!r})
  table.md, scores.json         the table above
  {figure.name}              images: shared from, exclusive from, generated, real"""
    )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write")
    parser.add_argument("--data", type=Path, help="folder of series; by default procedural ones")
    parser.add_argument(
        "--test", default="", help="comma-separated series to hold out; by default every fifth"
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    # The paper trains for days at 2e-4. A training of minutes needs a higher rate, and the
    # adversarial term at a tenth of its weight (the others tenfold). At full weight, the generator
    # produces noise (docs/results.md).
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="paper: 2e-4")
    parser.add_argument("--lambda-l1", type=float, default=100.0, help="paper: 10")
    parser.add_argument("--lambda-shared", type=float, default=5.0, help="paper: 0.5")
    parser.add_argument("--lambda-kl", type=float, default=0.1, help="paper: 0.01")
    return parser.parse_args()


def write_synthetic_series(folder: Path) -> Path:
    """Write procedural series that do not exist yet, and return their folder."""
    for seed in tqdm(range(NUM_PLACES), desc="generate", unit="place"):
        place = folder / f"place-{seed:02d}"
        if not place.is_dir():
            series = synthetic.make_series(seed, height=256, width=256)
            with written_aside(place) as aside:
                synthetic.write_series(series, aside, origin=(600_000.0 + 5_000 * seed, 5e6))
    return folder


def choose_test_series(source: Path, wanted: str) -> list[str]:
    """Return the names of the held-out series."""
    names = [series.id for series in find_series([source])]
    chosen = [name for name in names if name in wanted.split(",")]
    return chosen or names[4::5] or names[-1:]


def measure_recall(
    encoder: Encoder, model: sits_keras.DisentangledSITS, series: list[np.ndarray]
) -> dict[str, float]:
    """Return Recall@1 of the encoder and of baselines on held-out series."""
    untrained = sits_keras.DisentangledSITS(model.config, seed=1)
    reflectance = [images / np.float32(QUANTIFICATION) for images in series]
    encoders: dict[str, Encoder] = {
        "shared features": encoder,
        "raw pixels": raw_pixels,
        "untrained encoder": sits_keras.hub.wrap(untrained),
    }
    recalls = {}
    for name, one in tqdm(encoders.items(), desc="retrieve", unit="encoder", leave=False):
        recall = table_2.measure_recall(one, reflectance, num_queries=16, stride=16)
        recalls[name] = recall.at_1
        recalls["chance"] = recall.chance
    return recalls


def render_table(scores: dict[str, dict[str, float]], recalls: dict[str, float]) -> str:
    """Return both tables as Markdown."""
    lines = ["| L1 in [-1, 1], mean | " + " | ".join(scores) + " |", "|---|---|---|"]
    lines += [
        f"| {row.replace('_', ' ')} | "
        + " | ".join(f"{column[row]:.4f}" for column in scores.values())
        + " |"
        for row in next(iter(scores.values()))
    ]
    lines += ["", "| Recall@1, held out | |", "|---|---|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in recalls.items()]
    return "\n".join(lines)


def plot_figure(model: sits_keras.DisentangledSITS, series: list[np.ndarray], path: Path) -> Path:
    """Plot translations of held-out places."""
    crops = table_1.sample_crops(series, 6, model.config.band_max, seed=1)
    rng = np.random.default_rng(0)
    dates = [rng.choice(len(crop), 2, replace=False) for crop in crops]
    shared_from = np.stack([crop[x] for crop, (x, _) in zip(crops, dates, strict=True)])
    real = np.stack([crop[y] for crop, (_, y) in zip(crops, dates, strict=True)])
    generated = np.asarray(model.translate(shared_from, real))
    return pictures.plot_translations(
        [
            ("shared from", shared_from),
            ("exclusive from", real),
            ("generated", generated),
            ("real", real),
        ],
        path,
        bands=model.config.bands,
        band_max=model.config.band_max,
    )


if __name__ == "__main__":
    try:
        main()
    except sits_keras.SitsKerasError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. Repeat the command to resume.")
