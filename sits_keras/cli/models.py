"""What a MODEL argument names, as an encoder or a whole model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.presets.download import is_url
from sits_keras.presets.folders import (
    could_be_name,
    describe_known,
    find_preset,
    is_preset,
    list_presets,
)

if TYPE_CHECKING:
    from sits_keras.hub import HubEncoder
    from sits_keras.model import DisentangledSITS

_KINDS = "a preset, a hub module, a .keras file, or the folder of a finished run"


class ModelPath(click.Path):
    """A path, or what stands for one: a preset's name, or the URL of its zip archive.

    Args:
        missing: the error where there is nothing of that name.
    """

    name = "model"

    def __init__(self, missing: Callable[[Path], MissingError] | None = None) -> None:
        super().__init__(path_type=Path)
        self._missing = missing or no_model

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The path: of the preset's folder where a name or a URL was given."""
        text = str(value)
        if not Path(text).exists():
            if is_url(text) or text in list_presets():
                return find_preset(text)
            raise self._missing(Path(text))
        return super().convert(value, param, ctx)


def no_model(path: Path) -> MissingError:
    """What to say where a MODEL is not there: of a path that, of a name which names there are."""
    if not could_be_name(path):
        return MissingError(f"No model at {path}. Expected {_KINDS}.")
    return MissingError(
        f"No model at {path}, and no preset of that name. {describe_known(str(path))} Expected "
        f"{_KINDS}."
    )


def model_option(help_text: str = f"{_KINDS[0].upper()}{_KINDS[1:]}.") -> Callable[..., Any]:
    """The option `--model`, which must be given."""
    return click.option("--model", required=True, type=ModelPath(), metavar="MODEL", help=help_text)


def load_encoder(path: Path, encoder: Literal["shared", "exclusive"] | None = None) -> "HubEncoder":
    """The encoder that a MODEL holds. TensorFlow must be imported before.

    Args:
        path: a preset's folder, a hub module of that encoder, a `.keras` file, or the folder of a
            finished run.
        encoder: which one is needed; by default a module's own, and a model's shared one.
    Raises:
        MissingError: there is nothing, or the run is not finished.
        DataError: it is damaged, or something else.
        ConfigError: a module of the other encoder.
    """
    from sits_keras import hub

    if is_preset(path):
        from sits_keras.presets.loading import from_preset

        return from_preset(path, encoder or "shared")
    if not (path / hub.PRESET_NAME).is_file():
        return hub.wrap(_load_model(path), encoder or "shared")
    found = hub.read_preset(path).get("encoder")
    if encoder not in (None, found):
        raise ConfigError(
            f"{path} is the {found} encoder, and the {encoder} one is needed here. Export it with "
            f"`sits-keras export MODEL OUT --encoder {encoder}`, or name the .keras file."
        )
    return hub.load(path)


def load_whole_model(path: Path) -> "DisentangledSITS":
    """The whole model that a MODEL holds. TensorFlow must be imported before.

    Args:
        path: a preset's folder, a `.keras` file, or the folder of a finished run.
    Raises:
        MissingError: there is nothing, or the run is not finished.
        DataError: it is damaged, or something else.
        ConfigError: a hub module, which has one encoder and no decoder.
    """
    from sits_keras import hub

    if is_preset(path):
        from sits_keras.presets.loading import from_preset

        return from_preset(path)
    if (path / hub.PRESET_NAME).is_file():
        raise ConfigError(
            f"{path} is a hub module: one encoder. The whole model is needed here: name the "
            "preset, .keras file or run that it was exported from."
        )
    return _load_model(path)


def _load_model(path: Path) -> "DisentangledSITS":
    from sits_keras.data.records import MANIFEST_NAME
    from sits_keras.saving import MODEL_NAME, list_checkpoints, load_model
    from sits_keras.training import CHECKPOINTS_NAME, CONFIG_NAME

    if not path.exists():
        raise no_model(path)
    if path.is_file() and path.suffix != ".keras":
        raise DataError(f"{path} is no model. Expected {_KINDS}.")
    if path.is_dir() and not (path / MODEL_NAME).is_file():
        if (path / MANIFEST_NAME).is_file():
            raise DataError(
                f"{path} is a folder of records, not a model. Train one with `sits-keras train "
                f"{path} RUN`, then name RUN. Expected {_KINDS}."
            )
        if (path / CONFIG_NAME).is_file():
            checkpoints = list_checkpoints(path / CHECKPOINTS_NAME)
            also = f", or name a checkpoint, such as {checkpoints[-1]}" if checkpoints else ""
            raise MissingError(
                f"{path} is a run that is not finished. Go on with `sits-keras train`{also}."
            )
        raise DataError(f"{path} is no model. Expected {_KINDS}.")
    return load_model(path)
