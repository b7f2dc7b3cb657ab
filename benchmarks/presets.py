"""Training of the pretrained models in savedmodels/.

    python benchmarks/presets.py NAME DATA OUT [--steps 30000]
    sits-keras evaluate SCORES --model OUT/presets/NAME --data DATA ...
    sits-keras card OUT/presets/NAME --scores SCORES

NAME is one of the presets below. DATA contains series/<place>/<date>.tif and
change/<place>/{before,after}.tif, and both again in more/, with series of three bands in
more/series_rgb/. The records and the runs of each preset are written to OUT: NAME-encoder, in which
the shared encoder is trained alone, then NAME, in which the other networks are trained for it. The
preset without scores is written to OUT/presets/NAME, with the projection of its shared encoder
(benchmarks/projection.py). Rerun to resume.

Both stages can start with the weights of a preset of the same width, also one of fewer bands:

    python benchmarks/presets.py sits_rgbn_base DATA OUT --initial sits_rgb_base \
        --steps 8000 --translation-steps 2000

The second stage can be continued alone, with a new discriminator. The features stay as they are:

    python benchmarks/presets.py sits_rgb_base DATA OUT --initial sits_rgb_base \
        --stage translation --translation-steps 4000
"""

import argparse
import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

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
from sits_keras.data.execution import num_cores
from sits_keras.data.records import Manifest
from sits_keras.errors import ConfigError
from sits_keras.presets.folders import find_preset, read_training

HELD_OUT = ("earthnet-29SQC-2873-1465", "ns-forest", "greenearthnet-34TET", "botswana-34kgd")
NON_COMMERCIAL = ("earthnet-*", "greenearthnet-*")  # CC BY-NC-SA 4.0
RGBN = ("B02", "B03", "B04", "B08")
RGB = ("B04", "B03", "B02")
ENCODER_STEPS = 30_000
TRANSLATION_STEPS = 4_000
NETWORKS = ("shared_encoder", "exclusive_encoder", "decoder", "discriminator")
BLOCK_SIZE = 288  # so that crops of two windows a side have real context

# Dates of change pairs without dates: the season. They do not affect training.
DATES = {
    "wildfire": ("2020-06-01", "2020-10-01"),
    "barkbeetle": ("2019-09-01", "2020-09-01"),
    "ftw": ("2021-04-01", "2021-08-01"),
    "oscd": ("2016-01-01", "2018-01-01"),
    "sen12mscr": ("2018-01-01", "2018-02-01"),
}

INTENDED_USE = [
    "Features of 64 x 64 px windows of 10 to 20 m Sentinel-2 imagery, surface or top of "
    "atmosphere, for retrieval, segmentation and simple classifiers, where labels are few.",
    "A beginning for training on imagery of one's own, and for trying what this package does.",
]

KNOWN_FAILURES = [
    "Trained on about ninety small places, mostly forest and farmland in temperate "
    "Europe, burnt land in California and cities; few are in deserts, in the tropics or "
    "on coasts.",
    "Clouds, haze and snow are not distinguished from the ground.",
    "Translated images are less sharp than real ones, and in dry land little closer to the real "
    "image than the other date.",
    "Grid features of the shared encoder serve retrieval and maps. They classify worse "
    "than pooled features.",
    "By the L1 distance of the grid (--method grid), Recall@1 in forest (ns-forest) is "
    "lower than that of windows that are normalised individually (mean and deviation of "
    "each band) and compared pixel by pixel.",
    "Change maps of the exclusive encoder are worse than image differences.",
]


class Source(NamedTuple):
    """Source of the places whose names begin with a prefix."""

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
    "oscd": Source("nineteen cities", "Onera change detection (OSCD), L1C", "Copernicus"),
    "sen12mscr": Source("Americas, Europe, Turkey", "SEN12MS-CR", "CC BY 4.0"),
    "biomassters": Source("Finland", "BioMassters", "CC BY 4.0"),
    "bangalore": Source("India", "yearly medians", "none stated"),
    "aargau": Source("Switzerland", "Aargau", "MIT"),
    "eolearn": Source("Slovenia", "eo-learn", "MIT"),
    "multiearth": Source("Amazon", "MultiEarth", "MIT"),
    "antwerp": Source("Belgium", "Antwerp", "Apache-2.0"),
    "hanoi": Source("Vietnam", "Hanoi", "none stated"),
}


class Preset(NamedTuple):
    """A preset to train.

    Attributes:
        bands: Bands of the images.
        width: Width of the networks.
        left_out: Series left out beside the held-out ones.
        license_id: SPDX identifier of the weights' licence.
    """

    bands: tuple[str, ...]
    width: int
    left_out: tuple[str, ...]
    license_id: str


PRESETS = {
    "sits_rgbn_small": Preset(RGBN, 16, NON_COMMERCIAL, "Apache-2.0"),
    "sits_rgb_small": Preset(RGB, 16, NON_COMMERCIAL, "Apache-2.0"),
    "sits_rgbn_base": Preset(RGBN, 32, NON_COMMERCIAL, "Apache-2.0"),
    "sits_rgb_base": Preset(RGB, 32, NON_COMMERCIAL, "Apache-2.0"),
}


def encoder_config(preset: Preset, steps: int, precision: str) -> RunConfig:
    """Settings of the first stage, in which the shared encoder learns by contrast alone."""
    return RunConfig(
        model=ModelConfig(
            bands=preset.bands, width=preset.width, padding="context", shared_norm="layer"
        ),
        objective=ObjectiveConfig(
            lambda_l1=0.0,
            lambda_shared=0.0,
            lambda_kl=0.0,
            lambda_adversarial=0.0,
            lambda_info_nce=1.0,
            lambda_global_info_nce=1.0,
            view_gain=0.03,
            view_band_gain=0.015,
            view_offset=0.005,
        ),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            schedule="cosine",
            decay_steps=ENCODER_STEPS,
            beta_1=0.9,
            weight_decay=1e-4,
        ),
        # 16 crops of four windows at two dates, 64 pairs of windows.
        train=TrainConfig(
            steps=steps,
            batch_size=16,
            crop_size=128,
            balance="dates",
            steps_per_epoch=250,
            precision=precision,
        ),
    )


def cooldown_config(preset: Preset, reached: int, steps: int, precision: str) -> RunConfig:
    """Settings that bring the learning rate of an unfinished first stage down to 0.

    Args:
        preset: The preset.
        reached: Step that the first stage has reached.
        steps: Further steps.
        precision: Precision of the networks.
    """
    config = encoder_config(preset, steps, precision)
    optimizer = config.optimizer
    learning_rate = optimizer.learning_rate / 2 * (1 + math.cos(math.pi * reached / ENCODER_STEPS))
    optimizer = dataclasses.replace(
        optimizer, learning_rate=learning_rate, decay_steps=steps, warmup_steps=min(50, steps // 2)
    )
    return dataclasses.replace(config, optimizer=optimizer)


def continued_config(config: RunConfig) -> RunConfig:
    """Settings of a stage that starts with trained weights: half the learning rate, to 0."""
    steps = config.train.steps
    optimizer = dataclasses.replace(
        config.optimizer,
        learning_rate=config.optimizer.learning_rate / 2,
        decay_steps=steps,
        warmup_steps=min(200, steps // 2),
    )
    return dataclasses.replace(config, optimizer=optimizer)


def translation_config(preset: Preset, steps: int, precision: str) -> RunConfig:
    """Settings of the second stage: the other networks, for a fixed shared encoder."""
    return RunConfig(
        model=dataclasses.replace(encoder_config(preset, 1, precision).model, decoder_skips=True),
        objective=ObjectiveConfig(
            lambda_l1=100.0,
            lambda_shared=0.0,
            lambda_kl=0.005,
            freeze_shared=True,
            view_gain=0.2,
            view_band_gain=0.1,
            view_offset=0.02,
        ),
        optimizer=OptimizerConfig(
            learning_rate=2e-3,
            schedule="cosine",
            decay_steps=steps,
            warmup_steps=min(100, steps // 2),
            beta_1=0.9,
            discriminator_rate=0.1,
        ),
        train=TrainConfig(
            steps=steps,
            batch_size=16,
            balance="dates",
            steps_per_epoch=250,
            precision=precision,
        ),
    )


def with_shared_encoder(
    model: sits_keras.DisentangledSITS, encoder: sits_keras.DisentangledSITS
) -> sits_keras.DisentangledSITS:
    """Return a copy of a model with the shared encoder of another one."""
    result = with_bands(model, model.config)
    result.shared_encoder.set_weights(encoder.shared_encoder.get_weights())
    result.set_history(encoder.steps, encoder.objective.to_dict())
    return result


def with_bands(
    model: sits_keras.DisentangledSITS, config: ModelConfig
) -> sits_keras.DisentangledSITS:
    """Return a model for other bands that starts with the weights of another one.

    Filters of bands that the other model lacks are 0. So at first the networks ignore new bands of
    their input.
    """
    result = sits_keras.DisentangledSITS(config, seed=0)
    bands = model.config.bands
    if bands != config.bands and len(bands) >= len(config.bands):
        raise ConfigError(
            f"Expected a preset of fewer bands than {config.bands}. Received: {bands}."
        )
    for name in NETWORKS:
        weights = []
        for old, new in zip(
            getattr(model, name).get_weights(), getattr(result, name).get_weights(), strict=True
        ):
            axis = next(
                (axis for axis, size in enumerate(new.shape) if size != old.shape[axis]), None
            )
            if axis is None:
                weights.append(old)
                continue
            filters = np.zeros_like(new)
            for number, band in enumerate(config.bands):
                if band in bands:
                    np.moveaxis(filters, axis, 0)[number] = old.take(bands.index(band), axis)
            weights.append(filters)
        getattr(result, name).set_weights(weights)
    result.set_history(model.steps, model.objective.to_dict())
    return result


def with_new_discriminator(model: sits_keras.DisentangledSITS) -> sits_keras.DisentangledSITS:
    """Return a copy of a model with an untrained discriminator.

    One that has won against the former decoder has no gradient.
    """
    result = with_bands(model, model.config)
    untrained = sits_keras.DisentangledSITS(model.config, seed=0)
    result.discriminator.set_weights(untrained.discriminator.get_weights())
    return result


def in_float32(model: sits_keras.DisentangledSITS) -> sits_keras.DisentangledSITS:
    """Return a model with the same weights that computes in float32."""
    return with_bands(model, model.config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=PRESETS, metavar="NAME", help=", ".join(PRESETS))
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument(
        "--steps",
        type=int,
        default=ENCODER_STEPS,
        help="Last step of the encoder; a run can be made longer later.",
    )
    parser.add_argument(
        "--cooldown",
        type=int,
        default=0,
        metavar="STEPS",
        help="Further steps of the encoder stage, in which the learning rate falls to 0.",
    )
    parser.add_argument(
        "--initial",
        metavar="PRESET",
        help="Name or folder of a preset to start both stages with, of the same width and of the "
        "same or fewer bands.",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "mixed_bfloat16"),
        default="float32",
        help="mixed_bfloat16 takes about half the time on processors with AMX, and 2.6 times as "
        "long on those without.",
    )
    parser.add_argument(
        "--translation-steps",
        type=int,
        default=TRANSLATION_STEPS,
        help="Steps of the second stage.",
    )
    parser.add_argument(
        "--hours", type=float, default=0.0, help="Hours that the training took, for the card."
    )
    parser.add_argument(
        "--stage",
        choices=("encoder", "translation", "all"),
        default="all",
        help="Train the encoder alone; the other networks of the initial preset alone; or both.",
    )
    args = parser.parse_args()
    if args.stage == "translation" and not args.initial:
        parser.error("--stage translation requires --initial, a preset with a trained encoder.")
    import projection  # which imports this module

    preset = PRESETS[args.name]
    records = prepare_records(args.data, args.out, preset)
    print(f"{records.num_records} records of {len(records.series)} places", flush=True)
    progress = sys.stderr.isatty()
    config = encoder_config(preset, args.steps, args.precision)
    second = translation_config(preset, args.translation_steps, args.precision)
    networks = sits_keras.DisentangledSITS(second.model, seed=0)  # without a trained encoder
    encoder = None
    if args.initial:
        networks = with_bands(sits_keras.DisentangledSITS.from_preset(args.initial), second.model)
        encoder = with_shared_encoder(sits_keras.DisentangledSITS(config.model, seed=0), networks)
        config, second = continued_config(config), continued_config(second)
    if args.stage == "translation":
        networks = with_new_discriminator(networks)
    else:
        encoder = sits_keras.train(
            records,
            args.out / f"{args.name}-encoder",
            config,
            initial=encoder,
            progress=progress,
        )
    if args.cooldown:
        encoder = sits_keras.train(
            records,
            args.out / f"{args.name}-cooldown",
            cooldown_config(preset, args.steps, args.cooldown, args.precision),
            initial=encoder,
            progress=progress,
        )
    if args.stage == "encoder":
        return
    encoder_steps = encoder.steps - networks.steps
    model = sits_keras.train(
        records,
        args.out / args.name,
        second,
        initial=with_shared_encoder(networks, encoder),
        progress=progress,
    )
    folder = in_float32(model).save_to_preset(
        args.out / "presets" / args.name,
        license_id=preset.license_id,
        summary=f"Networks of width {config.model.width} for {', '.join(preset.bands)}, "
        f"trained on {len(records.series)} small places"
        + ("." if preset.left_out else ", of which some may not be used commercially."),
        training=describe_translation(args)
        if args.stage == "translation"
        else describe(records, config, encoder_steps, args),
        overwrite=True,
    )
    projection.fit(records, folder)
    print(folder)


def prepare_records(data: Path, out: Path, preset: Preset) -> Manifest:
    """Prepare records of all series and change pairs that are not held out or excluded."""
    series = [data / "series", data / "more" / "series"]
    if preset.bands == RGB:
        series.append(data / "more" / "series_rgb")
    dated = out / "pairs"
    for folder in (data / "change", data / "more" / "change"):
        for place in sorted(folder.iterdir()):
            dates = DATES[place.name.split("-")[0]]
            (dated / place.name).mkdir(parents=True, exist_ok=True)
            for date, name in zip(dates, ("before", "after"), strict=True):
                for suffix in ("", "_cloud"):
                    source = place / f"{name}{suffix}.tif"
                    link = dated / place.name / f"{date}{suffix}.tif"
                    if source.is_file() and not link.is_symlink():
                        link.symlink_to(source.resolve())
    return prepare(
        [*series, dated],
        out
        / f"records_{'rgb' if preset.bands == RGB else 'rgbn'}{'_open' * bool(preset.left_out)}",
        PrepareConfig(
            bands=preset.bands, dates=40, max_cloud=0.1, block_size=BLOCK_SIZE, compression=""
        ),
        exclude=[*HELD_OUT, *preset.left_out],
        progress=False,
    )


def describe_translation(args: argparse.Namespace) -> dict:
    """Return the content of `training.json` of a preset whose second stage is continued alone."""
    training = read_training(find_preset(args.initial))
    name = Path(args.initial).name
    command = (
        f"python benchmarks/presets.py {args.name} DATA OUT --initial {name} --stage translation "
        f"--translation-steps {args.translation_steps}"
    )
    return {
        **training,
        "objective": f"{training['objective']} These networks were trained for another "
        f"{args.translation_steps:,} steps, with stronger changes of brightness, and with a new "
        "discriminator of a tenth of the learning rate.",
        "command": [*training["command"], command],
        "hours": round(training["hours"] + args.hours, 1),
        "known_failures": KNOWN_FAILURES,
    }


def describe(
    records: Manifest, config: RunConfig, encoder_steps: int, args: argparse.Namespace
) -> dict:
    """Return the content of `training.json`."""
    command = f"python benchmarks/presets.py {args.name} DATA OUT --steps {args.steps}"
    start = "First"
    if args.initial:
        name = Path(args.initial).name
        command += f" --initial {name}"
        start = f"Beginning with the weights of {name}: first"
    if args.cooldown:
        command += f" --cooldown {args.cooldown}"
    if args.translation_steps != TRANSLATION_STEPS:
        command += f" --translation-steps {args.translation_steps}"
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
        "objective": f"{start} the shared encoder alone, {encoder_steps:,} steps, by InfoNCE "
        "losses between the grid cells and between the windows of two dates. Then the other "
        "networks with the shared encoder fixed, by the paper's objective with weights of 100 for "
        "eq. 2 and 0.005 for eq. 3, changes of brightness, and a tenth of the learning rate for "
        "the discriminator; the decoder has skip connections.",
        "augmentation": "rotation by multiples of 90 degrees, flips, slight changes of brightness",
        "batch_size": config.train.batch_size,
        "command": [command],
        "hardware": f"{num_cores()} cores of a shared virtual machine, no GPU",
        "hours": args.hours,
        "attribution": "Contains modified Copernicus Sentinel data 2016-2024.",
        "intended_use": INTENDED_USE,
        "known_failures": KNOWN_FAILURES,
    }


if __name__ == "__main__":
    try:
        main()
    except sits_keras.SitsKerasError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. Rerun to resume.")
