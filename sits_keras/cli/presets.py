"""Command `sits-keras presets`."""

import json

import click

from sits_keras.presets.folders import (
    count_bytes,
    describe_known,
    list_presets,
    read_preset,
)
from sits_keras.presets.registry import find_version

_METRICS = ("Recall@1", "accuracy")  # of the first data set of a card


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def presets(as_json: bool) -> None:
    """List the pretrained models, whose names every MODEL argument accepts.

    Presets are looked up in the folder SITS_KERAS_HOME, in the source tree, and in the installed
    package. Those that come with the package have a version. --json prints the checksums of their
    files, and their scores beside baselines and peers. A preset in another folder is given by the
    path of its folder, or by the URL of its zip archive.

    \b
      sits-keras segment scene.tif classes.tif --model sits_rgbn_small
      sits-keras info sits_rgbn_small
    """
    facts = []
    for name, folder in list_presets().items():
        version, entry = find_version(folder)
        facts.append(
            {
                "name": name,
                "version": version,
                **entry,
                "bytes": count_bytes(folder, read_preset(folder)),
                "folder": str(folder),
            }
        )
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    if not facts:
        click.echo(describe_known(""))
        return
    rows = [("name", "version", "bands", "MB", "licence", *_METRICS, "")]
    for one in facts:
        size = f"{one['bytes'] / 1e6:.1f}"
        licence = one["license"] or "not stated"
        scores = {row["metric"]: row["model"] for row in reversed(one["scores"])}
        shown = [scores.get(metric, "") for metric in _METRICS]
        bands = " ".join(one["bands"])
        rows.append(
            (one["name"], one["version"] or "", bands, size, licence, *shown, one["summary"])
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]).rstrip())
