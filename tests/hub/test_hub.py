import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub
import tf_keras

from sits_keras import DisentangledSITS, hub, load_model
from sits_keras.errors import ArgumentError, ConfigError, DataError, ExistsError, MissingError
from sits_keras.hub import module as encoder_module
from sits_keras.hub.pooling import build_pooled_encoder

pytestmark = pytest.mark.integration  # exports modules and runs them in other clients

ENCODERS = ("shared", "exclusive")


@pytest.fixture(scope="module")
def model(tiny_run):
    return load_model(tiny_run)


@pytest.fixture(scope="module")
def modules(model, tiny_module):
    """Folder of each encoder's module. Not to change."""
    exclusive = hub.export(model, tiny_module.with_name("exclusive module"), "exclusive")
    return {"shared": tiny_module, "exclusive": exclusive}


@pytest.fixture
def module_copy(modules, tmp_path):
    return Path(shutil.copytree(modules["shared"], tmp_path / "module"))


@pytest.fixture(scope="module")
def images():
    """Reflectance from below 0 to above every band's maximum."""
    return np.random.default_rng(0).uniform(-0.1, 0.9, (4, 64, 64, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def scaled(images):
    """Return the expected network values of `images`."""
    clipped = np.minimum(np.maximum(images, 0), [0.3, 0.3, 0.4, 0.6])
    return (2 * clipped / [0.3, 0.3, 0.4, 0.6] - 1).astype(np.float32)


@pytest.fixture(scope="module")
def expected(model, scaled):
    """Return the features of `images` from the Keras encoders."""
    grid = np.asarray(model.shared_encoder(scaled))
    mean, _ = model.exclusive_encoder(scaled)
    pooled = build_pooled_encoder(model.shared_encoder, model.config)(scaled)
    return {
        "shared": np.asarray(pooled),
        "exclusive": np.asarray(mean),
        "spatial": grid,
        "flattened": grid.reshape(4, 32),
    }


def moving(module):
    return [v.numpy() for v in module.variables if "moving" in v.name]


def trained(module):
    return [v.numpy() for v in module.trainable_variables]


def all_equal(arrays, others):
    return all(np.array_equal(one, other) for one, other in zip(arrays, others, strict=True))


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# What it computes


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(
    "load",
    [hub.load, lambda path: tensorflow_hub.load(str(path))],
    ids=["sits_keras.hub", "tensorflow_hub"],
)
def test_load_features_equal_keras_encoder(load, encoder, modules, images, expected):
    features = load(modules[encoder])(images)
    assert features.dtype == tf.float32
    np.testing.assert_allclose(features, expected[encoder], rtol=0, atol=1e-5)


def test_fixture_features_differ_between_images(expected):
    for features in expected.values():
        assert np.ptp(features, axis=0).max() > 1e-3


def test_flattened_equals_flattened_grid(modules, images, expected):
    encoder = hub.load(modules["shared"])
    assert encoder.num_flattened == 32
    for flattened in (encoder.flattened, encoder.module.flattened):
        np.testing.assert_allclose(flattened(images), expected["flattened"], rtol=0, atol=1e-5)


def test_flattened_exclusive_encoder_equals_mean(modules, images, expected):
    encoder = hub.load(modules["exclusive"])
    assert encoder.num_flattened == encoder.num_features == 3
    np.testing.assert_allclose(encoder.flattened(images), expected["exclusive"], rtol=0, atol=1e-5)


class EarlierModule:
    """A module whose default function is the one that is `flattened` now."""

    def __init__(self, module):
        self.pooled = module.pooled
        self.flattened_by_default = module.flattened

    def __call__(self, images):
        return self.flattened_by_default(images)


def test_hub_encoder_earlier_module_has_same_functions(modules, images, expected):
    encoder = hub.load(modules["shared"])
    facts = {**encoder.metadata, "num_features": 32}
    del facts["num_flattened"]
    old = hub.HubEncoder(lambda: (EarlierModule(encoder.module), None), facts, ())
    assert (old.num_features, old.num_flattened) == (46, 32)
    np.testing.assert_allclose(old(images), expected["shared"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(old.flattened(images), expected["flattened"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(old.spatial(images), expected["spatial"], rtol=0, atol=1e-5)


def test_spatial_equals_grid(modules, images, expected):
    encoder = hub.load(modules["shared"])
    np.testing.assert_allclose(encoder.spatial(images), expected["spatial"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        encoder.module.spatial(images), expected["spatial"], rtol=0, atol=1e-5
    )


def test_pooled_returns_statistics_of_layers(modules, model, images, scaled):
    layers = [model.shared_encoder.get_layer(f"shared_{i}_activation").output for i in range(1, 6)]
    maps = [scaled, *map(np.asarray, keras.Function(model.shared_encoder.input, layers)(scaled))]
    expected = []
    for values in maps[:4]:
        deviation = values.std(axis=(1, 2)) + 0.01
        near, far = (
            (
                np.abs(values[:, distance:] - values[:, :-distance]).mean(axis=(1, 2))
                + np.abs(values[:, :, distance:] - values[:, :, :-distance]).mean(axis=(1, 2))
            )
            / 2
            for distance in (1, 2)
        )
        expected += [values.mean(axis=(1, 2)), np.log(deviation)]
        expected += [near / deviation, near / (far + 0.01)]
    expected.append(maps[5].mean(axis=(1, 2)))
    encoder = hub.load(modules["shared"])
    assert encoder.metadata["num_pooled"] == sum(part.shape[1] for part in expected)
    np.testing.assert_allclose(
        encoder.pooled(images), np.concatenate(expected, axis=1), rtol=0, atol=2e-3
    )


def test_pooled_exclusive_encoder_raises(modules, images):
    with pytest.raises(ConfigError, match="no pooled features: it contains the exclusive encoder"):
        hub.load(modules["exclusive"]).pooled(images)


def test_spatial_exclusive_encoder_raises(modules, images):
    encoder = hub.load(modules["exclusive"])
    with pytest.raises(ConfigError, match="has no grid"):
        encoder.spatial(images)


@pytest.mark.parametrize(("encoder", "num_features"), [("shared", 46), ("exclusive", 3)])
def test_load_encoder_has_metadata(encoder, num_features, modules):
    loaded = hub.load(str(modules[encoder]))
    assert loaded.bands == ("B02", "B03", "B04", "B08")
    assert loaded.num_features == num_features
    assert loaded.metadata["encoder"] == encoder


def test_export_mixed_precision_model_returns_float32(tiny_config, tmp_path, images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = DisentangledSITS(tiny_config.model)
    finally:
        keras.config.set_dtype_policy("float32")
    assert mixed.shared_encoder(images).dtype == tf.bfloat16
    encoder = hub.load(hub.export(mixed, tmp_path / "module"))
    assert encoder(images).dtype == tf.float32
    assert encoder.spatial(images).dtype == tf.float32


# What it refuses


@pytest.mark.parametrize("value", [5000, 255, np.nan, np.inf])
def test_module_invalid_values_raise_in_graph(value, modules, images):
    encoder = tensorflow_hub.load(str(modules["shared"]))
    wrong = images.copy()
    wrong[2, 30, 30, 1] = value
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected finite reflectance"):
        encoder(wrong)
    with pytest.raises(tf.errors.InvalidArgumentError, match="divide digital numbers by 10000"):
        encoder.spatial(wrong)


@pytest.mark.parametrize(
    ("value", "received"), [(5000, "values up to 5000"), (255, "values up to 255"), (np.nan, "NaN")]
)
def test_hub_encoder_invalid_values_raise_one_line(value, received, modules, images):
    encoder = hub.load(modules["shared"])
    wrong = images.copy()
    wrong[2, 30, 30, 1] = value
    expected = rf"^Expected finite .*Received: {received}\. Divide digital numbers by 10,000,.*\.$"
    for encode in (encoder, encoder.spatial, encoder.pooled):
        with pytest.raises(DataError, match=expected) as caught:
            encode(wrong)
        assert "\n" not in str(caught.value)


def test_hub_encoder_snow_is_accepted(modules, images):
    assert hub.load(modules["shared"])(images + 1.5).shape == (4, 46)


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (1, 32, 64, 4), (64, 64, 4), (4,)])
def test_hub_encoder_other_shape_raises(shape, modules):
    encoder = hub.load(modules["shared"])
    message = re.escape(
        f"Expected images of shape (batch, 64, 64, 4), bands B02, B03, B04, B08. Received: {shape}."
    )
    with pytest.raises(ArgumentError, match=message):
        encoder(np.zeros(shape, np.float32))
    with pytest.raises(ArgumentError, match=message):
        encoder.spatial(np.zeros(shape, np.float32))


@pytest.mark.parametrize("dtype", [tf.float64, tf.float16, tf.int32])
def test_module_other_dtype_is_cast(dtype, modules):
    encoder = hub.load(modules["shared"])
    ones = tf.ones((1, 64, 64, 4), dtype)
    np.testing.assert_array_equal(encoder(ones), encoder(np.ones((1, 64, 64, 4), np.float32)))


# The Reusable SavedModel interface


@pytest.mark.parametrize(
    ("encoder", "num_variables", "num_trainable"),
    # A convolution has a kernel, a normalisation gamma, beta and two moving statistics, a dense
    # layer kernel and bias. Shared: five of both. Exclusive: one of both, three blocks of three of
    # both, two dense layers.
    [("shared", 5 + 5 * 4, 5 + 5 * 2), ("exclusive", 10 + 10 * 4 + 4, 10 + 10 * 2 + 4)],
)
def test_module_has_members_of_reusable_saved_model(encoder, num_variables, num_trainable, modules):
    module = tensorflow_hub.load(str(modules[encoder]))
    assert len(module.variables) == num_variables
    assert len(module.trainable_variables) == num_trainable
    assert {id(v) for v in module.trainable_variables} <= {id(v) for v in module.variables}
    assert list(module.regularization_losses) == []


@pytest.mark.parametrize("encoder", ENCODERS)
def test_module_variable_names_are_valid_for_optimizers(encoder, modules):
    saved = tf.train.list_variables(str(modules[encoder] / "variables" / "variables"))
    assert len(saved) > 20
    for name, _ in saved:
        assert re.fullmatch(r"[A-Za-z0-9_./-]+", name)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_module_serving_signature_returns_features(encoder, modules, images, expected):
    serve = tf.saved_model.load(str(modules[encoder])).signatures["serving_default"]
    assert serve.structured_input_signature == (
        (),
        {"inputs": tf.TensorSpec((None, 64, 64, 4), tf.float32, name="inputs")},
    )
    features = serve(inputs=tf.constant(images))["features"]
    np.testing.assert_allclose(features, expected[encoder], rtol=0, atol=1e-5)


def test_module_moving_statistics_change_only_in_training(model, modules, images, scaled):
    module = tensorflow_hub.load(str(modules["shared"]))
    before = moving(module)
    assert len(before) == 10
    for inference in ({}, {"training": False}):
        module(images, **inference)
        assert all_equal(moving(module), before)
    module(images, training=True)
    assert not any(
        np.array_equal(one, old) for one, old in zip(moving(module), before, strict=True)
    )
    # Keras' momentum of 0.99, on the mean over the batch of what the first convolution gives.
    convolved = model.shared_encoder.get_layer("shared_1_conv")(scaled)
    mean = np.mean(convolved, axis=(0, 1, 2))
    np.testing.assert_allclose(moving(module)[0], 0.99 * before[0] + 0.01 * mean, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_module_trainable_variables_have_gradients(encoder, modules, images):
    module = tf.saved_model.load(str(modules[encoder]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(module(images, training=True) ** 2)
    gradients = tape.gradient(loss, module.trainable_variables)
    unused = 0
    for variable, gradient in zip(module.trainable_variables, gradients, strict=True):
        if gradient is None:
            assert "log_var" in variable.name
            unused += 1
    assert unused == (2 if encoder == "exclusive" else 0)


WITHOUT_THIS_PACKAGE = """
import sys
sys.modules["sits_keras"] = None  # importing it fails
sys.modules["keras"] = None
import numpy as np
import tensorflow as tf
module = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
np.save(sys.argv[3], module(images))
np.save(sys.argv[4], module.spatial(images))
try:
    import sits_keras
except ImportError:
    print("not importable")
"""


def test_module_without_this_package_and_keras_runs(modules, images, expected, tmp_path):
    files = [str(tmp_path / name) for name in ("images.npy", "features.npy", "spatial.npy")]
    np.save(files[0], images)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THIS_PACKAGE, str(modules["shared"]), *files],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "not importable\n"
    np.testing.assert_allclose(np.load(files[1]), expected["shared"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.load(files[2]), expected["spatial"], rtol=0, atol=1e-5)


# Fine-tuning


@pytest.mark.parametrize("trainable", [True, False])
def test_keras_layer_equals_encoder(trainable, modules, images, expected):
    layer = tensorflow_hub.KerasLayer(
        str(modules["shared"]), trainable=trainable, input_shape=(64, 64, 4)
    )
    classifier = tf_keras.Sequential([layer, tf_keras.layers.Dense(1)])
    np.testing.assert_allclose(layer(images), expected["shared"], rtol=0, atol=1e-5)
    module = layer.resolved_object
    weights, statistics = trained(module), moving(module)
    classifier.compile(tf_keras.optimizers.Adam(0.01), loss="mse")
    classifier.fit(images, np.arange(4.0), batch_size=4, epochs=1, verbose=0)
    assert len(layer.trainable_weights) == (15 if trainable else 0)
    if trainable:
        assert not any(map(np.array_equal, trained(module), weights))
        assert not any(map(np.array_equal, moving(module), statistics))
    else:
        assert all_equal(trained(module), weights)
        assert all_equal(moving(module), statistics)


@pytest.mark.parametrize("trainable", [True, False])
def test_tfsm_layer_equals_encoder(trainable, modules, images, expected):
    layer = keras.layers.TFSMLayer(
        str(modules["shared"]), call_endpoint="__call__", trainable=trainable
    )
    classifier = keras.Sequential([keras.Input((64, 64, 4)), layer, keras.layers.Dense(1)])
    np.testing.assert_allclose(layer(images), expected["shared"], rtol=0, atol=1e-5)
    weights = [v.numpy() for v in layer.trainable_weights]
    assert len(weights) == (15 if trainable else 0)
    everything = [v.numpy() for v in layer.weights]
    classifier.compile(keras.optimizers.Adam(0.01), loss="mse")
    # As the README says: inside fit, Adam could not make its slots for the layer's variables.
    classifier.optimizer.build(classifier.trainable_variables)
    classifier.fit(images, np.arange(4.0), batch_size=4, epochs=1, verbose=0)
    if trainable:
        assert not any(
            np.array_equal(one.numpy(), old)
            for one, old in zip(layer.trainable_weights, weights, strict=True)
        )
    else:
        assert all_equal([v.numpy() for v in layer.weights], everything)


# Writing


def test_export_writes_saved_model_and_metadata(modules):
    for encoder, folder in modules.items():
        assert {"saved_model.pb", "variables", "module.json", "README.md", "item.json"} <= set(
            names(folder)
        )
        preset = json.loads((folder / "module.json").read_text())
        item = json.loads((folder / "item.json").read_text())
        card = (folder / "README.md").read_text()
        assert preset["encoder"] == encoder
        assert preset["name"] == item["id"] == folder.name
        assert f"\n# {folder.name}\n\n{encoder.capitalize()} encoder" in card
        assert preset["steps"] == 6
        assert item["properties"]["mlm:pretrained"] is True
        assert "| steps | 6 |" in card
        for asset in item["assets"].values():
            assert (folder / asset["href"]).is_file()
        result = item["properties"]["mlm:output"][0]["result"]
        assert result["shape"] == [-1, preset["num_features"]]
    assert not list(modules["shared"].parent.glob(".partial*"))


def test_export_unknown_encoder_raises(model, tmp_path):
    with pytest.raises(ConfigError, match="must be 'shared' or 'exclusive'"):
        hub.export(model, tmp_path / "module", "both")


def test_export_existing_folder_raises(model, module_copy):
    before = contents(module_copy)
    with pytest.raises(ExistsError, match=r"already exists\. .* or pass overwrite"):
        hub.export(model, module_copy)
    assert contents(module_copy) == before


def test_export_overwrite_replaces_module(model, module_copy, monkeypatch):
    (module_copy / "saved_model.pb").write_bytes(b"damaged")
    monkeypatch.chdir(module_copy)
    assert hub.export(model, ".", "exclusive", overwrite=True) == Path()
    assert hub.load(module_copy).metadata["encoder"] == "exclusive"
    assert hub.read_metadata(module_copy)["name"] == "module"
    assert names(module_copy.parent) == ["module"]


def test_export_overwrite_of_other_folder_raises(model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    for name, preset in (
        ("other", '{"format": "curves", "version": 1}'),
        ("newer", '{"format": "sits_keras hub module", "version": 99}'),
        ("damaged", "{"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.json").write_text(preset)
        (tmp_path / name / "thesis.txt").write_text("mine")
    before = contents(tmp_path)
    for name in ("empty", "file", "other", "newer", "damaged"):
        with pytest.raises(ExistsError, match="it is not a hub module"):
            hub.export(model, tmp_path / name, overwrite=True)
    assert contents(tmp_path) == before
    assert (tmp_path / "empty").is_dir()


@pytest.mark.parametrize("there_before", [False, True])
def test_export_failure_keeps_existing_module(there_before, model, modules, tmp_path, monkeypatch):
    path = tmp_path / "module"
    if there_before:
        shutil.copytree(modules["shared"], path)
    before = contents(tmp_path)

    def save_half(module, folder, signatures):
        Path(folder).mkdir()
        (Path(folder) / "saved_model.pb").write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", save_half)
    with pytest.raises(OSError, match="No space left"):
        hub.export(model, path, overwrite=there_before)
    assert names(tmp_path) == (["module"] if there_before else [])
    assert contents(tmp_path) == before


# Loading what is damaged


def test_load_missing_module_raises(tmp_path):
    with pytest.raises(MissingError, match=r"No hub module at .*: it has no module\.json\. Exp"):
        hub.load(tmp_path)
    with pytest.raises(MissingError, match="No hub module at"):
        hub.load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("preset", "cause"),
    [
        ("{", r"module\.json is damaged: .*Export the module again"),
        ('{"format": "curves", "version": 1}', "'curves', version 1. Expected.*Export the module"),
        ('{"format": "sits_keras hub module", "version": 0}', "version 0. Expected.*Export the m"),
        ('{"format": "sits_keras hub module", "version": 2}', "newer sits_keras.*Update the pack"),
    ],
)
def test_load_damaged_metadata_raises(preset, cause, module_copy):
    (module_copy / "module.json").write_text(preset)
    with pytest.raises(DataError, match=cause):
        hub.load(module_copy)


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("saved_model.pb", cut),
        ("saved_model.pb", lambda path: path.write_bytes(b"")),
        ("saved_model.pb", Path.unlink),
        ("variables/variables.index", cut),
        ("variables/variables.index", Path.unlink),
        ("variables/variables.data-00000-of-00001", cut),
    ],
    ids=["pb cut", "pb empty", "pb gone", "index cut", "index gone", "data cut"],
)
def test_load_damaged_module_raises_one_line(file, damage, module_copy):
    damage(module_copy / file)
    with pytest.raises(DataError) as caught:
        hub.load(module_copy)
    message = str(caught.value)
    assert message.startswith(f"{module_copy} cannot be loaded: ")
    assert message.endswith(". Export the module again.")
    assert "\n" not in message
    assert ".." not in message.removeprefix(str(module_copy))


# Of a model in memory


@pytest.mark.parametrize("encoder", ["shared", "exclusive"])
def test_wrap_equals_exported_module(encoder, model, modules, images):
    wrapped, loaded = hub.wrap(model, encoder), hub.load(modules[encoder])
    np.testing.assert_allclose(
        np.asarray(wrapped(images)), np.asarray(loaded(images)), rtol=1e-5, atol=1e-6
    )
    assert (wrapped.bands, wrapped.num_features) == (loaded.bands, loaded.num_features)
    told = {**loaded.metadata, "name": None}
    assert len(told.pop("weights")) == 64
    assert {**wrapped.metadata, "name": None} == told


@pytest.mark.parametrize("encoder", ENCODERS)
def test_hub_encoder_can_be_pickled(encoder, model, modules, images, monkeypatch):
    monkeypatch.chdir(modules[encoder].parent)
    loaded = hub.load(modules[encoder].name)
    sent = pickle.dumps(loaded)
    assert len(sent) < 1000  # its path
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(sent)(images), loaded(images))
    wrapped = pickle.loads(pickle.dumps(hub.wrap(model, encoder)))
    np.testing.assert_allclose(wrapped(images), loaded(images), atol=1e-6)
    assert wrapped.metadata == hub.wrap(model, encoder).metadata


def test_wrap_unknown_encoder_raises(model):
    with pytest.raises(ConfigError, match=r"'shared' or 'exclusive'\. Received: 'both'"):
        hub.wrap(model, "both")


def test_encoder_module_other_backend_raises(model, monkeypatch, tmp_path):
    monkeypatch.setattr(encoder_module, "BACKEND", "jax")
    for make in (hub.wrap, lambda model: hub.export(model, tmp_path / "module")):
        with pytest.raises(ConfigError, match=r"backend 'jax'\. Save the model .* KERAS_BACKEND=t"):
            make(model)


# Under padding="context"

SIDE = 64 + 31 + 47


@pytest.fixture(scope="module")
def context(tiny_config):
    """A model with context padding and distinct moving statistics."""
    settings = {**tiny_config.model.to_dict(), "padding": "context"}
    model = DisentangledSITS(settings, seed=1)
    rng = np.random.default_rng(0)
    for network in (model.shared_encoder, model.exclusive_encoder):
        for variable in network.variables:
            variable.assign(variable + rng.uniform(0.01, 0.1, variable.shape))
    return model


@pytest.fixture(scope="module")
def context_module(context, tmp_path_factory):
    """The shared encoder of `context` as a module. Not to change."""
    return hub.export(context, tmp_path_factory.mktemp("context") / "module")


@pytest.fixture(scope="module")
def raster():
    values = np.random.default_rng(3).uniform(0, 0.5, (1, SIDE + 16, SIDE + 8, 4))
    return values.astype(np.float32)


def windows_of(raster, stride):
    rows, cols = ((side - SIDE) // stride + 1 for side in raster.shape[1:3])
    return [
        raster[0, row * stride : row * stride + SIDE, col * stride : col * stride + SIDE]
        for row in range(rows)
        for col in range(cols)
    ]


def close(some, other):
    np.testing.assert_allclose(some, other, rtol=0, atol=1e-5 * np.abs(other).max())
    return True


@pytest.mark.parametrize("encoder", ENCODERS)
def test_dense_equals_windows(encoder, context, context_module, raster):
    encoders = [hub.wrap(context, encoder)]
    if encoder == "shared":
        encoders.append(hub.load(context_module))
    for one in encoders:
        assert one.context_margin == (31, 47)
        assert one.dense_strides == (4, 8, 16, 32)
        assert one.not_dense_reason == ""
        for stride in (4, 8, 24):
            expected = np.asarray(one.flattened(np.stack(windows_of(raster, stride))))
            dense = np.asarray(one.dense(raster, stride))
            rows, cols = 16 // stride + 1, 8 // stride + 1
            assert dense.shape == (1, rows, cols, one.num_flattened)
            assert close(dense.reshape(rows * cols, -1), expected)
        assert one.dense(raster, 16).shape[:3] == (1, 2, 1)
        assert one.dense(raster, 32).shape[:3] == (1, 1, 1)


def test_hub_encoder_context_module_accepts_both_sizes(context_module, images):
    encoder = hub.load(context_module)
    surrounded = np.pad(images, ((0, 0), (31, 47), (31, 47), (0, 0)), mode="reflect")
    assert close(encoder(surrounded), encoder(images))
    assert close(encoder.spatial(surrounded), encoder.spatial(images))
    assert close(encoder.flattened(surrounded), encoder.flattened(images))
    other = np.pad(images, ((0, 0), (31, 47), (31, 47), (0, 0)))
    assert np.abs(encoder(other) - encoder(images)).max() > 1e-3
    message = re.escape("of shape (batch, 64, 64, 4) or (batch, 142, 142, 4), bands B02, B03, B04")
    with pytest.raises(ArgumentError, match=message):
        encoder(np.zeros((1, 128, 128, 4), np.float32))


def test_context_module_in_other_clients_equals_encoder(context_module, images):
    expected = np.asarray(hub.load(context_module)(images))
    assert close(tensorflow_hub.KerasLayer(str(context_module))(images), expected)
    for endpoint in ("__call__", "serve"):
        if endpoint == "serve":
            layer = keras.layers.TFSMLayer(str(context_module), call_endpoint="serving_default")
            assert close(layer(images)["features"], expected)
        else:
            layer = keras.layers.TFSMLayer(str(context_module), call_endpoint=endpoint)
            assert close(layer(images), expected)
    surrounded = np.pad(images, ((0, 0), (31, 47), (31, 47), (0, 0)), mode="reflect")
    layer = keras.layers.TFSMLayer(str(context_module), call_endpoint="with_context")
    assert close(layer(surrounded), expected)
    flattened = np.asarray(hub.load(context_module).flattened(images))
    for name in ("flattened", "flattened_with_context", "dense_8"):
        layer = keras.layers.TFSMLayer(str(context_module), call_endpoint=name)
        output = layer(images if name == "flattened" else surrounded)
        assert close(output[:, 0, 0] if name == "dense_8" else output, flattened)


def test_dense_changed_weights_change_features(context_module, raster):
    encoder = hub.load(context_module)
    before = encoder.dense(raster, 8)
    for variable in encoder.module.trainable_variables:
        variable.assign(1.5 * variable)
    after = encoder.dense(raster, 8)
    assert np.abs(after - before).max() > 1e-3
    assert close(after[0, 0, 0], encoder.flattened(raster[:, :SIDE, :SIDE])[0])


def test_dense_unsupported_input_raises(context_module, raster):
    encoder = hub.load(context_module)
    for stride in (2, 6, 0, -8):
        with pytest.raises(ArgumentError, match=f"multiples of 4 px. Received: {stride}."):
            encoder.dense(raster, stride)
    for wrong in (raster[0], raster[..., :3], raster[:, : SIDE - 1]):
        with pytest.raises(ArgumentError, match="at least 142 x 142 px, bands B02, B03, B04, B08"):
            encoder.dense(wrong, 8)
    with pytest.raises(DataError, match="Expected finite reflectance"):
        encoder.dense(10_000 * raster, 8)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_dense_zero_padding_raises_with_reason(encoder, modules, raster):
    loaded = hub.load(modules[encoder])
    assert loaded.context_margin == (0, 0)
    assert loaded.dense_strides == ()
    assert "with zeros" in loaded.not_dense_reason
    with pytest.raises(
        ConfigError, match="cannot encode densely: its convolutions pad each window with zeros"
    ):
        loaded.dense(raster, 8)


def test_load_module_without_padding_key_pads_with_zeros(module_copy, images):
    file = module_copy / "module.json"
    preset = json.loads(file.read_text())
    for name in ("padding", "context_margin", "dense_strides"):
        del preset[name]
    file.write_text(json.dumps(preset))
    loaded = hub.load(module_copy)
    assert (loaded.context_margin, loaded.dense_strides) == ((0, 0), ())
    assert "with zeros" in loaded.not_dense_reason
    assert loaded(images).shape == (4, 46)


def test_load_module_named_like_preset_is_loaded(module_copy, tiny_preset, monkeypatch):
    module_copy.rename(module_copy.with_name(tiny_preset.name))
    monkeypatch.chdir(module_copy.parent)
    assert hub.load(tiny_preset.name).metadata["encoder"] == "shared"


def test_load_preset_raises(tiny_preset):
    expected = r"sits_keras\.from_preset\('.*', 'shared'\)"
    with pytest.raises(DataError, match=r"is a preset.*" + expected):
        hub.load(tiny_preset)
    with pytest.raises(MissingError, match=r"To load a preset by name, call " + expected):
        hub.load(tiny_preset.name)
