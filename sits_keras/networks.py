"""The four networks (section 3.2), each a functional `keras.Model`.

Each builder takes the configuration and the seed of the initial weights. Images have shape
`(batch, 64, 64, bands)` and range [-1, 1]. The sides of the feature maps are 64, 32, 16, 8 and 4;
the hidden channels are `width` times 1, 2, 4 and 8, and the reverse in the decoder. Layer names
begin with the name of their network, so that the path of a variable identifies its optimizer.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import layers

from sits_keras.config import GRID_SIZE, IMAGE_SIZE, ModelConfig
from sits_keras.layers import (
    KERNEL_SIZE,
    ContextPadding,
    RepeatOverGrid,
    conv_block,
    modulated_block,
    residual_block,
    seeded_initializer,
    transposed_conv_block,
)
from sits_keras.receptive_field import (
    EXCLUSIVE_STEPS,
    SECOND_TRIMS,
    SHARED_STEPS,
    ConvStep,
    context_margin,
    receptive_margin,
)

Tensor = Any


def build_shared_encoder(config: ModelConfig, seed: int) -> keras.Model:
    """Build the shared encoder E_sh: five convolutions from an image to its location.

    The fifth convolution has stride 1. Five of stride 2 would reduce 64 to 2, from which the four
    doublings of the decoder do not return to 64.

    Args:
        config: Shape of the networks.
        seed: Seed of the initial weights.

    Returns:
        A model from `(batch, 64, 64, bands)` to `(batch, 4, 4, shared_channels)`. With
        `padding="context"`, images may also come with their context margin
        (`receptive_field.context_margin`).
    """
    image, x = _encoder_input(config, SHARED_STEPS, "shared")
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
    """Build the exclusive encoder E_ex: a convolution and three residual blocks.

    Args:
        config: Shape of the networks.
        seed: Seed of the initial weights.

    Returns:
        A model from `(batch, 64, 64, bands)` to two tensors of shape `(batch, exclusive_dim)`: the
        mean and the log variance of the posterior of the acquisition date. Both are float32 with
        any dtype policy. With `padding="context"`, images may also come with their context margin
        (`receptive_field.context_margin`).
    """
    image, x = _encoder_input(config, EXCLUSIVE_STEPS, "exclusive")
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
    for index, (factor, trim) in enumerate(zip((2, 4, 8), SECOND_TRIMS, strict=True), start=2):
        x = residual_block(
            x,
            factor * config.width,
            trim=trim if padding == "valid" else None,
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
        # Initial variances are 1. From a random kernel, the first steps of Adam can raise them to
        # 1e12, which the decoder's moving statistics keep for a thousand steps.
        kernel_initializer="zeros",
        dtype="float32",
        name="exclusive_log_var",
    )(x)
    return keras.Model(image, [mean, log_var], name="exclusive_encoder")


def build_location_encoder(network: keras.Model, config: ModelConfig) -> keras.Model:
    """Build a network that returns the layers of a location for a decoder with `decoder_skips`.

    Args:
        network: Shared encoder, whose weights it has.
        config: Shape of the networks.

    Returns:
        A model from the input of `network` to a list: the activations of its first three layers,
        `(batch, side, side, channels)` with sides of 32, 16 and 8; last, the shared representation.
    """
    outputs = []
    for index, (side, _) in enumerate(_skip_shapes(config), start=1):
        values = network.get_layer(f"shared_{index}_activation").output
        if config.padding == "context":
            # Cells that belong to the context, except those that the next layers do not see.
            before, _ = receptive_margin(SHARED_STEPS[index:])
            values = values[:, before : before + side, before : before + side]
        outputs.append(values)
    return keras.Model(network.input, [*outputs, network.output], name="location_encoder")


def build_decoder(config: ModelConfig, seed: int) -> keras.Model:
    """Build the decoder G: four doublings from the representations to an image.

    Each doubling is a transposed convolution. With `decoder_skips`, the first three are bilinear
    instead, and a convolution combines their result with a layer of the shared encoder.

    Args:
        config: Shape of the networks.
        seed: Seed of the initial weights.

    Returns:
        A model from `[(batch, 4, 4, shared_channels), (batch, exclusive_dim)]` to
        `(batch, 64, 64, bands)` float32 in [-1, 1]. With `decoder_skips`, the layers that
        `build_location_encoder` returns come before these two.
    """
    skips = [
        keras.Input((side, side, channels), name=f"shared_{index}")
        for index, (side, channels) in enumerate(_skip_shapes(config), start=1)
    ]
    shared = keras.Input((GRID_SIZE, GRID_SIZE, config.shared_channels), name="shared")
    exclusive = keras.Input((config.exclusive_dim,), name="exclusive")
    x = layers.Concatenate(name="decoder_concatenate")(
        [shared, RepeatOverGrid(GRID_SIZE, name="decoder_repeat")(exclusive)]
    )
    if skips:
        x = _double_with_skips(x, skips, exclusive, config, seed)
    else:
        for index, factor in enumerate((4, 2, 1), start=1):
            x = transposed_conv_block(
                x,
                factor * config.width,
                slope=config.leaky_slope,
                seed=seed,
                name=f"decoder_{index}",
            )
    x = layers.Conv2DTranspose(
        len(config.bands),
        KERNEL_SIZE,
        strides=2,
        padding="same",
        data_format="channels_last",
        kernel_initializer=seeded_initializer(seed, "decoder_4_conv"),
        name="decoder_4_conv",
    )(x)
    generated = layers.Activation("tanh", dtype="float32", name="image")(x)
    return keras.Model([*skips, shared, exclusive], generated, name="decoder")


def build_discriminator(config: ModelConfig, seed: int) -> keras.Model:
    """Build the discriminator D: five convolutions to the probability that an image is real.

    The fifth convolution does not pad: it reduces the 4x4 grid to one number.

    Args:
        config: Shape of the networks.
        seed: Seed of the initial weights.

    Returns:
        A model from `(batch, 64, 64, bands)` to `(batch, 1)` float32 in [0, 1].
    """
    image = keras.Input(config.image_shape, name="image")
    x = _halve_four_times(image, config, seed, "discriminator", "same")
    x = layers.Conv2D(
        1,
        KERNEL_SIZE,
        padding="valid",
        data_format="channels_last",
        kernel_initializer=seeded_initializer(seed, "discriminator_5_conv"),
        name="discriminator_5_conv",
    )(x)
    x = layers.Flatten(data_format="channels_last", name="discriminator_flatten")(x)
    probability = layers.Activation("sigmoid", dtype="float32", name="probability")(x)
    return keras.Model(image, probability, name="discriminator")


def build_projector(num_features: int, seed: int) -> keras.Model:
    """Build the projector of the InfoNCE loss between windows, used in training only.

    It has two layers, as in SimCLR (Chen et al., 2020).

    Args:
        num_features: Length of a pooled vector.
        seed: Seed of the initial weights.

    Returns:
        A model from `(batch, num_features)` to `(batch, 128)` float32.
    """
    vector = keras.Input((num_features,), name="vector")
    settings = {"use_bias": False, "dtype": "float32"}
    x = layers.BatchNormalization(dtype="float32", name="projector_input_norm")(vector)
    x = layers.Dense(
        256,
        kernel_initializer=seeded_initializer(seed, "projector_1"),
        name="projector_1",
        **settings,
    )(x)
    x = layers.BatchNormalization(dtype="float32", name="projector_1_norm")(x)
    x = layers.ReLU(dtype="float32", name="projector_1_activation")(x)
    x = layers.Dense(
        128,
        kernel_initializer=seeded_initializer(seed, "projector_2"),
        name="projector_2",
        **settings,
    )(x)
    return keras.Model(vector, x, name="projector")


def _encoder_input(
    config: ModelConfig, steps: Sequence[ConvStep], name: str
) -> tuple[Tensor, Tensor]:
    """Return the input of an encoder and the input of its first convolution."""
    if config.padding == "zeros":
        image = keras.Input(config.image_shape, name="image")
        return image, image
    image = keras.Input((None, None, len(config.bands)), name="image")
    pad = ContextPadding(
        IMAGE_SIZE, context_margin(config), receptive_margin(steps), name=f"{name}_context"
    )
    return image, pad(image)


def _skip_shapes(config: ModelConfig) -> list[tuple[int, int]]:
    """Return the side and the channels of each layer that the decoder receives."""
    if not config.decoder_skips:
        return []
    return [(IMAGE_SIZE >> index, config.width << (index - 1)) for index in (1, 2, 3)]


def _double_with_skips(
    x: Tensor, skips: Sequence[Tensor], exclusive: Tensor, config: ModelConfig, seed: int
) -> Tensor:
    """Double the grid to 32x32, adding a layer of the shared encoder each time."""
    block = functools.partial(
        modulated_block, vector=exclusive, slope=config.leaky_slope, seed=seed
    )
    x = block(x, filters=8 * config.width, name="decoder_0")
    for index, (skip, factor) in enumerate(zip(reversed(skips), (8, 4, 4), strict=True), start=1):
        x = layers.UpSampling2D(
            2, data_format="channels_last", interpolation="bilinear", name=f"decoder_{index}_double"
        )(x)
        x = layers.Concatenate(name=f"decoder_{index}_concatenate")([x, skip])
        x = block(x, filters=factor * config.width, name=f"decoder_{index}")
    return x


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
