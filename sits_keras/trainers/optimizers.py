"""Optimizers of the generator side and of the discriminator (section 3.2)."""

import keras

from sits_keras.config import OptimizerConfig
from sits_keras.errors import ArgumentError, ConfigError


def default_optimizer(
    config: OptimizerConfig | None = None, rate: float = 1.0
) -> keras.optimizers.Optimizer:
    """Return the paper's Adam with its staircase learning rate (section 3.2).

    Args:
        config: Settings; the paper's by default.
        rate: Factor of the learning rate.

    Returns:
        A new optimizer.
    """
    config = config or OptimizerConfig()
    learning_rate = rate * config.learning_rate
    schedules = keras.optimizers.schedules
    if config.schedule == "cosine":
        schedule = schedules.CosineDecay(
            0.0,
            config.decay_steps - config.warmup_steps,
            warmup_target=learning_rate,
            warmup_steps=config.warmup_steps,
        )
    else:
        schedule = schedules.ExponentialDecay(
            learning_rate, config.decay_steps, config.decay_rate, staircase=True
        )
    settings = {"beta_1": config.beta_1, "global_clipnorm": config.clip_norm or None}
    if config.weight_decay:
        return keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, **settings)
    return keras.optimizers.Adam(schedule, **settings)


def join_optimizers(
    generator: keras.optimizers.Optimizer | str | None,
    discriminator: keras.optimizers.Optimizer | str | None,
    num_replicas: int,
) -> keras.optimizers.MultiOptimizer:
    """Return one optimizer that holds both, so that Keras saves and restores the state of each.

    Args:
        generator: Optimizer of both encoders and the decoder: an instance, the name of a Keras
            optimizer, or `None` for the paper's.
        discriminator: Optimizer of the layers whose names begin with `discriminator_`, likewise.
        num_replicas: Number of devices that share a batch.

    Returns:
        A `MultiOptimizer` whose `optimizers` are those of the discriminator and the generator.

    Raises:
        ArgumentError: Both optimizers are the same object.
        ConfigError: An optimizer clips gradients on several devices.
    """
    both = [
        keras.optimizers.get(optimizer or default_optimizer())
        for optimizer in (generator, discriminator)
    ]
    if both[0] is both[1]:
        raise ArgumentError(
            "The generator and the discriminator share an optimizer. Expected an optimizer each. "
            "Received: the same object for both."
        )
    if num_replicas > 1 and any(
        getattr(optimizer, name)
        for optimizer in both
        for name in ("clipnorm", "global_clipnorm", "clipvalue")
    ):
        raise ConfigError(
            "Gradients cannot be clipped on several devices, because Keras clips the gradients of "
            "each device instead of their sum. Remove clip_norm, or use one device."
        )
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(both[0], {"discriminator_.*": both[1]})
    )
