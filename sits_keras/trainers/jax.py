"""What the training step needs of JAX: the Keras hooks, derivatives, and batches to draw.

Under JAX, a step is a pure function: Keras hands it the values of all variables and takes back the
new ones. Within a `keras.StatelessScope`, variables can be read and assigned as anywhere else, and
what is assigned stays in the scope.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import keras
import numpy as np

from sits_keras.trainers.base import PairTrainer, unpack_pair

Tensor = Any
State = tuple[list[Tensor], ...]

fused_batch_norm = None  # XLA fuses what Keras' layer does


class Trainer(PairTrainer):
    """A `PairTrainer` on JAX."""

    optimizer: keras.optimizers.Optimizer
    trainable_variables: list[keras.Variable]
    non_trainable_variables: list[keras.Variable]
    metrics_variables: list[keras.Variable]

    def train_step(
        self, state: State, data: tuple[Tensor, Tensor]
    ) -> tuple[dict[str, Tensor], State]:
        """One step of `fit`: one update of every network.

        Args:
            state: values of the trainable, other, optimizers' and metrics' variables.
            data: a batch of pairs.
        Returns:
            The metrics, and the new state.
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
        """One step of `evaluate`, and of `fit`'s validation; its state has no optimizers."""
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
    ) -> tuple[list[Tensor], Any, Callable[[Sequence[Tensor]], list[Tensor]]]:
        """See `PairTrainer`."""
        untrained = self.non_trainable_variables
        others = [(v, v.value) for v in (*self.trainable_variables, *untrained)]

        def pure(values: list[Tensor], inputs: list[Tensor]) -> tuple[list[Tensor], Any]:
            # A scope of its own, in which variables are values that can be traced. What is assigned
            # in it is handed out with the results: a tracer may leave its trace in no other way.
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
        """Whether to compile with XLA: without it, JAX runs an operation at a time."""
        return True

    @staticmethod
    def num_replicas() -> int:
        """Parts that a batch comes in: one, for `keras.distribution` splits arrays by itself."""
        return 1

    @staticmethod
    def replica() -> int:
        """Index of this part of a batch."""
        return 0


class _Batches(keras.utils.PyDataset):
    """Batch i is `draw(source, first_step + i)`; Keras counts up from 0 where it knows no end."""

    def __init__(
        self,
        draw: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
        source: Any,
        first_step: int,
        num_steps: int | None,
    ):
        super().__init__()
        self._draw = jax.jit(draw)
        # Handed to each call: as constants of the compiled function, they would be held twice.
        self._source = jax.tree.map(jax.numpy.asarray, source)
        self._first_step = first_step
        self._num_steps = num_steps

    @property
    def num_batches(self) -> int | None:
        return self._num_steps

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self._draw(self._source, np.uint32(self._first_step + index))
        return x, y

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        index = 0
        while self._num_steps is None or index < self._num_steps:
            yield self[index]
            index += 1


def drawn_batches(
    draw: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
    source: Any,
    first_step: int,
    num_steps: int | None,
) -> keras.utils.PyDataset:
    """Batches that are drawn on the device, from what lies there.

    The draw of a batch is compiled into one call, which the host starts and does not wait for: the
    next step is under way before this one is done.

    Args:
        draw: pure function from `source` and a step, a uint32 scalar, to `(x, y)`.
        source: a structure of arrays; they go to the device once.
        first_step: step of the first batch.
        num_steps: how many batches; endless if `None`.
    Returns:
        What `fit` takes and a loop can go over.
    """
    return _Batches(draw, source, first_step, num_steps)
