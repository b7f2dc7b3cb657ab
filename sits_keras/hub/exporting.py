"""Export, loading and wrapping of encoders as hub modules (section 4.4)."""

import functools
from pathlib import Path
from typing import Any, Literal

from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.files import check_creatable, write_json, written_aside
from sits_keras.formats import (
    CONVERTED,
    HUB_MODULE,
    PRESET,
    PROJECTION_NAME,
    is_kind,
    read_format,
)
from sits_keras.hub.conversion import FileFormat, check_format, convert
from sits_keras.hub.encoder import HubEncoder, checksum
from sits_keras.hub.metadata import (
    CARD_NAME,
    ITEM_NAME,
    make_metadata,
    make_stac_item,
    render_card,
)
from sits_keras.hub.module import EncoderModule
from sits_keras.hub.projection import (
    Projection,
    read_projection,
    write_projection,
)
from sits_keras.model import DisentangledSITS
from sits_keras.tensorflow_import import tf

Tensor = Any


def export(
    model: DisentangledSITS,
    path: Path | str,
    encoder: Literal["shared", "exclusive"] = "shared",
    *,
    name: str | None = None,
    license_id: str | None = None,
    overwrite: bool = False,
    file_format: FileFormat = "savedmodel",
    stride: int = 8,
    projection: Projection | None = None,
) -> Path:
    """Write an encoder as a hub module, or as ONNX or LiteRT files.

    The folder of a hub module contains a SavedModel, `module.json`, a card (`README.md`) and a
    STAC-MLM `item.json`. That of other formats contains a file for windows, a file for whole
    rasters if the encoder supports them, `encoder.json` and a card. If writing fails, nothing is
    left behind.

    Args:
        model: Model whose encoder is written.
        path: Folder of the module.
        encoder: Encoder to write.
        name: Name of the module in the card and the item; that of the folder by default.
        license_id: SPDX identifier of the weights' licence, for the card and the item.
        overwrite: Overwrite an existing module, or encoder in another format.
        file_format: `"savedmodel"` for a hub module, `"onnx"` (needs tf2onnx) or `"litert"`.
        stride: Distance in pixels between the windows of rasters in ONNX and LiteRT files, 4, 8, 16
            or 32. A hub module has a function for each.
        projection: Projection of the shared encoder's layers, for a hub module.

    Returns:
        The folder.

    Raises:
        ConfigError: There is no such encoder, format or stride.
        MissingError: tf2onnx is not installed.
        ExistsError: `path` exists and, with `overwrite`, is not an exported encoder.
        OutputError: `path` cannot be written.

    Examples:
        >>> import tempfile
        >>> import sits_keras
        >>> model = sits_keras.DisentangledSITS(sits_keras.ModelConfig(width=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = sits_keras.hub.export(model, f"{folder}/encoder", "shared")
        ...     encoder = sits_keras.hub.load(path)
        >>> encoder.bands
        ('B02', 'B03', 'B04', 'B08')
    """
    _check_name(encoder)
    check_format(file_format, model.config.padding, stride)
    path = Path(path)
    if path.exists() and not (overwrite and is_kind(path, "hub module", "converted encoder")):
        raise ExistsError(
            f"{path} already exists. Name another folder"
            + (": it is not a hub module." if overwrite else ", or pass overwrite (--overwrite).")
        )
    check_creatable(path)
    module = EncoderModule(model, encoder)
    spec = tf.TensorSpec((None, *model.config.image_shape), tf.float32, name="inputs")
    metadata = make_metadata(model, encoder, name or path.resolve().name, license_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        if file_format != "savedmodel":
            aside.mkdir()
            files = convert(module, metadata, aside, file_format, stride)
            described = {"format": CONVERTED.name, "version": CONVERTED.version}
            metadata |= {**described, "file_format": file_format, "files": files}
            write_json(aside / CONVERTED.file, metadata)
            card = render_card(metadata, "converted.md")
            (aside / CARD_NAME).write_text(card, encoding="utf-8")
            return path

        def serve(inputs: Tensor) -> dict[str, Tensor]:
            module.trace_all()  # here, because `save` would trace functions a second time
            return {"features": module(inputs)}

        serving = tf.function(serve, input_signature=[spec], autograph=False)
        tf.saved_model.save(module, str(aside), signatures={"serving_default": serving})
        metadata["weights"] = checksum(metadata, module.variables)
        write_json(aside / HUB_MODULE.file, metadata)
        if projection is not None:
            write_projection(aside / PROJECTION_NAME, projection)
        write_card(aside)
    return path


def write_card(path: Path) -> None:
    """Write the `README.md` and the STAC item of a hub module, from its `module.json`.

    Args:
        path: Folder of the module. Existing files are overwritten.

    Raises:
        DataError: `module.json` is damaged or of a version that is not supported.
    """
    metadata = read_metadata(path)
    write_json(path / ITEM_NAME, make_stac_item(metadata))
    (path / CARD_NAME).write_text(render_card(metadata), encoding="utf-8")


def wrap(
    model: DisentangledSITS,
    encoder: Literal["shared", "exclusive"] = "shared",
    *,
    name: str | None = None,
    license_id: str | None = None,
    projection: Projection | None = None,
) -> HubEncoder:
    """Make an encoder of a model in memory, as `export` and `load` would return it.

    Args:
        model: Model, whose weights are shared.
        encoder: Encoder to wrap.
        name: Name in the metadata; `shared_encoder` or `exclusive_encoder` by default.
        license_id: SPDX identifier of the weights' licence.
        projection: Projection of the encoder's layers.

    Returns:
        The encoder, which takes reflectance as a loaded module does.

    Raises:
        ConfigError: There is no such encoder.
    """
    _check_name(encoder)
    module = EncoderModule(model, encoder)
    network = model.shared_encoder if encoder == "shared" else model.exclusive_encoder
    return HubEncoder(
        lambda: (module, network),
        make_metadata(model, encoder, name or f"{encoder}_encoder", license_id),
        (
            functools.partial(wrap, name=name, license_id=license_id, projection=projection),
            model,
            encoder,
        ),
        projection,
    )


def load(path: Path | str) -> HubEncoder:
    """Load a hub module that `export` wrote.

    Args:
        path: Folder of the module.

    Returns:
        The encoder, which takes `(batch, 64, 64, bands)` reflectance.

    Raises:
        MissingError: There is no module at `path`.
        DataError: The module is damaged or of a version that is not supported, or is a preset.
    """
    path = Path(path)
    if not (path / HUB_MODULE.file).is_file():
        if is_kind(path, "preset"):
            raise DataError(
                f"{path} is a preset, which contains several modules. Load one of them with "
                f"sits_keras.from_preset({str(path)!r}, 'shared')."
            )
        if (path / PRESET.file).is_file():
            read_format(path, PRESET)  # raises an error with the remedy
        raise MissingError(
            f"No hub module at {path}: it has no {HUB_MODULE.file}. Export one with `sits-keras "
            f"export`. To load a preset by name, call sits_keras.from_preset({str(path)!r}, "
            "'shared')."
        )
    metadata = read_metadata(path)
    try:
        module = tf.saved_model.load(str(path))
    except Exception as error:  # of many kinds, by which file is damaged and where
        cause = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{path} cannot be loaded: {cause}. {HUB_MODULE.remedy}") from error
    file = path / PROJECTION_NAME
    projection = read_projection(file) if file.is_file() else None
    return HubEncoder(lambda: (module, None), metadata, (load, path.absolute()), projection)


def _check_name(encoder: str) -> None:
    if encoder not in ("shared", "exclusive"):
        raise ConfigError(f"encoder must be 'shared' or 'exclusive'. Received: {encoder!r}.")


def read_metadata(path: Path | str) -> dict[str, Any]:
    """Read the `module.json` of a hub module.

    Args:
        path: Folder of the module.

    Returns:
        The file's content, see `sits_keras.hub.metadata.make_metadata`.

    Raises:
        DataError: The file is damaged or of a version that is not supported.
    """
    return read_format(Path(path), HUB_MODULE)
