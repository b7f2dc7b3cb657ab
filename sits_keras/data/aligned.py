"""Arrays that become tensors without a copy."""

from collections.abc import Sequence

import numpy as np

_ALIGNMENT = 64  # bytes; TensorFlow copies an array that does not begin on a multiple


def aligned_empty(shape: Sequence[int]) -> np.ndarray:
    """A float32 array, its values whatever was there, that TensorFlow takes as it is."""
    size = int(np.prod(shape))
    buffer = np.empty(size + _ALIGNMENT // 4, np.float32)
    skipped = -buffer.ctypes.data % _ALIGNMENT // 4
    return buffer[skipped : skipped + size].reshape(shape)
