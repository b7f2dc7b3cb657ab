"""`sits-keras evaluate`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from sits_keras.cli.options import Names, load_whole_model, mode_option, model_option
from sits_keras.errors import ConfigError, SitsKerasError
from sits_keras.files import check_folder, read_yaml, sha256_of
from sits_keras.presets.folders import is_preset, read_training
from sits_keras.tensorflow_import import import_tensorflow


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@model_option("A preset, a .keras file, or the folder of a finished run.")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with series/, eurosat/, scenes/, change/, or some of them.",
)
@click.option(
    "--test",
    type=Names(),
    default=None,
    help="Series that were not trained on: names or shell patterns by commas. By default those "
    "that MODEL, a preset or a run, says that it was not trained on.",
)
@click.option(
    "--only",
    type=Names(),
    default=None,
    help="Of translation, retrieval, classification, segmentation and change, these, by commas.",
)
@click.option("--seeds", type=click.IntRange(1), help="Measurements of each number.  [default: 3]")
@click.option("--crops", type=click.IntRange(1), help="Crops of each set, Table 1.  [default: 640]")
@click.option(
    "--queries", type=click.IntRange(1), help="Windows of each date, Table 2.  [default: 64]"
)
@click.option(
    "--train-encoder",
    type=click.Choice(["small", "all", "none"]),
    help="Labelled sets that the whole encoder is trained on, too: those of 2,000 images at most, "
    "all (hours on a CPU), or none.  [default: small]",
)
@click.option("--quick", is_flag=True, help="One seed, few draws, 10 % of the labels: minutes.")
@mode_option
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json.")
@click.option("--overwrite", is_flag=True, help="Make sections of other settings again.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def evaluate(
    out: Path,
    model: Path,
    data: Path,
    test: tuple[str, ...] | None,
    only: tuple[str, ...] | None,
    seeds: int | None,
    crops: int | None,
    queries: int | None,
    train_encoder: str | None,
    quick: bool,
    mode: str | None,
    as_json: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Fill the paper's tables for MODEL and the data in DIR; everything goes to the folder OUT.

    OUT then holds report.html, metrics.json, figures/ and sections/. What is there already is not
    measured again: stopped at any point, the same command goes on. DIR is laid out as

    \b
      DIR/series/<id>/<YYYY-MM-DD>.tif            translation, retrieval
      DIR/eurosat/EuroSAT*.zip                    classification
      DIR/scenes/*.tif                            segmentation
      DIR/change/<id>/{before,after,mask}.tif     change

    \b
      sits-keras evaluate --model RUN --data DATA --test 'ns-*' EVALUATION
    """
    check_folder(out)
    import_tensorflow()
    from sits_keras.tasks.evaluation import EXPERIMENTS, REPORT_NAME, Subject
    from sits_keras.tasks.evaluation import evaluate as evaluate_model
    from sits_keras.tasks.evaluation.context import QUICK, EvaluationConfig, take_stock

    given: dict[str, Any] = {
        name: value
        for name, value in (
            ("num_seeds", seeds),
            ("num_crops", crops),
            ("num_queries", queries),
            ("train_encoder", train_encoder),
            ("mode", mode),
        )
        if value is not None
    }
    config = dataclasses.replace(QUICK if quick else EvaluationConfig(), **given)
    wanted = only or tuple(EXPERIMENTS)
    loaded = load_whole_model(model)
    stock = take_stock(data, test or ())
    if stock.trained_on and test is None and {"translation", "retrieval"} & set(wanted):
        stock = take_stock(data, _not_trained_on(model, stock.trained_on))
    file = model / "model.keras" if model.is_dir() else model
    metrics = evaluate_model(
        Subject(loaded, model.resolve().name, sha256_of(file)),
        stock,
        out,
        config,
        only=wanted,
        overwrite=overwrite,
        progress=not quiet,
        on_section=lambda line: click.echo(line, err=True) if not quiet else None,
    )
    if as_json:
        click.echo(json.dumps(metrics, indent=1))
        return
    click.echo(f"{out / REPORT_NAME}: {', '.join(metrics['sections']) or 'no section'}")


def _not_trained_on(model: Path, names: tuple[str, ...]) -> list[str]:
    """Series that a preset or a run was not trained on, by what it says of its places."""
    remedy = "Say which series were not trained on: --test NAMES."
    if is_preset(model):
        places = read_training(model).get("places")
        if not places:
            raise ConfigError(f"{model} does not say what it was trained on. {remedy}")
        trained_on = {one.get("id") for one in places}
    else:
        trained_on = _in_records(model, remedy)
    held_out = [name for name in names if name not in trained_on]
    if not held_out:
        raise ConfigError(f"{model} was trained on every series of the data. {remedy}")
    return [name.replace("[", "[[]") for name in held_out]


def _in_records(model: Path, remedy: str) -> set[str]:
    from sits_keras.data.records import read_manifest

    if not (model / "config.yaml").is_file():
        raise ConfigError(f"{model} does not say what it was trained on. {remedy}")
    settings = read_yaml(model / "config.yaml", remedy)
    try:
        return {one["id"] for one in read_manifest(settings["records"]["folder"]).series}
    except (KeyError, TypeError, SitsKerasError, OSError) as error:
        raise ConfigError(f"The records of {model} are not there: {error} {remedy}") from error
