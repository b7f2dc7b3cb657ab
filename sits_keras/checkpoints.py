"""Whole models as files: saved, listed and loaded again."""

import warnings
import zipfile
from pathlib import Path

import keras

from sits_keras.errors import DataError
from sits_keras.files import written_aside
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


def load_latest(folder: Path) -> DisentangledSITS | None:
    """The newest checkpoint that can be loaded, `None` where there is none.

    Warns of each that cannot.
    """
    for file in reversed(list_checkpoints(folder)):
        try:
            return load_file(file)
        except DataError as error:
            warnings.warn(f"{error} Going on without this checkpoint.", stacklevel=3)
    return None
