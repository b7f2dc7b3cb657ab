"""Pooled features: means and standard deviations of all layers of the shared encoder.

Classes of land cover often differ in colour and texture. The first layers represent both; the last
layer is trained to reconstruct a location on its grid and may lose them.
"""

from typing import Any

import keras
from keras import ops

from sits_keras.config import IMAGE_SIZE, ModelConfig
from sits_keras.receptive_field import SHARED_STEPS, receptive_margin

Tensor = Any

_EPSILON = 1e-6  # keeps the gradient of a standard deviation of 0 finite


def num_pooled(config: ModelConfig) -> int:
    """Return the length of the pooled vector: two numbers a band and a channel of each layer."""
    return 2 * (len(config.bands) + 15 * config.width + config.shared_channels)


def build_pooled_encoder(network: keras.Model, config: ModelConfig) -> keras.Model:
    """Build a network that shares the weights of a shared encoder and returns a pooled vector.

    Args:
        network: Shared encoder.
        config: Configuration of its model.

    Returns:
        A model from the input of `network` to `(batch, num_pooled(config))` float32: mean and
        standard deviation of each band of the image, and of each channel of the five layers'
        activations, over the window without its context.
    """
    image = network.input
    if config.padding == "context":
        image = network.get_layer("shared_context").output
    maps = [_inside(image, 0, config)]
    for index, _ in enumerate(SHARED_STEPS, start=1):
        activation = network.get_layer(f"shared_{index}_activation").output
        maps.append(_inside(activation, index, config))
    return keras.Model(network.input, ops.concatenate([_pool(one) for one in maps], axis=-1))


def _inside(values: Tensor, index: int, config: ModelConfig) -> Tensor:
    """Crop the activations of layer `index` to the cells of the window itself."""
    if config.padding == "zeros":
        return values
    before, _ = receptive_margin(SHARED_STEPS[index:])
    side = IMAGE_SIZE // 2 ** min(index, 4)
    return values[:, before : before + side, before : before + side]


def _pool(values: Tensor) -> Tensor:
    values = ops.cast(values, "float32")
    mean = ops.mean(values, axis=(1, 2))
    variance = ops.mean(ops.square(values - mean[:, None, None]), axis=(1, 2))
    return ops.concatenate([mean, ops.sqrt(variance + _EPSILON)], axis=-1)
