import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

from sits_keras.errors import ArgumentError, ConfigError
from sits_keras.trainers import Trainer


class Remembering(Trainer):
    """Remembers what it is asked to do."""

    def __init__(self):
        self.calls = []

    def update(self, x, y):
        self.calls.append(("update", x, y))

    def evaluate_batch(self, x, y):
        self.calls.append(("evaluate_batch", x, y))

    def get_metrics_result(self):
        return {"steps": len(self.calls)}


def test_record_gives_the_outputs_and_a_pullback():
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


def test_two_pullbacks_chain_like_one():
    variable = keras.Variable(3.0)
    outputs, _, to_variable = Trainer.vjp(lambda: ([variable**2], None), [variable])
    (loss,), _, to_outputs = Trainer.vjp(lambda v: ([5 * v**2], None), inputs=outputs)
    assert float(loss) == 405
    (gradient,) = to_variable(to_outputs([tf.constant(1.0)]))
    assert float(gradient) == 20 * 27  # of 5 v^4


def test_record_differentiates_for_nothing_else():
    variable, other = keras.Variable(3.0), keras.Variable(4.0)
    _, _, pullback = Trainer.vjp(lambda: ([variable * other], None), [variable])
    assert [float(gradient) for gradient in pullback([tf.constant(1.0)])] == [4]


def test_a_pullback_sees_the_variables_as_they_were():
    variable = keras.Variable(3.0)
    _, _, pullback = Trainer.vjp(lambda: ([variable**2], None), [variable])
    variable.assign(100.0)
    assert float(pullback([tf.constant(1.0)])[0]) == 6


@pytest.mark.parametrize(
    ("step", "name"), [("train_step", "update"), ("test_step", "evaluate_batch")]
)
def test_a_step_passes_the_pair_on_and_returns_the_metrics(step, name):
    trainer = Remembering()
    assert getattr(trainer, step)(("x", "y")) == {"steps": 1}
    assert trainer.calls == [(name, "x", "y")]


@pytest.mark.parametrize("step", ["train_step", "test_step"])
@pytest.mark.parametrize(
    ("data", "received"),
    [("x", "no y"), (("x",), "no y"), (("x", "y", "weights"), "sample weights")],
)
def test_a_step_refuses_what_is_no_pair(step, data, received):
    trainer = Remembering()
    with pytest.raises(
        ArgumentError, match=rf"batches of pairs \(x, y\), .* Received: {received}\."
    ):
        getattr(trainer, step)(data)
    assert not trainer.calls


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    spec = importlib.util.find_spec("sits_keras.trainers")
    with pytest.raises(
        ConfigError, match=r"Received: backend 'torch'\. Set KERAS_BACKEND=tensorflow or .*=jax"
    ):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
