"""Command `sits-keras change`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sits_keras.cli.options import (
    NumberOrAuto,
    check_paths,
    check_sources,
    echo_result,
    identify_model,
    json_option,
    load_encoder,
    load_whole_model,
    model_option,
    out_argument,
    output_options,
    picture_option,
    stride_option,
    window_options,
)
from sits_keras.errors import ConfigError
from sits_keras.files import refuse_existing

if TYPE_CHECKING:
    from sits_keras.tasks.change.maps import ChangeMethod, ModelPart
    from sits_keras.tasks.change.scores import ChangeScores


_OF_A_PAIR = ("method", "labels", "stride", "clouds", "mask", "mode", "workers", "scheduler")
"""Options that a series does not take."""


@click.command()
@click.argument(
    "sources",
    nargs=-1,
    required=True,
    metavar="{BEFORE AFTER|SERIES}",
    type=click.Path(path_type=Path),
)
@out_argument(".tif", ".tiff")
@model_option()
@click.option(
    "--method",
    type=click.Choice(["layers", "pixels", "irmad", "translation", "exclusive"]),
    default="layers",
    show_default=True,
    help="layers: intermediate layers and bands at every pixel. pixels, irmad: the bands only. "
    "translation: both places, as the model generates them at one date. exclusive: exclusive "
    "features of windows, as in the paper.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="GEOJSON",
    help="Points with a property 'changed' (true or false) that steer the map, with method layers.",
)
@stride_option(32, "Distance between windows of method exclusive: smaller is finer and slower.", 64)
@click.option(
    "--threshold",
    type=NumberOrAuto(),
    default="auto",
    show_default=True,
    help="Distance (band 1) above which a pixel has changed. auto is 0.4 to 0.65 for method "
    "layers, 0.5 with --labels, and Otsu's threshold for other methods. Of a SERIES, the strength "
    "(band 5).",
)
@click.option(
    "--clouds",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="MASK",
    help="Cloud mask (SCL, QA60, or a raster that is 0 where clear) to leave out: of BEFORE, then "
    "of AFTER, or one for both. By default, masks beside the images (<name>_SCL.tif, "
    "<name>_cloud.tif) or among their bands.",
)
@click.option(
    "--mask",
    type=click.Path(path_type=Path),
    help="Raster that is not zero where there was a change, to score the map against.",
)
@click.option(
    "--season",
    type=click.Choice(["auto", "none", "harmonic"]),
    default="auto",
    show_default=True,
    help="Yearly cycle to fit to a SERIES; auto fits one from a span of two years on.",
)
@picture_option("Picture of both images and the change to write as well.")
@json_option("Print threshold and scores as JSON.")
@window_options
@output_options
@click.pass_context
def change(
    ctx: click.Context,
    /,
    sources: tuple[Path, ...],
    out: Path,
    model: Path,
    method: "ChangeMethod",
    labels: Path | None,
    threshold: Any,
    clouds: tuple[Path, ...],
    mask: Path | None,
    season: Literal["auto", "none", "harmonic"],
    picture: Path | None,
    as_json: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Map what changed from raster BEFORE to raster AFTER, or in a SERIES, as the GeoTIFF OUT.

    The difference that the scene has in common, such as the season, is removed first. Band 1 is the
    distance; with --labels, the probability of change. Band 2 is 1 where it is above the threshold.
    Band 3 is the percentage of the scene's pixels with a smaller distance. With --method exclusive,
    band 1 is the L1 distance of the exclusive features, the mean of all windows that cover a pixel,
    and there is no band 3. With --mask, scores are printed, beside those of baselines.

    Both rasters are on one grid. They hold reflectance x 10,000 as integers or reflectance as
    floats, and name their bands (B02, B2 or blue), or have those of the model in its order
    (`sits-keras info MODEL`).

    SERIES is a folder of dated rasters of one place, as `sits-keras prepare` takes it. Band 1 is
    then the date of each pixel's break, as year and day of the year, 0 where there is none; band 2
    its magnitude, band 3 whether it came back, band 4 the number of clear dates, and band 5 the
    strength of the break, to which --threshold applies. The shared encoder is used.

    \b
      sits-keras change 2020-06-01.tif 2020-09-01.tif change.tif --model RUN
      sits-keras change series/lake breaks.tif --model RUN --picture breaks.png
    """
    if len(sources) == 1:
        _check_of_series(ctx)
        line, of_series = _map_series(
            sources[0],
            out,
            model,
            threshold=threshold,
            season=season,
            picture=picture,
            overwrite=overwrite,
            progress=options["progress"],
        )
        echo_result(line, of_series if as_json else None)
        return
    if len(sources) != 2:
        raise ConfigError(
            f"Expected BEFORE AFTER OUT, or SERIES OUT. Received: {len(sources)} inputs and {out}."
        )
    before, after = sources
    read = [before, after, *clouds, *([mask] if mask else [])]
    if labels is not None and method != "layers":
        raise ConfigError(f"--labels steer the method layers. Received: --method {method}.")
    check_paths(read, [out, picture], overwrite)
    from sits_keras import tasks
    from sits_keras.tasks.change.pixels import PixelChange

    done = tasks.map_change(
        [before, after],
        out,
        _load_parts(model, method, with_labels=labels is not None),
        method=method,
        labels=labels,
        threshold=threshold,
        clouds=clouds,
        mask=mask,
        picture=picture,
        overwrite=overwrite,
        **options,
    )
    limit, fraction = done.change.threshold, done.changed_fraction
    facts: dict[str, Any] = {
        "method": method,
        "threshold": limit,
        "changed_fraction": fraction,
        "scores": [one._asdict() for one in done.scores],
    }
    origin = "automatic" if threshold == "auto" else "given"
    if isinstance(done.change, PixelChange):
        rate = done.change.calibration.false_alarm_rate(limit)
        facts["false_alarm_rate"] = rate
        origin += f"; {rate:.1%} of unchanged pixels are estimated to be above it"
    lines = [f"{out}: {fraction:.1%} changed, threshold {limit:.4g} ({origin})"]
    echo_result("\n".join(lines + _format_scores(done.scores)), facts if as_json else None)


def _check_of_series(ctx: click.Context) -> None:
    """Raise if an option was given that only a pair takes."""
    given = [
        f"--{name}"
        for name in _OF_A_PAIR
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise ConfigError(
            f"A series does not take {', '.join(given)}. Leave it out, or name two dates."
        )


def _map_series(
    series: Path, out: Path, model: Path, picture: Path | None, overwrite: bool, **options: Any
) -> tuple[str, dict[str, Any]]:
    """Map the breaks of a series; return a line and the facts to print."""
    check_sources([series])
    for one in (out, picture):
        if one is not None:
            refuse_existing(one, overwrite, [series] if series.is_file() else [])
    from sits_keras import tasks

    done = tasks.map_breaks(
        series,
        out,
        load_encoder(model, "shared"),
        picture=picture,
        overwrite=overwrite,
        **options,
    )
    facts = {
        "threshold": done.threshold,
        "changed_fraction": done.changed_fraction,
        "recovered_fraction": done.recovered_fraction,
        "dates": {
            str(date): fraction for date, fraction in zip(done.dates, done.fractions, strict=True)
        },
    }
    line = (
        f"{out}: {done.changed_fraction:.1%} changed in {len(done.dates)} dates, of which "
        f"{done.recovered_fraction:.1%} came back, threshold {done.threshold:.4g}"
    )
    return line, facts


def _load_parts(model: Path, method: "ChangeMethod", *, with_labels: bool) -> Any:
    """Load what a method uses: encoders, or the whole model."""
    from sits_keras.tasks.change.maps import used_parts

    found = identify_model(model)
    available: list[ModelPart] = ["shared", "exclusive"]
    if found.kind == "hub module":
        available = [found.content["encoder"]]
    parts = used_parts(method, available, with_labels=with_labels)
    if parts == ("model",):
        return load_whole_model(model)
    return [load_encoder(model, part) for part in parts if part != "model"]


def _format_scores(scores: "list[ChangeScores]") -> list[str]:
    if not scores:
        return []
    width = max(len(one.method) for one in scores)
    rows = [
        f"{one.method:<{width}}  {one.f1:.3f}  {one.iou:.3f}  {one.average_precision:.3f}"
        for one in scores
    ]
    chance = f"{scores[0].chance:.1%} of {scores[0].num_pixels} pixels changed: AP of a guess"
    return [f"{'method':<{width}}  F1     IoU    AP", *rows, chance]
