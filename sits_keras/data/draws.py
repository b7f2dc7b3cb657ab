"""Pairs drawn from mapped records, in NumPy: batch k is a pure function of (seed, k)."""

import functools
from collections.abc import Sequence

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.aligned import aligned_empty
from sits_keras.data.mapped_records import MappedBlock
from sits_keras.data.tiling import reflect

_ORDER, _DRAWS = 0, 1  # the random streams of a seed
_BITS_OF_ONE = np.float32(1).view(np.int32)


class PairDraws:
    """Draws batches of pairs: called with a step, it returns its `(x, y)`.

    Args:
        blocks: the records.
        batch_size: pairs in a batch of this worker.
        seed: of the order of the records and of every draw.
        gain: `(bands,)` from stored to network values, of the bands wanted.
        positions: of the bands wanted, among those stored.
        augment: turn and flip.
        pairs_per_record: consecutive batches that share their records.
        context: pixels before and after each crop.
        worker: index of this worker, and how many there are.
    """

    def __init__(
        self,
        blocks: Sequence[MappedBlock],
        batch_size: int,
        *,
        seed: int,
        gain: np.ndarray,
        positions: Sequence[int],
        augment: bool,
        pairs_per_record: int,
        context: tuple[int, int],
        worker: tuple[int, int],
    ):
        self.blocks = blocks
        self.batch_size = batch_size
        self.seed = seed
        self.positions = positions
        self.augment = augment
        self.pairs_per_record = pairs_per_record
        self.worker = worker
        # (records,) each: dates, rows and columns.
        self.sizes = np.array([(len(b.pixels), b.height, b.width) for b in blocks]).T
        self.steps = np.arange(-context[0], IMAGE_SIZE + context[1])
        # Of a row of pixels at once: four bands are too few to multiply fast.
        self.gain = np.tile(gain, len(self.steps))
        self.checked = bytearray(len(blocks))

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The batch of a step.

        Returns:
            `x` and `y`, each `(batch_size, side, side, bands)` float32 in [-1, 1], where side is
            64 and the context.
        Raises:
            DataError: a record that was not read before has changed since it was written.
        """
        index, num_workers = self.worker
        total = self.batch_size * num_workers
        first_visit = step // self.pairs_per_record * total
        own = slice(index * self.batch_size, (index + 1) * self.batch_size)
        visits = range(first_visit, first_visit + total)[own]
        num_records = len(self.blocks)
        records = np.array(
            [_order(self.seed, v // num_records, num_records)[v % num_records] for v in visits]
        )
        draws = np.random.default_rng((self.seed, _DRAWS, step)).random((total, 7))
        draws = draws[own].T
        num_dates, heights, widths = self.sizes[:, records]
        first = _below(num_dates, draws[0])
        second = (first + 1 + _below(num_dates - 1, draws[1])) % num_dates
        where = self._pixels_of_crops(heights, widths, draws[2:])
        side = len(self.steps)
        stored = np.empty((2, self.batch_size, side * side), self.blocks[0].pixels.dtype)
        for item, record in enumerate(records):
            block = self.blocks[record]
            if not self.checked[record]:
                block.check()
                self.checked[record] = True
            for images, date in zip(stored, (first[item], second[item]), strict=True):
                # No index is out of range; "clip" is the mode that writes into `out` directly.
                block.pixels[date].take(where[item], out=images[item], mode="clip")
        return self._to_network(stored.view("<u2").reshape(2, -1, side, side, stored.itemsize // 2))

    def _pixels_of_crops(
        self, heights: np.ndarray, widths: np.ndarray, draws: np.ndarray
    ) -> np.ndarray:
        """`(batch, side * side)`: which pixel of its block each pixel of each crop is."""
        rows = _below(heights - IMAGE_SIZE + 1, draws[0])[:, None]
        cols = _below(widths - IMAGE_SIZE + 1, draws[1])[:, None]
        swap, flip_rows, flip_cols = draws[2:, :, None] < (0.5 if self.augment else 0)
        # A crop is flipped about its own centre, whatever the context.
        back = IMAGE_SIZE - 1 - self.steps
        rows = rows + np.where(flip_rows, back, self.steps)
        cols = cols + np.where(flip_cols, back, self.steps)
        rows = reflect(rows, heights[:, None]) * widths[:, None]
        cols = reflect(cols, widths[:, None])
        down, across = np.where(swap, cols, rows), np.where(swap, rows, cols)
        return (down[:, :, None] + across[:, None, :]).reshape(len(heights), -1)

    def _to_network(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`(2, batch, side, side, stored bands)` uint16 as network values of the bands wanted."""
        if list(self.positions) != list(range(stored.shape[-1])):
            stored = stored.take(self.positions, axis=-1)
        values = aligned_empty((*stored.shape[:3], stored.shape[3] * stored.shape[4]))
        for image, target in zip(
            stored.reshape(-1, *values.shape[2:]),
            values.reshape(-1, *values.shape[2:]),
            strict=True,
        ):
            np.multiply(image, self.gain, out=target, dtype=np.float32)
            target -= 1  # at least -1, for no stored value is negative
            # Floats are in the order of their bits, whose minimum takes a quarter of the time.
            np.minimum(target.view(np.int32), _BITS_OF_ONE, out=target.view(np.int32))
        x, y = values.reshape(stored.shape)
        return x, y


def _below(limits: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 to below `limits`, of draws in [0, 1)."""
    return (draws * limits).astype(np.int64)


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_records: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(num_records)
