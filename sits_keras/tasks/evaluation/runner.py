"""Run every experiment of the paper for one model and one folder of data (section 4).

OUT/sections/<name>.json   result of each experiment; the same call does not repeat it
OUT/figures/*.png          pictures
OUT/metrics.json           all numbers
OUT/report.html            everything, in one file
"""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sits_keras.config import IMAGE_SIZE
from sits_keras.errors import ConfigError, DataError, ExistsError
from sits_keras.files import check_folder, read_json, write_json, written_aside
from sits_keras.model import DisentangledSITS
from sits_keras.tasks.evaluation import tables
from sits_keras.tasks.evaluation.context import (
    Context,
    EvaluatedModel,
    EvaluationConfig,
    checksum,
    find_held_out,
    list_datasets,
)
from sits_keras.tasks.evaluation.report import Section, render_report

FORMAT = "sits_keras metrics"
FORMAT_VERSION = 1
METRICS_NAME = "metrics.json"
REPORT_NAME = "report.html"


class Experiment(NamedTuple):
    """Section of an evaluation.

    Attributes:
        make: Function that measures it.
        source: Kind of data it needs.
        expected: Where the data is expected.
    """

    make: Callable[[Context], Section]
    source: str
    expected: str


_SERIES = "held-out series/<id>/<YYYY-MM-DD>.tif"
EXPERIMENTS = {
    "translation": Experiment(tables.make_translation_section, "series", _SERIES),
    "retrieval": Experiment(tables.make_retrieval_section, "series", _SERIES),
    "classification": Experiment(
        tables.make_classification_section, "archives", "eurosat/EuroSAT*.zip"
    ),
    "segmentation": Experiment(tables.make_segmentation_section, "scenes", "scenes/*.tif"),
    "change": Experiment(
        tables.make_change_section, "pairs", "change/<id>/{before,after,mask}.tif"
    ),
}
"""Experiments by name, in the order of the report."""


def evaluate(
    data: Path | str,
    out: Path | str,
    model: DisentangledSITS | EvaluatedModel,
    *,
    test: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    config: EvaluationConfig | None = None,
    overwrite: bool = False,
    progress: bool = False,
    on_section: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Fill the paper's tables and plot its figures for a model, or resume an evaluation.

    Args:
        data: Folder with `series/<id>/<YYYY-MM-DD>.tif`, `eurosat/EuroSAT*.zip`, `scenes/*.tif` and
            `change/<id>/{before,after,mask}.tif`. Sections whose data is missing are left out.
        out: Output folder: `report.html`, `metrics.json`, `figures/` and `sections/`.
        model: Trained model. An `EvaluatedModel` also states its name, checksum and path.
        test: Names or shell patterns of the series that the model was not trained on. By default
            what the path of an `EvaluatedModel`, a preset or a run, records.
        only: Sections to measure. By default all of `EXPERIMENTS`.
        config: Amount of measurements. By default `EvaluationConfig()`; `QUICK` takes minutes.
        overwrite: Measure sections again that were made with other settings, model or data.
        progress: Show progress bars.
        on_section: Called with a line of text for each section.

    Returns:
        Content of `metrics.json`.

    Raises:
        ConfigError: If a section is unknown, or the held-out series are not known.
        ExistsError: If `out` holds other files, or sections with other settings.
        OutputError: If `out` cannot be written.
        MissingError: If the data does not exist.
        DataError: If the data is invalid.

    Examples:
        >>> model = sits_keras.from_preset("sits_rgbn_small")
        >>> metrics = evaluate("data", "evaluation", model, test=["valley-*"], config=QUICK)
        >>> metrics["sections"]["retrieval"]["tables"]["table_2"]
    """
    only = tuple(EXPERIMENTS) if only is None else tuple(only)
    unknown = [name for name in only if name not in EXPERIMENTS]
    if unknown or not only:
        raise ConfigError(
            f"Expected sections of {', '.join(EXPERIMENTS)}. Received: {', '.join(only) or 'none'}."
        )
    config = config or EvaluationConfig()
    out = Path(out)
    subject = model if isinstance(model, EvaluatedModel) else EvaluatedModel.from_model(model)
    datasets = list_datasets(Path(data), test or ())
    if datasets.trained_on and test is None and {"translation", "retrieval"} & set(only):
        datasets = list_datasets(
            Path(data), find_held_out(subject.path, subject.name, datasets.trained_on)
        )
    _init_output_dir(out)
    context = Context(subject, datasets, config, out, progress)
    sections: list[Section] = []
    skipped: dict[str, str] = {}
    checksums: dict[str, Any] = {}
    for name, experiment in EXPERIMENTS.items():
        source = experiment.source
        if name not in only:
            skipped[name] = "not selected"
            continue
        if not getattr(datasets, "held_out" if source == "series" else source):
            skipped[name] = f"no {experiment.expected} in the data"
            on_section(f"{name}: skipped, {skipped[name]}")
            continue
        if source not in checksums:
            checksums[source] = checksum(datasets.files(source), datasets.folder)
        section = _make_section(name, context, checksums[source]["sha256"], overwrite, on_section)
        if not section.tables:
            skipped[name] = "; ".join(section.notes)
            continue
        sections.append(section)
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "model": describe_model(subject),
        "data": {
            "folder": datasets.folder.resolve().name,
            "trained_on": list(datasets.trained_on),
            "held_out": list(datasets.held_out),
            **checksums,
        },
        "settings": dataclasses.asdict(config),
        "sections": {
            section.name: {
                "settings": section.settings,
                "tables": {table.id: table.to_metrics() for table in section.tables},
                "notes": section.notes,
            }
            for section in sections
        },
        "skipped": skipped,
        "versions": _versions(),
    }
    metrics: dict[str, Any] = json.loads(json.dumps(content))  # tuples become lists, as in the file
    write_json(out / METRICS_NAME, metrics)
    with written_aside(out / REPORT_NAME) as aside:
        aside.write_text(render_report(metrics, sections, out), encoding="utf-8")
    return metrics


def describe_model(subject: EvaluatedModel) -> dict[str, Any]:
    """Return the facts of a model for the report.

    Args:
        subject: Model to describe.
    """
    model = subject.model
    return {
        "name": subject.name,
        "sha256": subject.sha256,
        "steps": model.steps,
        "parameters": model.count_params(),
        "image_size": IMAGE_SIZE,
        "networks": model.config.to_dict(),
        "objective": model.objective.to_dict(),
    }


def _make_section(
    name: str,
    context: Context,
    data_sha256: str,
    overwrite: bool,
    on_section: Callable[[str], None],
) -> Section:
    file = context.out / "sections" / f"{name}.json"
    settings = {
        "section": name,
        "config": dataclasses.asdict(context.config),
        "model": context.subject.sha256,
        "data": data_sha256,
        "held_out": context.datasets.held_out,
        "version": importlib.metadata.version("sits_keras"),
    }
    made_with = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    if file.is_file():
        existing = read_json(file, "Remove it to measure the section again.")
        if existing.get("made_with") == made_with:
            on_section(f"{name}: already measured")
            try:
                return Section.from_json(existing)
            except (KeyError, TypeError) as error:
                raise DataError(f"{file} is damaged: {error!r}. Remove it.") from error
        if not overwrite:
            raise ExistsError(
                f"{file} was made with other settings, model or data. Choose another folder, or "
                "overwrite it (--overwrite)."
            )
    on_section(f"{name}: measuring")
    section = EXPERIMENTS[name].make(context)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"made_with": made_with, **section.to_json()})
    return section


def _init_output_dir(out: Path) -> None:
    own = {"sections", "figures", "records", METRICS_NAME, REPORT_NAME}
    if out.exists() and not out.is_dir():
        raise ExistsError(f"{out} is a file. Expected a folder.")
    others = [path.name for path in out.iterdir() if path.name not in own] if out.exists() else []
    others = [name for name in others if not name.startswith(".partial-")]
    if others:
        raise ExistsError(
            f"{out} contains files that are not of an evaluation, such as {sorted(others)[0]}. "
            "Choose another folder."
        )
    check_folder(out)
    (out / "figures").mkdir(parents=True, exist_ok=True)


def _versions() -> Mapping[str, str]:
    packages = ("sits_keras", "keras", "tensorflow", "numpy", "scikit-learn", "scipy", "rasterio")
    return {name: importlib.metadata.version(name) for name in packages}
