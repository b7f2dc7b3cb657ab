import ast
import importlib.util
import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import sits_keras
from sits_keras import DisentangledSITS, ModelConfig
from sits_keras.errors import ArgumentError, ConfigError, DataError, KeptErrors
from sits_keras.tensorflow_import import paused_collection
from sits_keras.trainers import Trainer


class RecordingTrainer(Trainer):
    """A trainer that records its calls."""

    def __init__(self):
        self.calls = []

    def update(self, x, y, *weights):
        self.calls.append(("update", x, y, *weights))

    def evaluate_batch(self, x, y, *weights):
        self.calls.append(("evaluate_batch", x, y, *weights))

    def get_metrics_result(self):
        return {"steps": len(self.calls)}


def test_vjp_returns_outputs_and_pullback():
    variable = keras.Variable([1.0, 2.0])
    tensor = tf.constant([3.0, 4.0])
    outputs, others, pullback = Trainer.vjp(
        lambda t: ([tf.reduce_sum(variable**2 * t), variable + 2 * t], {"t": t}),
        [variable],
        [tensor],
    )
    assert float(outputs[0]) == 19  # 1 * 3 + 4 * 4
    np.testing.assert_array_equal(outputs[1], [7, 10])
    np.testing.assert_array_equal(others["t"], tensor)
    to_variable, to_tensor = pullback([tf.constant(2.0), tf.constant([10.0, 20.0])])
    # 2 * 2vt + (10, 20) and 2 * v^2 + 2 * (10, 20)
    np.testing.assert_array_equal(to_variable, [12 + 10, 32 + 20])
    np.testing.assert_array_equal(to_tensor, [2 + 20, 8 + 40])


def test_vjp_pullbacks_chain():
    variable = keras.Variable(3.0)
    outputs, _, to_variable = Trainer.vjp(lambda: ([variable**2], None), [variable])
    (loss,), _, to_outputs = Trainer.vjp(lambda v: ([5 * v**2], None), inputs=outputs)
    assert float(loss) == 405
    (gradient,) = to_variable(to_outputs([tf.constant(1.0)]))
    assert float(gradient) == 20 * 27  # of 5 v^4


def test_vjp_differentiates_for_given_variables_only():
    variable, other = keras.Variable(3.0), keras.Variable(4.0)
    _, _, pullback = Trainer.vjp(lambda: ([variable * other], None), [variable])
    assert [float(gradient) for gradient in pullback([tf.constant(1.0)])] == [4]


def test_vjp_pullback_after_assignment_uses_former_values():
    variable = keras.Variable(3.0)
    _, _, pullback = Trainer.vjp(lambda: ([variable**2], None), [variable])
    variable.assign(100.0)
    assert float(pullback([tf.constant(1.0)])[0]) == 6


@pytest.mark.parametrize(
    ("step", "name"), [("train_step", "update"), ("test_step", "evaluate_batch")]
)
def test_step_passes_pair_and_returns_metrics(step, name):
    trainer = RecordingTrainer()
    assert getattr(trainer, step)(("x", "y")) == {"steps": 1}
    assert trainer.calls == [(name, "x", "y")]


@pytest.mark.parametrize(
    ("step", "name"), [("train_step", "update"), ("test_step", "evaluate_batch")]
)
def test_step_with_weights_passes_them(step, name):
    trainer = RecordingTrainer()
    getattr(trainer, step)(("x", "y", "weights"))
    assert trainer.calls == [(name, "x", "y", "weights")]


@pytest.mark.parametrize("step", ["train_step", "test_step"])
@pytest.mark.parametrize(
    ("data", "received"),
    [("x", "no y"), (("x",), "no y")],
)
def test_step_with_other_than_pair_raises(step, data, received):
    trainer = RecordingTrainer()
    with pytest.raises(
        ArgumentError, match=rf"batches of pairs \(x, y\), .* Received: {received}\."
    ):
        getattr(trainer, step)(data)
    assert not trainer.calls


def test_trainers_with_other_backend_raise(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    spec = importlib.util.find_spec("sits_keras.trainers")
    with pytest.raises(
        ConfigError, match=r"Received: 'torch'\. Set KERAS_BACKEND=tensorflow or .*=jax"
    ):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


# Arguments of fit, evaluate and predict


@pytest.fixture(scope="module")
def model():
    return make_model(run_eagerly=True)


@pytest.fixture(scope="module")
def graph_model():
    return make_model()


def make_model(**kwargs):
    model = DisentangledSITS(ModelConfig(width=1, shared_channels=1, exclusive_dim=1))
    model.compile("sgd", "sgd", **kwargs)
    return model


def make_images():
    return np.zeros((2, 64, 64, 4), np.float32)


class EndlessPairs(keras.utils.PyDataset):
    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return make_images(), make_images()


def endless_dataset():
    return tf.data.Dataset.from_tensors((make_images(), make_images())).repeat()


@pytest.mark.parametrize(
    "make", [endless_dataset, lambda: endless_dataset().prefetch(1), EndlessPairs]
)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("steps_per_epoch", lambda model, pairs: model.fit(pairs, epochs=2)),
        ("steps", lambda model, pairs: model.evaluate(pairs)),
        ("steps", lambda model, pairs: model.predict(pairs)),
        (
            "validation_steps",
            lambda model, pairs: model.fit(pairs, steps_per_epoch=1, validation_data=pairs),
        ),
    ],
    ids=["fit", "evaluate", "predict", "validation_data"],
)
def test_endless_pairs_without_number_of_steps_raise(make, name, call, model):
    with pytest.raises(ArgumentError, match=rf"^The pairs have no end\. Expected {name}, "):
        call(model, make())


def test_generator_of_pairs_without_number_of_steps_raises(model):
    pairs = ((make_images(), make_images()) for _ in itertools.count())
    with pytest.raises(ArgumentError, match=r"may have no end\. Expected steps_per_epoch, "):
        model.fit(pairs)
    assert model.fit(pairs, steps_per_epoch=1, verbose=0).history["loss"]


@pytest.mark.parametrize("steps", [0, -1, False])
def test_number_of_steps_below_one_raises(steps, model):
    for name, call in (("steps_per_epoch", model.fit), ("steps", model.evaluate)):
        with pytest.raises(ArgumentError, match=rf"{name} must be at least 1\. .*{name}={steps}"):
            call(endless_dataset(), **{name: steps})


def test_endless_pairs_with_number_of_steps_are_used(model):
    history = model.fit(
        endless_dataset(),
        steps_per_epoch=1,
        validation_data=endless_dataset(),
        validation_steps=1,
        verbose=0,
    )
    assert {"loss", "val_loss"} <= set(history.history)


def test_fit_class_weight_raises(model):
    with pytest.raises(ArgumentError, match="does not support class_weight"):
        model.fit(make_images(), make_images(), class_weight={0: 1.0})


@pytest.mark.parametrize("value", [5000.0, np.nan, np.inf])
@pytest.mark.parametrize("kind", ["array", "tensor", "dataset", "validation"])
def test_images_out_of_range_raise(kind, value, model):
    images = make_images()
    images[1, 5, 5, 0] = value
    arguments = {
        "array": {"x": images, "y": images},
        "tensor": {"x": tf.constant(images), "y": tf.constant(images)},
        "dataset": {"x": tf.data.Dataset.from_tensors((images, images))},
        "validation": {"x": make_images(), "y": make_images(), "validation_data": (images, images)},
    }
    with pytest.raises(ArgumentError, match=r"Expected values in \[-1, 1\]"):
        model.fit(**arguments[kind], verbose=0)


# Errors in callbacks of TensorFlow


def failing_pairs(error):
    def read(step):
        raise error

    keep = KeptErrors(read)

    def read_pair(step):
        x, y = tf.numpy_function(keep, [step], [tf.float32, tf.float32])
        return tf.ensure_shape(x, (2, 64, 64, 4)), tf.ensure_shape(y, (2, 64, 64, 4))

    pairs = tf.data.Dataset.range(2).map(read_pair)
    pairs.kept_errors = keep
    return pairs


@pytest.mark.parametrize("call", ["fit", "evaluate", "validation"])
def test_error_of_reader_is_raised_itself(call, graph_model):
    error = DataError("Record 3 of shard.tfrecord has changed: DataError: twice.")
    pairs = failing_pairs(error)
    run = {
        "fit": lambda: graph_model.fit(pairs, verbose=0),
        "evaluate": lambda: graph_model.evaluate(pairs, verbose=0),
        "validation": lambda: graph_model.fit(
            make_images(), make_images(), validation_data=pairs, verbose=0
        ),
    }[call]
    with pytest.raises(DataError) as caught:
        run()
    assert caught.value is error
    if call != "validation":  # fit, around evaluate, drops the cause
        assert isinstance(caught.value.__cause__, tf.errors.OpError)


def test_error_of_another_class_in_reader_stays_tensorflows(graph_model):
    with pytest.raises(tf.errors.OpError, match="a bug"):
        graph_model.fit(failing_pairs(TypeError("a bug")), verbose=0)


# Private names of Keras

PACKAGE = Path(sits_keras.__file__).parent
OWN_BASES = [c for c in DisentangledSITS.__mro__ if c.__module__.startswith("sits_keras")]
KERAS_BASES = [c for c in DisentangledSITS.__mro__ if c.__module__.startswith("keras")]


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def test_private_name_of_keras_that_is_overridden_exists_and_is_the_only_one():
    # If this fails with a new version of Keras, trainers/base.py has to follow.
    overridden = {
        (own.__module__, name)
        for own in OWN_BASES
        for name in vars(own)
        if is_private(name) and any(hasattr(base, name) for base in KERAS_BASES)
    }
    generated = {"_obj_type", "_auto_config", "_lock", "_tracker", "_api_export_path"}
    assert {one for one in overridden if one[1] not in generated} == {
        ("sits_keras.trainers.base", "_maybe_symbolic_build")
    }


def test_no_module_uses_private_names_of_other_libraries():
    with paused_collection():  # of half a million nodes, which all stay
        trees = {path: ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
        nodes = [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]
    own = {"_asdict", "_replace", "_fields", "_make"}  # public names of named tuples
    for _, node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    used = {
        (path.relative_to(PACKAGE).as_posix(), node.attr)
        for path, node in nodes
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own
    }
    assert not used
    modules = {
        (path.relative_to(PACKAGE).as_posix(), node.module)
        for path, node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("keras.src")
    }
    assert not modules
