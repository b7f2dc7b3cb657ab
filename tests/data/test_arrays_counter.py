import numpy as np
import pytest
from keras import ops

from sits_keras.data.arrays import random_words, threefry


def words(*values):
    return tuple(ops.convert_to_tensor(value, "uint32") for value in values)


# Of the authors' own distribution (Random123, kat_vectors)
@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_its_known_answers(key, counter, expected):
    assert tuple(map(int, threefry(words(*key), words(*counter)))) == expected


def columns(seed, step, num_rows=4, num_columns=3):
    return np.array(random_words(seed, words(step)[0], num_rows, num_columns))


def test_random_words_every_seed_step_row_and_column_has_numbers_of_its_own():
    numbers = np.stack([columns(seed, step) for seed in (0, 1) for step in (0, 1, 2**31)])
    assert numbers.shape == (6, 3, 4)
    assert len(np.unique(numbers)) == numbers.size
    np.testing.assert_array_equal(columns(1, 2**31), numbers[-1])


def test_random_words_numbers_are_even_and_independent():
    # Of 3 columns of 10,000: means to five standard errors, likewise correlations.
    numbers = columns(0, 7, 10_000) / 2**31
    assert numbers.min() >= 0
    assert numbers.max() < 1
    np.testing.assert_allclose(numbers.mean(axis=1), 0.5, atol=5 * 12**-0.5 / 100)
    np.testing.assert_allclose(np.corrcoef(numbers), np.eye(3), atol=5 / 100)
