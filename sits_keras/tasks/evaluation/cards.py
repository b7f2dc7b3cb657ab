"""Copy the scores of an evaluation to a preset's card, each with the command that made it."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sits_keras.errors import DataError
from sits_keras.files import read_json, write_json
from sits_keras.formats import MODEL_NAME
from sits_keras.presets.folders import METRICS_NAME, read_preset, read_scores
from sits_keras.presets.registry import check_scores
from sits_keras.tasks.evaluation.context import QUICK, EvaluationConfig
from sits_keras.tasks.evaluation.runner import FORMAT, FORMAT_VERSION

# By prefix of a table's name: columns that are scores, and the column of their spread.
_COLUMNS: dict[str, tuple[dict[str, str], str | None]] = {
    "table_1": ({"held out: mean": "L1"}, "held out: spread over seeds"),
    "table_2": ({"Recall@1": "Recall@1", "Recall@5": "Recall@5"}, "spread over seeds"),
    "table_3_": ({"accuracy": "accuracy"}, "spread over seeds"),
    "change_": (
        {name: name for name in ("average precision", "F1", "IoU")},
        None,
    ),
}
_NOT_SCORES = ("table_1_places", "table_2_places")
_TASKS = {
    "translation": "Translation",
    "retrieval": "Retrieval",
    "classification": "Classification",
    "change": "Change",
}
_SEPARATE = {"Recall@5"}  # the table does not give its spread


def add_scores(preset: Path, evaluation: Path) -> int:
    """Copy the scores of an evaluation of a preset into the preset's `metrics.json`.

    Existing scores of the same task, data and split are replaced; others stay.

    Args:
        preset: The preset's folder.
        evaluation: Output folder of `sits-keras evaluate`, or its `metrics.json`.

    Returns:
        Number of scores copied.

    Raises:
        DataError: If the file is missing or damaged, or the scores are of other weights.
    """
    file = evaluation / METRICS_NAME if evaluation.is_dir() else evaluation
    if not file.is_file():
        raise DataError(f"No {METRICS_NAME} at {file}. Expected output of `sits-keras evaluate`.")
    remedy = "Run `sits-keras evaluate` again."
    metrics = read_json(file, remedy)
    if (metrics.get("format"), metrics.get("version")) != (FORMAT, FORMAT_VERSION):
        raise DataError(f"{file} was not written by `sits-keras evaluate`. {remedy}")
    facts = read_preset(preset)
    expected = facts["files"][MODEL_NAME]["sha256"]
    try:
        received = metrics["model"]["sha256"]
        if received != expected:
            raise DataError(
                f"{file} is of another model. Expected sha256 {expected}, the preset's "
                f"{MODEL_NAME}. Received: {received}. Run `sits-keras evaluate OUT --model "
                f"{facts['name']}`."
            )
        scores = list(_collect(metrics, facts["name"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is damaged: {error!r}. {remedy}") from error
    replaced = {_group(score) for score in scores}
    kept = [score for score in read_scores(preset) if _group(score) not in replaced]
    check_scores([*kept, *scores], preset / METRICS_NAME)
    write_json(preset / METRICS_NAME, {"scores": [*kept, *scores]})
    return len(scores)


def _group(score: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(score.get(name) for name in ("task", "data", "split"))


def _collect(metrics: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    for section, content in metrics["sections"].items():
        if section not in _TASKS:
            continue
        command = command_of(metrics, name, section)
        for table, rows in content["tables"].items():
            prefix = next((p for p in _COLUMNS if table.startswith(p)), None)
            if prefix is None or table in _NOT_SCORES:
                continue
            columns, spread = _COLUMNS[prefix]
            data, split = _describe_data(metrics, section, table)
            for method, values in rows.items():
                for column, metric in columns.items():
                    if values.get(column) is None:
                        continue
                    has_spread = spread is not None and metric not in _SEPARATE
                    yield {
                        "task": _TASKS[section],
                        "metric": metric,
                        "method": method,
                        "value": values[column],
                        "spread": values.get(spread) if has_spread else None,
                        "data": data,
                        "split": split,
                        "command": command,
                        "note": None,
                    }


def _describe_data(metrics: Mapping[str, Any], section: str, table: str) -> tuple[str, str]:
    if section in ("translation", "retrieval"):
        places = metrics["data"]["held_out"]
        return f"series {', '.join(places)}", "places that were not trained on"
    if section == "classification":
        found = re.fullmatch("table_3_(.+)_(stratified|spatial|longitude)", table)
        if found is None:
            raise KeyError(table)
        return found[1], f"{found[2]}, 80:20"
    return table.removeprefix("change_"), "all pairs; references for scoring only"


def command_of(metrics: Mapping[str, Any], name: str, section: str) -> str:
    """Return the command that measures a section again, with every setting that is not the default.

    Args:
        metrics: Content of an evaluation's `metrics.json`.
        name: Name of the preset.
        section: Name of the section.
    """
    settings, data = metrics["settings"], metrics["data"]
    # --quick also sets values that have no option of their own.
    is_quick = settings["stride"] == QUICK.stride
    base = QUICK if is_quick else EvaluationConfig()
    words = ["sits-keras", "evaluate", f"{name}-scores", "--model", name, "--data", data["folder"]]
    words += ["--only", section]
    if section in ("translation", "retrieval"):
        words += ["--test", ",".join(data["held_out"])]
    if is_quick:
        words.append("--quick")
    for field, option in (
        ("num_seeds", "--seeds"),
        ("num_crops", "--crops"),
        ("num_queries", "--queries"),
        ("train_encoder", "--train-encoder"),
        ("mode", "--mode"),
    ):
        if settings[field] != getattr(base, field):
            words += [option, str(settings[field])]
    return shlex.join(words)
