"""Fixtures of the data layer's tests."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf


class PlainRecord(NamedTuple):
    """A record as a reader without this package sees it."""

    series: str
    patch: int
    window: tuple[int, ...]
    dates: tuple[str, ...]
    images: np.ndarray


@pytest.fixture(scope="session")
def read_plainly() -> Callable[..., list[PlainRecord]]:
    """Reads records with TensorFlow and NumPy alone, as `docs/record_format.md` describes them."""

    def read(files: Iterable[Path | str], compression: str = "") -> list[PlainRecord]:
        names = [str(file) for file in files]
        records = tf.data.TFRecordDataset(names, compression).as_numpy_iterator()
        return [plain_record(record) for record in records]

    return read


def plain_record(serialized: bytes) -> PlainRecord:
    features = tf.train.Example.FromString(serialized).features.feature
    shape = features["shape"].int64_list.value
    images = [
        np.frombuffer(image, "<u2").reshape(shape) for image in features["images"].bytes_list.value
    ]
    return PlainRecord(
        series=features["series"].bytes_list.value[0].decode(),
        patch=features["patch"].int64_list.value[0],
        window=tuple(features["window"].int64_list.value),
        dates=tuple(date.decode() for date in features["dates"].bytes_list.value),
        images=np.stack(images),
    )


@pytest.fixture(scope="session")
def listing() -> Callable[[Path], list[str]]:
    """Names of all that lies in a folder, hidden or not."""
    return lambda folder: sorted(path.name for path in folder.iterdir())
