"""The optimizer of each player (section 3.2)."""

import keras

from sits_keras.config import OptimizerConfig
from sits_keras.errors import ArgumentError, ConfigError


def default_optimizer(config: OptimizerConfig | None = None) -> keras.optimizers.Optimizer:
    """The paper's Adam with its staircase learning rate, one for each player (section 3.2)."""
    config = config or OptimizerConfig()
    schedule = keras.optimizers.schedules.ExponentialDecay(
        config.learning_rate, config.decay_steps, config.decay_rate, staircase=True
    )
    return keras.optimizers.Adam(
        schedule, beta_1=config.beta_1, global_clipnorm=config.clip_norm or None
    )


def join_optimizers(
    generator: keras.optimizers.Optimizer | str | None,
    discriminator: keras.optimizers.Optimizer | str | None,
    num_replicas: int,
) -> keras.optimizers.MultiOptimizer:
    """One object that holds both, so that Keras saves, restores and threads the state of each.

    Args:
        generator: of both encoders and the decoder; an optimizer, the name of one with Keras'
            settings, or `None` for the paper's.
        discriminator: likewise, of the layers whose names begin with `discriminator_`.
        num_replicas: devices that share a batch.
    Returns:
        Its `optimizers` are the discriminator's, then the generator's.
    Raises:
        ArgumentError: both are the same object.
        ConfigError: one clips gradients on several devices.
    """
    players = [
        keras.optimizers.get(optimizer or default_optimizer())
        for optimizer in (generator, discriminator)
    ]
    if players[0] is players[1]:
        raise ArgumentError(
            "The generator side and the discriminator need an optimizer each. "
            "Received: the same object for both."
        )
    if num_replicas > 1 and any(
        getattr(player, name)
        for player in players
        for name in ("clipnorm", "global_clipnorm", "clipvalue")
    ):
        raise ConfigError(
            "Gradients cannot be clipped on several devices: Keras' optimizers would clip "
            "those of each device, not their sum. Leave clipping off, or use one device."
        )
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(players[0], {"discriminator_.*": players[1]})
    )
