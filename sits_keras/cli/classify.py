"""Command `sits-keras classify`: `train` and `predict`."""

from pathlib import Path
from typing import Any, Literal

import click

from sits_keras.cli.options import (
    check_paths,
    check_series_paths,
    echo_result,
    json_option,
    load_encoder,
    load_whole_model,
    model_option,
    output_options,
    period_options,
    picture_option,
    sources_argument,
    stride_option,
)
from sits_keras.errors import ConfigError
from sits_keras.files import check_creatable, check_suffix
from sits_keras.tensorflow_import import import_tensorflow

_ARCHIVES = {".zip"}  # suffixes of chips, as opposed to rasters
_MAPS = (".tif", ".tiff")


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
    help="Train two layers on means and deviations of every encoder layer (pooled) or, as in the "
    "paper, on the shared representation (frozen); the encoder as well (full); or everything from "
    "random weights (scratch).",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Number of epochs.  [default: 10; 50 from random weights]",
)
@click.option(
    "--fraction",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Fraction of the training labels to use.",
)
@click.option(
    "--split",
    type=click.Choice(["stratified", "spatial", "longitude"]),
    default="stratified",
    show_default=True,
    help="Hold out 20 % of each class, of the places (100 km squares; GeoTIFF only), or in the "
    "east (GeoTIFF, or the lists of TorchGeo's EuroSATSpatial beside DATA).",
)
@click.option(
    "--seed", default=0, show_default=True, help="Seed of split, labels, weights and order."
)
@json_option("Print the content of classifier.json.")
@output_options
def train(
    data: Path,
    out: Path,
    model: Path,
    mode: Literal["pooled", "frozen", "full", "scratch"],
    as_json: bool,
    **options: Any,
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
    check_creatable(out)
    _check_chips(data)
    import_tensorflow()
    from sits_keras import tasks

    is_frozen = mode in ("pooled", "frozen")
    classifier = tasks.train_classifier(
        data,
        out,
        load_encoder(model, "shared") if is_frozen else load_whole_model(model),
        mode=mode,
        model_name=str(model),
        **options,
    )
    scores = classifier.description["scores"]
    low, high = scores["interval_95"]
    echo_result(
        f"{out}: {len(classifier.classes)} classes, accuracy {scores['accuracy']:.1%} "
        f"({low:.1%} to {high:.1%}) on {scores['num_test']:,} images that it was not trained on; "
        f"trained on {scores['num_train']:,}",
        classifier.description if as_json else None,
    )


@classify.command(short_help="Apply a classifier to chips, a raster or a series.")
@sources_argument("IN...")
@click.argument("out", type=click.Path(path_type=Path))
@model_option("The folder that `classify train` wrote.")
@stride_option(32, "Distance between the windows of a raster.", 64)
@period_options
@picture_option("Picture of the raster and its classes to write as well.")
@json_option("Print the fractions of the classes as JSON.")
@output_options
def predict(
    sources: tuple[Path, ...],
    out: Path,
    model: Path,
    picture: Path | None,
    as_json: bool,
    overwrite: bool,
    progress: bool,
    **options: Any,
) -> None:
    """Apply a classifier to IN.

    If IN is a folder or .zip of chips, OUT is a CSV of file, class and probability. Otherwise IN is
    a raster of reflectance x 10,000 (as floats: reflectance) that names its bands, and OUT is a
    class map on its grid: a cloud-optimised GeoTIFF with a colour table, 0 where there is no data.
    IN may also be a series: a folder of dated rasters of one place, products, a file of STAC items,
    or several of these. The probabilities are then averaged over its clear dates. The cloud mask of
    a raster is used if it is beside it (<name>_SCL.tif, <name>_cloud.tif) or among its bands: there
    is no data under cloud.

    EuroSAT is top-of-atmosphere reflectance; a classifier trained on it is less accurate on surface
    reflectance.

    \b
      sits-keras classify predict SCENE.tif MAP.tif --model CLASSIFIER --stride 16
      sits-keras classify predict series/lake MAP.tif --model CLASSIFIER
      sits-keras classify predict CHIPS.zip CLASSES.csv --model CLASSIFIER
    """
    source = sources[0]
    is_folder = source.is_dir() or source.suffix.lower() in _ARCHIVES
    are_chips = len(sources) == 1 and is_folder and out.suffix.lower() not in _MAPS
    if are_chips:
        check_suffix(out, "OUT, a list of the classes of chips,", ".csv")
        if picture is not None:
            raise ConfigError("A picture (--picture) shows a raster. Received a set of chips.")
        if options["first"] or options["last"] or options["newest"]:
            raise ConfigError(
                "--from, --to and --newest select dates of a series. Received a set of chips. "
                "Leave them out, or name a map (.tif) as OUT."
            )
        _check_chips(source)
    else:
        check_suffix(out, "OUT, a map of the classes of a raster,", *_MAPS)
    if are_chips:
        check_paths([], [out, picture], overwrite)
    else:
        check_series_paths(sources, [out, picture], overwrite)
    import_tensorflow()
    from sits_keras import tasks

    classifier = tasks.load_classifier(model)
    if are_chips:
        counts = tasks.classify_chips(
            source, out, classifier, overwrite=overwrite, progress=progress
        )
        total = sum(counts.values())
        fractions = {name: count / total for name, count in counts.items()}
        subject = f"{total:,} chips"
    else:
        fractions = tasks.classify_raster(
            list(sources),
            out,
            classifier,
            picture=picture,
            overwrite=overwrite,
            progress=progress,
            **options,
        )
        subject = "pixels with data"
    shown = sorted(fractions.items(), key=lambda item: -item[1])
    text = ", ".join(f"{name} {fraction:.1%}" for name, fraction in shown if fraction)
    values = {"out": str(out), "fractions": fractions}
    echo_result(f"{out}: {subject}; {text}", values if as_json else None)


def _check_chips(path: Path) -> None:
    """Check that there are chips, before TensorFlow is imported."""
    from sits_keras.data.chips import find_chips

    find_chips(path)
