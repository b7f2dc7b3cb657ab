"""All layers of the shared encoder as one short vector: their means and deviations.

What tells classes of land apart is often a matter of colour and texture, which the first layers
hold and the last one, made to rebuild a place on its grid, need not keep.
"""

from typing import Any

import keras
from keras import ops

from sits_keras.config import IMAGE_SIZE, ModelConfig
from sits_keras.receptive_field import SHARED_LOSSES, reach

Tensor = Any

_EPSILON = 1e-6  # so that the gradient of a deviation of 0 is finite


def num_pooled(config: ModelConfig) -> int:
    """Length of the pooled vector: two numbers for each band and for each channel of a layer."""
    return 2 * (len(config.bands) + 15 * config.width + config.shared_channels)


def build_pooled_encoder(network: keras.Model, config: ModelConfig) -> keras.Model:
    """A network with the weights of a shared encoder, that gives a pooled vector.

    Args:
        network: a shared encoder.
        config: of its model.
    Returns:
        A model from what `network` takes to `(batch, num_pooled(config))` float32: of the image
        and of each of the five layers' activations, mean and standard deviation of each channel
        over the window, surroundings left out.
    """
    image = network.input
    if config.padding == "context":
        image = network.get_layer("shared_surround").output
    maps = [_inside(image, 0, config)]
    for index, _ in enumerate(SHARED_LOSSES, start=1):
        activation = network.get_layer(f"shared_{index}_activation").output
        maps.append(_inside(activation, index, config))
    return keras.Model(network.input, ops.concatenate([_pool(one) for one in maps], axis=-1))


def _inside(values: Tensor, index: int, config: ModelConfig) -> Tensor:
    """What `index` layers made of an image, without the cells that are there for the next ones."""
    if config.padding == "zeros":
        return values
    before, _ = reach(SHARED_LOSSES[index:])
    side = IMAGE_SIZE // 2 ** min(index, 4)
    return values[:, before : before + side, before : before + side]


def _pool(values: Tensor) -> Tensor:
    values = ops.cast(values, "float32")
    mean = ops.mean(values, axis=(1, 2))
    variance = ops.mean(ops.square(values - mean[:, None, None]), axis=(1, 2))
    return ops.concatenate([mean, ops.sqrt(variance + _EPSILON)], axis=-1)
