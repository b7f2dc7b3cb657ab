"""A preset's card (`README.md`) and its STAC item, rendered from its JSON files.

Numbers are written nowhere else: `write_card` copies those of `metrics.json`, and a test compares
the shipped cards with it.
"""

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sits_keras import hub
from sits_keras.errors import ConfigError
from sits_keras.files import write_json, written_aside
from sits_keras.formats import MODEL_NAME, PRESET
from sits_keras.hub.metadata import (
    CARD_NAME,
    ITEM_NAME,
    add_asset,
    add_model_asset,
    build_item,
    render_front_matter,
    render_template,
)
from sits_keras.presets.folders import (
    ENCODER_NAMES,
    METRICS_NAME,
    TRAINING_NAME,
    describe_file,
    read_preset,
    read_scores,
    read_training,
)
from sits_keras.presets.registry import check_scores, group_scores, make_headlines

TRAINING_FIELDS = {
    "places": "training data, a list of {id, where, dates, period, source, licence}",
    "held_out": "ids of the data that the model is scored on and was not trained on, a list",
    "objective": "differences from the paper's objective",
    "augmentation": "augmentation of the images",
    "batch_size": "pairs in a batch",
    "command": "commands that train the model, a list",
    "hardware": "machine",
    "hours": "wall-clock hours of training",
    "attribution": "notice that pictures and models made from it must carry",
    "intended_use": "intended uses, a list of sentences",
    "known_failures": "limits and known failures, a list of sentences",
    "tried": "what else was tried, and its results, a list of sentences",
}
"""Fields of `training.json`, all optional. `check_training` lists those that are missing."""


def make_item(preset: Mapping[str, Any]) -> dict[str, Any]:
    """Make a preset's STAC-MLM item: that of its shared encoder, with all three parts as assets.

    Args:
        preset: Content of `preset.json`.

    Returns:
        Content of `item.json`.
    """
    item = build_item(
        {**preset, **preset["encoders"]["shared"], "encoder": "shared"},
        preset["name"],
        preset["summary"] or "Shared and exclusive representations of Sentinel-2 images.",
        preset["parameters"],
    )
    for encoder, folder in ENCODER_NAMES.items():
        file = f"{folder}/saved_model.pb"
        add_model_asset(
            item,
            folder,
            file,
            preset["bands"],
            title=f"TF-Hub module of the {encoder} encoder (with the folder variables/ beside it)",
            facts=preset["files"][file],
        )
    add_model_asset(
        item,
        "model",
        MODEL_NAME,
        preset["bands"],
        title="Whole Keras model, to continue training",
        media_type="application/zip; application=keras",
        artifact_type="tf.keras.Model.save",
        facts=preset["files"][MODEL_NAME],
    )
    add_asset(item, "card", CARD_NAME, "text/markdown", "documentation")
    add_asset(item, "metrics", METRICS_NAME, "application/json", "metadata")
    add_asset(item, "training", TRAINING_NAME, "application/json", "metadata")
    return item.to_dict(include_self_link=False)


def check_training(training: Mapping[str, Any]) -> list[str]:
    """List the fields of `training.json` that are not stated.

    Raises:
        ConfigError: It has an unknown field.
    """
    unknown = sorted(set(training) - set(TRAINING_FIELDS))
    if unknown:
        raise ConfigError(
            f"training has no field {', '.join(unknown)}. Expected some of: "
            f"{', '.join(TRAINING_FIELDS)}."
        )
    return [name for name in TRAINING_FIELDS if training.get(name) in (None, "", [])]


def write_card(folder: Path) -> Path:
    """Render the cards and STAC items of a preset and of its hub modules again.

    Checksums in `preset.json` are updated for the files of the hub modules.

    Args:
        folder: Folder of the preset. Existing files are overwritten.

    Returns:
        Path of the preset's card.

    Raises:
        ConfigError: `training.json` has an unknown field.
        DataError: A JSON file of the preset is damaged.
    """
    card = render_preset_card(folder)
    preset = read_preset(folder)
    for name in ENCODER_NAMES.values():
        if not (folder / name).is_dir():
            continue
        hub.write_card(folder / name)
        for file in (CARD_NAME, ITEM_NAME):
            preset["files"][f"{name}/{file}"] = describe_file(folder / name / file)
    write_json(folder / PRESET.file, preset)
    write_json(folder / ITEM_NAME, make_item(preset))
    with written_aside(folder / CARD_NAME) as aside:
        aside.write_text(card, encoding="utf-8")
    return folder / CARD_NAME


def render_preset_card(folder: Path) -> str:
    """Render a preset's `README.md` from its JSON files.

    Args:
        folder: Folder of the preset.

    Returns:
        The card.

    Raises:
        ConfigError: `training.json` has an unknown field.
        DataError: A JSON file of the preset is damaged.
    """
    preset, training, scores = read_preset(folder), read_training(folder), read_scores(folder)
    check_training(training)
    check_scores(scores, folder / METRICS_NAME)
    places = training.get("places") or []
    licences = collections.Counter(str(one.get("licence") or "not stated") for one in places)
    sources = list(dict.fromkeys(one["source"] for one in places if one.get("source")))
    return render_template(
        Path(__file__).with_name("templates") / "card.md",
        front_matter=render_front_matter(preset["license"], sources),
        preset=preset,
        training={**dict.fromkeys(TRAINING_FIELDS), **training},
        headlines=make_headlines(scores),
        groups=list(group_scores(scores)),
        licences=dict(licences.most_common()),
        folders=ENCODER_NAMES,
        model_name=MODEL_NAME,
        shows_display_values=set(preset["bands"]) == {"B02", "B03", "B04"},
        sources=[PRESET.file, TRAINING_NAME, METRICS_NAME],
    )
