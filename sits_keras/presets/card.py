"""A preset's card for people and its STAC item, rendered from its JSON files.

Numbers are written nowhere else: `write_card` puts those of `metrics.json` on the card, and a test
holds the shipped cards to it.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sits_keras import hub
from sits_keras.errors import ConfigError, DataError
from sits_keras.files import write_json, written_aside
from sits_keras.formats import MODEL_NAME, PRESET
from sits_keras.hub.metadata import describe_band, make_stac_item
from sits_keras.presets.folders import (
    CARD_NAME,
    ENCODER_NAMES,
    ITEM_NAME,
    METRICS_NAME,
    TRAINING_NAME,
    describe_file,
    read_preset,
    read_scores,
    read_training,
)


def make_item(preset: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's STAC-MLM item: that of its shared encoder, with all three parts as assets."""
    shared = {**preset, **preset["encoders"]["shared"], "encoder": "shared"}
    item = make_stac_item(shared)
    item["stac_extensions"].append("https://stac-extensions.github.io/file/v2.1.0/schema.json")
    item["properties"]["description"] = (
        preset["summary"] or "Shared and exclusive representations of Sentinel-2 images."
    )
    item["properties"]["mlm:name"] = preset["name"]
    item["properties"]["mlm:total_parameters"] = preset["parameters"]
    bands = [describe_band(band) for band in preset["bands"]]
    titles = {
        "shared": "TF-Hub module of the shared encoder (with the folder variables/ beside it)",
        "exclusive": "TF-Hub module of the exclusive encoder (likewise)",
    }
    assets = {
        f"{encoder}_encoder": _asset(
            preset,
            f"{ENCODER_NAMES[encoder]}/saved_model.pb",
            "application/x-protobuf; application=tensorflow",
            title,
            {"mlm:artifact_type": "tf.saved_model.save", "eo:bands": bands},
        )
        for encoder, title in titles.items()
    }
    assets["model"] = _asset(
        preset,
        MODEL_NAME,
        "application/zip; application=keras",
        "The whole Keras model, to be trained further",
        {"mlm:artifact_type": "tf.keras.Model.save", "eo:bands": bands},
    )
    assets["card"] = {
        "href": f"./{CARD_NAME}",
        "type": "text/markdown",
        "roles": ["documentation"],
    }
    for title, name in (("metrics", METRICS_NAME), ("training", TRAINING_NAME)):
        assets[title] = {"href": f"./{name}", "type": "application/json", "roles": ["metadata"]}
    return {**item, "assets": assets}


def _asset(
    preset: Mapping[str, Any], name: str, media: str, title: str, more: Mapping[str, Any]
) -> dict[str, Any]:
    facts = preset["files"][name]
    return {
        "href": f"./{name}",
        "type": media,
        "title": title,
        "roles": ["mlm:model"],
        "file:size": facts["bytes"],
        "file:checksum": "1220" + facts["sha256"],  # a multihash: SHA-256, of 32 bytes
        **more,
    }


TRAINING_FIELDS = {
    "places": "a list of {id, where, dates, period, source, licence}: what it was trained on",
    "held_out": "a list of ids: what it was not trained on and is scored on",
    "objective": "what differs from the paper's objective, in words",
    "augmentation": "what was done to the images, in words",
    "batch_size": "pairs in a step",
    "command": "a list of the commands that train it again",
    "hardware": "machine, in words",
    "hours": "wall-clock hours of training",
    "attribution": "what pictures and models made from it must say",
    "intended_use": "a list of sentences",
    "known_failures": "a list of sentences",
    "tried": "a list of sentences: what else was tried, and how it did",
}
"""What `training.json` may say, all of it optional here; `check_training` tells what is missing."""

SCORE_FIELDS = ("task", "metric", "method", "value", "spread", "data", "split", "command", "note")
"""What a score of `metrics.json` says; `spread` and `note` may be `None`."""

_PART = "| part | what it is | use |\n|---|---|---|\n"


def check_training(training: Mapping[str, Any]) -> list[str]:
    """Fields of `training.json` that are not stated.

    Raises:
        ConfigError: it has a field that is not known.
    """
    unknown = sorted(set(training) - set(TRAINING_FIELDS))
    if unknown:
        raise ConfigError(
            f"training has no field {', '.join(unknown)}. Expected some of: "
            f"{', '.join(TRAINING_FIELDS)}."
        )
    return [name for name in TRAINING_FIELDS if training.get(name) in (None, "", [])]


def check_scores(scores: Iterable[Mapping[str, Any]], where: Path) -> None:
    """Checks that scores are complete.

    Raises:
        DataError: a score lacks a field, or has one that is not known. It is named.
    """
    for score in scores:
        if set(score) != set(SCORE_FIELDS):
            wrong = sorted(set(score) ^ set(SCORE_FIELDS))
            raise DataError(
                f"{where} has a score with fields missing or unknown: {', '.join(wrong)}. "
                f"Expected {', '.join(SCORE_FIELDS)}. Received: {dict(score)}."
            )


def write_card(folder: Path) -> Path:
    """Renders `README.md` and `item.json` of a preset anew.

    Returns:
        The card's path.
    Raises:
        ConfigError, DataError: a JSON file of the preset is damaged, or says what is not known.
    """
    preset = read_preset(folder)
    for name in ENCODER_NAMES.values():
        hub.write_card(folder / name)
        for file in (hub.CARD_NAME, hub.ITEM_NAME):
            preset["files"][f"{name}/{file}"] = describe_file(folder / name / file)
    write_json(folder / PRESET.file, preset)
    write_json(folder / ITEM_NAME, make_item(preset))
    with written_aside(folder / CARD_NAME) as aside:
        aside.write_text(render_preset_card(folder), encoding="utf-8")
    return folder / CARD_NAME


def render_preset_card(folder: Path) -> str:
    """What a preset's `README.md` is to say: a pure function of its JSON files."""
    preset, training, scores = read_preset(folder), read_training(folder), read_scores(folder)
    check_training(training)
    check_scores(scores, folder / METRICS_NAME)
    sections = [
        f"# {preset['name']}",
        preset["summary"]
        or "A model of shared and exclusive representations of Sentinel-2 images.",
        *_render_use(preset),
        *_render_input(preset),
        *_render_training(preset, training),
        *_render_scores(preset, scores),
        "## Intended use",
        _list(training.get("intended_use")),
        "## Known failures",
        _list(training.get("known_failures")),
        "## Licence",
        f"{preset['license'] or 'Not stated.'} {training.get('attribution', '')}".strip(),
        f"_This card is rendered from {', '.join(f'`{n}`' for n in _SOURCES)} by "
        "`sits-keras card`; do not edit it by hand._",
    ]
    return "\n\n".join(sections) + "\n"


_SOURCES = ("preset.json", TRAINING_NAME, METRICS_NAME)


def _render_use(preset: Mapping[str, Any]) -> list[str]:
    name = preset["name"]
    shared, exclusive = preset["encoders"]["shared"], preset["encoders"]["exclusive"]
    pooled = (
        f"; `encoder.pooled(images)` gives {shared['num_pooled']:,} means and deviations of every "
        "layer, for simple classifiers"
        if shared["num_pooled"]
        else ""
    )
    rows = [
        f"| `{ENCODER_NAMES['shared']}/` | hub module: what stays, {shared['num_features']:,} "
        f"features of a window{pooled} | retrieval, classification, segmentation |",
        f"| `{ENCODER_NAMES['exclusive']}/` | hub module: what passes, "
        f"{exclusive['num_features']:,} features | change detection |",
        f"| `{MODEL_NAME}` | the whole model, {preset['parameters']:,} parameters, without the "
        "state of its optimizers | translation; training further |",
    ]
    return [
        "## Use",
        f"""```python
import sits_keras

encoder = sits_keras.from_preset("{name}", "shared")  # or "exclusive"
features = encoder(images)  # reflectance
model = sits_keras.from_preset("{name}")  # the whole model
```""",
        f"On the command line, `--model {name}`. Without this package, "
        f'`tensorflow_hub.load("{ENCODER_NAMES["shared"]}")`.',
        _PART + "\n".join(rows),
    ]


def _render_input(preset: Mapping[str, Any]) -> list[str]:
    bands = ", ".join(preset["bands"])
    facts = preset["input"]
    shape = ", ".join(map(str, facts["shape"][1:]))
    ceiling = ", ".join(f"{b} {v:g}" for b, v in facts["clipped_above"].items())
    dense = (
        "Whole rasters are encoded at once (`dense_8` and others)."
        if preset["dense_strides"]
        else "Windows of rasters are encoded one by one."
    )
    pictures = (
        " Pictures that show reflectance 0.275 as 255, as EuroSAT's JPEGs do, are given as "
        "`pixels / 255 * 0.275`."
        if set(preset["bands"]) == {"B02", "B03", "B04"}
        else ""
    )
    return [
        "## Input",
        f"- Bands, in this order: {bands}.\n"
        f"- `(batch, {shape})` {facts['dtype']} reflectance, 1.0 being full reflectance: digital "
        "numbers, plus the product's own offset, divided by 10,000. Above these the encoders see "
        f"no difference: {ceiling}.{pictures}\n"
        f"- Padding `{preset['padding']}`. {dense}",
    ]


def _render_training(preset: Mapping[str, Any], training: Mapping[str, Any]) -> list[str]:
    networks, objective, made = preset["model"], preset["objective"], preset["made_with"]
    terms = ", ".join(f"{name} {value}" for name, value in objective.items())
    facts = [
        f"{preset['steps']:,} steps"
        + (f" of {training['batch_size']} pairs" if training.get("batch_size") else ""),
        f"width {networks['width']}, shared 4x4x{networks['shared_channels']}, exclusive "
        f"{networks['exclusive_dim']}",
        f"objective: {terms}" + (f". {training['objective']}" if training.get("objective") else ""),
        f"augmentation: {training.get('augmentation') or 'not stated'}",
        f"hardware: {training.get('hardware') or 'not stated'}"
        + (f"; {training['hours']:g} hours" if training.get("hours") else ""),
        f"made with sits_keras {made['sits_keras']}, Keras {made['keras']}, TensorFlow "
        f"{made['tensorflow']}",
    ]
    sections = ["## Training", _list(facts)]
    if training.get("command"):
        sections.append("```\n" + "\n".join(training["command"]) + "\n```")
    if training.get("places"):
        columns = ("id", "where", "dates", "period", "source", "licence")
        sections.append(_table(columns, [[p.get(c) for c in columns] for p in training["places"]]))
    else:
        sections.append("The places that it was trained on are not stated.")
    if training.get("held_out"):
        sections.append(f"Held out: {', '.join(training['held_out'])}.")
    if training.get("tried"):
        sections += ["What else was tried:", _list(training["tried"])]
    return sections


def _render_scores(preset: Mapping[str, Any], scores: Sequence[Mapping[str, Any]]) -> list[str]:
    sections = ["## Scores"]
    if not scores:
        return [
            *sections,
            f"None measured yet: `sits-keras evaluate OUT --model {preset['name']}`.",
        ]
    sections.append("Each table is measured again by the command below it.")
    groups = list(dict.fromkeys((s["task"], s["data"], s["split"], s["command"]) for s in scores))
    for task, data, split, command in groups:
        rows = [
            s
            for s in scores
            if (s["task"], s["data"], s["split"], s["command"]) == (task, data, split, command)
        ]
        metrics = list(dict.fromkeys(s["metric"] for s in rows))
        body = []
        for method in dict.fromkeys(s["method"] for s in rows):
            of = {s["metric"]: s for s in rows if s["method"] == method}
            body.append([method, *(_show(of[m]) if m in of else None for m in metrics)])
        sections += [
            f"### {task}: {data}",
            f"Split: {split}.",
            _table(("method", *metrics), body),
        ]
        notes = list(dict.fromkeys(s["note"] for s in rows if s["note"]))
        sections += notes
        sections.append(f"```\n{command}\n```")
    return sections


def _show(score: Mapping[str, Any]) -> str:
    shown = f"{score['value']:.4f}"
    return shown if score["spread"] is None else f"{shown} ± {score['spread']:.4f}"


def _list(sentences: Sequence[str] | None) -> str:
    return "\n".join(f"- {one}" for one in sentences) if sentences else "Not stated."


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    def line(cells: Iterable[Any]) -> str:
        return "| " + " | ".join(_cell(cell) for cell in cells) + " |"

    return "\n".join([line(columns), "|" + "---|" * len(columns), *map(line, rows)])


def _cell(value: Any) -> str:
    if isinstance(value, list):
        value = " to ".join(map(str, value))
    return "" if value is None else str(value).replace("|", "\\|")
