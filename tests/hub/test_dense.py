import keras
import numpy as np
import pytest
import tensorflow as tf

from sits_keras.config import ModelConfig
from sits_keras.errors import ConfigError
from sits_keras.hub.dense import encode_densely
from sits_keras.networks import build_exclusive_encoder, build_shared_encoder

BUILDERS = {"shared": build_shared_encoder, "exclusive": build_exclusive_encoder}
SHAPE = {"width": 2, "shared_channels": 3, "exclusive_dim": 5}
SIDE = 64 + 31 + 47  # of a window with its context

each_encoder = pytest.mark.parametrize("name", BUILDERS)


def build(name: str, padding: str = "context", **settings) -> keras.Model:
    """An encoder whose moving statistics, shifts and scales are not those that it begins with."""
    network = BUILDERS[name](ModelConfig(**SHAPE, padding=padding, **settings), 0)
    rng = np.random.default_rng(0)
    for variable in network.variables:
        variable.assign(variable + rng.uniform(0.01, 0.1, variable.shape))
    return network


def make_raster(height: int, width: int, batch: int = 1) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, (batch, height, width, 4)).astype(np.float32)


def features_of(network: keras.Model, windows: np.ndarray) -> np.ndarray:
    output = network(windows)
    grid_or_mean = output[0] if isinstance(output, list | tuple) else output
    return np.asarray(grid_or_mean).reshape(len(windows), -1)


def encode_one_by_one(network: keras.Model, raster: np.ndarray, stride: int) -> np.ndarray:
    """`(batch, rows, cols, features)` of windows that are cut out with their context."""
    rows, cols = ((side - SIDE) // stride + 1 for side in raster.shape[1:3])
    windows = [
        raster[:, row * stride : row * stride + SIDE, col * stride : col * stride + SIDE]
        for row in range(rows)
        for col in range(cols)
    ]
    features = features_of(network, np.concatenate(windows))
    return features.reshape(rows, cols, len(raster), -1).transpose(2, 0, 1, 3)


def assert_close(some: np.ndarray, other: np.ndarray) -> None:
    assert some.shape == other.shape
    np.testing.assert_allclose(some, other, rtol=0, atol=1e-5 * np.abs(other).max())


@each_encoder
@pytest.mark.parametrize(
    ("height", "width", "stride"),
    [
        (SIDE, SIDE, 8),
        (SIDE + 20, SIDE + 11, 4),
        (SIDE + 25, SIDE + 33, 8),
        (SIDE + 17, SIDE + 32, 16),
        (SIDE + 64, SIDE + 40, 32),
        (SIDE + 25, SIDE + 12, 12),
        (SIDE + 3, SIDE + 5, 1),
    ],
)
def test_encode_densely_equals_single_windows(name, height, width, stride):
    network, raster = build(name), make_raster(height, width, batch=2)
    dense = np.asarray(encode_densely(network, raster, stride))
    expected = encode_one_by_one(network, raster, stride)
    assert_close(dense, expected)
    if expected[0, :, :, 0].size > 1:  # windows differ by far more than that tolerance
        assert np.ptp(expected, axis=(1, 2)).max() > 1e-2 * np.abs(expected).max()


def test_encode_densely_normalises_cells_like_single_windows():
    network, raster = build("shared", shared_norm="layer"), make_raster(SIDE + 9, SIDE + 8)
    dense = np.asarray(encode_densely(network, raster, 8))
    # If the channels of a cell are nearly equal, the norm magnifies rounding differences.
    np.testing.assert_allclose(dense, encode_one_by_one(network, raster, 8), rtol=0, atol=1e-4)


@each_encoder
def test_encode_densely_traces_once_for_all_sizes(name):
    network = build(name)
    spec = [tf.TensorSpec((None, None, None, 4), tf.float32)]
    encode = tf.function(lambda raster: encode_densely(network, raster, 8), input_signature=spec)
    for height, width in ((SIDE, SIDE + 9), (SIDE + 24, SIDE)):
        raster = make_raster(height, width)
        assert_close(encode(raster).numpy(), encode_one_by_one(network, raster, 8))
    assert encode.experimental_get_tracing_count() == 1


def test_encode_densely_reads_weights_at_call():
    network, raster = build("shared"), make_raster(SIDE, SIDE)
    encode = tf.function(lambda: encode_densely(network, raster, 8))
    before = encode().numpy()
    for variable in network.trainable_variables:
        variable.assign(1.5 * variable)
    after = encode().numpy()
    assert (after != before).any()
    assert_close(after, encode_one_by_one(network, raster, 8))


def test_encode_densely_every_weight_has_gradient():
    network, raster = build("shared"), make_raster(SIDE + 8, SIDE)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encode_densely(network, raster, 8) ** 2)
    gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_encode_densely_bfloat16_returns_float32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        networks = [build(name) for name in BUILDERS]
    finally:
        keras.config.set_dtype_policy(policy)
    for network in networks:
        features = encode_densely(network, make_raster(SIDE, SIDE), 8)
        assert keras.backend.standardize_dtype(features.dtype) == "float32"
        # NumPy 1.26 does not compare bfloat16.
        expected = np.asarray(encode_one_by_one(network, make_raster(SIDE, SIDE), 8), np.float32)
        np.testing.assert_allclose(features, expected, atol=0.02 * np.abs(expected).max())


@each_encoder
def test_zero_padding_window_in_raster_differs_from_single(name):
    # The trap: by its shapes, an encoder that pads with zeros can be run on a whole raster, and
    # cells away from the edges look as good as any. They are not the windows' features.
    network = build("shared", "zeros")
    raster = make_raster(128, 128)
    whole = raster
    for layer in network.layers[1:]:
        whole = layer(whole)
    assert tuple(whole.shape) == (1, 8, 8, 3)
    in_raster = np.asarray(whole)[0, 2:6, 2:6].ravel()
    alone = features_of(network, raster[:, 32:96, 32:96])[0]
    assert np.abs(in_raster - alone).max() > 0.1 * np.abs(alone).max()
    with pytest.raises(ConfigError, match=f"The {name} encoder cannot encode densely: its convolu"):
        encode_densely(build(name, "zeros"), raster, 16)


def test_encode_densely_invalid_stride_or_size_raises():
    network = build("shared")
    for stride in (0, -8, 2.5):
        with pytest.raises(ConfigError, match=f"at least 1. Received: {stride}"):
            encode_densely(network, make_raster(SIDE, SIDE), stride)
    with pytest.raises(ConfigError, match=r"at least 142 px a side.*Received: 141 px"):
        encode_densely(network, make_raster(SIDE, SIDE - 1), 8)
