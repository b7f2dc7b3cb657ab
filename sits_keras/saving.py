"""Model files and checkpoints: save, list, load and restore them."""

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
    """Return the number of updates since a model was compiled, including restored ones."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def load_file(file: Path) -> DisentangledSITS:
    """Load a `.keras` file.

    Args:
        file: File to load.

    Returns:
        The model, compiled as it was saved.

    Raises:
        DataError: The file is damaged or contains another kind of model.
    """
    check_complete(file)
    try:
        model = keras.saving.load_model(file)
    except Exception as error:  # errors of zipfile, h5py and Keras, of many classes
        raise DataError(f"{file} cannot be loaded: {' '.join(str(error).split())}") from error
    if not isinstance(model, DisentangledSITS):
        raise DataError(
            f"{file} contains another kind of model. Expected a DisentangledSITS. "
            f"Received: a {type(model).__name__}."
        )
    return model


def check_complete(file: Path) -> None:
    """Check that a `.keras` file is a whole archive.

    Args:
        file: File to check.

    Raises:
        DataError: It is not an archive, or one of its members does not match its checksum.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{file} is not a valid .keras file (possibly truncated).") from error
    if damaged is not None:
        raise DataError(f"{file} is damaged: {damaged} does not match its checksum.")


def load_model(path: Path | str) -> DisentangledSITS:
    """Load a trained model with its optimizers.

    Args:
        path: A `.keras` file, or the folder of a run.

    Returns:
        The model, compiled as it was saved.

    Raises:
        MissingError: There is no model at `path`.
        DataError: The file is damaged or contains another kind of model.

    Examples:
        >>> from sits_keras import DisentangledSITS, ModelConfig, load_model
        >>> DisentangledSITS(ModelConfig(width=2)).save("small.keras")
        >>> load_model("small.keras").config.width
        2
    """
    path = Path(path)
    file = path / MODEL_NAME if path.is_dir() else path
    if not file.is_file():
        raise MissingError(
            f"No model at {file}. Expected a .keras file or the folder of a finished run. To load "
            "a preset, use sits_keras.from_preset."
        )
    return load_file(file)


def save_model(model: DisentangledSITS, file: Path) -> None:
    """Save a model with its optimizers and seeds; the file is complete or absent."""
    with written_aside(file) as aside:
        model.save(aside)


def checkpoint_name(step: int) -> str:
    """Return the file name of the checkpoint after a step."""
    return f"step-{step:09d}.keras"


def step_of(checkpoint: Path) -> int:
    """Return the step in the file name of a checkpoint."""
    return int(checkpoint.stem.removeprefix("step-"))


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*.keras"))


def restore_latest(model: DisentangledSITS, folder: Path) -> int:
    """Restore a compiled model from the newest undamaged checkpoint of a folder.

    Weights, moving statistics, both optimizers and the seeds are restored, so that a resumed run
    gives the same result as an uninterrupted one. A damaged checkpoint is skipped with a warning.

    Args:
        model: Compiled model; unchanged if there is no checkpoint.
        folder: Folder of checkpoints.

    Returns:
        Step of the checkpoint; 0 if there is none.

    Raises:
        ConfigError: The checkpoint is of a model or of optimizers with other settings.
        DataError: There are checkpoints, and all are damaged, or an undamaged one cannot be loaded.
    """
    files = list_checkpoints(folder)
    for file in reversed(files):
        try:
            check_complete(file)
        except DataError as error:
            warnings.warn(f"{error} Skipping this checkpoint.", stacklevel=3)
            continue
        # An error beyond this check has a cause that an older checkpoint would have as well.
        saved = load_file(file)
        differing = describe_differences(_settings_of(saved), _settings_of(model))
        if differing:
            raise ConfigError(
                f"{file} is of a model with other settings: {differing}. "
                "Create and compile the model as before, or name another folder."
            )
        for target, source in zip(_state_of(model), _state_of(saved), strict=True):
            target.assign(source)
        return current_step(model)
    if files:
        raise DataError(
            f"No checkpoint in {folder} can be loaded: {len(files)} damaged. Remove the folder to "
            "train from the beginning, or restore a checkpoint from a backup."
        )
    return 0


_RESUMABLE_KEYS = ("name", "steps_per_execution", "jit_compile", "run_eagerly")
"""Settings that may differ between a model and the checkpoint that it resumes from."""


def _settings_of(model: DisentangledSITS) -> dict[str, Any]:
    """Return every setting of a model and of its optimizers, by a dotted name."""
    settings: dict[str, Any] = {}

    def add(prefix: str, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                add(f"{prefix}{name}.", value)
            elif name not in _RESUMABLE_KEYS:
                settings[f"{prefix}{name}"] = value

    add("", {**model.get_config(), **model.get_compile_config()})
    return dict(sorted(settings.items()))


def _state_of(model: DisentangledSITS) -> list[keras.Variable]:
    return [*model.weights, *model.optimizer.variables, model.seed_generator.state]
