"""Effect of the adversary on translations of a preset.

    python benchmarks/adversary.py TRAIN TEST OUT [--preset sits_rgb_small] [--steps 600]

TRAIN and TEST are folders of records of different places with the preset's bands (`sits-keras
prepare`). Continues the second stage of benchmarks/presets.py, with a new discriminator and the
settings of each of VARIANTS, and prints

- L1 of translations in TEST relative to the L1 between the two dates;
- sharpness: the mean absolute difference of neighbouring pixels of translated images, relative to
  that of the real ones;
- the range of the mean outputs of the discriminator during training.

Rerun to resume. The table is also written to OUT/table.md.
"""

import argparse
import dataclasses
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import presets
from update_forms import read_history

import sits_keras
from sits_keras.config import RunConfig
from sits_keras.data.records import read_blocks, read_manifest
from sits_keras.tasks.translation import table_1

VARIANTS = {  # weight of eq. 4, and learning rate of the discriminator
    "no adversary": (0.0, 1.0),
    "learning rate of the discriminator x 0.1": (1.0, 0.1),
    "x 1": (1.0, 1.0),
}
NUM_CROPS = 100  # of each place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("train", type=Path, metavar="TRAIN")
    parser.add_argument("test", type=Path, metavar="TEST")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--preset", default="sits_rgb_small", choices=presets.PRESETS)
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args()
    initial = presets.with_new_discriminator(sits_keras.DisentangledSITS.from_preset(args.preset))
    pairs = sample_pairs(args.test, initial.config.band_max)
    rows = [("not continued", *measure(initial, pairs), "", "")]
    for number, (name, (weight, rate)) in enumerate(VARIANTS.items()):
        print(name, flush=True)
        out = args.out / f"{args.preset}-{number}"
        config = run_config(args.preset, args.steps, weight, rate)
        model = sits_keras.train(
            args.train, out, config, initial=initial, progress=sys.stderr.isatty()
        )
        ranges = output_ranges(out) if weight else ("", "")
        rows.append((name, *measure(model, pairs), *ranges))
    table = render(rows, args)
    print(table)
    (args.out / "table.md").write_text(table + "\n", encoding="utf-8")


def run_config(preset: str, steps: int, weight: float, rate: float) -> RunConfig:
    config = presets.translation_config(presets.PRESETS[preset], steps, "float32")
    config = presets.continued_config(config)
    return dataclasses.replace(
        config,
        objective=dataclasses.replace(config.objective, lambda_adversarial=weight),
        optimizer=dataclasses.replace(config.optimizer, discriminator_rate=rate),
        train=dataclasses.replace(config.train, steps_per_epoch=50),
    )


def sample_pairs(test: Path, band_max: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Return two dates of random crops of each place, `(2, crops, 64, 64, bands)`."""
    places: dict[str, list[np.ndarray]] = {}
    for block, images in read_blocks(read_manifest(test)):
        places.setdefault(block.series, []).append(images)
    rng = np.random.default_rng(0)
    pairs = {}
    for name, series in places.items():
        crops = table_1.iterate_crops(series, NUM_CROPS, band_max, seed=0)
        chosen = [crop[rng.choice(len(crop), 2, replace=False)] for crop in crops]
        pairs[name] = np.stack(chosen, axis=1)
    return pairs


def measure(
    model: sits_keras.DisentangledSITS, pairs: dict[str, np.ndarray]
) -> tuple[float, float]:
    """Return L1 relative to the unchanged date, and sharpness: sums over the places."""
    error = unchanged = sharp = real = 0.0
    for x, y in pairs.values():
        translated = np.asarray(model.generate(x, y).images)[len(x) :]
        error += np.abs(translated - y).mean()
        unchanged += np.abs(x - y).mean()
        sharp += steepness(translated)
        real += steepness(y)
    return error / unchanged, sharp / real


def steepness(images: np.ndarray) -> float:
    return float(sum(np.abs(np.diff(images, axis=axis)).mean() for axis in (1, 2)))


def output_ranges(run: Path) -> tuple[str, str]:
    """Return the ranges of the discriminator's mean output, for real and for generated images."""
    history = read_history(run / "history.csv")
    columns = [history[name] for name in ("d_real", "d_fake")]
    real, generated = (f"{min(column):.2f} to {max(column):.2f}" for column in columns)
    return real, generated


def render(rows: list[tuple[str, float, float, str, str]], args: argparse.Namespace) -> str:
    versions = ", ".join(
        f"{one} {importlib.metadata.version(one)}" for one in ("tensorflow", "keras")
    )
    lines = [
        f"`{args.preset}`, {args.steps} further steps; {platform.machine()}, {os.cpu_count()} "
        f"cores, Python {platform.python_version()}, {versions}",
        "",
        "| | L1 / unchanged | sharpness | D(real) | D(generated) |",
        "|---|---|---|---|---|",
        *(f"| {name} | {l1:.3f} | {sharp:.2f} | {r} | {g} |" for name, l1, sharp, r, g in rows),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except sits_keras.SitsKerasError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. Rerun to resume.")
