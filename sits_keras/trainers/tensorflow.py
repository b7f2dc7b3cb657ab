"""Training on TensorFlow: the Keras hooks, derivatives, batches and a fused operation."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from sits_keras.trainers.base import PairTrainer, Pullback, unpack_pair

Tensor = Any


class Trainer(PairTrainer):
    """A `PairTrainer` on TensorFlow."""

    def train_step(self, data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Run one step of `fit`: one update of every network."""
        self.update(*unpack_pair(data))
        return self._logs()

    def test_step(self, data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Run one step of `evaluate` or of validation."""
        self.evaluate_batch(*unpack_pair(data))
        return self._logs()

    def _logs(self) -> dict[str, Tensor]:
        logs = self.get_metrics_result()
        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            # Keras averages over hosts along an axis, which a scalar does not have.
            return {name: tf.reshape(value, (1,)) for name, value in logs.items()}
        return logs

    @staticmethod
    def vjp(
        function: Callable[..., tuple[Sequence[Tensor], Any]],
        variables: Sequence[keras.Variable] = (),
        inputs: Sequence[Tensor] = (),
    ) -> tuple[list[Tensor], Any, Pullback]:
        """Call `function(*inputs)` and return its vector-Jacobian product (see `PairTrainer`)."""
        sources = [variable.value for variable in variables] + list(inputs)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs, rest = function(*inputs)
            outputs = list(outputs)

        def pullback(gradients: Sequence[Tensor]) -> list[Tensor]:
            return list(tape.gradient(outputs, sources, output_gradients=list(gradients)))

        return outputs, rest, pullback

    @staticmethod
    def default_jit_compile() -> bool:
        """Return whether to compile with XLA: on one GPU. On a CPU it makes steps slower."""
        return bool(tf.config.list_physical_devices("GPU")) and Trainer.num_replicas() == 1

    @staticmethod
    def num_replicas() -> int:
        """Return the number of devices that share a batch, on all hosts (`tf.distribute`)."""
        return int(tf.distribute.get_strategy().num_replicas_in_sync)

    @staticmethod
    def replica() -> Tensor:
        """Return the index of this device among those that share a batch, within a step."""
        return tf.distribute.get_replica_context().replica_id_in_sync_group


def fused_batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise by batch statistics in one operation, which has a fused gradient.

    Args:
        x: Feature maps, `(batch, height, width, channels)` float32.
        gamma: Scale, `(channels,)`.
        beta: Offset, same shape.
        epsilon: Added to the variance.

    Returns:
        The normalised tensor, and the mean and variance over all axes except the last.
    """
    outputs, mean, sample_variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    # The operation normalises by the variance, but returns the sample variance, n / (n - 1) of it.
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)
    return outputs, mean, sample_variance * ((count - 1) / count)


def sampled_batches(
    sample: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
    source: Any,
    first_step: int,
    num_steps: int | None,
) -> tf.data.Dataset:
    """Return batches that are sampled ahead of the step that uses them.

    Args:
        sample: Pure function from `source` and a step, a uint32 scalar, to `(x, y)`.
        source: Structure of arrays.
        first_step: Step of the first batch.
        num_steps: Number of batches; endless if `None`.

    Returns:
        A dataset for `fit`, which can also be iterated over.
    """
    with tf.device("CPU"):  # tf.data runs there
        source = tf.nest.map_structure(tf.constant, source)
    last_step = tf.int64.max if num_steps is None else first_step + num_steps
    dataset = tf.data.Dataset.range(first_step, last_step).map(
        lambda step: sample(source, tf.cast(step, tf.uint32)), num_parallel_calls=tf.data.AUTOTUNE
    )
    if num_steps is None:
        dataset = dataset.apply(
            tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )
    return dataset.prefetch(tf.data.AUTOTUNE)
