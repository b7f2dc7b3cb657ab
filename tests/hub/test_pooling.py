import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from sits_keras import DisentangledSITS, hub
from sits_keras.config import ModelConfig
from sits_keras.data.radiometry import reflectance_to_network
from sits_keras.errors import DataError
from sits_keras.hub.pooling import build_pooled_encoder, fit_whitening, num_pooled
from sits_keras.networks import build_shared_encoder
from sits_keras.receptive_field import context_margin

CONFIG = ModelConfig(bands=("B04", "B03", "B02"), width=2, shared_channels=3)
IN_CONTEXT = dataclasses.replace(CONFIG, padding="context")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)


@pytest.mark.parametrize("config", [CONFIG, IN_CONTEXT], ids=["zeros", "context"])
def test_pooled_vector_begins_with_statistics_of_bands(config, images):
    pooled = np.asarray(build_pooled_encoder(build_shared_encoder(config, 0), config)(images))
    assert pooled.shape == (2, num_pooled(config)) == (2, 4 * (3 + 2 + 4 + 8) + 3)
    np.testing.assert_allclose(pooled[:, :3], images.mean(axis=(1, 2)), atol=1e-5)
    expected = np.log(images.std(axis=(1, 2)) + 0.01)
    np.testing.assert_allclose(pooled[:, 3:6], expected, atol=1e-5)


def test_pooled_vector_stripes_have_hand_values_of_texture():
    # Rows of 0, 1, 0, 1: mean and deviation are 0.5. Neighbouring rows differ by 1, and columns by
    # 0, so the mean difference is 0.5; that between rows two apart is 0.
    stripes = np.zeros((1, 64, 64, 3), np.float32)
    stripes[:, 1::2] = 1
    pooled = np.asarray(build_pooled_encoder(build_shared_encoder(CONFIG, 0), CONFIG)(stripes))
    expected = [0.5, np.log(0.51), 0.5 / 0.51, 0.5 / 0.01]
    np.testing.assert_allclose(pooled[0, :12].reshape(4, 3)[:, 0], expected, rtol=1e-4)


def test_pooled_vector_ratios_do_not_depend_on_contrast(images):
    pool = build_pooled_encoder(build_shared_encoder(CONFIG, 0), CONFIG)
    strong, weak = np.asarray(pool(images)), np.asarray(pool(images / 2))
    np.testing.assert_allclose(weak[:, 3:6], strong[:, 3:6] - np.log(2), atol=0.03)
    np.testing.assert_allclose(weak[:, 6:12], strong[:, 6:12], rtol=0.03)


def test_pooled_vector_ends_with_mean_of_last_layer(images):
    network = build_shared_encoder(IN_CONTEXT, 0)
    pooled = np.asarray(build_pooled_encoder(network, IN_CONTEXT)(images))
    last = keras.Model(network.input, network.get_layer("shared_5_activation").output)
    np.testing.assert_allclose(
        pooled[:, -3:], np.asarray(last(images)).mean(axis=(1, 2)), atol=1e-5
    )


def test_pooled_vector_context_counts_only_at_the_edge_of_the_first_layer(images):
    """A first layer that averages has the mean of the window, whatever surrounds it."""
    network = build_shared_encoder(IN_CONTEXT, 0)
    kernel = network.get_layer("shared_1_conv").kernel
    kernel.assign(np.full(kernel.shape, 1 / 16))
    side = 64 + sum(context_margin(IN_CONTEXT))
    before = context_margin(IN_CONTEXT)[0]
    surrounded = np.full((2, side, side, 3), 1.0, np.float32)
    surrounded[:, before : before + 64, before : before + 64] = images * 0 - 0.5
    first = np.asarray(build_pooled_encoder(network, IN_CONTEXT)(surrounded))[:, 12:14]
    inside, outside = -0.5 * 3 * 0.2, 1.0 * 3
    # Of its 32 x 32 cells only the outermost see a pixel beyond the window.
    assert np.all(first < inside + 0.1 * (outside - inside))
    assert np.all(first > inside - 0.01)


@pytest.mark.parametrize("config", [CONFIG, IN_CONTEXT], ids=["zeros", "context"])
def test_pooled_vector_has_a_gradient_for_every_kernel(config, images):
    network = build_shared_encoder(config, 0)
    pooled = build_pooled_encoder(network, config)
    with tf.GradientTape() as tape:
        total = keras.ops.sum(keras.ops.square(pooled(images)))
    kernels = [v.value for v in network.trainable_variables if v.path.endswith("kernel")]
    gradients = tape.gradient(total, kernels)
    assert all(one is not None and np.any(one) for one in gradients)


def test_pooled_encoder_flat_image_has_finite_gradients():
    network = build_shared_encoder(CONFIG, 0)
    pooled = build_pooled_encoder(network, CONFIG)
    with tf.GradientTape() as tape:
        total = keras.ops.sum(pooled(np.zeros((1, 64, 64, 3), np.float32)))
    gradients = tape.gradient(total, [v.value for v in network.trainable_variables])
    assert all(np.isfinite(one).all() for one in gradients)


@pytest.fixture(scope="module")
def whitened():
    """A model whose whitening was fitted on windows, and these windows."""
    model = DisentangledSITS(IN_CONTEXT, seed=0)
    rng = np.random.default_rng(1)
    contrast = rng.uniform(0.02, 0.3, (200, 1, 1, 3))
    windows = (0.1 + contrast * rng.random((200, 64, 64, 3))).astype(np.float32)
    model.whitening = fit_whitening(model, np.split(windows, 4))
    return model, windows


def test_fit_whitening_is_a_power_of_the_correlation(whitened):
    model, windows = whitened
    plain = build_pooled_encoder(model.shared_encoder, model.config)
    vectors = np.asarray(plain(reflectance_to_network(windows, model.config.band_max)), np.float64)
    matrix = np.asarray(model.whitening.matrix, np.float64)
    np.testing.assert_allclose(model.whitening.offset, vectors.mean(axis=0), atol=1e-5)
    # Undone for the deviations, it is symmetric, and its fourth power inverts the correlation.
    power = vectors.std(axis=0)[:, None] * matrix
    correlation = np.corrcoef(vectors.T) + 0.01 * np.eye(len(matrix))
    np.testing.assert_allclose(power, power.T, atol=1e-2)
    inverted = np.linalg.matrix_power(power, 4) @ correlation
    np.testing.assert_allclose(inverted, np.eye(len(matrix)), atol=0.02)


def test_fit_whitening_is_independent_of_batches(whitened):
    model, windows = whitened
    again = fit_whitening(model, [windows])
    np.testing.assert_allclose(again.matrix, model.whitening.matrix, rtol=1e-3, atol=1e-3)


def test_whitened_vectors_have_a_mean_square_of_1(whitened):
    model, windows = whitened
    features = np.asarray(hub.wrap(model)(windows[:20]))
    np.testing.assert_allclose(np.square(features).mean(axis=1), 1, rtol=1e-4)
    assert hub.wrap(model).metadata["is_whitened"]
    assert not hub.wrap(model, "exclusive").metadata["is_whitened"]


def test_whitened_vectors_of_a_blank_image_are_finite(whitened):
    features = np.asarray(hub.wrap(whitened[0])(np.zeros((1, 64, 64, 3), np.float32)))
    assert np.isfinite(features).all()


def test_fit_whitening_of_too_few_windows_raises(whitened):
    with pytest.raises(DataError, match=r"at least two windows\. Received: 1"):
        fit_whitening(whitened[0], [whitened[1][:1]])


def test_whitening_is_saved_with_the_model(whitened, tmp_path):
    model, windows = whitened
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(loaded.whitening.matrix, model.whitening.matrix)
    np.testing.assert_array_equal(hub.wrap(loaded)(windows[:2]), hub.wrap(model)(windows[:2]))


def test_whitening_is_forgotten_when_the_shared_encoder_is_trained(whitened):
    model = DisentangledSITS(IN_CONTEXT, seed=0)
    for frozen, remains in ((True, True), (False, False)):
        model.whitening = whitened[0].whitening
        model.compile(objective={"freeze_shared": frozen, "lambda_shared": 0.0})
        assert (model.whitening is not None) == remains
