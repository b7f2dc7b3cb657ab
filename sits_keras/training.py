"""A training run from a folder of records, which can be stopped and goes on where it was.

RUN/config.yaml      settings, versions, and checksum of the records
RUN/checkpoints/     the two newest, each a whole model with its optimizers and seeds
RUN/history.csv      a row for each epoch
RUN/logs/            the same for TensorBoard, with images of translations
RUN/translations.png the newest of those: place from, date from, generated
RUN/model.keras      the result
"""

import functools
import hashlib
import importlib.metadata
import math
import re
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from sits_keras.callbacks import Checkpoints, EventLog, History, Progress, StopWhenNotFinite
from sits_keras.config import RunConfig, describe_differences
from sits_keras.data.pairs import pair_dataset
from sits_keras.data.records import MANIFEST_NAME, Manifest, read_manifest, select_bands
from sits_keras.errors import ConfigError, DataError, ExistsError
from sits_keras.files import check_folder, read_yaml, written_aside
from sits_keras.formats import CONFIG_NAME, MODEL_NAME
from sits_keras.model import DisentangledSITS
from sits_keras.saving import (
    current_step,
    list_checkpoints,
    save_model,
    step_of,
)
from sits_keras.tensorflow_import import tf
from sits_keras.trainers import BACKEND
from sits_keras.trainers.optimizers import default_optimizer

HISTORY_NAME = "history.csv"
CHECKPOINTS_NAME = "checkpoints"
LOGS_NAME = "logs"
PICTURE_NAME = "translations.png"
_VALIDATION_STEPS = 10
# Settings that may differ when a run is gone on with.
_FREE = ("train.steps", "train.steps_per_execution")


def train(
    records: Path | str | Manifest,
    out: Path | str,
    config: RunConfig | None = None,
    *,
    validation: Path | str | Manifest | None = None,
    initial: DisentangledSITS | None = None,
    progress: bool = True,
) -> DisentangledSITS:
    """Trains a model, or goes on with a run that was stopped.

    Args:
        records: what to train on.
        out: the run's folder. One that holds a run with the same settings and records goes on
            from its newest checkpoint; `steps` may differ, so that a run can be made longer, and
            so may `steps_per_execution`.
        config: the settings; the paper's by default.
        validation: records of other places, scored at the end of each epoch.
        initial: a model of the same settings, such as `from_preset` gives, whose weights the run
            begins with; it is left as it is. Optimizers and draws begin anew. A run that goes on
            needs the same one.
        progress: show a progress bar with all terms.
    Returns:
        The trained model, which is also saved as `model.keras`.
    Raises:
        MissingError, DataError: records are missing or damaged, or lack a band.
        ExistsError: `out` holds something else, or a run with other settings.
        OutputError: `out` cannot be written to.
        ConfigError: the run in `out` is beyond `steps` already; `initial` has other settings than
            `config.model`.
        DivergedError: a term is not finite any more; the checkpoints are kept.
    """
    config = config or RunConfig()
    if BACKEND != "tensorflow":  # which then reads the records alone, and needs no GPU's memory
        tf.config.set_visible_devices([], "GPU")
    manifest = records if isinstance(records, Manifest) else read_manifest(records)
    if validation is not None and not isinstance(validation, Manifest):
        validation = read_manifest(validation)
    for one in filter(None, (manifest, validation)):
        select_bands(one.bands, config.model.bands, one.folder)  # before anything is written
    out = Path(out)
    if initial is not None:
        differing = describe_differences(initial.config.to_dict(), config.model.to_dict())
        if differing:
            raise ConfigError(
                f"The initial model has other settings: {differing}. Take its own: "
                "RunConfig(model=initial.config)."
            )
    _claim_folder(out, config, manifest, initial)
    model = DisentangledSITS(config.model, seed=config.train.seed, dtype=config.train.precision)
    if initial is not None:
        model.set_weights(initial.get_weights())
        model.resume_from(initial.steps, initial.objective.to_dict())
    model.compile(
        default_optimizer(config.optimizer), default_optimizer(config.optimizer), config.objective
    )
    checkpoints = Checkpoints(out / CHECKPOINTS_NAME)
    checkpoints.restore(model)
    try:
        _fit(model, out, config, manifest, validation, checkpoints, progress)
    except tf.errors.InvalidArgumentError as error:  # what TensorFlow makes of a reader's error
        damage = re.search("DataError: (.*)", error.message)
        if damage is None:
            raise
        raise DataError(damage[1]) from error
    save_model(model, out / MODEL_NAME)
    return model


def _fit(
    model: DisentangledSITS,
    out: Path,
    config: RunConfig,
    manifest: Manifest,
    validation: Manifest | None,
    checkpoints: Checkpoints,
    progress: bool,
) -> None:
    settings = config.train
    pairs = functools.partial(
        pair_dataset,
        batch_size=settings.batch_size,
        seed=settings.seed,
        bands=config.model.bands,
        band_max=config.model.band_max,
        context=model.context_margin,
    )
    validation_data = None
    if validation is not None:
        validation_data = pairs(validation, augment=False, num_steps=_VALIDATION_STEPS)
    shown = validation_data or pairs(manifest, augment=False, num_steps=1)
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
        checkpoints,
        EventLog(out / LOGS_NAME, next(iter(shown.as_numpy_iterator())), out / PICTURE_NAME),
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
            # Keras would go on beyond the end of an epoch that the executions do not divide.
            at_once = math.gcd(steps, settings.steps_per_execution)
            if model.steps_per_execution != at_once:
                model.steps_per_execution = at_once
                model.train_function = model.test_function = None  # compiled for another number
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


def _claim_folder(
    out: Path, config: RunConfig, manifest: Manifest, initial: DisentangledSITS | None
) -> None:
    """Writes the run's settings, or checks that they are those of the run that is there."""
    records_sha256 = hashlib.sha256((manifest.folder / MANIFEST_NAME).read_bytes()).hexdigest()
    values: dict[str, Any] = {
        **config.to_dict(),
        "records": {"folder": str(manifest.folder), "manifest_sha256": records_sha256},
        "versions": {
            name: importlib.metadata.version(name)
            for name in dict.fromkeys(("sits_keras", "keras", BACKEND, "tensorflow", "numpy"))
        },
        "backend": BACKEND,
    }
    if initial is not None:
        values["initial"] = {"steps": initial.steps, "weights_sha256": _sha256_of(initial)}
    path = out / CONFIG_NAME
    if path.is_file():
        there = read_yaml(path, "Name another folder.")
        try:
            settings = RunConfig.from_dict({name: there[name] for name in config.to_dict()})
            same_records = there["records"]["manifest_sha256"] == records_sha256
        except (KeyError, TypeError, ConfigError) as error:
            raise DataError(f"{path} is damaged: {error!r}. Name another folder.") from error
        differing = describe_differences(_settings_of(settings), _settings_of(config))
        if differing or not same_records:
            raise ExistsError(
                f"{out} holds a run with other "
                f"{'settings: ' + differing if differing else 'records'}. "
                "Name another folder, or repeat that run's settings to go on with it."
            )
        if there.get("initial") != values.get("initial"):
            raise ExistsError(
                f"{out} holds a run that began with other weights: {there.get('initial')} (here "
                f"{values.get('initial')}). Name another folder, or begin with the same ones."
            )
        there_already = list_checkpoints(out / CHECKPOINTS_NAME)
        if there_already and step_of(there_already[-1]) > config.train.steps:
            raise ConfigError(
                f"{out} is at step {step_of(there_already[-1])} already. "
                f"Received: steps={config.train.steps}."
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExistsError(f"{out} is there already and holds no run. Name another folder.")
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _sha256_of(model: DisentangledSITS) -> str:
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def _settings_of(config: RunConfig) -> dict[str, Any]:
    """The settings that a run which is gone on with must share, by a dotted name."""
    settings = {
        f"{section}.{name}": value
        for section, one in vars(config).items()
        for name, value in vars(one).items()
    }
    return {name: value for name, value in settings.items() if name not in _FREE}
