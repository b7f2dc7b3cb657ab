"""Random bits that are a pure function of a seed and a counter, whatever the backend.

Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011),
in `keras.ops`: it runs where the tensors are, and draws the same bits on TensorFlow as on JAX.
"""

from typing import Any

from keras import ops

Tensor = Any

_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two words of random bits for each counter.

    Args:
        key: two uint32 words.
        counter: two uint32 words, of shapes that can be broadcast.
    Returns:
        Two uint32 tensors of the counters' shape.
    """
    words = [*key, ops.bitwise_xor(ops.bitwise_xor(*key), _word(_PARITY))]
    x, y = counter[0] + words[0], counter[1] + words[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = ops.bitwise_or(
                ops.left_shift(y, _word(rotation)), ops.right_shift(y, _word(32 - rotation))
            )
            y = ops.bitwise_xor(x, y)
        x = x + words[(group + 1) % 3]
        y = y + words[(group + 2) % 3] + _word(group + 1)
    return x, y


def random_words(seed: int, step: Tensor, num_rows: int, num_columns: int) -> list[Tensor]:
    """Whole numbers, evenly distributed.

    Args:
        seed: of the whole stream, in [0, 2**31).
        step: uint32 scalar; each has numbers of its own.
        num_rows, num_columns: how many.
    Returns:
        For each column, a `(num_rows,)` int32 tensor of numbers in [0, 2**31).
    """
    num_pairs = -(-num_columns // 2)
    counters = ops.reshape(
        ops.cast(ops.arange(num_rows * num_pairs, dtype="int32"), "uint32"), (num_pairs, num_rows)
    )
    words = threefry((_word(seed), _word(0)), (step + ops.zeros_like(counters), counters))
    positive = [ops.cast(ops.right_shift(word, _word(1)), "int32") for word in words]
    return [half[pair] for pair in range(num_pairs) for half in positive][:num_columns]


def _word(value: int) -> Tensor:
    return ops.convert_to_tensor(value, "uint32")
