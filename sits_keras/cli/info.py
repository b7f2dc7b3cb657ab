"""`sits-keras info`."""

import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import click

from sits_keras.cli.options import ModelPath
from sits_keras.errors import DataError, MissingError
from sits_keras.files import read_json, read_yaml
from sits_keras.presets.folders import (
    could_be_name,
    describe_known,
    is_preset,
    read_preset,
    read_scores,
    read_training,
    verify,
)
from sits_keras.tensorflow_import import import_tensorflow


def _nothing(path: Path) -> MissingError:
    if not could_be_name(path):
        return MissingError(f"Nothing at {path}.")
    return MissingError(
        f"Nothing at {path}, and no preset of that name. {describe_known(str(path))}"
    )


@click.command()
@click.argument("path", type=ModelPath(_nothing))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--verify", is_flag=True, help="Check every byte of records or a preset, too.")
def info(path: Path, as_json: bool, verify: bool) -> None:
    """Say what PATH is: a records folder, run, model file, preset, hub module or classifier.

    A preset may be given by its name.

    \b
      sits-keras info records
      sits-keras info sits_rgbn_small --verify
    """
    facts = _describe(path, verify)
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    width = max(map(len, facts)) + 2
    columns = max(shutil.get_terminal_size().columns, 80)
    for name, value in facts.items():
        line = f"{name:<{width}}{_readable(value)}"
        click.echo(
            "\n".join(
                textwrap.wrap(
                    line,
                    columns,
                    subsequent_indent=" " * width,
                    break_on_hyphens=False,
                    break_long_words=False,
                )
            )
        )


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_readable(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _describe(path: Path, verify_files: bool) -> dict[str, Any]:
    if path.suffix == ".keras" and path.is_file():
        return _describe_model(path)
    if is_preset(path):
        return _describe_preset(path, verify_files)
    if (path / "preset.json").is_file():
        return _describe_module(path)
    if (path / "classifier.json").is_file():
        return _describe_classifier(path)
    if (path / "config.yaml").is_file():
        return _describe_run(path)
    if (path / "manifest.json").is_file() or (path / "plan.json").is_file():
        return _describe_records(path, verify_files)
    raise DataError(
        f"{path} is none of: records folder (manifest.json), run (config.yaml), hub module "
        "or preset (preset.json), classifier (classifier.json), model file (.keras). Of rasters "
        "and products, `sits-keras inspect` says more."
    )


def _describe_records(path: Path, verify: bool) -> dict[str, Any]:
    import_tensorflow()
    from sits_keras.data import records

    manifest = records.read_manifest(path)
    if verify:
        records.verify(manifest)
    dates = [date for one in manifest.series for date in one["dates"]]
    return {
        "kind": "records" + (" (every byte as written)" if verify else ""),
        "bands": list(manifest.bands),
        "records": manifest.num_records,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "compression": manifest.compression or "none",
        "series": {one["id"]: {"dates": len(one["dates"])} for one in manifest.series},
        "period": [min(dates), max(dates)],
        "skipped": manifest.skipped,
    }


def _describe_module(path: Path) -> dict[str, Any]:
    import_tensorflow()
    from sits_keras import hub

    preset = hub.read_preset(path)
    return {
        "kind": f"hub module of the {preset['encoder']} encoder",
        "bands": preset["bands"],
        "input": f"(batch, {', '.join(map(str, preset['input']['shape'][1:]))}) reflectance",
        "features": preset["num_features"],
        "steps": preset["steps"],
        "made_with": preset["made_with"],
    }


def _describe_preset(path: Path, verify_files: bool) -> dict[str, Any]:
    preset = verify(path) if verify_files else read_preset(path)
    try:
        return {
            "kind": "preset" + (" (every byte as written)" if verify_files else ""),
            "name": preset["name"],
            "summary": preset["summary"] or "none",
            "bands": preset["bands"],
            "input": f"(batch, {', '.join(map(str, preset['input']['shape'][1:]))}) reflectance",
            "features": {name: one["num_features"] for name, one in preset["encoders"].items()},
            "parameters": preset["parameters"],
            "steps": preset["steps"],
            "places": [one.get("id", "?") for one in read_training(path).get("places") or []],
            "license": preset["license"] or "not stated",
            "scores": len(read_scores(path)),
            "bytes": sum(file["bytes"] for file in preset["files"].values()),
            "folder": str(path),
            "made_with": preset["made_with"],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path / 'preset.json'} is damaged: {error!r}.") from error


def _describe_classifier(path: Path) -> dict[str, Any]:
    facts = read_json(path / "classifier.json", "Train the classifier again.")
    try:
        scores = facts["scores"]
        return {
            "kind": "classifier",
            "classes": facts["classes"],
            "bands": facts["bands"],
            "accuracy": round(scores["accuracy"], 4),
            "interval_95": [round(value, 4) for value in scores["interval_95"]],
            "images": {"trained on": scores["num_train"], "tested on": scores["num_test"]},
            **facts["settings"],
            "versions": facts["versions"],
        }
    except (KeyError, TypeError) as error:
        raise DataError(f"{path / 'classifier.json'} is damaged: {error!r}.") from error


def _describe_run(path: Path) -> dict[str, Any]:
    values = read_yaml(path / "config.yaml", "Expected the settings of a run.")
    try:
        sections = {name: values[name] for name in ("model", "objective", "optimizer", "train")}
        checkpoints = sorted(file.name for file in (path / "checkpoints").glob("step-*.keras"))
        return {
            "kind": "run, finished"
            if (path / "model.keras").is_file()
            else "run, not finished: the same `sits-keras train` goes on with it",
            "checkpoints": checkpoints,
            **sections,
            "records": values["records"]["folder"],
            "versions": values["versions"],
        }
    except (KeyError, TypeError) as error:
        raise DataError(f"{path / 'config.yaml'} is not that of a run: {error!r}.") from error


def _describe_model(path: Path) -> dict[str, Any]:
    import_tensorflow()
    from sits_keras.saving import load_model

    model = load_model(path)
    return {
        "kind": "model",
        "parameters": model.count_params(),
        "steps": model.steps,
        **model.config.to_dict(),
        "objective": model.objective.to_dict(),
    }
