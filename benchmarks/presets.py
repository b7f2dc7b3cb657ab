"""Training of the pretrained models in savedmodels/.

    python benchmarks/presets.py NAME DATA OUT [--steps 4000]
    sits-keras evaluate SCORES --model OUT/presets/NAME --data DATA ...
    sits-keras card OUT/presets/NAME --scores SCORES

NAME is one of the presets below. DATA contains series/<place>/<date>.tif and
change/<place>/{before,after}.tif, as described in docs/results.md. The records and the run of each
preset are written to OUT, and the preset without scores to OUT/presets/NAME. Rerun to resume.
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

# Dates of change pairs without dates: the season. They do not affect training.
DATES = {
    "wildfire": ("2020-06-01", "2020-10-01"),
    "barkbeetle": ("2019-09-01", "2020-09-01"),
    "ftw": ("2021-04-01", "2021-08-01"),
}


class Source(NamedTuple):
    """Source of the locations whose names begin with a prefix."""

    where: str
    source: str
    licence: str


EARTHNET = Source("Iberia", "EarthNet2021, 20 m, B8A for B08", "CC BY-NC-SA 4.0")
GREENEARTHNET = Source("Europe", "GreenEarthNet, 20 m, B8A for B08", "CC BY-NC-SA 4.0")
SOURCES = {
    "earthnet": EARTHNET,
    "greenearthnet": GREENEARTHNET,
    "ns-": Source("Nova Scotia", "Sentinel Hub exports, top of atmosphere", "none stated"),
    "worldcereal-31UDS": Source("Belgium, France", "WorldCereal test resources", "MIT"),
    "worldcereal-31UFS": Source("Belgium, France", "WorldCereal test resources", "none stated"),
    "gfmap": Source("31N", "openeo-gfmap test resources", "Apache-2.0"),
    "wildfire": Source("California", "fires, medians before and after", "none stated"),
    "barkbeetle": Source("Czech forest", "bark beetle plots", "none stated"),
    "ftw": Source("Austria", "Fields of the World", "MIT"),
}


class Preset(NamedTuple):
    """Settings of a preset.

    Attributes:
        bands: Bands of the images.
        left_out: Series that are excluded in addition to the held-out ones.
        license_id: SPDX identifier of the weights' licence.
    """

    bands: tuple[str, ...]
    left_out: tuple[str, ...]
    license_id: str


PRESETS = {
    "sits_rgbn_small": Preset(RGBN, NON_COMMERCIAL, "Apache-2.0"),
    "sits_rgb_small": Preset(RGB, NON_COMMERCIAL, "Apache-2.0"),
    "sits_rgbn_small_nc": Preset(RGBN, (), "CC-BY-NC-SA-4.0"),
    "sits_rgb_small_nc": Preset(RGB, (), "CC-BY-NC-SA-4.0"),
}


def config_of(bands: tuple[str, ...], steps: int) -> RunConfig:
    return RunConfig(
        model=ModelConfig(bands=bands, width=16, padding="context", shared_norm="layer"),
        objective=ObjectiveConfig(
            lambda_l1=100.0, lambda_shared=0.5, lambda_kl=0.1, lambda_info_nce=10.0
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
    print(f"{records.num_records} records of {len(records.series)} locations", flush=True)
    config = config_of(preset.bands, args.steps)
    model = sits_keras.train(records, args.out / args.name, config, progress=sys.stderr.isatty())
    folder = model.save_to_preset(
        args.out / "presets" / args.name,
        license_id=preset.license_id,
        summary=f"Small networks (width {config.model.width}) for {', '.join(preset.bands)}, "
        f"trained on {len(records.series)} small places"
        + ("." if preset.left_out else ", of which some may not be used commercially."),
        training=describe(records, config, args),
        overwrite=True,
    )
    print(folder)


def prepare_records(data: Path, out: Path, left_out: tuple[str, ...]) -> Manifest:
    """Prepare records of all series and change pairs that are not held out or excluded."""
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


def describe(records: Manifest, config: RunConfig, args: argparse.Namespace) -> dict:
    """Return the content of `training.json`."""
    places = []
    for series in records.series:
        name, dates = series["id"], series["dates"]
        of = next(one for prefix, one in SOURCES.items() if name.startswith(prefix))
        is_pair = name.split("-")[0] in DATES
        places.append(
            {
                "id": name,
                "where": of.where,
                "dates": len(dates),
                # The dates of change pairs are defined above.
                "period": "before and after" if is_pair else f"{dates[0]} to {dates[-1]}",
                "source": of.source,
                "licence": of.licence,
            }
        )
    return {
        "places": places,
        "held_out": list(HELD_OUT),
        "objective": "The paper's, with the reconstruction weighed ten times as much against the "
        "adversary, cells of the shared representation of unit scale, and a contrast of places.",
        "augmentation": "quarter turns and flips, both dates of a pair alike",
        "batch_size": config.train.batch_size,
        "command": [f"python benchmarks/presets.py {args.name} DATA OUT --steps {args.steps}"],
        "hardware": "one core of a shared virtual machine, no GPU",
        "hours": 0.5,
        "attribution": "Contains modified Copernicus Sentinel data 2016-2024.",
        "intended_use": [
            "Features of 64 x 64 px windows of 10 to 20 m Sentinel-2 imagery, surface or top of "
            "atmosphere, for retrieval, segmentation and simple classifiers, where labels are few.",
            "A beginning for training on imagery of one's own, and for trying what this package "
            "does.",
        ],
        "known_failures": [
            "Trained on about sixty small locations, mostly forest and farmland in temperate "
            "Europe and burnt land in California; deserts, tropics, cities and coasts are not "
            "covered.",
            "Clouds, haze and snow are not distinguished from the ground.",
            "Translated images are blurred. At some locations they are no closer to the real image "
            "than the other date (Table 1, by location, in the report of the evaluation).",
            "Grid features of the shared encoder classify EuroSAT worse than band statistics, and "
            "in some probes no better than an untrained encoder. Use pooled features.",
            "Windows that are normalised individually (mean and deviation of each band) and "
            "compared pixel by pixel have a higher Recall@1 than these features.",
            "Change maps of the exclusive encoder are worse than image differences.",
        ],
    }


if __name__ == "__main__":
    try:
        main()
    except sits_keras.SitsKerasError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. Rerun to resume.")
