"""Training on JAX: the Keras hooks, derivatives, and batches sampled on the device.

With JAX, a step is a pure function: Keras passes the values of all variables and takes back the new
ones. Within a `keras.StatelessScope`, variables can be read and assigned as elsewhere, and assigned
values stay in the scope.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import keras
import numpy as np

from sits_keras.trainers.base import PairTrainer, Pullback, unpack_pair

Tensor = Any
State = tuple[list[Tensor], ...]

fused_batch_norm = None  # XLA fuses the operations of Keras' layer


class Trainer(PairTrainer):
    """A `PairTrainer` on JAX."""

    optimizer: keras.optimizers.Optimizer
    trainable_variables: list[keras.Variable]
    non_trainable_variables: list[keras.Variable]
    metrics_variables: list[keras.Variable]

    def train_step(
        self, state: State, data: tuple[Tensor, Tensor]
    ) -> tuple[dict[str, Tensor], State]:
        """Run one step of `fit`: one update of every network.

        Args:
            state: Values of the trainable, non-trainable, optimizer and metric variables.
            data: Batch of pairs.

        Returns:
            The metrics and the new state.
        """
        variables = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
        return self._run(self.update, variables, state, data)

    def test_step(
        self, state: State, data: tuple[Tensor, Tensor]
    ) -> tuple[dict[str, Tensor], State]:
        """Run one step of `evaluate` or of validation, whose state has no optimizer variables.

        Args:
            state: Values of the trainable, non-trainable and metric variables.
            data: Batch of pairs.

        Returns:
            The metrics and the new state.
        """
        variables = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.metrics_variables,
        )
        return self._run(self.evaluate_batch, variables, state, data)

    def _run(
        self,
        step: Callable[[Tensor, Tensor], None],
        variables: tuple[list[keras.Variable], ...],
        state: State,
        data: tuple[Tensor, Tensor],
    ) -> tuple[dict[str, Tensor], State]:
        pairs = [
            pair
            for some, values in zip(variables, state, strict=True)
            for pair in zip(some, values, strict=True)
        ]
        with keras.StatelessScope(pairs) as scope:
            step(*unpack_pair(data))
            logs = self.get_metrics_result()
        return logs, tuple([scope.get_current_value(one) for one in some] for some in variables)

    def vjp(
        self,
        function: Callable[..., tuple[Sequence[Tensor], Any]],
        variables: Sequence[keras.Variable] = (),
        inputs: Sequence[Tensor] = (),
    ) -> tuple[list[Tensor], Any, Pullback]:
        """Call `function(*inputs)` and return its vector-Jacobian product (see `PairTrainer`)."""
        untrained = self.non_trainable_variables
        others = [(v, v.value) for v in (*self.trainable_variables, *untrained)]

        def pure(values: list[Tensor], inputs: list[Tensor]) -> tuple[list[Tensor], Any]:
            # In this scope, variables are traceable values. Assigned values are returned with the
            # results, which is the only way for a tracer to leave its trace.
            with keras.StatelessScope([*others, *zip(variables, values, strict=True)]) as scope:
                outputs, rest = function(*inputs)
            return list(outputs), (rest, [scope.get_current_value(v) for v in untrained])

        outputs, pullback, (rest, assigned) = jax.vjp(
            pure, [v.value for v in variables], list(inputs), has_aux=True
        )
        for variable, value in zip(untrained, assigned, strict=True):
            variable.assign(value)

        def gradients_of(gradients: Sequence[Tensor]) -> list[Tensor]:
            to_variables, to_inputs = pullback(list(gradients))
            return [*to_variables, *to_inputs]

        return outputs, rest, gradients_of

    @staticmethod
    def default_jit_compile() -> bool:
        """Return whether to compile with XLA. Without it, JAX runs one operation at a time."""
        return True

    @staticmethod
    def num_replicas() -> int:
        """Return the number of parts of a batch: one, as `keras.distribution` splits arrays."""
        return 1

    @staticmethod
    def replica() -> int:
        """Return the index of this part of a batch."""
        return 0


class _Batches(keras.utils.PyDataset):
    """Dataset whose batch i is `sample(source, first_step + i)`; Keras counts from 0 if endless."""

    def __init__(
        self,
        sample: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
        source: Any,
        first_step: int,
        num_steps: int | None,
    ):
        super().__init__()
        self._sample = jax.jit(sample)
        # An argument of each call: constants of the compiled function would use memory twice.
        self._source = jax.tree.map(jax.numpy.asarray, source)
        self._first_step = first_step
        self._num_steps = num_steps

    @property
    def num_batches(self) -> int | None:
        return self._num_steps

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self._sample(self._source, np.uint32(self._first_step + index))
        return x, y

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        index = 0
        while self._num_steps is None or index < self._num_steps:
            yield self[index]
            index += 1


def sampled_batches(
    sample: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
    source: Any,
    first_step: int,
    num_steps: int | None,
) -> keras.utils.PyDataset:
    """Return batches that are sampled on the device from data in its memory.

    Sampling a batch is one compiled call, which the host starts without waiting for its result.

    Args:
        sample: Pure function from `source` and a step, a uint32 scalar, to `(x, y)`.
        source: Structure of arrays, which are copied to the device once.
        first_step: Step of the first batch.
        num_steps: Number of batches; endless if `None`.

    Returns:
        A dataset for `fit`, which can also be iterated over.
    """
    return _Batches(sample, source, first_step, num_steps)
