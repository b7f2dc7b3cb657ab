"""Write the tables of docs/models.md and the registry of presets from savedmodels/.

Usage: `python docs/make/models.py`
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sits_keras
from sits_keras.formats import PRESET
from sits_keras.presets.folders import (
    read_preset,
    read_registry,
    read_scores,
    read_training,
    write_registry,
)
from sits_keras.presets.registry import register

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "models.md"
BEGIN = "<!-- begin: python docs/make/models.py -->"
END = "<!-- end -->"

# Rows of the table of classification: label, and the methods in metrics.json.
PROBES = ("FC(64), FC(classes)", "linear", "5 nearest")
ROWS = {
    "**pooled features**": [f"Pooled, {probe}" for probe in PROBES],
    "grid features (paper)": [f"Frozen, {probe}" for probe in PROBES],
    "untrained encoder, pooled": [f"Untrained, pooled, {probe}" for probe in PROBES],
    "untrained encoder, grid": [f"Untrained, {probe}" for probe in PROBES],
    "band statistics": [None, *(f"Band statistics, {probe}" for probe in PROBES[1:])],
    "random convolutions": [None, *(f"Random convolutions, {probe}" for probe in PROBES[1:])],
    "EfficientNet-Lite0 of ImageNet": [
        None,
        *(f"EfficientNet-Lite0 of ImageNet, {probe}" for probe in PROBES[1:]),
    ],
}
SETS = {
    "eurosat": "27,000 RGB images",
    "eurosatallbands_subset": "320 chips of 13 bands",
}


def main() -> None:
    """Replace the tables of docs/models.md, and this version in the registry."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replace_tables(text), encoding="utf-8")
    presets = register(read_registry(), preset_folders(), sits_keras.__version__)
    for file in (PAGE, write_registry(presets)):
        print(f"{file.relative_to(ROOT)}: {len(preset_folders())} presets")


def replace_tables(page: str) -> str:
    """Return the page with tables of the current presets."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{render_tables(preset_folders())}\n\n{END}{after}"


def preset_folders() -> list[Path]:
    """Return the folders of the presets in savedmodels/."""
    return sorted(file.parent for file in (ROOT / "savedmodels").glob(f"*/{PRESET.file}"))


def render_tables(folders: Sequence[Path]) -> str:
    """Return tables of the presets and their scores in retrieval, translation, classification."""
    return "\n\n".join(
        [
            "## Overview",
            _facts(folders),
            "## Retrieval and translation",
            "On held-out places. Higher is better, except for L1.",
            _places(folders),
            "## Classification of EuroSAT",
            "Accuracy in percent of FC(64, 10) / linear / 5 nearest, with all labels and a fifth "
            "of each class held out.",
            _classes(folders),
        ]
    )


def _facts(folders: Sequence[Path]) -> str:
    rows = []
    for folder in folders:
        preset, training = read_preset(folder), read_training(folder)
        mb = sum(one["bytes"] for one in preset["files"].values()) / 1e6
        rows.append(
            [
                f"[`{preset['name']}`](../savedmodels/{preset['name']}/README.md)",
                " ".join(preset["bands"]),
                f"`{preset['padding']}`",
                preset["model"]["width"],
                f"{len(training['places'])} places, {preset['steps']:,} steps of "
                f"{training['batch_size']} pairs, {training['hours']:g} h",
                preset["license"],
                f"{mb:.1f} MB, {preset['parameters']:,} parameters",
            ]
        )
    return _table(("preset", "bands", "padding", "width", "trained on", "licence", "size"), rows)


def _places(folders: Sequence[Path]) -> str:
    rows = []
    for folder in folders:
        scores = read_scores(folder)
        find = lambda method, metric: _show(_find(scores, method, metric))  # noqa: E731, B023
        rows.append(
            [
                f"`{folder.name}`",
                f"**{find('Shared features', 'Recall@1')}**",
                find("Raw pixels", "Recall@1"),
                find("Untrained encoder", "Recall@1"),
                find("Chance", "Recall@1"),
                find("Image translation", "L1"),
                find("One date taken for the other", "L1"),
            ]
        )
    columns = ("preset", "Recall@1", "raw pixels", "untrained", "chance", "L1 of translation")
    return _table((*columns, "L1 between the dates"), rows)


def _classes(folders: Sequence[Path]) -> str:
    measured = {}
    for folder in folders:
        for data, title in SETS.items():
            of_set = [
                score
                for score in read_scores(folder)
                if score["data"] == data and score["split"].startswith("stratified")
            ]
            if of_set:
                measured[f"`{folder.name}`, {title}"] = of_set
    rows = []
    for row, methods in ROWS.items():
        cells = [
            " / ".join(_percent(scores, method) for method in methods)
            for scores in measured.values()
        ]
        rows.append([row, *cells])
    return _table(("features", *measured), rows)


def _find(
    scores: Sequence[Mapping[str, Any]], method: str, metric: str = "accuracy"
) -> Mapping[str, Any] | None:
    found = [one for one in scores if (one["method"], one["metric"]) == (method, metric)]
    if len(found) > 1:
        sys.exit(f"Error: {method}, {metric} occurs {len(found)} times.")
    return found[0] if found else None


def _show(score: Mapping[str, Any] | None) -> str:
    return "" if score is None else f"{score['value']:.3f}"


def _percent(scores: Sequence[Mapping[str, Any]], method: str | None) -> str:
    score = method and _find(scores, f"{method}, 100% of the labels")
    return f"{100 * score['value']:.1f}" if score else "-"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    main()
