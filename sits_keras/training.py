"""A training run from a folder of records, which can be stopped and goes on where it was.

RUN/config.yaml      settings, versions, and checksum of the records
RUN/checkpoints/     the two newest, each a whole model with its optimizers and seeds
RUN/history.csv      a row for each epoch
RUN/model.keras      the result
"""

import functools
import hashlib
import importlib.metadata
import re
from pathlib import Path
from typing import Any

import tensorflow as tf
import yaml
from tqdm import tqdm

from sits_keras.callbacks import Checkpoints, History, Progress, StopWhenNotFinite
from sits_keras.checkpoints import (
    current_step,
    list_checkpoints,
    load_file,
    load_latest,
    save_model,
    step_of,
)
from sits_keras.config import RunConfig
from sits_keras.data.pairs import pair_dataset
from sits_keras.data.records import MANIFEST_NAME, Manifest, read_manifest, select_bands
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.files import read_yaml, written_aside
from sits_keras.model import DisentangledSITS
from sits_keras.optimizers import default_optimizer

CONFIG_NAME = "config.yaml"
HISTORY_NAME = "history.csv"
MODEL_NAME = "model.keras"
CHECKPOINTS_NAME = "checkpoints"
_VALIDATION_STEPS = 10


def train(
    records: Path | str | Manifest,
    out: Path | str,
    config: RunConfig | None = None,
    *,
    validation: Path | str | Manifest | None = None,
    progress: bool = True,
) -> DisentangledSITS:
    """Trains a model, or goes on with a run that was stopped.

    Args:
        records: what to train on.
        out: the run's folder. One that holds a run with the same settings and records goes on
            from its newest checkpoint; `steps` alone may differ, so that a run can be made longer.
        config: the settings; the paper's by default.
        validation: records of other places, scored at the end of each epoch.
        progress: show a progress bar with all terms.
    Returns:
        The trained model, which is also saved as `model.keras`.
    Raises:
        MissingError, DataError: records are missing or damaged, or lack a band.
        ExistsError: `out` holds something else, or a run with other settings.
        ConfigError: the run in `out` is beyond `steps` already.
        DivergedError: a term is not finite any more; the checkpoints are kept.
    """
    config = config or RunConfig()
    manifest = records if isinstance(records, Manifest) else read_manifest(records)
    if validation is not None and not isinstance(validation, Manifest):
        validation = read_manifest(validation)
    for one in filter(None, (manifest, validation)):
        select_bands(one.bands, config.model.bands, one.folder)  # before anything is written
    out = Path(out)
    _claim_folder(out, config, manifest)
    model = load_latest(out / CHECKPOINTS_NAME)
    if model is None:
        model = DisentangledSITS(config.model, seed=config.train.seed)
        model.compile(
            default_optimizer(config.optimizer),
            default_optimizer(config.optimizer),
            config.objective,
        )
    try:
        _fit(model, out, config, manifest, validation, progress)
    except tf.errors.InvalidArgumentError as error:  # what TensorFlow makes of a reader's error
        damage = re.search("DataError: (.*)", error.message)
        if damage is None:
            raise
        raise DataError(damage[1]) from error
    save_model(model, out / MODEL_NAME)
    return model


def load_model(path: Path | str) -> DisentangledSITS:
    """Loads a trained model, with its optimizers.

    Args:
        path: a `.keras` file, or a run's folder.
    Raises:
        MissingError: there is none.
        DataError: the file is damaged, or holds another kind of model.
    """
    path = Path(path)
    file = path / MODEL_NAME if path.is_dir() else path
    if not file.is_file():
        raise MissingError(f"No model at {file}. Expected a .keras file, or a finished run.")
    return load_file(file)


def _fit(
    model: DisentangledSITS,
    out: Path,
    config: RunConfig,
    manifest: Manifest,
    validation: Manifest | None,
    progress: bool,
) -> None:
    settings = config.train
    pairs = functools.partial(
        pair_dataset,
        batch_size=settings.batch_size,
        seed=settings.seed,
        bands=config.model.bands,
        band_max=config.model.band_max,
        context=model.halo,
    )
    validation_data = None
    if validation is not None:
        validation_data = pairs(validation, augment=False, num_steps=_VALIDATION_STEPS)
    bar = tqdm(
        total=settings.steps,
        initial=current_step(model),
        desc="train",
        unit="step",
        disable=not progress,
        mininterval=1.0,
    )
    callbacks = [
        StopWhenNotFinite(),
        History(out / HISTORY_NAME, current_step(model)),
        Checkpoints(out / CHECKPOINTS_NAME),
        Progress(bar),
    ]
    with bar:
        # Whole epochs, then what is left of the last one.
        while (step := current_step(model)) < settings.steps:
            epoch, done = divmod(step, settings.steps_per_epoch)
            num_epochs = (settings.steps - step) // settings.steps_per_epoch if not done else 0
            steps = settings.steps_per_epoch
            if not num_epochs:
                num_epochs, steps = 1, min(steps - done, settings.steps - step)
            model.fit(
                pairs(
                    manifest,
                    augment=settings.augment,
                    pairs_per_record=settings.pairs_per_record,
                    start_step=step,
                ),
                initial_epoch=epoch,
                epochs=epoch + num_epochs,
                steps_per_epoch=steps,
                shuffle=False,
                validation_data=validation_data,
                callbacks=callbacks,
                verbose=0,
            )


def _claim_folder(out: Path, config: RunConfig, manifest: Manifest) -> None:
    """Writes the run's settings, or checks that they are those of the run that is there."""
    records_sha256 = hashlib.sha256((manifest.folder / MANIFEST_NAME).read_bytes()).hexdigest()
    values: dict[str, Any] = {
        **config.to_dict(),
        "records": {"folder": str(manifest.folder), "manifest_sha256": records_sha256},
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("sits_keras", "keras", "tensorflow", "numpy")
        },
    }
    path = out / CONFIG_NAME
    if path.is_file():
        there = read_yaml(path, "Name another folder.")
        try:
            settings = RunConfig.from_dict({name: there[name] for name in config.to_dict()})
            same_records = there["records"]["manifest_sha256"] == records_sha256
        except (KeyError, TypeError, ConfigError) as error:
            raise DataError(f"{path} is damaged: {error!r}. Name another folder.") from error
        differing = [
            f"{section}.{name} {value!r} (here {getattr(getattr(config, section), name)!r})"
            for section in ("model", "objective", "optimizer", "train")
            for name, value in vars(getattr(settings, section)).items()
            if (section, name) != ("train", "steps")
            and value != getattr(getattr(config, section), name)
        ]
        if differing or not same_records:
            raise ExistsError(
                f"{out} holds a run with other "
                f"{'settings: ' + ', '.join(differing) if differing else 'records'}. "
                "Name another folder, or repeat that run's settings to go on with it."
            )
        there_already = list_checkpoints(out / CHECKPOINTS_NAME)
        if there_already and step_of(there_already[-1]) > config.train.steps:
            raise ConfigError(
                f"{out} is at step {step_of(there_already[-1])} already. "
                f"Received: steps={config.train.steps}."
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExistsError(f"{out} is there already and holds no run. Name another folder.")
    out.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
