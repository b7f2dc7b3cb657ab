"""Encoders made of NumPy, whose features are whole numbers: no order of sums rounds otherwise."""

import numpy as np


class FilterEncoder:
    """A linear filter that reaches beyond its window, and has a dense form.

    Args:
        context_margin: pixels before and after a window that its features depend on.
        dense_strides: where its dense form may be used.
        num_features: how many filters.
        num_taps: pixels of the window and its context that each filter weighs.
    """

    bands = None

    def __init__(self, context_margin=(3, 5), dense_strides=(8, 16), num_features=3, num_taps=12):
        self.context_margin, self.dense_strides = context_margin, dense_strides
        self.num_features = num_features
        self.side = 64 + sum(context_margin)
        rng = np.random.default_rng(0)
        places = rng.integers(0, self.side, (num_features, num_taps, 2))
        places[:, 0], places[:, 1] = 0, self.side - 1  # it reaches as far as it says
        self.taps = [
            [(row, col, int(rng.integers(1, 9))) for row, col in of_one] for of_one in places
        ]
        self.sizes = []  # of what it was given

    def __call__(self, images):
        assert images.dtype == np.float32
        assert images.shape[1:3] == (self.side, self.side)
        self.sizes.append(len(images))
        return self._filter(images, 1, 1, 1)[:, 0, 0]

    def dense(self, images, stride):
        assert stride % min(self.dense_strides) == 0
        rows, cols = ((length - self.side) // stride + 1 for length in images.shape[1:3])
        self.sizes.append(rows * cols)
        return self._filter(images, rows, cols, stride)

    def _filter(self, images, rows, cols, stride):
        stored = np.rint(images.astype(np.float64) * 10_000)
        stored = stored @ np.arange(1, images.shape[-1] + 1)
        down, along = (stride * (count - 1) + 1 for count in (rows, cols))
        features = [
            sum(
                weight * stored[:, row : row + down : stride, col : col + along : stride]
                for row, col, weight in of_one
            )
            for of_one in self.taps
        ]
        return np.stack(features, axis=-1).astype(np.float32)
