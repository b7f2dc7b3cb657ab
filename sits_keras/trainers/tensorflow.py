"""What the training step needs of TensorFlow: the Keras hooks, and derivatives."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from sits_keras.errors import ConfigError

Tensor = Any


class Trainer:
    """Mixin for a `keras.Model` that brings `update(x, y)` and `assess(x, y)`.

    Both take a batch of pairs, feed the metrics, and return nothing.
    """

    update: Callable[[Tensor, Tensor], None]
    assess: Callable[[Tensor, Tensor], None]
    get_metrics_result: Callable[[], dict[str, Tensor]]

    def train_step(self, data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """One step of `fit`: one update of every network."""
        self.update(*_pair(data))
        return self._logs()

    def test_step(self, data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """One step of `evaluate`, and of `fit`'s validation."""
        self.assess(*_pair(data))
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
    def record(
        function: Callable[..., Sequence[Tensor]],
        variables: Sequence[keras.Variable] = (),
        inputs: Sequence[Tensor] = (),
    ) -> tuple[Sequence[Tensor], Callable[[Sequence[Tensor]], list[Tensor]]]:
        """Calls `function(*inputs)` and keeps what its derivatives need.

        Args:
            function: returns a sequence of tensors.
            variables: what `function` reads and is to be differentiated for.
            inputs: tensors that are passed on and are to be differentiated for.
        Returns:
            The outputs, and a pullback to be called once: given the gradient of a scalar for each
            output, it returns the gradient for each variable, then for each input.
        """
        sources = [variable.value for variable in variables] + list(inputs)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = list(function(*inputs))

        def pullback(gradients: Sequence[Tensor]) -> list[Tensor]:
            return tape.gradient(outputs, sources, output_gradients=list(gradients))

        return outputs, pullback

    @staticmethod
    def default_jit_compile() -> bool:
        """Whether to compile with XLA: it pays on a GPU, costs on a CPU, and is of one device."""
        return bool(tf.config.list_physical_devices("GPU")) and Trainer.num_replicas() == 1

    @staticmethod
    def num_replicas() -> int:
        """Devices that share a batch, of all hosts (`tf.distribute`)."""
        return tf.distribute.get_strategy().num_replicas_in_sync

    @staticmethod
    def replica() -> Tensor:
        """Index of this device among those that share a batch; to be called within a step."""
        return tf.distribute.get_replica_context().replica_id_in_sync_group


def _pair(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if y is None or sample_weight is not None:
        raise ConfigError(
            "Expected batches of pairs (x, y), two dates of the same places. "
            f"Received: {'no y' if y is None else 'sample weights'}."
        )
    return x, y
