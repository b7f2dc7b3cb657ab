"""Command `sits-keras evaluate`."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from sits_keras.cli.options import (
    Names,
    echo_result,
    json_option,
    load_whole_model,
    mode_option,
    model_option,
    output_options,
)
from sits_keras.files import check_folder
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
    help="Held-out series: comma-separated names or shell patterns. By default the series that "
    "MODEL, a preset or a run, was not trained on.",
)
@click.option(
    "--only",
    type=Names(),
    default=None,
    help="Comma-separated sections to measure: translation, retrieval, classification, "
    "segmentation, change.  [default: all]",
)
@click.option("--seeds", type=click.IntRange(1), help="Number of seeds.  [default: 3]")
@click.option(
    "--crops", type=click.IntRange(1), help="Crops of each set of places, Table 1.  [default: 640]"
)
@click.option(
    "--queries", type=click.IntRange(1), help="Windows of each date, Table 2.  [default: 64]"
)
@click.option(
    "--train-encoder",
    type=click.Choice(["small", "all", "none"]),
    help="Labelled sets to train the whole encoder on: sets of at most 2,000 images, all (hours on "
    "a CPU), or none.  [default: small]",
)
@click.option(
    "--quick", is_flag=True, help="Measure in minutes: one seed, few samples, 10 % of the labels."
)
@mode_option
@json_option("Print the content of metrics.json.")
@output_options
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
    progress: bool,
) -> None:
    """Compute the paper's tables for MODEL with the data in DIR, and write them to the folder OUT.

    OUT contains report.html, metrics.json, figures/ and sections/. Finished sections are not
    measured again, so the same command resumes an interrupted evaluation. The accuracies of
    classifiers are also printed, beside those of baselines, of features that were not trained on
    Sentinel-2, and of publications. The layout of DIR:

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
    from sits_keras import tasks
    from sits_keras.tasks.evaluation import QUICK, EvaluatedModel, EvaluationConfig
    from sits_keras.tasks.evaluation.report import render_accuracies
    from sits_keras.tasks.evaluation.runner import REPORT_NAME

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
    metrics = tasks.evaluate(
        data,
        out,
        EvaluatedModel.from_path(load_whole_model(model), model),
        test=test,
        only=only,
        config=dataclasses.replace(QUICK if quick else EvaluationConfig(), **given),
        overwrite=overwrite,
        progress=progress,
        on_section=lambda line: click.echo(line, err=True) if progress else None,
    )
    text = f"{out / REPORT_NAME}: {', '.join(metrics['sections']) or 'no section'}"
    if section := metrics["sections"].get("classification"):
        text = f"{render_accuracies(section['tables'])}\n\n{text}"
    echo_result(text, metrics if as_json else None)
