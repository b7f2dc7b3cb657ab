"""Training runs from a folder of records, which can be interrupted and resumed.

RUN/config.yaml      settings, versions, and checksum of the records
RUN/checkpoints/     two newest checkpoints, each a model with its optimizers and seeds
RUN/history.csv      one row for each epoch
RUN/logs/            the same for TensorBoard, with images of translations
RUN/translations.png newest of these images: place, date, generated image
RUN/model.keras      trained model
"""

import functools
import hashlib
import importlib.metadata
import math
from pathlib import Path
from typing import Any

import keras
import yaml
from tqdm import tqdm

from sits_keras.callbacks import Checkpoints, EventLog, History, Progress, StopWhenNotFinite
from sits_keras.config import IMAGE_SIZE, RunConfig, describe_differences
from sits_keras.contrastive import check_objective
from sits_keras.data.pairs import pair_dataset
from sits_keras.data.records import MANIFEST_NAME, Manifest, read_manifest, select_bands
from sits_keras.errors import ConfigError, DataError, ExistsError, original_errors
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
_RESUMABLE_KEYS = ("train.steps", "train.steps_per_execution")
"""Settings that may differ when a run is resumed."""


def train(
    records: Path | str | Manifest,
    out: Path | str,
    config: RunConfig | None = None,
    *,
    validation: Path | str | Manifest | None = None,
    initial: DisentangledSITS | None = None,
    progress: bool = True,
) -> DisentangledSITS:
    """Train a model, or resume an interrupted run.

    Args:
        records: Folder of training records, or its manifest.
        out: Folder of the run. A run there with the same settings and records is resumed from its
            newest checkpoint. `steps` may differ, to extend a run, and so may
            `steps_per_execution`.
        config: Settings; the paper's by default.
        validation: Records of other places, evaluated at the end of each epoch.
        initial: Model with the same settings, such as that of `from_preset`, whose weights the run
            starts with; it is not changed. Optimizers and seeds start from the beginning.
            Resuming needs the same model.
        progress: Show a progress bar with all terms.

    Returns:
        The trained model, which is also saved as `model.keras`.

    Raises:
        MissingError: Records are missing.
        DataError: Records or checkpoints are damaged, or a band is missing.
        ExistsError: `out` contains something else, or a run with other settings.
        OutputError: `out` cannot be written.
        ConfigError: The run in `out` is already beyond `steps`, settings contradict each other, or
            `initial` has other settings than `config.model`.
        DivergedError: A term is no longer finite; the checkpoints are kept.

    Examples:
        >>> import sits_keras
        >>> config = sits_keras.RunConfig(
        ...     model=sits_keras.ModelConfig(width=16),
        ...     train=sits_keras.TrainConfig(steps=2000, batch_size=32),
        ... )
        >>> model = sits_keras.train("records", "run", config)  # doctest: +SKIP
    """
    config = config or RunConfig()
    _check_limits()
    if BACKEND != "tensorflow":  # TensorFlow then only reads records and needs no GPU memory
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
                f"The initial model has other settings: {differing}. Use its own settings: "
                "RunConfig(model=initial.config)."
            )
    check_objective(config.model, config.objective)
    if config.train.crop_size > IMAGE_SIZE and not config.objective.encoder_only:
        raise ConfigError(
            f"Only the shared encoder can be trained on crops larger than 64 px. Expected "
            f"crop_size={IMAGE_SIZE}, or lambda_l1=0, lambda_kl=0 and lambda_adversarial=0. "
            f"Received: crop_size={config.train.crop_size}."
        )
    _init_output_dir(out, config, manifest, initial)
    model = DisentangledSITS(config.model, seed=config.train.seed, dtype=config.train.precision)
    if initial is not None:
        model.copy_networks(initial)
        model.set_history(initial.steps, initial.objective.to_dict())
    model.compile(
        default_optimizer(config.optimizer),
        default_optimizer(config.optimizer, config.optimizer.discriminator_rate),
        config.objective,
    )
    if initial is not None:
        model.copy_projector(initial)  # made by `compile`
    checkpoints = Checkpoints(out / CHECKPOINTS_NAME)
    checkpoints.restore(model)
    _fit(model, out, config, manifest, validation, checkpoints, progress)
    save_model(model, out / MODEL_NAME)
    return model


def _check_limits() -> None:
    """Raise if Keras would cut off training for debugging."""
    for name, value in (
        ("KERAS_MAX_EPOCHS", keras.config.max_epochs()),
        ("KERAS_MAX_STEPS_PER_EPOCH", keras.config.max_steps_per_epoch()),
    ):
        if value is not None:
            raise ConfigError(
                f"Keras is limited by {name}, an environment variable for debugging (or by the "
                f"function of keras.config). Expected no limit. Received: {value}. Unset {name}."
            )


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
    crops = functools.partial(pairs, crop_size=settings.crop_size)
    validation_data = None
    if validation is not None:
        validation_data = crops(validation, augment=False, num_steps=_VALIDATION_STEPS)
    examples = pairs(validation or manifest, augment=False, num_steps=1)
    with original_errors(examples):
        example = next(iter(examples.as_numpy_iterator()))
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
        EventLog(out / LOGS_NAME, example, out / PICTURE_NAME),
        Progress(bar),
    ]
    with bar:
        # Whole epochs, then the rest of the last one.
        while (step := current_step(model)) < settings.steps:
            epoch, done = divmod(step, settings.steps_per_epoch)
            num_epochs = (settings.steps - step) // settings.steps_per_epoch if not done else 0
            steps = settings.steps_per_epoch
            if not num_epochs:
                num_epochs, steps = 1, min(steps - done, settings.steps - step)
            # Keras would continue past the end of an epoch that the executions do not divide.
            at_once = math.gcd(steps, settings.steps_per_execution)
            if model.steps_per_execution != at_once:
                model.steps_per_execution = at_once
                model.train_function = model.test_function = None  # compiled for another number
            model.fit(
                crops(
                    manifest,
                    augment=settings.augment,
                    balance=settings.balance,
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


def _init_output_dir(
    out: Path, config: RunConfig, manifest: Manifest, initial: DisentangledSITS | None
) -> None:
    """Write the settings of a run, or check that they are those of an existing run."""
    records = {"folder": str(manifest.folder), "content_sha256": manifest.content_sha256}
    values: dict[str, Any] = {
        **config.to_dict(),
        "records": records,
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
            same_records = _are_same(there["records"], manifest)
        except (KeyError, TypeError, ConfigError) as error:
            raise DataError(f"{path} is damaged: {error!r}. Name another folder.") from error
        differing = describe_differences(_settings_of(settings), _settings_of(config))
        if differing or not same_records:
            raise ExistsError(
                f"{out} contains a run with other "
                f"{'settings: ' + differing if differing else 'records'}. "
                "Name another folder, or use the settings of that run to resume it."
            )
        if there.get("initial") != values.get("initial"):
            raise ExistsError(
                f"{out} contains a run with other initial weights: {there.get('initial')} (here "
                f"{values.get('initial')}). Name another folder, or start from the same weights."
            )
        checkpoints = list_checkpoints(out / CHECKPOINTS_NAME)
        if checkpoints and step_of(checkpoints[-1]) > config.train.steps:
            raise ConfigError(
                f"{out} is already at step {step_of(checkpoints[-1])}. Expected at least as many "
                f"steps. Received: steps={config.train.steps}."
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExistsError(f"{out} exists and does not contain a run. Name another folder.")
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _are_same(records: dict[str, str], manifest: Manifest) -> bool:
    """Return whether the records of a run are those of a manifest."""
    if "manifest_sha256" in records:  # of a run by an earlier version
        content = (manifest.folder / MANIFEST_NAME).read_bytes()
        return records["manifest_sha256"] == hashlib.sha256(content).hexdigest()
    return records["content_sha256"] == manifest.content_sha256


def _sha256_of(model: DisentangledSITS) -> str:
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def _settings_of(config: RunConfig) -> dict[str, Any]:
    """Return the settings that a resumed run must share, by a dotted name."""
    settings = {
        f"{section}.{name}": value
        for section, one in vars(config).items()
        for name, value in vars(one).items()
    }
    return {name: value for name, value in settings.items() if name not in _RESUMABLE_KEYS}
