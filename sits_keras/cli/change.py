"""`sits-keras change`."""

import json
from pathlib import Path
from typing import Any, Literal

import click

from sits_keras.cli.options import (
    NumberOrAuto,
    check_rasters,
    check_suffix,
    load_encoder,
    mode_option,
    model_option,
    stride_option,
    worker_options,
)
from sits_keras.files import refuse_existing
from sits_keras.tensorflow_import import import_tensorflow


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@model_option("A preset, a hub module of the exclusive encoder, a .keras file, or a run's folder.")
@stride_option(32, "Pixels from a window to the next: the smaller, the finer and slower.", 64)
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
@click.option("--picture", type=click.Path(path_type=Path), help="Draw it all as this PNG, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@mode_option
@worker_options
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def change(
    before: Path,
    after: Path,
    out: Path,
    model: Path,
    stride: int,
    threshold: Any,
    mask: Path | None,
    picture: Path | None,
    as_json: bool,
    mode: Literal["exact", "dense"] | None,
    workers: int,
    scheduler: str | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Map what changed from raster BEFORE to raster AFTER, as the GeoTIFF OUT.

    Band 1 is the L1 distance of the exclusive representations, the mean of all windows that cover
    a pixel; band 2 is 1 where it is above the threshold. With --mask, F1, IoU and average precision
    are printed, beside those of image differencing and of change vectors.

    Both rasters lie on one grid. They hold reflectance x 10,000 as integers or reflectance as
    floats, and name their bands (B02, B2 or blue), or have those of the model in its order
    (`sits-keras info MODEL`).

    \b
      sits-keras change 2020-06-01.tif 2020-09-01.tif change.tif --model RUN --stride 8
    """
    check_suffix(out, "OUT", ".tif", ".tiff")
    read = [before, after, *([mask] if mask else [])]
    refuse_existing(out, overwrite, read)
    if picture is not None:
        check_suffix(picture, "--picture", ".png")
        refuse_existing(picture, overwrite)
    check_rasters(*read)
    import_tensorflow()
    from sits_keras.data.rasters.read import read_mask
    from sits_keras.tasks.change.maps import detect_change
    from sits_keras.tasks.change.scores import score_change
    from sits_keras.tasks.pictures import draw_change

    found = detect_change(
        before,
        after,
        load_encoder(model, "exclusive"),
        stride=stride,
        threshold=threshold,
        mode=mode,
        workers=workers,
        scheduler=scheduler,
        progress=not quiet,
    )
    # Before anything is written, for a mask that does not fit ends the command.
    scores = score_change({"exclusive": found}, mask) if mask else []
    share = found.write(out, overwrite=overwrite)
    if picture is not None:
        reference = read_mask(mask) if mask else None
        draw_change(found, picture, mask=reference, overwrite=overwrite)
    if as_json:
        facts = {"threshold": found.threshold, "changed_share": share}
        click.echo(json.dumps({**facts, "scores": [one._asdict() for one in scores]}, indent=1))
        return
    how = "Otsu's" if threshold == "auto" else "given"
    click.echo(f"{out}: {share:.1%} changed, threshold {found.threshold:.4g} ({how})")
    if scores:
        width = max(len(one.method) for one in scores)
        click.echo(f"{'method':<{width}}  F1     IoU    AP")
        for one in scores:
            click.echo(
                f"{one.method:<{width}}  {one.f1:.3f}  {one.iou:.3f}  {one.average_precision:.3f}"
            )
        click.echo(
            f"{scores[0].chance:.1%} of {scores[0].num_pixels} pixels changed: AP of a guess"
        )
