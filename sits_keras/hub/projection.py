"""Projection of an encoder's layers to few numbers, stored with the encoder.

A pixel is described by its reflectance and by layers 1 to 4 of the shared encoder around it. The
projection is linear: `numbers = (features - offset) @ axes`. It is fitted once, on the training
places, so that numbers of all rasters are comparable. Its axes are ordered by the variance that
they explain, so the first 16 numbers are the best 16. Each number has a standard deviation of about
one, so one step of int8 serves all of them.
"""

import hashlib
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.errors import DataError
from sits_keras.files import written_aside

PROJECTED_LAYERS = (1, 2, 3, 4)
"""Layers of the shared encoder that are projected, after the reflectance."""

NUM_AXES = 128
"""Numbers of a stored projection."""

_VERSION = 1
_REMEDY = "Fit it again (benchmarks/projection.py, or `sits-keras embed --fit-projection`)."


class Projection(NamedTuple):
    """Linear projection of reflectance and layers.

    Attributes:
        offset: `(features,)` float32, mean of each feature: bands first, then the channels of each
            layer of `PROJECTED_LAYERS`.
        axes: `(features, numbers)` float32, ordered by importance.
        step: Difference of numbers that one step of int8 stands for.
        encoder: Checksum of the encoder, `hub.encoder.weights_sha256`.
    """

    offset: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32]
    step: float
    encoder: str

    @property
    def sha256(self) -> str:
        """Checksum of what the numbers depend on."""
        digest = hashlib.sha256(f"{self.step!r} {self.encoder}".encode())
        for values in (self.offset, self.axes):
            digest.update(np.ascontiguousarray(values, "<f4").tobytes())
        return digest.hexdigest()


def write_projection(path: Path, projection: Projection) -> None:
    """Write a projection; the same one always has the same bytes.

    Args:
        path: Output file, `.npz`. An existing file is overwritten.
        projection: Projection to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(
            file,
            version=np.int64(_VERSION),
            offset=projection.offset.astype("<f4"),
            axes=projection.axes.astype("<f4"),
            step=np.float64(projection.step),
            encoder=np.array(projection.encoder),
        )


def read_projection(path: Path) -> Projection:
    """Read a projection.

    Args:
        path: File that `write_projection` wrote.

    Raises:
        DataError: The file is damaged, or not a projection.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            version = int(file["version"])
            found = Projection(
                file["offset"], file["axes"], float(file["step"]), str(file["encoder"])
            )
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a projection, or damaged: {error}. {_REMEDY}") from error
    if version != _VERSION:
        raise DataError(
            f"{path} is a projection of version {version}. Expected version {_VERSION}. {_REMEDY}"
        )
    is_fitting = (
        found.offset.ndim == 1
        and found.axes.ndim == 2
        and len(found.offset) == len(found.axes)
        and found.step > 0
        and bool(np.isfinite(found.axes).all() and np.isfinite(found.offset).all())
    )
    if not is_fitting:
        raise DataError(
            f"{path} is damaged: offset {found.offset.shape}, axes {found.axes.shape}, step "
            f"{found.step:g}. {_REMEDY}"
        )
    return found
