"""Trains what lies in savedmodels/.

    python benchmarks/presets.py NAME DATA OUT

NAME is one of the presets below. DATA holds series/<place>/<date>.tif and
change/<place>/{before,after}.tif, as docs/results.md describes them; OUT gets the records and the
run of each preset, and can be used again. Stopped, the same command goes on.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sits_keras
from sits_keras.config import (
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PrepareConfig,
    RunConfig,
    TrainConfig,
)
from sits_keras.data import prepare
from sits_keras.data.records import Manifest

HELD_OUT = ("earthnet-29SQC-2873-1465", "ns-forest", "greenearthnet-34TET")
NON_COMMERCIAL = ("earthnet-*", "greenearthnet-*")  # CC BY-NC-SA 4.0
RGBN = ("B02", "B03", "B04", "B08")
RGB = ("B04", "B03", "B02")

# Of pairs that come without a date, the season; what is trained on it does not matter to.
DATES = {
    "wildfire": ("2020-06-01", "2020-10-01"),
    "barkbeetle": ("2019-09-01", "2020-09-01"),
    "ftw": ("2021-04-01", "2021-08-01"),
}


class Preset(NamedTuple):
    """What is trained: bands, and series that are left out beside those held out."""

    bands: tuple[str, ...]
    left_out: tuple[str, ...]


PRESETS = {
    "sits_rgbn_small": Preset(RGBN, NON_COMMERCIAL),
    "sits_rgb_small": Preset(RGB, NON_COMMERCIAL),
    "sits_rgbn_small_nc": Preset(RGBN, ()),
    "sits_rgb_small_nc": Preset(RGB, ()),
}


def config_of(bands: tuple[str, ...], steps: int) -> RunConfig:
    return RunConfig(
        model=ModelConfig(bands=bands, width=16, padding="context", shared_norm="layer"),
        objective=ObjectiveConfig(
            lambda_l1=100.0, lambda_shared=0.5, lambda_kl=0.1, lambda_contrast=10.0
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, decay_steps=steps // 4),
        train=TrainConfig(steps=steps, batch_size=16, steps_per_epoch=100),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=PRESETS, metavar="NAME", help=", ".join(PRESETS))
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--steps", type=int, default=4000)
    args = parser.parse_args()
    preset = PRESETS[args.name]
    records = prepare_records(args.data, args.out, preset.left_out)
    print(f"{records.num_records} records of {len(records.series)} places", flush=True)
    sits_keras.train(
        records,
        args.out / args.name,
        config_of(preset.bands, args.steps),
        progress=sys.stderr.isatty(),
    )


def prepare_records(data: Path, out: Path, left_out: tuple[str, ...]) -> Manifest:
    """Records of all series and pairs of dates but those held out and left out."""
    dated = out / "pairs"
    for place in sorted((data / "change").iterdir()):
        dates = DATES[place.name.split("-")[0]]
        (dated / place.name).mkdir(parents=True, exist_ok=True)
        for date, name in zip(dates, ("before", "after"), strict=True):
            link = dated / place.name / f"{date}.tif"
            if not link.is_symlink():
                link.symlink_to((place / f"{name}.tif").resolve())
    return prepare(
        [data / "series", dated],
        out / ("records" if left_out else "records_nc"),
        PrepareConfig(dates=30),
        exclude=[*HELD_OUT, *left_out],
        progress=False,
    )


if __name__ == "__main__":
    try:
        main()
    except sits_keras.SitsKerasError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command goes on from here.")
