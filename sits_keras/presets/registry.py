"""Scores of presets, and the registry of the presets that come with this package.

`registry.json` lists for each name its versions, and for each version the checksums of its files,
its licence and its scores. `python docs/make/models.py` writes it from savedmodels/. A version is
that of the package whose wheel contains the files. Presets of a wheel are compared with it before
they are loaded (`sits_keras.presets.folders.verify`).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sits_keras.errors import DataError
from sits_keras.formats import MODEL_NAME, PRESET
from sits_keras.presets.folders import (
    describe_file,
    read_preset,
    read_registry,
    read_scores,
)

SCORE_FIELDS = ("task", "metric", "method", "value", "spread", "data", "split", "command", "note")
"""Fields of a score in `metrics.json`; `spread` and `note` may be None."""


class _Headline(NamedTuple):
    """The methods of a task that the card's table of scores compares, each by preference."""

    metric: str
    model: tuple[str, ...]
    untrained: tuple[str, ...]
    simple: tuple[str, ...]
    peers: tuple[str, ...] = ()
    is_better: Any = max  # of the baselines and of the peers, the better one is shown


_LABELS = ", 100% of the labels"
_HEADLINES = {
    "Translation": _Headline(
        "L1", ("Image translation",), (), ("One date taken for the other",), is_better=min
    ),
    "Retrieval": _Headline(
        "Recall@1",
        ("Shared features",),
        ("Untrained encoder",),
        ("Raw pixels", "Normalised pixels", "Image statistics"),
    ),
    "Classification": _Headline(
        "accuracy",
        (f"Pooled, linear{_LABELS}", f"Frozen, linear{_LABELS}"),
        (f"Untrained, pooled, linear{_LABELS}", f"Untrained, linear{_LABELS}"),
        (f"Band statistics, linear{_LABELS}", f"Band statistics, 5 nearest{_LABELS}"),
        (
            f"Random convolutions, linear{_LABELS}",
            f"EfficientNet-Lite0 of ImageNet, linear{_LABELS}",
        ),
    ),
    "Change": _Headline(
        "average precision",
        ("Exclusive features",),
        ("Untrained encoder",),
        ("Image difference", "Change vector"),
    ),
}


def describe_version(folder: Path) -> dict[str, Any]:
    """Describe the preset in a folder as an entry of the registry.

    Args:
        folder: Folder of the preset.

    Returns:
        `summary`, `bands`, `license`, `steps`, `parameters`; `files`, sha256 and bytes by name;
        `scores`, see `make_headlines`.

    Raises:
        DataError: A JSON file of the preset is damaged.
    """
    preset = read_preset(folder)
    return {
        **{name: preset[name] for name in ("summary", "bands", "license", "steps", "parameters")},
        "files": {
            PRESET.file: describe_file(folder / PRESET.file),
            MODEL_NAME: dict(preset["files"][MODEL_NAME]),
        },
        "scores": make_headlines(read_scores(folder)),
    }


def register(
    registry: Mapping[str, Mapping[str, Any]], folders: Iterable[Path], version: str
) -> dict[str, dict[str, Any]]:
    """Add presets to a registry as one version. Entries of other versions stay.

    Args:
        registry: Presets of `registry.json`: for each name, its entries by version.
        folders: Folders of presets.
        version: Version of the package that contains them.

    Returns:
        The new registry.
    """
    known = {name: dict(versions) for name, versions in registry.items()}
    for folder in folders:
        known.setdefault(folder.name, {})[version] = describe_version(folder)
    return dict(sorted(known.items()))


def find_version(folder: Path) -> tuple[str | None, dict[str, Any]]:
    """Find a preset in the registry, by its name and the checksum of its weights.

    Args:
        folder: Folder of the preset.

    Returns:
        Its newest version with these weights, and its entry. If it is not in the registry, `None`
        and what `describe_version` returns.
    """
    weights = read_preset(folder)["files"][MODEL_NAME]
    for version, entry in reversed(read_registry().get(folder.name, {}).items()):
        if entry["files"][MODEL_NAME] == weights:
            return version, entry
    return None, describe_version(folder)


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


def make_headlines(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Make the rows of a card's first table.

    Args:
        scores: Scores of a preset.

    Returns:
        For each task, data set and split, `task`, `data`, `split`, `metric` and the values of
        `model`, `untrained`, `simple`, `peer` and `chance`, as text. Baselines and peers are the
        best ones that were measured, with their name; empty if there are none.
    """
    rows = []
    for group in group_scores(scores):
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
        rows.append(
            {
                **{name: group[name] for name in ("task", "data", "split")},
                "metric": headline.metric
                + (" (lower is better)" if headline.is_better is min else ""),
                "model": _show(model),
                "untrained": _show(
                    next((values[n] for n in headline.untrained if n in values), None)
                ),
                "simple": _show_best(values, headline.simple, headline.is_better),
                "peer": _show_best(values, headline.peers, headline.is_better),
                "chance": _show(values.get("Chance")),
            }
        )
    return rows


def _show_best(
    values: Mapping[str, Mapping[str, Any]], methods: Sequence[str], is_better: Any
) -> str:
    measured = [name for name in methods if name in values]
    best = is_better(measured, key=lambda name: values[name]["value"], default=None)
    return f"{_show(values[best])} ({best.removesuffix(_LABELS)})" if best else ""


def group_scores(scores: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Group scores of one task, data set, split and command, by method and metric.

    Args:
        scores: Scores of a preset.

    Yields:
        `task`, `data`, `split` and `command` of a group, its `metrics`, its scores as `rows` by
        method and metric, the same as text in `table`, and its `notes`.
    """
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
