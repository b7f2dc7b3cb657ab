"""Command `sits-keras train`: a model from records, or a resumed run."""

import dataclasses
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sits_keras.cli.options import BandNames, Numbers, quiet_option
from sits_keras.config import (
    ModelConfig,
    RunConfig,
    describe_differences,
    help_of,
)
from sits_keras.errors import ConfigError, MissingError
from sits_keras.files import check_folder, read_yaml
from sits_keras.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from sits_keras.model import DisentangledSITS

_DEFAULT = RunConfig()

# Sections of a run's config.yaml that are not settings.
_ORIGINS = ("records", "versions", "backend", "initial")

# Sections whose settings are options.
_SECTIONS = ("train", "model", "optimizer", "objective")
_SETTINGS = {
    field.name: section
    for section in _SECTIONS
    for field in dataclasses.fields(getattr(_DEFAULT, section))
}


def _settings(command: Any) -> Any:
    for name, section in reversed(_SETTINGS.items()):
        default = getattr(getattr(_DEFAULT, section), name)
        option = f"--{name.replace('_', '-')}"
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        kind: Any = type(default)
        hint = typing.get_type_hints(type(getattr(_DEFAULT, section)))[name]
        if typing.get_origin(hint) is typing.Literal:
            kind = click.Choice(typing.get_args(hint))
        if isinstance(default, tuple):
            kind = BandNames() if isinstance(default[0], str) else Numbers()
        if isinstance(default, bool):
            no = option.replace("--", "--no-", 1)
            shown, option = (option if default else no)[2:], f"{option}/{no}"
        command = click.option(
            option,
            name,
            type=kind,
            default=None,
            help=f"{help_of(type(getattr(_DEFAULT, section)), name)}  [default: {shown}]",
        )(command)
    return command


@click.command()
@click.argument("records", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--validation",
    type=click.Path(path_type=Path),
    help="Records of other places, evaluated at the end of each epoch.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Settings as YAML, as in a run's config.yaml. Options override them.",
)
@click.option(
    "--preset",
    metavar="NAME",
    help="Preset (name, folder or archive) whose weights to start from, instead of random ones. "
    "Its settings of model and objective apply; options override those of the objective. All "
    "networks are trained; with --freeze-shared, all except the shared encoder.",
)
@_settings
@quiet_option
def train(
    records: Path,
    out: Path,
    validation: Path | None,
    config_file: Path | None,
    preset: str | None,
    progress: bool,
    **options: Any,
) -> None:
    """Train a model on the folder RECORDS, and write the run to the folder OUT.

    To resume an interrupted run from its newest checkpoint, rerun the same command. OUT contains
    model.keras, history.csv, config.yaml, checkpoints/, logs/ (tensorboard --logdir OUT/logs)
    and translations.png. The defaults are the paper's, which need a GPU. On a laptop, start with

    \b
      sits-keras train records run --width 16 --batch-size 32 --steps 2000
    """
    sections = _read_config(config_file) if config_file else {}
    for name, value in options.items():
        if value is not None:
            sections.setdefault(_SETTINGS[name], {})[name] = value
    config = RunConfig.from_dict(sections)  # before anything that takes time
    check_folder(out)
    import_tensorflow()
    from sits_keras.training import train as train_model

    initial = None
    if preset is not None:
        initial = _load_preset(preset, sections)
        config = RunConfig.from_dict(sections)
    model = train_model(
        records, out, config, validation=validation, initial=initial, progress=progress
    )
    click.echo(f"{out / 'model.keras'}: {int(model.optimizer.iterations)} steps")


def _load_preset(preset: str, sections: dict[str, dict[str, Any]]) -> "DisentangledSITS":
    """Load a preset and put its settings into the sections of a configuration.

    Raises:
        ConfigError: The sections contradict the preset's model.
    """
    from sits_keras.presets.loading import from_preset

    model = from_preset(preset)
    own = model.config.to_dict()
    wanted = ModelConfig.from_dict({**own, **sections.get("model", {})}).to_dict()
    differing = describe_differences(own, wanted)
    if differing:
        raise ConfigError(
            f"The preset {preset} has other settings: {differing}. Omit these options, or train "
            "without --preset."
        )
    sections["model"] = own
    given = sections.get("objective", {})
    own = model.objective.to_dict()
    if own["freeze_shared"] and not given.get("freeze_shared"):
        own = _train_shared_again(own)
    sections["objective"] = {**own, **given}
    return model


def _train_shared_again(objective: dict[str, Any]) -> dict[str, Any]:
    """Return an objective for training of all networks, from one that kept the shared encoder.

    If the former objective has no term for the shared encoder, eq. 1 gets the weight of the paper,
    so that the representations of two dates stay similar.
    """
    values = {**objective, "freeze_shared": False}
    if not (values["lambda_shared"] or values["lambda_info_nce"]):
        values["lambda_shared"] = _DEFAULT.objective.lambda_shared
    return values


def _read_config(file: Path) -> dict[str, dict[str, Any]]:
    if not file.is_file():
        raise MissingError(f"{file} does not exist. Expected a YAML file of settings.")
    values = read_yaml(file, "Expected sections such as train and model, each with its settings.")
    sections = {k: v for k, v in values.items() if k not in _ORIGINS}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise ConfigError(
                f"The section {name!r} of {file} contains no settings. Expected a mapping. "
                f"Received: {section!r}."
            )
    return sections
