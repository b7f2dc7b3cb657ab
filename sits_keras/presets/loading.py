"""Pretrained models by name: `from_preset`, and writing a preset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

from sits_keras import hub
from sits_keras.errors import ConfigError, ExistsError
from sits_keras.files import check_place, write_json, written_aside
from sits_keras.formats import MODEL_NAME, PRESET, is_kind
from sits_keras.model import DisentangledSITS
from sits_keras.presets.card import write_card
from sits_keras.presets.folders import (
    ENCODER_NAMES,
    METRICS_NAME,
    TRAINING_NAME,
    describe_file,
    find_preset,
    verify,
    walk,
)
from sits_keras.saving import load_file


@overload
def from_preset(preset: Path | str, part: Literal["model"] = "model") -> DisentangledSITS: ...
@overload
def from_preset(preset: Path | str, part: Literal["shared", "exclusive"]) -> "hub.HubEncoder": ...
def from_preset(
    preset: Path | str, part: Literal["model", "shared", "exclusive"] = "model"
) -> "DisentangledSITS | hub.HubEncoder":
    """Loads a pretrained model, or one of its encoders.

    Args:
        preset: its name (`sits-keras presets` lists them), the path of its folder or zip archive,
            or the URL of such an archive, which is fetched once. A name is looked for in
            `SITS_KERAS_HOME`, then in the source tree. Nothing is fetched unless a URL is given.
        part: `"model"` for the whole model, ready to use or to be compiled and trained further;
            `"shared"` or `"exclusive"` for that encoder's hub module, which takes reflectance.
    Returns:
        The model, not compiled; or the encoder.
    Raises:
        MissingError: there is no such preset.
        DataError: a file is missing, or is not what `preset.json` says by its sha256. Checked
            before anything is loaded.
        ConfigError: there is no such part, or the URL is refused.
    """
    if part != "model" and part not in ENCODER_NAMES:
        raise ConfigError(f"part must be 'model', 'shared' or 'exclusive'. Received: {part!r}.")
    folder = find_preset(preset)
    if part != "model":
        name = ENCODER_NAMES[part]
        verify(folder, name)
        return hub.load(folder / name)
    facts = verify(folder, MODEL_NAME)
    model = load_file(folder / MODEL_NAME)
    model.resume_from(facts["steps"], facts["objective"])
    return model


def save_preset(
    model: DisentangledSITS,
    path: Path | str,
    *,
    license_id: str | None = None,
    summary: str = "",
    training: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a model as a preset, whole or not at all; its folder's name is the preset's.

    It has no scores yet: `sits-keras evaluate OUT --model PRESET` measures them, and `sits-keras
    card PRESET --scores OUT` puts them on the card.

    Args:
        model: the model.
        path: the preset's folder.
        license_id: SPDX identifier of the weights' licence.
        summary: what it is, a sentence for the card and for lists.
        training: what `training.json` is to say (see `preset_card.TRAINING_FIELDS`).
        overwrite: replace a preset that is there, its scores with it: they were of other weights.
    Raises:
        ConfigError: `training` has fields that are not known.
        ExistsError: `path` is there already, or, with `overwrite`, is no preset.
        OutputError: `path` cannot be written.
    """
    path = Path(path).resolve()
    if path.exists() and not (overwrite and is_kind(path, "preset")):
        raise ExistsError(
            f"{path} is there already. Name another folder"
            + (": it holds no preset." if overwrite else ", or pass overwrite (--overwrite).")
        )
    check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.mkdir()
        for encoder, name in ENCODER_NAMES.items():
            hub.export(
                model,
                aside / name,
                encoder,  # type: ignore[arg-type]
                name=f"{path.name}-{encoder}",
                license_id=license_id,
            )
        _without_optimizers(model).save(aside / MODEL_NAME)
        parts = (MODEL_NAME, *ENCODER_NAMES.values())
        files = {name: describe_file(aside / name) for part in parts for name in walk(aside, part)}
        encoders = {
            encoder: hub.read_metadata(aside / name) for encoder, name in ENCODER_NAMES.items()
        }
        common = encoders["shared"]
        preset = {
            "format": PRESET.name,
            "version": PRESET.version,
            "name": path.name,
            "summary": summary,
            **{
                key: common[key]
                for key in (
                    "license",
                    "bands",
                    "input",
                    "padding",
                    "context_margin",
                    "dense_strides",
                )
            },
            "encoders": {
                encoder: {
                    "folder": ENCODER_NAMES[encoder],
                    **{key: facts[key] for key in ("num_features", "grid", "num_pooled")},
                }
                for encoder, facts in encoders.items()
            },
            "parameters": model.count_params(),
            **{key: common[key] for key in ("model", "objective", "steps", "made_with")},
            "files": files,
        }
        write_json(aside / PRESET.file, preset)
        write_json(aside / TRAINING_NAME, dict(training or {}))
        write_json(aside / METRICS_NAME, {"scores": []})
        write_card(aside)
    return path


def _without_optimizers(model: DisentangledSITS) -> DisentangledSITS:
    """A copy that was never compiled: the state of the optimizers is two thirds of a file."""
    copy = DisentangledSITS.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    copy.seed_generator.state.assign(model.seed_generator.state)
    return copy
