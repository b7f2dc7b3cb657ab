import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from sits_keras.bands import BAND_MAX
from sits_keras.config import ModelConfig
from sits_keras.errors import ArgumentError
from sits_keras.networks import (
    build_decoder,
    build_discriminator,
    build_exclusive_encoder,
    build_location_encoder,
    build_shared_encoder,
)

BUILDERS = {
    "shared": build_shared_encoder,
    "exclusive": build_exclusive_encoder,
    "decoder": build_decoder,
    "discriminator": build_discriminator,
}
THIRTEEN = (*BAND_MAX, "B10")
SMALL = ModelConfig(width=2, shared_channels=3, exclusive_dim=5)
CONTEXT = dataclasses.replace(SMALL, padding="context")
SKIPS = dataclasses.replace(SMALL, decoder_skips=True)

each_encoder = pytest.mark.parametrize("name", ["shared", "exclusive"])
each_network = pytest.mark.parametrize("name", BUILDERS)


def config_of(num_bands: int, width: int, exclusive_dim: int, shared_channels: int) -> ModelConfig:
    return ModelConfig(
        THIRTEEN[:num_bands], (0.5,) * num_bands, width, shared_channels, exclusive_dim
    )


def inputs_of(name: str, config: ModelConfig, batch: int = 2, scale: float = 1.0):
    rng = np.random.default_rng(0)
    if name == "decoder":
        return [
            scale * rng.normal(size=(batch, 4, 4, config.shared_channels)).astype(np.float32),
            scale * rng.normal(size=(batch, config.exclusive_dim)).astype(np.float32),
        ]
    return scale * rng.uniform(-1, 1, (batch, *config.image_shape)).astype(np.float32)


def convolutions(network: keras.Model, kind: type = layers.Conv2D) -> list[layers.Layer]:
    return [layer for layer in network.layers if isinstance(layer, kind)]


@pytest.fixture
def mixed_bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    ("num_bands", "width", "exclusive_dim", "shared_channels"),
    [(1, 1, 1, 1), (3, 8, 64, 3), (4, 3, 64, 64), (13, 8, 1, 5), (13, 1, 64, 1)],
)
class TestShapes:
    @pytest.fixture
    def config(self, num_bands, width, exclusive_dim, shared_channels):
        return config_of(num_bands, width, exclusive_dim, shared_channels)

    def test_shared_encoder_output_is_grid(self, config):
        shared = build_shared_encoder(config, 0)(inputs_of("shared", config))
        assert tuple(shared.shape) == (2, 4, 4, config.shared_channels)

    def test_exclusive_encoder_outputs_are_vectors(self, config):
        for vector in build_exclusive_encoder(config, 0)(inputs_of("exclusive", config)):
            assert tuple(vector.shape) == (2, config.exclusive_dim)

    def test_decoder_output_is_image(self, config):
        image = build_decoder(config, 0)(inputs_of("decoder", config))
        assert tuple(image.shape) == (2, *config.image_shape)

    def test_discriminator_output_is_probability(self, config):
        probability = build_discriminator(config, 0)(inputs_of("discriminator", config))
        assert tuple(probability.shape) == (2, 1)

    @each_network
    def test_network_input_follows_config(self, config, name):
        network = BUILDERS[name](config, 0)
        inputs = inputs_of(name, config)
        shapes = [i.shape[1:] for i in (inputs if name == "decoder" else [inputs])]
        assert [tuple(i.shape[1:]) for i in network.inputs] == shapes
        assert {i.dtype for i in network.inputs} == {"float32"}


def test_outputs_are_in_their_ranges():
    # Inputs this large saturate tanh and the sigmoid: without them, outputs would be far outside.
    image = np.asarray(build_decoder(SMALL, 0)(inputs_of("decoder", SMALL, 8, scale=1e4)))
    assert image.min() == -1
    assert image.max() == 1
    probability = np.asarray(
        build_discriminator(SMALL, 0)(inputs_of("discriminator", SMALL, 16, scale=1e6))
    )
    assert 0 <= probability.min() < 0.01
    assert 0.99 < probability.max() <= 1


def test_untrained_decoder_and_discriminator_are_near_middle():
    assert np.abs(build_decoder(SMALL, 0)(inputs_of("decoder", SMALL))).mean() < 0.5
    probability = np.asarray(build_discriminator(SMALL, 0)(inputs_of("discriminator", SMALL)))
    np.testing.assert_allclose(probability, 0.5, atol=0.1)


def test_shared_encoder_fifth_convolution_keeps_grid():
    found = convolutions(build_shared_encoder(SMALL, 0))
    assert [c.strides for c in found] == [(2, 2)] * 4 + [(1, 1)]
    assert [c.filters for c in found] == [2, 4, 8, 16, 3]
    assert {c.kernel_size for c in found} == {(4, 4)}


def test_exclusive_encoder_has_convolution_and_three_residual_blocks():
    network = build_exclusive_encoder(SMALL, 0)
    found = {c.name: c for c in convolutions(network)}
    main = [c for name, c in found.items() if "shortcut" not in name]
    shortcuts = [c for name, c in found.items() if "shortcut" in name]
    assert [c.strides for c in main] == [(2, 2)] + [(2, 2), (1, 1)] * 3
    assert [c.filters for c in main] == [2, 4, 4, 8, 8, 16, 16]
    assert {c.kernel_size for c in main} == {(4, 4)}
    assert [c.filters for c in shortcuts] == [4, 8, 16]
    assert {c.kernel_size for c in shortcuts} == {(1, 1)}
    assert len(convolutions(network, layers.Add)) == 3


def test_exclusive_encoder_ends_in_two_dense_layers():
    network = build_exclusive_encoder(ModelConfig(width=1), 0)
    assert [d.units for d in convolutions(network, layers.Dense)] == [64, 64]


def test_decoder_has_four_transposed_convolutions():
    network = build_decoder(SMALL, 0)
    found = convolutions(network, layers.Conv2DTranspose)
    assert [c.strides for c in found] == [(2, 2)] * 4
    assert [c.filters for c in found] == [8, 4, 2, 4]
    assert {c.kernel_size for c in found} == {(4, 4)}
    assert not convolutions(network)


def test_discriminator_fifth_convolution_covers_grid():
    found = convolutions(build_discriminator(SMALL, 0))
    assert [c.strides for c in found[:4]] == [(2, 2)] * 4
    assert [c.filters for c in found] == [2, 4, 8, 16, 1]
    assert {c.kernel_size for c in found} == {(4, 4)}
    assert found[4].padding == "valid"


@pytest.mark.parametrize(
    ("name", "num_norms", "num_activations"),
    [
        ("shared", 5, 5),
        ("exclusive", 1 + 3 * 3, 1 + 3 * 2),
        ("decoder", 3, 3),
        ("discriminator", 4, 4),
    ],
)
def test_hidden_convolutions_are_normalised_and_leaky(name, num_norms, num_activations):
    network = BUILDERS[name](ModelConfig(width=1, leaky_slope=0.125), 0)
    assert len(convolutions(network, layers.BatchNormalization)) == num_norms
    slopes = [a.negative_slope for a in convolutions(network, layers.LeakyReLU)]
    assert slopes == [0.125] * num_activations


@each_network
def test_layer_names_begin_with_network_name(name):
    network = BUILDERS[name](SMALL, 0)
    assert network.variables
    assert all(variable.path.startswith(f"{name}_") for variable in network.variables)


def test_variable_paths_are_unique():
    paths = [v.path for build in BUILDERS.values() for v in build(SMALL, 0).variables]
    assert len(set(paths)) == len(paths)


@each_network
def test_weights_depend_on_seed_only(name):
    keras.utils.set_random_seed(1)
    first = BUILDERS[name](SMALL, 7).get_weights()
    keras.utils.set_random_seed(2)
    for a, b in zip(first, BUILDERS[name](SMALL, 7).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@each_network
def test_kernels_differ_between_seeds(name):
    for a, b in zip(
        BUILDERS[name](SMALL, 7).trainable_variables,
        BUILDERS[name](SMALL, 8).trainable_variables,
        strict=True,
    ):
        if a.path.endswith("kernel") and a.path != "exclusive_log_var/kernel":
            assert (np.asarray(a) != np.asarray(b)).all(), a.path


def test_initial_posterior_variance_is_one():
    mean, log_var = build_exclusive_encoder(SMALL, 0)(inputs_of("exclusive", SMALL))
    assert (np.asarray(log_var) == 0).all()
    assert (np.asarray(mean) != 0).all()


def test_networks_have_different_initial_weights():
    shared = build_shared_encoder(SMALL, 0).get_layer("shared_1_conv").kernel
    discriminator = build_discriminator(SMALL, 0).get_layer("discriminator_1_conv").kernel
    assert (np.asarray(shared) != np.asarray(discriminator)).all()


@each_network
@pytest.mark.usefixtures("mixed_bfloat16")
def test_bfloat16_network_outputs_are_float32(name):
    network = BUILDERS[name](SMALL, 0)
    hidden = network.get_layer(f"{name}_1_conv")
    assert hidden.compute_dtype == "bfloat16"
    assert keras.backend.standardize_dtype(hidden.kernel.dtype) == "float32"
    outputs = network(inputs_of(name, SMALL))
    dtypes = {keras.backend.standardize_dtype(o.dtype) for o in keras.tree.flatten(outputs)}
    # Losses cast the shared representation themselves.
    assert dtypes == ({"bfloat16"} if name == "shared" else {"float32"})


@each_network
@pytest.mark.parametrize("config", [SMALL, CONTEXT], ids=["zeros", "context"])
def test_network_roundtrips_through_config(name, config):
    network = BUILDERS[name](config, 0)
    copy = keras.Model.from_config(network.get_config())
    copy.set_weights(network.get_weights())
    inputs = inputs_of(name, SMALL)
    for a, b in zip(
        keras.tree.flatten(network(inputs)), keras.tree.flatten(copy(inputs)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


# What encoders see beyond a window


@each_encoder
def test_context_encoders_have_no_padding(name):
    for layer in BUILDERS[name](CONTEXT, 0).layers:
        assert getattr(layer, "padding", "valid") == "valid"


def test_shared_encoder_weights_fit_both_paddings():
    zeros, context = (build_shared_encoder(config, 0) for config in (SMALL, CONTEXT))
    assert [v.path for v in zeros.variables] == [v.path for v in context.variables]
    for one, other in zip(zeros.get_weights(), context.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_exclusive_encoder_weights_differ_in_second_convolutions_only():
    zeros, context = (build_exclusive_encoder(config, 0) for config in (SMALL, CONTEXT))
    assert [v.path for v in zeros.variables] == [v.path for v in context.variables]
    other = {
        a.path
        for a, b in zip(zeros.variables, context.variables, strict=True)
        if a.shape != b.shape
    }
    assert other == {f"exclusive_{index}_b_conv/kernel" for index in (2, 3, 4)}
    assert {context.get_layer(path.split("/")[0]).kernel_size for path in other} == {(2, 2)}


@each_encoder
def test_context_encoder_without_context_reflects(name):
    network = BUILDERS[name](CONTEXT, 0)
    images = inputs_of(name, CONTEXT)
    surrounded = np.pad(images, ((0, 0), (31, 47), (31, 47), (0, 0)), mode="reflect")
    for alone, inside in zip(
        keras.tree.flatten(network(images)), keras.tree.flatten(network(surrounded)), strict=True
    ):
        np.testing.assert_allclose(alone, inside, rtol=0, atol=1e-6)


@each_encoder
def test_context_encoder_with_other_size_raises(name):
    with pytest.raises(ArgumentError, match=r"64 x 64 px, or 142 x 142 px.*Received: 128 x 128"):
        BUILDERS[name](CONTEXT, 0)(np.zeros((1, 128, 128, 4), np.float32))


def test_layer_norm_gives_cells_unit_scale_and_same_weights():
    normed = build_shared_encoder(dataclasses.replace(SMALL, shared_norm="layer"), 0)
    plain = build_shared_encoder(SMALL, 0)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64, 4)).astype(np.float32)
    before, after = np.asarray(plain(images)), np.asarray(normed(images))
    assert len(plain.weights) == len(normed.weights)
    np.testing.assert_allclose(after.mean(axis=-1), 0, atol=1e-5)
    scale = np.sqrt(before.var(axis=-1, keepdims=True) + 1e-3)  # epsilon is Keras'
    expected = (before - before.mean(axis=-1, keepdims=True)) / scale
    np.testing.assert_allclose(after, expected, atol=1e-4)


# The decoder with skip connections


def location_of(config: ModelConfig, batch: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sides = [(32, 2), (16, 4), (8, 8), (4, config.shared_channels)]
    return [rng.normal(size=(batch, n, n, c)).astype(np.float32) for n, c in sides]


def test_decoder_with_skips_takes_three_layers_and_gives_image():
    exclusive = np.zeros((2, SKIPS.exclusive_dim), np.float32)
    image = build_decoder(SKIPS, 0)([*location_of(SKIPS), exclusive])
    assert tuple(image.shape) == (2, *SKIPS.image_shape)


@pytest.mark.parametrize("index", range(5))
def test_decoder_with_skips_depends_on_every_input(index):
    decoder = build_decoder(SKIPS, 0)
    inputs = [*location_of(SKIPS, 1), np.ones((1, SKIPS.exclusive_dim), np.float32)]
    before = np.asarray(decoder(inputs))
    inputs[index] = -inputs[index]
    assert np.abs(np.asarray(decoder(inputs)) - before).max() > 1e-4


def test_decoder_with_skips_keeps_details_where_they_are():
    # A cell of the first layer is 2 px wide, and a convolution and a doubling follow it. Beyond
    # them, only the normalisation over the image passes a change on.
    decoder = build_decoder(SKIPS, 0)
    inputs = [*location_of(SKIPS, 1), np.ones((1, SKIPS.exclusive_dim), np.float32)]
    before = np.asarray(decoder(inputs))
    inputs[0][0, 10, 20] += 0.5
    change = np.abs(np.asarray(decoder(inputs)) - before)[0].max(axis=-1)
    inside = np.zeros((64, 64), bool)
    inside[17:25, 37:45] = True
    assert change[inside].mean() > 20 * change[~inside].mean()


def test_decoder_with_skips_names_and_seeds_its_layers():
    network = build_decoder(SKIPS, 0)
    assert all(variable.path.startswith("decoder_") for variable in network.variables)
    other = build_decoder(SKIPS, 1)
    for a, b in zip(network.trainable_variables, other.trainable_variables, strict=True):
        if a.path.endswith("kernel"):
            assert (np.asarray(a) != np.asarray(b)).all(), a.path


def test_decoder_with_skips_roundtrips_through_config():
    network = build_decoder(SKIPS, 0)
    copy = keras.Model.from_config(network.get_config())
    copy.set_weights(network.get_weights())
    inputs = [*location_of(SKIPS), np.ones((2, SKIPS.exclusive_dim), np.float32)]
    np.testing.assert_array_equal(network(inputs), copy(inputs))


def test_location_encoder_layers_are_cells_of_the_window():
    # Changing pixels of the upper left corner changes the first cells of every layer.
    config = dataclasses.replace(CONTEXT, decoder_skips=True)
    network = build_shared_encoder(config, 0)
    locations = build_location_encoder(network, config)
    images = np.random.default_rng(0).uniform(-1, 1, (1, 142, 142, 4)).astype(np.float32)
    before = [np.asarray(one) for one in locations(images)]
    assert [one.shape[1:] for one in before] == [(32, 32, 2), (16, 16, 4), (8, 8, 8), (4, 4, 3)]
    images[:, 31:33, 31:33] = 1  # the first 2x2 px of the window
    after = [np.asarray(one) for one in locations(images)]
    for one, other in zip(before[:3], after[:3], strict=True):
        rows, cols = np.nonzero(np.abs(other - one)[0].max(axis=-1) > 0)
        assert rows.min() == cols.min() == 0
        assert rows.max() == cols.max() <= 1


def test_location_encoder_layers_are_those_of_the_padded_encoder_inside():
    images = np.random.default_rng(0).uniform(-1, 1, (1, 142, 142, 4)).astype(np.float32)
    config = dataclasses.replace(CONTEXT, decoder_skips=True)
    inside = build_location_encoder(build_shared_encoder(config, 0), config)(images)
    zeros = build_location_encoder(build_shared_encoder(SKIPS, 0), SKIPS)(images[:, 31:95, 31:95])
    for one, other in zip(inside[:3], zeros[:3], strict=True):
        middle = slice(3, -3)
        np.testing.assert_allclose(one[:, middle, middle], other[:, middle, middle], atol=1e-5)
