"""`sits-keras export`."""

from pathlib import Path
from typing import Literal

import click

from sits_keras.cli.options import ModelPath, load_whole_model
from sits_keras.files import check_place
from sits_keras.tensorflow_import import import_tensorflow


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
@click.option("--overwrite", is_flag=True, help="Overwrite an existing module.")
def export(
    model: Path,
    out: Path,
    encoder: Literal["shared", "exclusive"],
    license_id: str | None,
    overwrite: bool,
) -> None:
    """Export an encoder of MODEL as a TF-Hub module to the folder OUT.

    MODEL is a preset, a .keras file or the folder of a finished run. The module takes reflectance
    (0 to 1) and runs without this package:

    \b
      sits-keras export sits_rgbn_small encoder

    \b
      import tensorflow_hub as hub
      features = hub.load("encoder")(images)   # (batch, 64, 64, bands) -> (batch, features)
    """
    check_place(out)
    import_tensorflow()
    from sits_keras import hub

    hub.export(load_whole_model(model), out, encoder, license_id=license_id, overwrite=overwrite)
    metadata = hub.read_metadata(out)
    click.echo(
        f"{out}: {encoder} encoder, bands {', '.join(metadata['bands'])}, "
        f"{metadata['num_features']} features"
    )
