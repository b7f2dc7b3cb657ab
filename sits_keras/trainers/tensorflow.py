"""What training needs of TensorFlow: the Keras hooks, derivatives, batches, a fused operation."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from sits_keras.trainers.base import PairTrainer, unpack_pair

Tensor = Any


class Trainer(PairTrainer):
    """A `PairTrainer` on TensorFlow."""

    def train_step(self, data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """One step of `fit`: one update of every network."""
        self.update(*unpack_pair(data))
        return self._logs()

    def test_step(self, data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """One step of `evaluate`, and of `fit`'s validation."""
        self.evaluate_batch(*unpack_pair(data))
        return self._logs()

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds nothing: the networks are built when they are made.

        Keras would take a batch for it, whose parts on several hosts it fails to put together.
        """

    def _logs(self) -> dict[str, Tensor]:
        logs = self.get_metrics_result()
        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            # Keras takes the mean over hosts along an axis, which a scalar has not.
            return {name: tf.reshape(value, (1,)) for name, value in logs.items()}
        return logs

    @staticmethod
    def vjp(
        function: Callable[..., tuple[Sequence[Tensor], Any]],
        variables: Sequence[keras.Variable] = (),
        inputs: Sequence[Tensor] = (),
    ) -> tuple[list[Tensor], Any, Callable[[Sequence[Tensor]], list[Tensor]]]:
        """See `PairTrainer`."""
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
        """Whether to compile with XLA: it pays on a GPU, costs on a CPU, and is of one device."""
        return bool(tf.config.list_physical_devices("GPU")) and Trainer.num_replicas() == 1

    @staticmethod
    def num_replicas() -> int:
        """Devices that share a batch, of all hosts (`tf.distribute`)."""
        return int(tf.distribute.get_strategy().num_replicas_in_sync)

    @staticmethod
    def replica() -> Tensor:
        """Index of this device among those that share a batch; to be called within a step."""
        return tf.distribute.get_replica_context().replica_id_in_sync_group


def fused_batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises by the batch in one operation, whose gradient is one too.

    Args:
        x: `(batch, height, width, channels)` float32.
        gamma: `(channels,)`, the scale.
        beta: same shape, the offset.
        epsilon: added to the variance.
    Returns:
        The normalised tensor, and mean and variance over all axes but the last.
    """
    outputs, mean, sample_variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    # The operation normalises by the variance, but gives that of a sample: n / (n - 1) of it.
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)
    return outputs, mean, sample_variance * ((count - 1) / count)


def drawn_batches(
    draw: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
    source: Any,
    first_step: int,
    num_steps: int | None,
) -> tf.data.Dataset:
    """Batches that are drawn ahead of the step that takes them.

    Args:
        draw: pure function from `source` and a step, a uint32 scalar, to `(x, y)`.
        source: a structure of arrays.
        first_step: step of the first batch.
        num_steps: how many batches; endless if `None`.
    Returns:
        What `fit` takes and a loop can go over.
    """
    with tf.device("CPU"):  # where tf.data works
        source = tf.nest.map_structure(tf.constant, source)
    last_step = tf.int64.max if num_steps is None else first_step + num_steps
    dataset = tf.data.Dataset.range(first_step, last_step).map(
        lambda step: draw(source, tf.cast(step, tf.uint32)), num_parallel_calls=tf.data.AUTOTUNE
    )
    if num_steps is None:
        dataset = dataset.apply(
            tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )
    return dataset.prefetch(tf.data.AUTOTUNE)
