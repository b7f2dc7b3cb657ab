"""Whole models as files: saved, listed and loaded again."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras

from sits_keras.config import describe_differences
from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.files import written_aside
from sits_keras.formats import MODEL_NAME
from sits_keras.model import DisentangledSITS


def current_step(model: DisentangledSITS) -> int:
    """Updates that a compiled model has seen."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def load_file(file: Path) -> DisentangledSITS:
    """Loads a `.keras` file.

    Raises:
        DataError: it is damaged, or holds another kind of model.
    """
    if not zipfile.is_zipfile(file):
        raise DataError(f"{file} is no .keras file, or is cut off.")
    try:
        model = keras.saving.load_model(file)
    except Exception as error:  # Keras lets zipfile's, h5py's and its own errors through
        raise DataError(f"{file} cannot be loaded: {' '.join(str(error).split())}") from error
    if not isinstance(model, DisentangledSITS):
        raise DataError(f"{file} holds a {type(model).__name__}, expected a DisentangledSITS.")
    return model


def load_model(path: Path | str) -> DisentangledSITS:
    """Loads a trained model, with its optimizers.

    Args:
        path: a `.keras` file, or a run's folder.
    Returns:
        The model, compiled as it was when it was saved.
    Raises:
        MissingError: there is none.
        DataError: the file is damaged, or holds another kind of model.
    """
    path = Path(path)
    file = path / MODEL_NAME if path.is_dir() else path
    if not file.is_file():
        raise MissingError(
            f"No model at {file}. Expected a .keras file, or a finished run; presets are loaded by "
            "sits_keras.from_preset."
        )
    return load_file(file)


def save_model(model: DisentangledSITS, file: Path) -> None:
    """Saves a model with its optimizers and seeds, whole or not at all."""
    with written_aside(file) as aside:
        model.save(aside)


def checkpoint_name(step: int) -> str:
    """Name of the checkpoint that a run writes after a step."""
    return f"step-{step:09d}.keras"


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint's name gives."""
    return int(checkpoint.stem.removeprefix("step-"))


def list_checkpoints(folder: Path) -> list[Path]:
    """A folder's checkpoints, the oldest first."""
    return sorted(folder.glob("step-*.keras"))


def restore_latest(model: DisentangledSITS, folder: Path) -> int:
    """Puts a compiled model into the state of a folder's newest checkpoint that can be loaded.

    Weights, moving statistics, both optimizers and the seeds are restored, so that a run goes on
    as if it had not been stopped. Warns of each checkpoint that cannot be loaded.

    Returns:
        The step of the checkpoint; 0 where there is none, and then the model stays as it is.
    Raises:
        ConfigError: the checkpoint is of a model, or of optimizers, with other settings.
    """
    for file in reversed(list_checkpoints(folder)):
        try:
            saved = load_file(file)
        except DataError as error:
            warnings.warn(f"{error} Going on without this checkpoint.", stacklevel=3)
            continue
        differing = describe_differences(_settings_of(saved), _settings_of(model))
        if differing:
            raise ConfigError(
                f"{file} is of a model with other settings: {differing}. "
                "Make and compile the model as it was, or name another folder."
            )
        for target, source in zip(_state_of(model), _state_of(saved), strict=True):
            target.assign(source)
        return current_step(model)
    return 0


# What may differ between a model and the checkpoint that it goes on from.
_FREE = ("name", "steps_per_execution", "jit_compile", "run_eagerly")


def _settings_of(model: DisentangledSITS) -> dict[str, Any]:
    """Every setting of a model and of its optimizers, by a dotted name."""
    settings: dict[str, Any] = {}

    def add(prefix: str, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                add(f"{prefix}{name}.", value)
            elif name not in _FREE:
                settings[f"{prefix}{name}"] = value

    add("", {**model.get_config(), **model.get_compile_config()})
    return dict(sorted(settings.items()))


def _state_of(model: DisentangledSITS) -> list[keras.Variable]:
    return [*model.weights, *model.optimizer.variables, model.seed_generator.state]
