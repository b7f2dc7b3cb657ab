"""Intermediate layers of an encoder, dense over images of any size.

The four layers that halve the image have a smaller receptive field than the representation: 22 px
for a cell of layer 3 of the shared encoder. Cell i of layer l belongs to the pixels `i * 2**l` to
`(i + 1) * 2**l` of an image of any size, because no returned cell depends on the padding of a
convolution. Encoders of both kinds of padding therefore have layers, and images can be encoded in
tiles.

They are computed by TensorFlow, or by ONNX Runtime where it is installed and the encoder comes with
a file of its layers, as those of presets do. Then neither TensorFlow nor Keras is imported.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras import tensorflow_import
from sits_keras.config import ModelConfig
from sits_keras.data.execution import num_cores
from sits_keras.errors import ConfigError, DataError
from sits_keras.hub.encoder import HubEncoder, check_reflectance, weights_sha256
from sits_keras.receptive_field import (
    EXCLUSIVE_STEPS,
    SHARED_STEPS,
    ConvStep,
    receptive_margin,
)

if TYPE_CHECKING:
    import keras

Tensor = Any

NUM_LAYERS = 4
"""Layers of each encoder that halve the image."""

ONNX_KEY = "sits_keras"
"""Key of the metadata of an ONNX file, JSON."""

_SAME_TRIM = (1, 2)  # of a 4x4 convolution of stride 1 that pads with zeros


class LayerGrid(NamedTuple):
    """Cells of a layer.

    Attributes:
        name: Encoder and number of the layer, such as "shared 2".
        stride: Distance between cells, in pixels.
        before: Pixels before those of a cell that it sees.
        after: Pixels after those of a cell that it sees.
        num_channels: Channels of a cell.
    """

    name: str
    stride: int
    before: int
    after: int
    num_channels: int

    @property
    def centre(self) -> float:
        """Centre of what cell 0 sees, in pixels; the centre of the first pixel is 0."""
        return (self.stride - 1 + self.after - self.before) / 2


class LayerEncoder:
    """Intermediate layers of an encoder.

    The network of a hub module is built again from its configuration, with the module's weights.
    So preset encoders, exported modules and wrapped models all have layers. It can be pickled if
    the encoder can. Functions are made once for each encoder and its layers; the weights are
    those of the encoder when its last `LayerEncoder` was made, or those of the wrapped model at
    each call. Weights that were changed in memory are computed by TensorFlow.

    Args:
        encoder: Encoder, such as `sits_keras.hub.load(...)` returns.
        layers: Numbers of the layers, 1 (stride 2 px) to 4 (stride 16 px), ascending.

    Attributes:
        encoder: The encoder.
        layers: Numbers of the layers.
        grids: Cells of each layer.
        bands: Names of the bands.

    Raises:
        ConfigError: If the encoder is not a `HubEncoder`, or there are no such layers.
        DataError: If the module's weights are not those of its configuration, or its file of
            layers is of other weights.

    Examples:
        >>> encoder = sits_keras.from_preset("sits_rgbn_small", "shared")
        >>> layers = LayerEncoder(encoder, (1, 2))
        >>> cells = layers(image, margin=16, border=1)  # `(height, width, 4)` reflectance
        >>> [one.shape for one in cells]
    """

    def __init__(self, encoder: HubEncoder, layers: Sequence[int] = (1, 2, 3)):
        if not isinstance(encoder, HubEncoder):
            raise ConfigError(
                "Layers are of a preset's encoder, a hub module or a wrapped model. Expected a "
                f"HubEncoder. Received: {type(encoder).__name__}. Load one with "
                "sits_keras.from_preset or sits_keras.hub.load."
            )
        chosen = tuple(layers)
        if not chosen or list(chosen) != sorted(set(chosen) & set(range(1, NUM_LAYERS + 1))):
            raise ConfigError(
                f"Expected ascending numbers of layers from 1 to {NUM_LAYERS}. Received: {chosen}."
            )
        self.encoder = encoder
        self.layers = chosen
        self.bands = encoder.bands
        name = encoder.metadata["encoder"]
        config = ModelConfig.from_dict(encoder.metadata["model"])
        session = _find_session(encoder)
        if session is None:
            self._run, num_channels = _keras_function(encoder, chosen)
        else:
            self._run, num_channels = _session_function(session, chosen)
        margins = [receptive_margin(_steps(name, config.padding, n)) for n in chosen]
        self.grids = tuple(
            LayerGrid(f"{name} {n}", 2**n, *margin, count)
            for n, margin, count in zip(chosen, margins, num_channels, strict=True)
        )
        self._pads = config.padding == "zeros"
        # The first cell of every layer then begins at a multiple of its stride. Convolutions that
        # pad keep that without skipping.
        self._skipped = 0 if self._pads else -self.grids[-1].before % self.grids[-1].stride

    def __reduce__(self) -> tuple[Any, ...]:
        return LayerEncoder, (self.encoder, self.layers)

    def margin(self, border: int = 0) -> int:
        """Return the pixels around an image that its cells and those of a border see.

        Args:
            border: Cells around the image, of each layer.

        Returns:
            The pixels, a multiple of the largest stride.
        """
        coarsest = self.grids[-1].stride
        seen = max(max(one.before, one.after) + border * one.stride for one in self.grids)
        return -(-seen // coarsest) * coarsest

    def __call__(
        self, image: npt.NDArray[np.float32], margin: int, border: int = 0
    ) -> list[npt.NDArray[np.float32]]:
        """Return the cells of an image that comes with a margin.

        Args:
            image: `(height + 2 * margin, width + 2 * margin, bands)` reflectance, 0 without data.
            margin: Pixels around the image, at least `margin(border)` and a multiple of the largest
                stride.
            border: Cells around the image to return as well.

        Returns:
            For each layer, `(ceil(height / stride) + 2 * border, ceil(width / stride) + 2 * border,
            channels)` float32. Cell `border` is the first of the image.

        Raises:
            ConfigError: If the image has other bands, or its margin is too small.
            DataError: If a value is NaN, or beyond what reflectance can be.
        """
        coarsest = self.grids[-1].stride
        if margin < self.margin(border) or margin % coarsest:
            raise ConfigError(
                f"Expected a margin of at least {self.margin(border)} px, a multiple of "
                f"{coarsest}. Received: {margin}."
            )
        if image.ndim != 3 or image.shape[2] != len(self.bands) or min(image.shape) <= 0:
            raise ConfigError(
                f"Expected an image of shape (height, width, {len(self.bands)}), bands "
                f"{', '.join(self.bands)}. Received: {image.shape}."
            )
        check_reflectance(image)
        height, width = (side - 2 * margin for side in image.shape[:2])
        # Whole cells of the coarsest layer, so that a convolution that pads does so equally.
        filled = [(0, -side % coarsest) for side in (height, width)]
        images = np.pad(image, (*filled, (0, 0)), mode="edge") if any(map(any, filled)) else image
        start = slice(self._skipped, None)
        found = self._run(images[None, start, start].astype(np.float32))
        cells = []
        for grid, values in zip(self.grids, found, strict=True):
            trimmed = 0 if self._pads else (grid.before + self._skipped) // grid.stride
            first = margin // grid.stride - border - trimmed
            rows, cols = (
                slice(first, first + -(-side // grid.stride) + 2 * border)
                for side in (height, width)
            )
            cells.append(np.asarray(values[0, rows, cols], np.float32))
        return cells


def _steps(encoder: str, padding: str, layer: int) -> list[ConvStep]:
    """Return the convolutions up to a layer, along the longer branch of each residual block."""
    if encoder == "shared":
        return list(SHARED_STEPS[:layer])
    steps = list(EXCLUSIVE_STEPS[: 2 * layer - 1])
    if padding == "zeros":
        steps = [step if step.stride == 2 else ConvStep(1, _SAME_TRIM) for step in steps]
    return steps


def scale_to_network(config: ModelConfig) -> Callable[[Tensor], Tensor]:
    """Return a function from reflectance to network values, [-1, 1]."""
    gain = 2.0 / np.array(config.band_max, np.float32)
    tf = tensorflow_import.tf
    return lambda images: tf.clip_by_value(images * gain - 1.0, -1.0, 1.0)


def all_layers(network: "keras.Model", config: ModelConfig) -> Callable[[Tensor], list[Tensor]]:
    """Return a function from reflectance of any size to all layers of an encoder's network.

    Args:
        network: Encoder.
        config: Configuration of its model.

    Returns:
        Function from `(batch, height, width, bands)` to the cells of layers 1 to `NUM_LAYERS`.
    """
    import keras

    name = network.name.removesuffix("_encoder")
    is_padding = config.padding == "zeros"
    start = network.input if is_padding else network.get_layer(f"{name}_context").output
    layers = range(1, NUM_LAYERS + 1)
    outputs = [network.get_layer(f"{name}_{layer}_activation").output for layer in layers]
    function, scale = keras.Function(start, outputs), scale_to_network(config)
    return lambda images: function(scale(images))


def _keras_function(encoder: HubEncoder, layers: tuple[int, ...]) -> tuple[Any, list[int]]:
    """Return a function of TensorFlow, and the channels of its layers.

    It is traced once for images of any size. Layers that are not returned are not computed.
    """
    name, config = encoder.metadata["encoder"], ModelConfig.from_dict(encoder.metadata["model"])
    function, network = encoder.layer_functions.get(layers, (None, None))
    network = network_of(encoder, network)
    if function is None:
        tf, compute = tensorflow_import.tf, all_layers(network, config)

        @tf.function(
            input_signature=[tf.TensorSpec((None, None, None, len(config.bands)), tf.float32)],
            autograph=False,
        )
        def run(images: Tensor) -> list[Tensor]:
            cells = compute(images)
            return [cells[layer - 1] for layer in layers]

        function = run
        encoder.layer_functions[layers] = function, network
    outputs = [network.get_layer(f"{name}_{layer}_activation").output for layer in layers]
    return function, [one.shape[-1] for one in outputs]


def _session_function(session: Any, layers: tuple[int, ...]) -> tuple[Any, list[int]]:
    """Return a function of ONNX Runtime, and the channels of its layers."""
    names = [f"layer_{layer}" for layer in layers]
    channels = {one.name: one.shape[-1] for one in session.get_outputs()}

    def run(images: npt.NDArray[np.float32]) -> Any:
        return session.run(names, {"images": images})

    return run, [channels[name] for name in names]


def _find_session(encoder: HubEncoder) -> Any:
    """Return the ONNX Runtime session of an encoder's file of layers, None if it cannot be used."""
    if encoder.layers_file is None:
        return None
    if "session" not in encoder.layer_functions:
        encoder.layer_functions["session"] = _open_session(encoder.layers_file)
    session = encoder.layer_functions["session"]
    if session is None:
        return None
    written = encoder.metadata.get("weights")
    found = json.loads(session.get_modelmeta().custom_metadata_map.get(ONNX_KEY, "{}"))
    if found.get("weights") != written:
        raise DataError(
            f"{encoder.layers_file} is of other weights than its preset. Expected checksum "
            f"{str(written)[:12]}. Received: {str(found.get('weights'))[:12]}. Write it again with "
            "`sits-keras card PRESET --export`, or remove it."
        )
    return session if written == weights_sha256(encoder) else None  # changed in memory


def _open_session(file: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    # As TensorFlow: all cores of the process, unless the environment sets a number.
    num_threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0)
    options.intra_op_num_threads = num_threads or num_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors; without a GPU, it warns that there is none
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def network_of(encoder: HubEncoder, built: "keras.Model | None" = None) -> "keras.Model":
    """Return an encoder's network: the model's own if it is wrapped, else one built again.

    Args:
        encoder: Encoder.
        built: Network that was built before, which gets the encoder's current weights.

    Raises:
        DataError: The module's weights are not those of its configuration.
    """
    from sits_keras.networks import build_exclusive_encoder, build_shared_encoder

    if encoder.network is not None:
        return encoder.network
    name = encoder.metadata["encoder"]
    network = built
    if network is None:
        build = build_shared_encoder if name == "shared" else build_exclusive_encoder
        network = build(ModelConfig.from_dict(encoder.metadata["model"]), 0)
    values = list(encoder.module.variables)
    shapes = [tuple(value.shape) for value in values]
    if shapes != [tuple(variable.shape) for variable in network.variables]:
        raise DataError(
            f"The weights of the {name} encoder are not those of its configuration. Export the "
            "module again from its model."
        )
    for variable, value in zip(network.variables, values, strict=True):
        variable.assign(value)
    return network
