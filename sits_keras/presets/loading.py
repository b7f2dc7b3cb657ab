"""Load pretrained models, and write a model as a preset."""

import contextlib
import functools
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from sits_keras import hub
from sits_keras.errors import ConfigError, ExistsError
from sits_keras.files import check_creatable, write_json, written_aside
from sits_keras.formats import HUB_MODULE, MODEL_NAME, PRESET, PROJECTION_NAME, is_kind, read_format
from sits_keras.hub.encoder import weights_sha256
from sits_keras.hub.projection import (
    Projection,
    read_projection,
    write_projection,
)
from sits_keras.presets.folders import (
    ENCODER_NAMES,
    LAYERS_NAMES,
    METRICS_NAME,
    TRAINING_NAME,
    describe_file,
    find_preset,
    read_preset,
    verify,
    walk,
)
from sits_keras.presets.handles import upload
from sits_keras.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from sits_keras.model import DisentangledSITS, Whitening


@overload
def from_preset(preset: Path | str, part: Literal["model"] = "model") -> "DisentangledSITS": ...
@overload
def from_preset(preset: Path | str, part: Literal["shared", "exclusive"]) -> "hub.HubEncoder": ...
def from_preset(
    preset: Path | str, part: Literal["model", "shared", "exclusive"] = "model"
) -> "DisentangledSITS | hub.HubEncoder":
    """Load a pretrained model, or one of its encoders.

    Args:
        preset: Name of a preset (listed by `sits-keras presets`), path of its folder or zip
            archive, URL of its zip archive, or handle (`hf://owner/name`,
            `kaggle://owner/model/framework/variation`). Names are looked up in `SITS_KERAS_HOME`,
            in the source tree, and among the presets that were installed with the package. Only
            URLs and handles are downloaded, once.
        part: `"model"` for the whole model, to use or to compile and train further; `"shared"` or
            `"exclusive"` for that encoder, which takes reflectance: its hub module, or if the
            preset does not contain it, the encoder of the whole model. Its weights are loaded, and
            TensorFlow is imported, when they are first needed.

    Returns:
        The model, not compiled; or the encoder.

    Raises:
        MissingError: There is no such preset.
        DataError: A file is missing, or differs from its checksum in `preset.json`. Checksums are
            verified before anything is loaded.
        ConfigError: There is no such part, or the URL is refused.

    Examples:
        >>> import numpy as np
        >>> import sits_keras
        >>> encoder = sits_keras.from_preset("sits_rgbn_small", "shared")
        >>> encoder.bands
        ('B02', 'B03', 'B04', 'B08')
        >>> features = encoder(np.full((2, 64, 64, 4), 0.1, "float32"))  # reflectance
        >>> features.shape[0]
        2
    """
    if part != "model" and part not in ENCODER_NAMES:
        raise ConfigError(f"part must be 'model', 'shared' or 'exclusive'. Received: {part!r}.")
    folder = find_preset(preset)
    if part == "model":
        return _load_model(folder, verify(folder, MODEL_NAME))
    module = folder / ENCODER_NAMES[part]
    facts = verify(folder, module.name if module.exists() else MODEL_NAME)
    metadata = read_format(module, HUB_MODULE) if module.exists() else _metadata_of(facts, part)
    projection = None
    if part == "shared" and (folder / PROJECTION_NAME).is_file():
        verify(folder, PROJECTION_NAME)
        projection = read_projection(folder / PROJECTION_NAME)
    layers_file = folder / LAYERS_NAMES[part]
    if has_layers := layers_file.is_file():
        verify(folder, layers_file.name)
    return hub.HubEncoder(
        functools.partial(_open_encoder, folder, part, facts),
        metadata,
        (from_preset, folder.absolute(), part),
        projection,
        layers_file if has_layers else None,
    )


def _metadata_of(facts: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return the content of the `module.json` that a preset's hub module would have."""
    own = {key: value for key, value in facts["encoders"][part].items() if key != "folder"}
    described = {"format": HUB_MODULE.name, "version": HUB_MODULE.version}
    common = {key: facts[key] for key in (*_SHARED_KEYS, *_MODEL_KEYS)}
    return {**described, "name": f"{facts['name']}-{part}", "encoder": part, **common, **own}


def _open_encoder(
    folder: Path, part: Literal["shared", "exclusive"], facts: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Load the weights of an encoder: its module, and its network if it is of the whole model."""
    import_tensorflow()
    module = folder / ENCODER_NAMES[part]
    found = hub.load(module) if module.exists() else hub.wrap(_load_model(folder, facts), part)
    return found.module, found.network


def _load_model(folder: Path, facts: Mapping[str, Any]) -> "DisentangledSITS":
    from sits_keras.saving import load_file  # imports Keras

    model = load_file(folder / MODEL_NAME)
    model.set_history(facts["steps"], facts["objective"])
    return model


def save_preset(
    model: "DisentangledSITS",
    path: Path | str,
    *,
    license_id: str | None = None,
    summary: str = "",
    training: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model as a preset. If writing fails, nothing is left behind.

    The name of the folder is the name of the preset. It has no scores yet: `sits-keras evaluate OUT
    --model PRESET` measures them, and `sits-keras card PRESET --scores OUT` writes them on the
    card.

    Args:
        model: Model to write.
        path: Folder of the preset.
        license_id: SPDX identifier of the weights' licence.
        summary: One sentence about the model, for the card and for lists.
        training: Content of `training.json`, see `sits_keras.presets.card.TRAINING_FIELDS`.
        overwrite: Overwrite an existing preset, with its scores, which were of other weights.

    Returns:
        The folder.

    Raises:
        ConfigError: `training` has an unknown field.
        ExistsError: `path` exists and, with `overwrite`, is not a preset.
        OutputError: `path` cannot be written.
    """
    path = Path(path).resolve()
    if path.exists() and not (overwrite and is_kind(path, "preset")):
        raise ExistsError(
            f"{path} already exists. Name another folder"
            + (": it is not a preset." if overwrite else ", or pass overwrite (--overwrite).")
        )
    check_creatable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.mkdir()
        _without_optimizers(model).save(aside / MODEL_NAME)
        _export_modules(model, aside, path.name, license_id)
        write_json(aside / TRAINING_NAME, dict(training or {}))
        write_json(aside / METRICS_NAME, {"scores": []})
        _write_description(aside, path.name, summary, model.count_params())
    return path


def upload_preset(preset: Path | str, handle: str) -> str:
    """Upload a preset to Hugging Face or Kaggle, after its checksums are verified.

    The client of the host must be logged in: `hf auth login`, or `kagglehub.login()`. A model that
    does not exist is created; an existing one gets a new version.

    Args:
        preset: Name of the preset, or path of its folder.
        handle: `hf://owner/name` or `kaggle://owner/model/framework/variation`.

    Returns:
        The handle with the checksum of the uploaded preset, for `from_preset`.

    Raises:
        ConfigError: The handle is malformed, or names a version.
        MissingError: There is no such preset, or the client or the login is missing.
        DataError: The preset is damaged, or the upload failed.
    """
    folder = find_preset(preset)
    return upload(folder, handle, verify(folder)["license"])


def export_again(path: Path | str) -> Path:
    """Export both hub modules of a preset again, from its `model.keras`, and render its cards.

    The files of layers are written again as well, or removed if tf2onnx is not installed.

    Args:
        path: Folder of the preset. Only its modules, files of layers, `preset.json`, cards and
            items change.

    Returns:
        The folder.

    Raises:
        DataError: `model.keras` or `preset.json` is damaged.
        OutputError: `path` cannot be written.
    """
    path = Path(path).resolve()
    with _changed(path) as aside:
        _export_all(from_preset(path), path, aside)
    return path


def store_whitening(path: Path | str, whitening: "Whitening") -> Path:
    """Store the whitening of the pooled features with a preset; a former one is replaced.

    Args:
        path: Folder of the preset. `model.keras` and what `export_again` writes change. Scores of
            classification are those of the former features: evaluate the preset again.
        whitening: Whitening of the preset's model (`hub.pooling.fit_whitening`).

    Returns:
        The folder.

    Raises:
        DataError: `model.keras` or `preset.json` is damaged.
        OutputError: `path` cannot be written.
    """
    path = Path(path).resolve()
    model = from_preset(path)
    model.whitening = whitening
    with _changed(path) as aside:
        model.save(aside / MODEL_NAME)
        _export_all(model, path, aside)
    return path


@contextlib.contextmanager
def _changed(path: Path) -> Iterator[Path]:
    """Provide a copy of a preset, which replaces it at the end."""
    check_creatable(path)
    with written_aside(path) as aside:
        shutil.copytree(path, aside)
        yield aside


def _export_all(model: "DisentangledSITS", path: Path, aside: Path) -> None:
    """Export the modules of a preset into its copy, and describe it."""
    facts = read_preset(path)
    for folder in ENCODER_NAMES.values():
        shutil.rmtree(aside / folder, ignore_errors=True)
    projection = None
    if (path / PROJECTION_NAME).is_file():
        projection = read_projection(path / PROJECTION_NAME)
    _export_modules(model, aside, facts["name"], facts["license"], projection)
    _write_description(aside, facts["name"], facts["summary"], facts["parameters"])


def store_projection(path: Path | str, projection: Projection) -> Path:
    """Store the projection of the shared encoder with a preset; a former one is replaced.

    Args:
        path: Folder of the preset. Only the projection, also in the hub module, and `preset.json`
            change.
        projection: Projection of the preset's shared encoder (`tasks.embedding.fit_projection`).

    Returns:
        The folder.

    Raises:
        DataError: `preset.json` is damaged.
        ConfigError: The projection is of another encoder.
        OutputError: `path` cannot be written.
    """
    path = Path(path).resolve()
    facts = read_preset(path)
    checksum = weights_sha256(from_preset(path, "shared"))
    if projection.encoder != checksum:
        raise ConfigError(
            f"The projection was fitted with another encoder than that of {path}. Expected "
            f"checksum {checksum[:12]}. Received: {projection.encoder[:12]}. Fit it again."
        )
    with _changed(path) as aside:
        write_projection(aside / PROJECTION_NAME, projection)
        if (module := aside / ENCODER_NAMES["shared"]).is_dir():
            write_projection(module / PROJECTION_NAME, projection)
        preset = _describe(aside, facts["name"], facts["summary"], facts["parameters"])
        write_json(aside / PRESET.file, preset)
    return path


def _export_modules(
    model: "DisentangledSITS",
    folder: Path,
    name: str,
    license_id: str | None,
    projection: Projection | None = None,
) -> None:
    """Write the hub module and the file of layers of each encoder."""
    from sits_keras.hub.conversion import convert_layers  # imports Keras

    for encoder, module in ENCODER_NAMES.items():
        hub.export(
            model,
            folder / module,
            encoder,  # type: ignore[arg-type]
            name=f"{name}-{encoder}",
            license_id=license_id,
            projection=projection if encoder == "shared" else None,
        )
        file = folder / LAYERS_NAMES[encoder]
        file.unlink(missing_ok=True)  # of the former weights
        network = model.shared_encoder if encoder == "shared" else model.exclusive_encoder
        weights = hub.read_metadata(folder / module)["weights"]
        convert_layers(network, model.config, weights, file)


def _write_description(folder: Path, name: str, summary: str, parameters: int) -> None:
    """Write `preset.json`, the cards and the item."""
    from sits_keras.presets.card import write_card  # imports pystac

    write_json(folder / PRESET.file, _describe(folder, name, summary, parameters))
    write_card(folder)


_SHARED_KEYS = ("license", "bands", "input", "padding", "context_margin", "dense_strides")
_ENCODER_KEYS = ("num_features", "grid", "num_flattened", "num_pooled", "is_whitened", "weights")
_MODEL_KEYS = ("model", "objective", "steps", "made_with")


def _describe(folder: Path, name: str, summary: str, parameters: int) -> dict[str, Any]:
    """Make the content of `preset.json` from the modules and files of a preset."""
    modules = {key: hub.read_metadata(folder / one) for key, one in ENCODER_NAMES.items()}
    common = modules["shared"]
    parts = (MODEL_NAME, PROJECTION_NAME, *LAYERS_NAMES.values(), *ENCODER_NAMES.values())
    return {
        "format": PRESET.name,
        "version": PRESET.version,
        "name": name,
        "summary": summary,
        **{key: common[key] for key in _SHARED_KEYS},
        "encoders": {
            encoder: {"folder": ENCODER_NAMES[encoder]}
            | {key: metadata[key] for key in _ENCODER_KEYS if key in metadata}
            for encoder, metadata in modules.items()
        },
        "parameters": parameters,
        **{key: common[key] for key in _MODEL_KEYS},
        "files": {
            file: describe_file(folder / file) for part in parts for file in walk(folder, part)
        },
    }


def _without_optimizers(model: "DisentangledSITS") -> "DisentangledSITS":
    """Copy a model without its optimizers, whose state is two thirds of a file."""
    copy: DisentangledSITS = type(model).from_config(model.get_config())
    copy.copy_networks(model)
    copy.whitening = model.whitening
    copy.seed_generator.state.assign(model.seed_generator.state)
    return copy
