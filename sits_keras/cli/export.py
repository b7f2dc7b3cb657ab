"""Command `sits-keras export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from sits_keras.cli.options import ModelPath, load_whole_model
from sits_keras.files import check_creatable
from sits_keras.formats import PROJECTION_NAME, identify
from sits_keras.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from sits_keras.hub.conversion import FileFormat


@click.command()
@click.argument("model", type=ModelPath())
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--encoder",
    type=click.Choice(["shared", "exclusive"]),
    default="shared",
    show_default=True,
    help="Encoder to export: shared (location) or exclusive (acquisition date).",
)
@click.option(
    "--license", "license_id", help="SPDX identifier of the weights' licence, for the card."
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["savedmodel", "onnx", "litert"]),
    default="savedmodel",
    show_default=True,
    help="A TF-Hub module, or files for ONNX Runtime or LiteRT.",
)
@click.option(
    "--stride",
    type=int,
    metavar="PX",
    default=8,
    show_default=True,
    help="Stride of the file for whole rasters, 4, 8, 16 or 32 px. Only with onnx and litert.",
)
@click.option("--overwrite", is_flag=True, help="Overwrite an existing module.")
def export(
    model: Path,
    out: Path,
    encoder: Literal["shared", "exclusive"],
    license_id: str | None,
    file_format: "FileFormat",
    stride: int,
    overwrite: bool,
) -> None:
    """Export an encoder of MODEL to the folder OUT, as a TF-Hub module or in another format.

    MODEL is a preset, a .keras file or the folder of a finished run. The encoder takes reflectance
    (0 to 1) and runs without this package:

    \b
      sits-keras export sits_rgbn_small encoder

    \b
      import tensorflow_hub as hub
      features = hub.load("encoder")(images)   # (batch, 64, 64, bands) -> (batch, features)

    With --format onnx (needs the extra [onnx]) or litert, OUT contains a file for windows, and one
    for whole rasters if the model supports them. Their features equal those of the module.

    \b
      sits-keras export sits_rgbn_small onnx_encoder --format onnx
    """
    check_creatable(out)
    import_tensorflow()
    from sits_keras import hub
    from sits_keras.hub.projection import read_projection

    file = model / PROJECTION_NAME  # of a preset
    with_projection = encoder == "shared" and file.is_file()
    hub.export(
        load_whole_model(model),
        out,
        encoder,
        license_id=license_id,
        overwrite=overwrite,
        file_format=file_format,
        stride=stride,
        projection=read_projection(file) if with_projection else None,
    )
    content = identify(out).content
    files = ", ".join(one["file"] for one in content.get("files", ()))
    click.echo(
        f"{out}: {encoder} encoder, bands {', '.join(content['bands'])}, "
        + (files or f"{content['num_features']} features")
    )
