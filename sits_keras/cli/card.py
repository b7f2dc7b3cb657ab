"""`sits-keras card`."""

from pathlib import Path

import click

from sits_keras.tensorflow_import import import_tensorflow


@click.command()
@click.argument("preset")
@click.option(
    "--scores",
    "evaluations",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="EVALUATION",
    help="Copy the scores that `sits-keras evaluate EVALUATION --model PRESET` measured, first; "
    "may be given several times.",
)
def card(preset: str, evaluations: tuple[Path, ...]) -> None:
    """Render README.md and item.json of PRESET from its JSON files.

    PRESET is a name or a folder. Its numbers are those of its metrics.json, each with the command
    that measures it again.

    \b
      sits-keras evaluate scores --model sits_rgbn_small --data DATA
      sits-keras card sits_rgbn_small --scores scores
    """
    import_tensorflow()
    from sits_keras.presets.card import write_card
    from sits_keras.presets.folders import find_preset, verify
    from sits_keras.tasks.evaluation.cards import add_scores

    folder = find_preset(preset)
    verify(folder)
    for evaluation in evaluations:
        click.echo(f"{evaluation}: {add_scores(folder, evaluation)} scores")
    click.echo(write_card(folder))
