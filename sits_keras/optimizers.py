"""The optimizer of each player (section 3.2)."""

import keras

from sits_keras.config import OptimizerConfig


def default_optimizer(config: OptimizerConfig | None = None) -> keras.optimizers.Optimizer:
    """The paper's Adam with its staircase learning rate, one for each player (section 3.2)."""
    config = config or OptimizerConfig()
    schedule = keras.optimizers.schedules.ExponentialDecay(
        config.learning_rate, config.decay_steps, config.decay_rate, staircase=True
    )
    return keras.optimizers.Adam(
        schedule, beta_1=config.beta_1, global_clipnorm=config.clip_norm or None
    )
