"""`sits-keras train`."""

import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sits_keras.cli.options import BandNames, Numbers
from sits_keras.config import ModelConfig, RunConfig, describe_differences
from sits_keras.errors import ConfigError, MissingError
from sits_keras.files import check_folder, read_yaml
from sits_keras.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from sits_keras.model import DisentangledSITS

_DEFAULT = RunConfig()

# Of a run's own config.yaml: where it came from.
_ORIGINS = ("records", "versions", "backend", "initial")

# Option, section and name of each setting that has one, and what it is.
_SETTINGS = {
    "steps": ("train", "updates of each network"),
    "batch_size": ("train", "pairs in a batch"),
    "seed": ("train", "seed of weights, pairs and draws"),
    "pairs_per_record": ("train", "pairs drawn each time a record is read"),
    "steps_per_epoch": ("train", "steps between checkpoints, validations and history rows"),
    "steps_per_execution": ("train", "steps in one call of the compiled function"),
    "precision": ("train", "what the networks compute in"),
    "bands": ("model", "bands of the images, in this order; the records may hold more"),
    "band_max": ("model", "reflectance that the networks see as 1.0, of each band"),
    "width": ("model", "channels of each network's first convolution"),
    "shared_channels": ("model", "channels of the 4x4 shared representation"),
    "exclusive_dim": ("model", "length of the exclusive representation"),
    "leaky_slope": ("model", "slope of leaky ReLU below zero"),
    "padding": ("model", "what lies beyond a window's edges: context for dense maps"),
    "shared_norm": ("model", "normalisation of the cells of the shared representation"),
    "learning_rate": ("optimizer", "learning rate of the first steps"),
    "decay_steps": ("optimizer", "steps between two falls of the learning rate"),
    "decay_rate": ("optimizer", "factor of each fall"),
    "beta_1": ("optimizer", "decay of Adam's first moment"),
    "clip_norm": ("optimizer", "largest norm of a player's gradients; 0 for any"),
    "lambda_l1": ("objective", "weight of the reconstruction, eq. 2"),
    "lambda_shared": ("objective", "weight of the shared distance, eq. 1"),
    "lambda_kl": ("objective", "weight of the divergence, eq. 3"),
    "lambda_info_nce": (
        "objective",
        "weight of the InfoNCE loss between grid cells; 0 in the paper",
    ),
    "temperature": ("objective", "temperature of the InfoNCE loss"),
    "adversarial": ("objective", "form of eq. 4"),
    "update": ("objective", "order of the updates of Algorithm 1"),
}


def _settings(command: Any) -> Any:
    for name, (section, what) in reversed(_SETTINGS.items()):
        default = getattr(getattr(_DEFAULT, section), name)
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        kind: Any = type(default)
        hint = typing.get_type_hints(type(getattr(_DEFAULT, section)))[name]
        if typing.get_origin(hint) is typing.Literal:
            kind = click.Choice(typing.get_args(hint))
        if isinstance(default, tuple):
            kind = BandNames() if isinstance(default[0], str) else Numbers()
        command = click.option(
            f"--{name.replace('_', '-')}",
            name,
            type=kind,
            default=None,
            help=f"{what[0].upper()}{what[1:]}.  [default: {shown}]",
        )(command)
    return command


@click.command()
@click.argument("records", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--validation",
    type=click.Path(path_type=Path),
    help="Records of other places, scored at the end of each epoch.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Settings as YAML, in the form of a run's config.yaml; an option given here wins.",
)
@click.option(
    "--preset",
    metavar="NAME",
    help="Begin with the weights of a preset (its name, folder or archive), not with random ones. "
    "The settings of model and objective are then the preset's; an objective given here wins.",
)
@_settings
@click.option(
    "--augment/--no-augment",
    default=None,
    help="Turn and flip the crops, both of a pair alike.  [default: augment]",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def train(
    records: Path,
    out: Path,
    validation: Path | None,
    config_file: Path | None,
    preset: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a model on a folder of RECORDS; everything goes to the folder OUT.

    Stopped at any point, the same command goes on from OUT's newest checkpoint. OUT then holds
    model.keras, history.csv, config.yaml, checkpoints/, logs/ (tensorboard --logdir OUT/logs)
    and translations.png. The defaults are the paper's, which ask for a GPU; on a laptop, begin with

    \b
      sits-keras train records run --width 16 --batch-size 32 --steps 2000
    """
    sections = _read_config(config_file) if config_file else {}
    for name, value in options.items():
        if value is not None:
            section = _SETTINGS[name][0] if name in _SETTINGS else "train"
            sections.setdefault(section, {})[name] = value
    config = RunConfig.from_dict(sections)  # before anything that takes time
    check_folder(out)
    import_tensorflow()
    from sits_keras.training import train as train_model

    initial = None
    if preset is not None:
        initial = _load_preset(preset, sections)
        config = RunConfig.from_dict(sections)
    model = train_model(
        records, out, config, validation=validation, initial=initial, progress=not quiet
    )
    click.echo(f"{out / 'model.keras'}: {int(model.optimizer.iterations)} steps")


def _load_preset(preset: str, sections: dict[str, dict[str, Any]]) -> "DisentangledSITS":
    """The preset's model; its settings go into the sections, unless these contradict them."""
    from sits_keras.presets.loading import from_preset

    model = from_preset(preset)
    own = model.config.to_dict()
    wanted = ModelConfig.from_dict({**own, **sections.get("model", {})}).to_dict()
    differing = describe_differences(own, wanted)
    if differing:
        raise ConfigError(
            f"The preset {preset} is a model of other settings: {differing}. Leave these options "
            "out, or train without --preset."
        )
    sections["model"] = own
    sections["objective"] = {**model.objective.to_dict(), **sections.get("objective", {})}
    return model


def _read_config(file: Path) -> dict[str, dict[str, Any]]:
    if not file.is_file():
        raise MissingError(f"No file at {file}. Expected settings as YAML.")
    values = read_yaml(file, "Expected sections such as train and model, each with its settings.")
    sections = {k: v for k, v in values.items() if k not in _ORIGINS}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise ConfigError(f"{file} has no settings in its section {name!r}: {section!r}.")
    return sections
