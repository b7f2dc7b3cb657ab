"""Command `sits-keras info`."""

import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import click

from sits_keras.cli.options import ModelPath
from sits_keras.errors import MissingError
from sits_keras.formats import MODEL_NAME, damaged, identify
from sits_keras.presets.folders import (
    could_be_name,
    count_bytes,
    describe_known,
    read_scores,
    read_training,
    verify,
)
from sits_keras.tensorflow_import import import_tensorflow

_VERIFIED = " (checksums verified)"


def _nothing(path: Path) -> MissingError:
    if not could_be_name(path):
        return MissingError(f"Nothing at {path}.")
    return MissingError(
        f"Nothing at {path}, and no preset of that name. {describe_known(str(path))}"
    )


@click.command()
@click.argument("path", type=ModelPath(_nothing))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verify", is_flag=True, help="Verify the checksums of records or of a preset.")
def info(path: Path, as_json: bool, verify: bool) -> None:
    """Describe what this package wrote to PATH.

    PATH is a folder of records, a run, a model file, a preset or its name, a hub module, ONNX or
    LiteRT files of an encoder, a classifier, or embeddings: a raster, a folder of rasters, a Zarr
    store or a table.

    \b
      sits-keras info records
      sits-keras info sits_rgbn_small --verify
      sits-keras info embeddings.tif
    """
    facts = _describe_embeddings(path) if _may_be_embeddings(path) else _describe(path, verify)
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


def _may_be_embeddings(path: Path) -> bool:
    """Return whether a path is a raster or a table, or a folder of rasters, by its names."""
    if path.is_dir():
        return (path / "zarr.json").is_file() or any(path.glob("*.tif")) or any(path.glob("*.vrt"))
    return path.suffix.lower() in (".tif", ".tiff", ".vrt", ".parquet")


def _describe_embeddings(path: Path) -> dict[str, Any]:
    from sits_keras.tasks.embedding_files import describe_embeddings

    facts = describe_embeddings(path)
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return {**facts, "bytes": sum(one.stat().st_size for one in files)}


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_readable(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _describe(path: Path, verify_files: bool) -> dict[str, Any]:
    found = identify(path)
    try:
        if found.kind == "records":
            return _describe_records(path, verify_files)
        if found.kind == "model":
            return _describe_model(path)
        if found.kind == "run":
            return _describe_run(path, found.content)
        if found.kind == "preset":
            return _describe_preset(path, found.content, verify_files)
        if found.kind in ("hub module", "converted encoder"):
            return _describe_module(found.content)
        return _describe_classifier(found.content)
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(found, error) from error


def _describe_records(path: Path, verify: bool) -> dict[str, Any]:
    import_tensorflow()
    from sits_keras.data import records

    manifest = records.read_manifest(path)
    if verify:
        records.verify(manifest)
    dates = [date for one in manifest.series for date in one["dates"]]
    return {
        "kind": "records" + (_VERIFIED if verify else ""),
        "bands": list(manifest.bands),
        "records": manifest.num_records,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "compression": manifest.compression or "none",
        "series": {one["id"]: {"dates": len(one["dates"])} for one in manifest.series},
        "period": [min(dates), max(dates)],
        "skipped": manifest.skipped,
    }


def _describe_module(content: dict[str, Any]) -> dict[str, Any]:
    files = [one["file"] for one in content.get("files", ())]
    kind = f"{content['file_format']} files" if files else "hub module"
    return {
        "kind": f"{kind} of the {content['encoder']} encoder",
        **({"files": files} if files else {}),
        "bands": content["bands"],
        "input": f"(batch, {', '.join(map(str, content['input']['shape'][1:]))}) reflectance",
        "features": content["num_features"],
        "steps": content["steps"],
        "made_with": content["made_with"],
    }


def _describe_preset(path: Path, content: dict[str, Any], verify_files: bool) -> dict[str, Any]:
    if verify_files:
        verify(path)
    return {
        "kind": "preset" + (_VERIFIED if verify_files else ""),
        "name": content["name"],
        "summary": content["summary"] or "none",
        "bands": content["bands"],
        "input": f"(batch, {', '.join(map(str, content['input']['shape'][1:]))}) reflectance",
        "features": {name: one["num_features"] for name, one in content["encoders"].items()},
        "parameters": content["parameters"],
        "steps": content["steps"],
        "places": [one.get("id", "?") for one in read_training(path).get("places") or []],
        "license": content["license"] or "not stated",
        "scores": len(read_scores(path)),
        "bytes": count_bytes(path, content),
        "folder": str(path),
        "made_with": content["made_with"],
    }


def _describe_classifier(content: dict[str, Any]) -> dict[str, Any]:
    scores = content["scores"]
    return {
        "kind": "classifier",
        "classes": content["classes"],
        "bands": content["bands"],
        "accuracy": round(scores["accuracy"], 4),
        "interval_95": [round(value, 4) for value in scores["interval_95"]],
        "images": {"trained on": scores["num_train"], "tested on": scores["num_test"]},
        **content["settings"],
        "versions": content["versions"],
    }


def _describe_run(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    sections = {name: content[name] for name in ("model", "objective", "optimizer", "train")}
    checkpoints = sorted(file.name for file in (path / "checkpoints").glob("step-*.keras"))
    return {
        "kind": "run, finished"
        if (path / MODEL_NAME).is_file()
        else "run, not finished: rerun the same `sits-keras train` to resume it",
        "checkpoints": checkpoints,
        **sections,
        "records": content["records"]["folder"],
        "versions": content["versions"],
    }


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
