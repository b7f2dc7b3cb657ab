"""The four networks (section 3.2), each a functional `keras.Model`.

Each builder takes the configuration and the seed of the initial weights. Images are
`(batch, 64, 64, bands)` in [-1, 1]. Sides go 64, 32, 16, 8, 4; channels of the hidden layers go
`width`, 2, 4 and 8 times `width`, and back in the decoder. Names of layers begin with the name of
their network, so that a variable's path says which player it belongs to.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import layers

from sits_keras.config import GRID_SIZE, IMAGE_SIZE, ModelConfig
from sits_keras.layers import (
    KERNEL_SIZE,
    RepeatOverGrid,
    Surround,
    conv_block,
    residual_block,
    seeded_initializer,
    transposed_conv_block,
)
from sits_keras.receptive_field import (
    EXCLUSIVE_LOSSES,
    SECOND_LOSSES,
    SHARED_LOSSES,
    Loss,
    halo,
    reach,
)

Tensor = Any


def build_shared_encoder(config: ModelConfig, seed: int) -> keras.Model:
    """E_sh: five convolutions, from an image to what stays, the place.

    Five of stride 2 would take 64 to 2, from where the decoder's four doublings do not return to
    64: the fifth has stride 1.

    Args:
        config: shape of the networks.
        seed: of the initial weights.
    Returns:
        A model from `(batch, 64, 64, bands)` to `(batch, 4, 4, shared_channels)`. Under
        `padding="context"` images may come with their surroundings (`surroundings.halo`).
    """
    image, x = _begin(config, SHARED_LOSSES, "shared")
    padding = _padding(config)
    x = _halve_four_times(x, config, seed, "shared", padding)
    shared = conv_block(
        x,
        config.shared_channels,
        strides=1,
        padding=padding,
        slope=config.leaky_slope,
        seed=seed,
        name="shared_5",
    )
    if config.shared_norm == "layer":
        shared = layers.LayerNormalization(center=False, scale=False, name="shared_layer_norm")(
            shared
        )
    return keras.Model(image, shared, name="shared_encoder")


def build_exclusive_encoder(config: ModelConfig, seed: int) -> keras.Model:
    """E_ex: a convolution and three residual blocks, from an image to what passes, the date.

    Args:
        config: shape of the networks.
        seed: of the initial weights.
    Returns:
        A model from `(batch, 64, 64, bands)` to two tensors of `(batch, exclusive_dim)`: the mean
        and the log of the variance of the posterior. Both are float32 under any dtype policy.
        Under `padding="context"` images may come with their surroundings (`surroundings.halo`).
    """
    image, x = _begin(config, EXCLUSIVE_LOSSES, "exclusive")
    padding = _padding(config)
    x = conv_block(
        x,
        config.width,
        strides=2,
        padding=padding,
        slope=config.leaky_slope,
        seed=seed,
        name="exclusive_1",
    )
    for index, (factor, lost) in enumerate(zip((2, 4, 8), SECOND_LOSSES, strict=True), start=2):
        x = residual_block(
            x,
            factor * config.width,
            lost=lost if padding == "valid" else None,
            slope=config.leaky_slope,
            seed=seed,
            name=f"exclusive_{index}",
        )
    x = layers.Reshape((GRID_SIZE**2 * 8 * config.width,), name="exclusive_flatten")(x)
    mean = layers.Dense(
        config.exclusive_dim,
        kernel_initializer=seeded_initializer(seed, "exclusive_mean"),
        dtype="float32",
        name="exclusive_mean",
    )(x)
    log_var = layers.Dense(
        config.exclusive_dim,
        # So that variances begin at 1: from a random kernel, the first steps of Adam can take them
        # to 1e12, which the decoder's moving statistics remember for a thousand steps.
        kernel_initializer="zeros",
        dtype="float32",
        name="exclusive_log_var",
    )(x)
    return keras.Model(image, [mean, log_var], name="exclusive_encoder")


def build_decoder(config: ModelConfig, seed: int) -> keras.Model:
    """G: four transposed convolutions, from the two representations to an image.

    Args:
        config: shape of the networks.
        seed: of the initial weights.
    Returns:
        A model from `[(batch, 4, 4, shared_channels), (batch, exclusive_dim)]` to
        `(batch, 64, 64, bands)` float32 in [-1, 1].
    """
    shared = keras.Input((GRID_SIZE, GRID_SIZE, config.shared_channels), name="shared")
    exclusive = keras.Input((config.exclusive_dim,), name="exclusive")
    x = layers.Concatenate(name="decoder_concatenate")(
        [shared, RepeatOverGrid(GRID_SIZE, name="decoder_repeat")(exclusive)]
    )
    for index, factor in enumerate((4, 2, 1), start=1):
        x = transposed_conv_block(
            x, factor * config.width, slope=config.leaky_slope, seed=seed, name=f"decoder_{index}"
        )
    x = layers.Conv2DTranspose(
        len(config.bands),
        KERNEL_SIZE,
        strides=2,
        padding="same",
        kernel_initializer=seeded_initializer(seed, "decoder_4_conv"),
        name="decoder_4_conv",
    )(x)
    generated = layers.Activation("tanh", dtype="float32", name="image")(x)
    return keras.Model([shared, exclusive], generated, name="decoder")


def build_discriminator(config: ModelConfig, seed: int) -> keras.Model:
    """D: five convolutions, from an image to the probability that it is real.

    The fifth is valid: it takes the 4x4 grid to one number.

    Args:
        config: shape of the networks.
        seed: of the initial weights.
    Returns:
        A model from `(batch, 64, 64, bands)` to `(batch, 1)` float32 in [0, 1].
    """
    image = keras.Input(config.image_shape, name="image")
    x = _halve_four_times(image, config, seed, "discriminator", "same")
    x = layers.Conv2D(
        1,
        KERNEL_SIZE,
        padding="valid",
        kernel_initializer=seeded_initializer(seed, "discriminator_5_conv"),
        name="discriminator_5_conv",
    )(x)
    x = layers.Flatten(name="discriminator_flatten")(x)
    probability = layers.Activation("sigmoid", dtype="float32", name="probability")(x)
    return keras.Model(image, probability, name="discriminator")


def _begin(config: ModelConfig, losses: Sequence[Loss], name: str) -> tuple[Tensor, Tensor]:
    """The input of an encoder, and what its first convolution takes."""
    if config.padding == "zeros":
        image = keras.Input(config.image_shape, name="image")
        return image, image
    image = keras.Input((None, None, len(config.bands)), name="image")
    surround = Surround(IMAGE_SIZE, halo(config), reach(losses), name=f"{name}_surround")
    return image, surround(image)


def _padding(config: ModelConfig) -> Literal["same", "valid"]:
    return "same" if config.padding == "zeros" else "valid"


def _halve_four_times(
    x: Tensor, config: ModelConfig, seed: int, name: str, padding: Literal["same", "valid"]
) -> Tensor:
    for index, factor in enumerate((1, 2, 4, 8), start=1):
        x = conv_block(
            x,
            factor * config.width,
            strides=2,
            padding=padding,
            slope=config.leaky_slope,
            seed=seed,
            name=f"{name}_{index}",
        )
    return x
