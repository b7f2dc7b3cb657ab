"""`sits-keras change`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sits_keras.cli.options import (
    NumberOrAuto,
    echo_result,
    json_option,
    load_encoder,
    model_option,
    out_argument,
    output_options,
    picture_option,
    prepare_verb,
    raster_argument,
    stride_option,
    window_options,
)

if TYPE_CHECKING:
    from sits_keras.tasks.change.scores import ChangeScores


@click.command()
@raster_argument("before")
@raster_argument("after")
@out_argument(".tif", ".tiff")
@model_option("A preset, a hub module of the exclusive encoder, a .keras file, or a run's folder.")
@stride_option(32, "Distance between windows: smaller is finer and slower.", 64)
@click.option(
    "--threshold",
    type=NumberOrAuto(),
    default="auto",
    show_default=True,
    help="Distance (band 1) above which a pixel has changed; auto is Otsu's.",
)
@click.option(
    "--mask",
    type=click.Path(path_type=Path),
    help="Raster that is not zero where there was a change, to score the map against.",
)
@picture_option("Picture of both images and the change to write as well.")
@json_option("Print threshold and scores as JSON.")
@window_options
@output_options
def change(
    before: Path,
    after: Path,
    out: Path,
    model: Path,
    threshold: Any,
    mask: Path | None,
    picture: Path | None,
    as_json: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Map what changed from raster BEFORE to raster AFTER, as the GeoTIFF OUT.

    Band 1 is the L1 distance of the exclusive representations, the mean of all windows that cover
    a pixel; band 2 is 1 where it is above the threshold. With --mask, F1, IoU and average precision
    are printed, beside those of image differencing and of change vectors.

    Both rasters are on one grid. They hold reflectance x 10,000 as integers or reflectance as
    floats, and name their bands (B02, B2 or blue), or have those of the model in its order
    (`sits-keras info MODEL`).

    \b
      sits-keras change 2020-06-01.tif 2020-09-01.tif change.tif --model RUN --stride 8
    """
    read = [before, after, *([mask] if mask else [])]
    prepare_verb(read, [out, picture], overwrite)
    from sits_keras import tasks

    done = tasks.map_change(
        [before, after],
        out,
        load_encoder(model, "exclusive"),
        threshold=threshold,
        mask=mask,
        picture=picture,
        overwrite=overwrite,
        **options,
    )
    limit, fraction = done.change.threshold, done.changed_fraction
    facts = {
        "threshold": limit,
        "changed_fraction": fraction,
        "scores": [one._asdict() for one in done.scores],
    }
    origin = "Otsu's" if threshold == "auto" else "given"
    lines = [f"{out}: {fraction:.1%} changed, threshold {limit:.4g} ({origin})"]
    echo_result("\n".join(lines + _format_scores(done.scores)), facts if as_json else None)


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
