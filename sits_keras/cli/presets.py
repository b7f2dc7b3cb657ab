"""`sits-keras presets`."""

import json

import click

from sits_keras.presets.folders import (
    count_bytes,
    describe_known,
    list_presets,
    read_preset,
    read_scores,
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def presets(as_json: bool) -> None:
    """List the pretrained models, whose names every MODEL argument accepts.

    Presets are looked up in the folder SITS_KERAS_HOME, in the source tree, and in the installed
    package. A preset in another place is given by the path of its folder, or by the URL of its zip
    archive.

    \b
      sits-keras segment scene.tif classes.tif --model sits_rgbn_small
      sits-keras info sits_rgbn_small
    """
    facts = []
    for name, folder in list_presets().items():
        preset = read_preset(folder)
        facts.append(
            {
                "name": name,
                "bands": preset["bands"],
                "steps": preset["steps"],
                "parameters": preset["parameters"],
                "bytes": count_bytes(folder, preset),
                "license": preset["license"],
                "scores": len(read_scores(folder)),
                "summary": preset["summary"],
                "folder": str(folder),
            }
        )
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    if not facts:
        click.echo(describe_known(""))
        return
    rows = [("name", "bands", "MB", "licence", "")]
    for one in facts:
        size = f"{one['bytes'] / 1e6:.1f}"
        licence = one["license"] or "not stated"
        rows.append((one["name"], " ".join(one["bands"]), size, licence, one["summary"]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        shown = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*shown, row[-1]]).rstrip())
