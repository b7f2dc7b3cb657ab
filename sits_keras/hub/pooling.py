"""Pooled features: statistics of the layers of the shared encoder over a window.

Classes of land cover often differ in colour and texture. The first layers represent both; the last
layer is trained to distinguish locations on its grid and loses some of them.
"""

from typing import Any

import keras
from keras import ops

from sits_keras.config import IMAGE_SIZE, ModelConfig
from sits_keras.receptive_field import SHARED_STEPS, receptive_margin

Tensor = Any

NUM_TEXTURE_LAYERS = 3
"""Layers of which the texture is pooled. The fourth has cells of 16 px, 4x4 of them."""

TEXTURE_DISTANCES = (1, 2)
"""Distances in cells between the values whose differences measure the texture."""

_EPSILON = 1e-6  # keeps the gradient of a standard deviation of 0 finite

_SMALL = 0.01  # contrast below which a texture is noise; images have a range of 2


def num_pooled(config: ModelConfig) -> int:
    """Return the length of the pooled vector."""
    # Each layer has twice as many channels as the one before it.
    num_channels = len(config.bands) + config.width * ((1 << NUM_TEXTURE_LAYERS) - 1)
    return 4 * num_channels + config.shared_channels


def build_pooled_encoder(network: keras.Model, config: ModelConfig) -> keras.Model:
    """Build a network that shares the weights of a shared encoder and returns a pooled vector.

    Args:
        network: Shared encoder.
        config: Configuration of its model.

    Returns:
        A model from the input of `network` to `(batch, num_pooled(config))` float32, statistics
        over the window without its context. For the image and for each of the first three layers,
        four numbers of each channel: the mean; the logarithm of the standard deviation; and the
        mean absolute difference between cells that are one cell apart, in rows and in columns,
        divided by the standard deviation, then divided by the difference between cells that are
        two apart. 0.01 is added to what is divided by or has its logarithm taken. Last, the mean
        of each channel of the fifth layer.
    """
    image = network.input
    if config.padding == "context":
        image = network.get_layer("shared_context").output
    parts = []
    for index in range(NUM_TEXTURE_LAYERS + 1):
        values = image if index == 0 else network.get_layer(f"shared_{index}_activation").output
        parts += _texture(_inside(values, index, config))
    last = len(SHARED_STEPS)
    values = network.get_layer(f"shared_{last}_activation").output
    parts.append(_mean(_inside(values, last, config)))
    return keras.Model(network.input, ops.concatenate(parts, axis=-1))


def _inside(values: Tensor, index: int, config: ModelConfig) -> Tensor:
    """Crop the activations of layer `index` to the cells of the window itself."""
    if config.padding == "zeros":
        return values
    before, _ = receptive_margin(SHARED_STEPS[index:])
    side = IMAGE_SIZE // 2 ** min(index, 4)
    return values[:, before : before + side, before : before + side]


def _mean(values: Tensor) -> Tensor:
    return ops.mean(ops.cast(values, "float32"), axis=(1, 2))


def _texture(values: Tensor) -> list[Tensor]:
    """Return the mean, the logarithm of the deviation, and two ratios that tell the texture."""
    values = ops.cast(values, "float32")
    mean = _mean(values)
    variance = _mean(ops.square(values - mean[:, None, None]))
    deviation = ops.sqrt(variance + _EPSILON)
    near, far = (
        (
            _mean(ops.abs(values[:, distance:] - values[:, :-distance]))
            + _mean(ops.abs(values[:, :, distance:] - values[:, :, :-distance]))
        )
        / 2
        for distance in TEXTURE_DISTANCES
    )
    # Relative to the contrast, textures of dark and of bright land are alike.
    return [mean, ops.log(deviation + _SMALL), near / (deviation + _SMALL), near / (far + _SMALL)]
