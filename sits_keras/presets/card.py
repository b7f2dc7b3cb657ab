"""A preset's card (`README.md`) and its STAC item, rendered from its JSON files.

Numbers are written nowhere else: `write_card` copies those of `metrics.json`, and a test compares
the shipped cards with it.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sits_keras import hub
from sits_keras.errors import ConfigError, DataError
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

SCORE_FIELDS = ("task", "metric", "method", "value", "spread", "data", "split", "command", "note")
"""Fields of a score in `metrics.json`; `spread` and `note` may be None."""


class _Headline(NamedTuple):
    """The methods of a task that the card's table of scores compares, each by preference."""

    metric: str
    model: tuple[str, ...]
    untrained: tuple[str, ...]
    simple: tuple[str, ...]
    is_better: Any = max  # of the simple baselines, the better one is shown


_LABELS = ", 100% of the labels"
_HEADLINES = {
    "Translation": _Headline(
        "L1", ("Image translation",), (), ("One date taken for the other",), min
    ),
    "Retrieval": _Headline(
        "Recall@1",
        ("Shared features",),
        ("Untrained encoder",),
        ("Raw pixels", "Image statistics"),
    ),
    "Classification": _Headline(
        "accuracy",
        (f"Pooled, linear{_LABELS}", f"Frozen, linear{_LABELS}"),
        (f"Untrained, pooled, linear{_LABELS}", f"Untrained, linear{_LABELS}"),
        (f"Band statistics, linear{_LABELS}", f"Band statistics, 5 nearest{_LABELS}"),
    ),
    "Change": _Headline(
        "average precision",
        ("Exclusive features",),
        ("Untrained encoder",),
        ("Image difference", "Change vector"),
    ),
}


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


def check_scores(scores: Iterable[Mapping[str, Any]], where: Path) -> None:
    """Check that scores have all fields, and no others.

    Args:
        scores: Scores of a preset.
        where: Their file, for messages.

    Raises:
        DataError: A score has missing or unknown fields.
    """
    for score in scores:
        if set(score) != set(SCORE_FIELDS):
            wrong = sorted(set(score) ^ set(SCORE_FIELDS))
            raise DataError(
                f"{where} has a score with fields missing or unknown: {', '.join(wrong)}. "
                f"Expected {', '.join(SCORE_FIELDS)}. Received: {dict(score)}."
            )


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
        headlines=list(_make_headlines(scores)),
        groups=list(_group_scores(scores)),
        licences=dict(licences.most_common()),
        folders=ENCODER_NAMES,
        model_name=MODEL_NAME,
        shows_display_values=set(preset["bands"]) == {"B02", "B03", "B04"},
        sources=[PRESET.file, TRAINING_NAME, METRICS_NAME],
    )


def _make_headlines(scores: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Make the rows of the card's first table: one for each task, data set and split."""
    for group in _group_scores(scores):
        headline = _HEADLINES.get(group["task"])
        if headline is None or headline.metric not in group["metrics"]:
            continue
        values = {
            method: cells[headline.metric]
            for method, cells in group["rows"].items()
            if headline.metric in cells
        }
        model = next((values[name] for name in headline.model if name in values), None)
        if model is None:
            continue
        simple = [name for name in headline.simple if name in values]
        best = headline.is_better(simple, key=lambda name: values[name]["value"], default=None)
        yield {
            **{name: group[name] for name in ("task", "data", "split")},
            "metric": headline.metric + (" (lower is better)" if headline.is_better is min else ""),
            "model": _show(model),
            "untrained": _show(next((values[n] for n in headline.untrained if n in values), None)),
            "simple": f"{_show(values[best])} ({best.removesuffix(_LABELS)})" if best else "",
            "chance": _show(values.get("Chance")),
        }


def _group_scores(scores: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Group scores of one task, data set, split and command, by method and metric."""
    keys = ("task", "data", "split", "command")
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for score in scores:
        groups.setdefault(tuple(score[key] for key in keys), []).append(score)
    for values, members in groups.items():
        rows: dict[str, dict[str, Mapping[str, Any]]] = {}
        for score in members:
            rows.setdefault(score["method"], {})[score["metric"]] = score
        metrics = list(dict.fromkeys(score["metric"] for score in members))
        yield {
            **dict(zip(keys, values, strict=True)),
            "metrics": metrics,
            "rows": rows,
            "table": [
                [method, *(_show(cells.get(metric)) for metric in metrics)]
                for method, cells in rows.items()
            ],
            "notes": list(dict.fromkeys(score["note"] for score in members if score["note"])),
        }


def _show(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return ""
    shown = f"{score['value']:.4f}"
    return shown if score["spread"] is None else f"{shown} ± {score['spread']:.4f}"
