"""`sits-keras classify`: `train` and `predict`."""

import csv
import json
from pathlib import Path
from typing import Any, Literal

import click

from sits_keras.cli.options import (
    check_rasters,
    check_suffix,
    load_encoder,
    load_whole_model,
    model_option,
    stride_option,
)
from sits_keras.files import check_place, refuse_existing, written_aside
from sits_keras.tensorflow_import import import_tensorflow

# What tells chips from a raster to map.
_ARCHIVES = {".zip"}


@click.group()
def classify() -> None:
    """Train a classifier on labelled chips, and apply it to chips or to a raster.

    \b
      sits-keras classify train EuroSAT.zip CLASSIFIER --model RUN
      sits-keras classify predict SCENE.tif MAP.tif --model CLASSIFIER
    """


@classify.command(short_help="Train a classifier on labelled chips.")
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@model_option()
@click.option(
    "--mode",
    type=click.Choice(["pooled", "frozen", "full", "scratch"]),
    default="pooled",
    show_default=True,
    help="Train two layers on means and deviations of all of the encoder's layers, or (frozen, the "
    "paper's) on its features; the encoder too (full); or all from random weights.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="How often each image is seen.  [default: 10; 50 from random weights]",
)
@click.option(
    "--fraction",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the training labels that are used.",
)
@click.option(
    "--split",
    type=click.Choice(["stratified", "spatial"]),
    default="stratified",
    show_default=True,
    help="Hold out 20 % of each class, or of the places (squares of 100 km; GeoTIFF only).",
)
@click.option("--seed", default=0, show_default=True, help="Of split, labels, weights and order.")
@click.option("--overwrite", is_flag=True, help="Replace a classifier that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print what classifier.json says.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
def train(
    data: Path,
    out: Path,
    model: Path,
    mode: Literal["pooled", "frozen", "full", "scratch"],
    epochs: int | None,
    fraction: float,
    split: Literal["stratified", "spatial"],
    seed: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a classifier on DATA, score it on a fifth that is held out, and write the folder OUT.

    DATA is a folder or .zip of <Class>/<file> chips of 64 x 64 pixels: EuroSAT in either of its
    forms, or your own. GeoTIFFs hold reflectance x 10,000 and name their bands (13 without names
    are in EuroSAT's order); JPEG and PNG show B04, B03 and B02, 255 being a reflectance of 0.275,
    as EuroSAT's do. OUT is a SavedModel from reflectance to probabilities, with classifier.json,
    confusion.png and history.csv.

    \b
      sits-keras classify train EuroSAT.zip CLASSIFIER --model RUN --fraction 0.1
    """
    check_place(out)
    _check_chips(data)
    import_tensorflow()
    from sits_keras.data.eurosat import read_labelled
    from sits_keras.tasks.classification.classifier import (
        check_free,
        save_classifier,
        train_classifier,
    )

    check_free(out, overwrite)
    is_frozen = mode in ("pooled", "frozen")
    start: Any = load_encoder(model, "shared") if is_frozen else load_whole_model(model)
    bands = start.bands if is_frozen else start.config.bands
    images = read_labelled(data, bands, progress=not quiet)
    classifier = train_classifier(
        start,
        images,
        mode=mode,
        epochs=epochs,
        fraction=fraction,
        split=split,
        seed=seed,
        progress=not quiet,
    )
    classifier.description["data"]["path"] = str(data)
    classifier.description["model"] = str(model)
    save_classifier(classifier, out, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(classifier.description, indent=1))
        return
    scores = classifier.description["scores"]
    low, high = scores["interval_95"]
    click.echo(
        f"{out}: {len(images.classes)} classes, accuracy {scores['accuracy']:.1%} "
        f"({low:.1%} to {high:.1%}) on {scores['num_test']:,} images that it was not trained on; "
        f"trained on {scores['num_train']:,}"
    )


@classify.command(short_help="Apply a classifier to chips or to a raster.")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@model_option("The folder that `classify train` wrote.")
@stride_option(32, "Of a raster: pixels from a window to the next.", 64)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the shares of the classes as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def predict(
    source: Path,
    out: Path,
    model: Path,
    stride: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Apply a classifier to IN.

    Where IN is a folder or .zip of chips, OUT is a CSV of file, class and probability. Else IN is a
    raster of reflectance x 10,000 (as floats: reflectance) that names its bands, and OUT a class
    map of its grid: a cloud-optimised GeoTIFF with a colour table, 0 where there is no data.
    Classes were learned on images of one kind: top of atmosphere for EuroSAT; on surface
    reflectance they are less sure.

    \b
      sits-keras classify predict SCENE.tif MAP.tif --model CLASSIFIER --stride 16
      sits-keras classify predict CHIPS.zip CLASSES.csv --model CLASSIFIER
    """
    are_chips = source.is_dir() or source.suffix.lower() in _ARCHIVES
    if are_chips:
        check_suffix(out, "OUT, a list of the classes of chips,", ".csv")
    else:
        check_suffix(out, "OUT, a map of the classes of a raster,", ".tif", ".tiff")
    refuse_existing(out, overwrite, [source])
    if are_chips:
        _check_chips(source)
    else:
        check_rasters(source)
    import_tensorflow()
    from sits_keras.tasks.classification.classifier import load_classifier
    from sits_keras.tasks.classification.predict import classify_chips, classify_raster

    classifier = load_classifier(model)
    if are_chips:
        counts = dict.fromkeys(classifier.classes, 0)
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            written_aside(out) as aside,
            aside.open("w", newline="", encoding="utf-8") as target,
        ):
            writer = csv.writer(target)
            writer.writerow(["file", "class", "probability"])
            for chip in classify_chips(classifier, source, progress=not quiet):
                writer.writerow([chip.file, chip.label, f"{chip.probability:.4f}"])
                counts[chip.label] += 1
        shares = {name: count / sum(counts.values()) for name, count in counts.items()}
        what = f"{sum(counts.values()):,} chips"
    else:
        shares = classify_raster(classifier, source, out, stride=stride, progress=not quiet)
        what = "pixels with data"
    if as_json:
        click.echo(json.dumps({"out": str(out), "shares": shares}, indent=1))
        return
    shown = sorted(shares.items(), key=lambda item: -item[1])
    click.echo(
        f"{out}: {what}; " + ", ".join(f"{name} {share:.1%}" for name, share in shown if share)
    )


def _check_chips(path: Path) -> None:
    """Sees that there are chips, before seconds go into loading anything."""
    from sits_keras.data.chips import find_chips

    find_chips(path)
