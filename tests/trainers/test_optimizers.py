import keras
import numpy as np
import pytest

from sits_keras.config import OptimizerConfig
from sits_keras.trainers.optimizers import default_optimizer


def test_default_optimizer_learning_rate_falls_in_steps():
    optimizer = default_optimizer(OptimizerConfig(1.0, decay_steps=10, decay_rate=0.5))
    rates = [float(optimizer._learning_rate(step)) for step in (0, 9, 10, 19, 20)]
    assert rates == [1, 1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("schedule", ["staircase", "cosine"])
def test_default_optimizer_rate_multiplies_learning_rate(schedule):
    config = OptimizerConfig(1.0, decay_steps=10, schedule=schedule, warmup_steps=2)
    one, other = default_optimizer(config), default_optimizer(config, rate=0.25)
    for step in (2, 5, 12):
        assert float(other._learning_rate(step)) == pytest.approx(
            0.25 * float(one._learning_rate(step)), abs=1e-7
        )


@pytest.mark.parametrize(
    ("clip_norm", "seen"),
    [
        (0.0, [[3.0, 4.0], [12.0]]),  # the norm of all of them together is 13
        (26.0, [[3.0, 4.0], [12.0]]),
        (6.5, [[1.5, 2.0], [6.0]]),
    ],
)
def test_clip_norm_scales_gradients_to_global_norm(clip_norm, seen):
    optimizer = default_optimizer(OptimizerConfig(beta_1=0.5, clip_norm=clip_norm))
    variables = [keras.Variable([0.0, 0.0]), keras.Variable([0.0])]
    gradients = [keras.ops.convert_to_tensor(one) for one in ([3.0, 4.0], [12.0])]
    optimizer.build(variables)
    optimizer.apply(gradients, variables)
    # Adam's first moment is half of the gradient that it saw.
    for moment, gradient in zip(optimizer._momentums, seen, strict=True):
        np.testing.assert_allclose(2 * moment.numpy(), gradient, rtol=1e-6)
