"""Command `sits-keras card`."""

from pathlib import Path

import click

from sits_keras.formats import MODEL_NAME
from sits_keras.tensorflow_import import import_tensorflow


@click.command()
@click.argument("preset")
@click.option(
    "--scores",
    "evaluations",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="EVALUATION",
    help="Folder of `sits-keras evaluate EVALUATION --model PRESET`, whose scores are copied to "
    "the preset first. Can be repeated.",
)
@click.option(
    "--export",
    "export_modules",
    is_flag=True,
    help="Export both hub modules, and with tf2onnx the files of layers, from the preset's "
    "model.keras again, first.",
)
def card(preset: str, evaluations: tuple[Path, ...], export_modules: bool) -> None:
    """Render the cards (README.md) and STAC items of PRESET and its modules from its JSON files.

    PRESET is a name or a folder. The scores on the card are those in metrics.json, each with the
    command that measures it.

    \b
      sits-keras evaluate scores --model sits_rgbn_small --data DATA
      sits-keras card sits_rgbn_small --scores scores
    """
    import_tensorflow()
    from sits_keras.presets.card import write_card
    from sits_keras.presets.folders import find_preset, verify
    from sits_keras.presets.loading import export_again
    from sits_keras.tasks.evaluation.cards import add_scores

    folder = find_preset(preset)
    verify(folder, MODEL_NAME if export_modules else None)
    for evaluation in evaluations:
        click.echo(f"{evaluation}: {add_scores(folder, evaluation)} scores")
    if export_modules:
        export_again(folder)
    click.echo(write_card(folder))
