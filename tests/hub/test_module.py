"""Input that a module refuses or converts, wherever its functions are executed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sits_keras import DisentangledSITS, ModelConfig, hub
from sits_keras.errors import DataError

pytestmark = pytest.mark.integration  # exports modules and runs them in other clients

SIDE = 64 + 31 + 47  # of a window with its context
WINDOWS = ("__call__", "spatial", "flattened", "pooled")
FUNCTIONS = [
    *(("shared", name) for name in (*WINDOWS, "with_context", "flattened_with_context", "dense_8")),
    *(("exclusive", name) for name in ("__call__", "with_context", "dense_8")),
]
INVALID = {
    "digital numbers": 4000.0,
    "bytes": 255.0,
    "NaN": np.nan,
    "infinity": np.inf,
    "minus infinity": -np.inf,
    "fill value -1": -1.0,
    "fill value -9999": -9999.0,
}


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """Folders of both encoders under `padding="context"`. Not to change."""
    model = DisentangledSITS(
        ModelConfig(width=2, shared_channels=2, exclusive_dim=3, padding="context"), seed=1
    )
    folder = tmp_path_factory.mktemp("modules")
    return {name: hub.export(model, folder / name, name) for name in ("shared", "exclusive")}


@pytest.fixture(scope="module")
def loaded(modules):
    return {name: tf.saved_model.load(str(folder)) for name, folder in modules.items()}


def make_images(side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.1, 1.2, (3, side, side, 4)).astype(np.float32)


def side_of(name: str) -> int:
    return 64 if name in WINDOWS else SIDE


def spoil(images: np.ndarray, value: float) -> np.ndarray:
    """Set one pixel of the second image."""
    images = images.copy()
    images[1, 40, 40, 2] = value
    return images


def assert_only_the_second_is_nan(features: np.ndarray, expected: np.ndarray) -> None:
    assert features.shape == expected.shape
    assert np.isnan(features[1]).all()
    for index in (0, 2):
        np.testing.assert_allclose(
            features[index], expected[index], rtol=0, atol=1e-4 * np.abs(expected).max()
        )


@pytest.mark.parametrize(("encoder", "name"), FUNCTIONS)
def test_saved_function_invalid_values_raise(encoder, name, loaded):
    function, images = getattr(loaded[encoder], name), make_images(side_of(name))
    assert np.isfinite(function(images)).all()
    for value in INVALID.values():
        with pytest.raises(tf.errors.InvalidArgumentError, match="Expected finite reflectance"):
            function(spoil(images, value))


@pytest.mark.parametrize(("encoder", "name"), FUNCTIONS)
def test_saved_function_compiled_by_xla_invalid_image_gives_nan(encoder, name, loaded):
    function, images = getattr(loaded[encoder], name), make_images(side_of(name))
    expected = np.asarray(function(images))
    compiled = tf.function(lambda images: function(images), jit_compile=True)
    np.testing.assert_allclose(compiled(images), expected, atol=1e-4 * np.abs(expected).max())
    for value in INVALID.values():
        assert_only_the_second_is_nan(np.asarray(compiled(spoil(images, value))), expected)


@pytest.mark.parametrize(("encoder", "name"), FUNCTIONS)
def test_saved_function_in_tensorflow_lite_invalid_image_gives_nan(encoder, name, loaded):
    function, images = getattr(loaded[encoder], name), make_images(side_of(name))
    expected = np.asarray(function(images))
    concrete = tf.function(lambda inputs: function(inputs)).get_concrete_function(
        tf.TensorSpec(images.shape, tf.float32, name="inputs")
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], loaded[encoder])
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS,
        tf.lite.OpsSet.SELECT_TF_OPS,
    ]
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    for value in INVALID.values():
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], spoil(images, value))
        interpreter.invoke()
        features = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        assert_only_the_second_is_nan(features, expected)


def test_serving_signature_in_tensorflow_lite_invalid_image_gives_nan(modules, loaded):
    images = make_images()
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(modules["shared"]), signature_keys=["serving_default"]
    )
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    serve = interpreter.get_signature_runner("serving_default")
    expected = np.asarray(loaded["shared"](images))
    assert_only_the_second_is_nan(serve(inputs=spoil(images, np.nan))["features"], expected)


def test_module_trained_on_invalid_image_keeps_statistics_finite(modules):
    module = tf.saved_model.load(str(modules["shared"]))
    train = tf.function(lambda images: module(images, training=True), jit_compile=True)
    assert np.isnan(train(spoil(make_images(), np.nan))[1]).all()
    assert all(np.isfinite(variable).all() for variable in module.variables)


@pytest.mark.parametrize(
    ("value", "received"),
    [(np.nan, "NaN"), (4000, "values up to 4000"), (-9999, "values down to -9999")],
)
def test_hub_encoder_invalid_value_is_named(value, received, modules):
    encoder = hub.load(modules["shared"])
    with pytest.raises(DataError, match=rf"^Expected finite .*Received: {received}\. Divide"):
        encoder(spoil(make_images(), value))
    with pytest.raises(DataError, match=rf"^Expected finite .*Received: {received}\. Divide"):
        encoder.dense(spoil(make_images(SIDE), value), 8)


# Types


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize(("encoder", "name"), FUNCTIONS)
def test_saved_function_float_types_give_same_features(dtype, encoder, name, loaded):
    function = getattr(loaded[encoder], name)
    images = tf.cast(tf.constant(make_images(side_of(name))), dtype)
    features = function(images)
    assert features.dtype == tf.float32
    np.testing.assert_array_equal(features, function(tf.cast(images, tf.float32)))
    np.testing.assert_array_equal(features, function(images.numpy()))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
def test_module_digital_numbers_are_refused(dtype, loaded):
    numbers = tf.constant(np.full((1, 64, 64, 4), 200), dtype)
    for module in loaded.values():
        for images in (numbers, numbers.numpy()):
            with pytest.raises(tf.errors.InvalidArgumentError, match="divide digital numbers by"):
                module(images)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64", "float16"])
@pytest.mark.parametrize("trainable", [True, False])
def test_tfsm_layer_under_global_policy_trains(policy, trainable, modules):
    images = make_images()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layer = keras.layers.TFSMLayer(
            str(modules["shared"]), call_endpoint="__call__", trainable=trainable
        )
        classifier = keras.Sequential([keras.Input((64, 64, 4)), layer, keras.layers.Dense(2)])
        classifier.compile(keras.optimizers.SGD(1e-3), loss="mse", jit_compile=False)
        classifier.fit(images, np.zeros((3, 2)), verbose=0)
    finally:
        keras.config.set_dtype_policy(before)
    assert np.isfinite(classifier.predict(images, verbose=0)).all()
