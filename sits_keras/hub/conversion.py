"""Encoders as ONNX and LiteRT files, for programs without TensorFlow.

The functions of a hub module are converted, with the scaling of reflectance, so that the features
equal those of TensorFlow up to rounding. Images that a hub module refuses have features of NaN,
because neither format has assertions.
"""

import contextlib
import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import keras

from sits_keras.config import IMAGE_SIZE, ModelConfig
from sits_keras.errors import ConfigError, MissingError
from sits_keras.hub.encoder import DENSE_STRIDES
from sits_keras.hub.layers import ONNX_KEY, all_layers
from sits_keras.hub.module import EncoderModule
from sits_keras.tensorflow_import import paused_collection, tf

FileFormat = Literal["savedmodel", "onnx", "litert"]

SUFFIXES: dict[FileFormat, str] = {"onnx": ".onnx", "litert": ".tflite"}
"""Suffix of the files of each format that is converted."""

OPSET = 17
"""Version of ONNX's operators; ONNX Runtime reads it from 1.12 on."""

_TITLES: dict[FileFormat, str] = {"onnx": "ONNX", "litert": "LiteRT"}

Function = Callable[[Any], dict[str, Any]]


def check_format(file_format: str, padding: str, stride: int) -> None:
    """Check, before the work is done, that an encoder can be written in a format.

    Args:
        file_format: Format to write.
        padding: Padding of the encoder, `"context"` or `"zeros"`.
        stride: Stride of the dense function.

    Raises:
        ConfigError: There is no such format, or no dense function at this stride.
        MissingError: The library that writes the format is not installed.
    """
    if file_format not in ("savedmodel", *SUFFIXES):
        raise ConfigError(
            f"file_format must be 'savedmodel', 'onnx' or 'litert'. Received: {file_format!r}."
        )
    if file_format != "savedmodel" and padding == "context" and stride not in DENSE_STRIDES:
        raise ConfigError(
            f"stride must be one of {', '.join(map(str, DENSE_STRIDES))}. Received: {stride}."
        )
    if file_format == "onnx":
        try:
            import tf2onnx  # noqa: F401
        except ImportError as error:
            raise MissingError(
                f"Export to ONNX needs tf2onnx ({error}): pip install 'sits_keras[onnx]'."
            ) from error


def convert(
    module: EncoderModule,
    metadata: Mapping[str, Any],
    folder: Path,
    file_format: FileFormat,
    stride: int,
) -> list[dict[str, Any]]:
    """Write the functions of an encoder as files of another format.

    Args:
        module: Encoder.
        metadata: Its description, see `sits_keras.hub.metadata.make_metadata`.
        folder: Existing folder for the files.
        file_format: `"onnx"` or `"litert"`.
        stride: Distance in pixels between the windows of the dense function.

    Returns:
        For each file: its name, the shape of its input, and the shapes of its outputs by name. None
        stands for any length.
    """
    bands = len(metadata["bands"])
    side = IMAGE_SIZE
    files = [
        _describe("windows", file_format, [None, side, side, bands], _window_outputs(metadata))
    ]
    functions: list[Function] = [_windows(module, metadata["encoder"])]
    if metadata["dense_strides"]:
        grid = metadata["grid"]
        length = grid[0] * grid[1] * grid[2] if grid else metadata["num_features"]
        outputs = {"features": [None, None, None, length]}
        files.append(_describe(f"dense_{stride}", file_format, [None, None, None, bands], outputs))
        functions.append(_dense(module, stride))
    for file, function in zip(files, functions, strict=True):
        spec = tf.TensorSpec(file["input"], tf.float32, name="images")
        traced = tf.function(function, input_signature=[spec])
        with _quiet_conversion():
            if file_format == "onnx":
                _write_onnx(traced, spec, folder / file["file"], metadata)
            else:
                variables = [*module.variables, *getattr(module, "whitening", ())]
                _write_litert(traced, variables, folder / file["file"])
    return files


def convert_layers(
    network: keras.Model, config: ModelConfig, weights: str, file: Path
) -> Path | None:
    """Write the layers of an encoder as an ONNX file, which `sits_keras.hub.layers` reads.

    Args:
        network: Encoder.
        config: Configuration of its model.
        weights: Checksum of the encoder, see `sits_keras.hub.encoder.weights_sha256`.
        file: Output file.

    Returns:
        The file; None if tf2onnx is not installed, and nothing is written.
    """
    if importlib.util.find_spec("tf2onnx") is None:
        return None
    compute = all_layers(network, config)
    spec = tf.TensorSpec((1, None, None, len(config.bands)), tf.float32, name="images")
    traced = tf.function(
        lambda images: {f"layer_{i}": cells for i, cells in enumerate(compute(images), 1)},
        input_signature=[spec],
    )
    with _quiet_conversion():
        _write_onnx(traced, spec, file, {"encoder": network.name, "weights": weights})
    return file


def _window_outputs(metadata: Mapping[str, Any]) -> dict[str, list[int | None]]:
    if metadata["encoder"] == "exclusive":
        return {"features": [None, metadata["num_features"]]}
    return {"features": [None, metadata["num_pooled"]], "grid": [None, *metadata["grid"]]}


def _describe(
    name: str,
    file_format: FileFormat,
    input_shape: list[int | None],
    outputs: Mapping[str, list[int | None]],
) -> dict[str, Any]:
    return {"file": name + SUFFIXES[file_format], "input": input_shape, "outputs": dict(outputs)}


def _windows(module: EncoderModule, encoder: str) -> Function:
    if encoder == "exclusive":
        return lambda images: {"features": module(images)}
    # Their common layers are merged by both converters.
    return lambda images: {"features": module.pooled(images), "grid": module.spatial(images)}


def _dense(module: EncoderModule, stride: int) -> Function:
    dense = getattr(module, f"dense_{stride}")
    return lambda images: {"features": dense(images)}


def _write_onnx(function: Any, spec: Any, file: Path, metadata: Mapping[str, Any]) -> None:
    """Write a file with the metadata, and with names for the lengths that may vary."""
    import onnx
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(function, [spec], opset=OPSET)
    for values, names in (
        (model.graph.input, ("batch", "height", "width")),
        (model.graph.output, ("batch", "rows", "cols")),
    ):
        for value in values:
            for length, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
                if not length.dim_value:
                    length.dim_param = name
    onnx.helper.set_model_props(model, {ONNX_KEY: json.dumps(metadata)})
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def _write_litert(function: Any, variables: Any, file: Path) -> None:
    holder = tf.Module()
    holder.tracked = variables  # else they cannot be saved
    with tempfile.TemporaryDirectory() as folder:  # a signature is converted from a SavedModel
        tf.saved_model.save(holder, folder, signatures={"serving_default": function})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        file.write_bytes(converter.convert())


@contextlib.contextmanager
def _quiet_conversion() -> Iterator[None]:
    """Keep converters from logging, and from searching their many objects for garbage."""
    import logging

    loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with paused_collection():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
