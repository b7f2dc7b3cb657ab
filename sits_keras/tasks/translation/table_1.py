"""Measure translation of a place to another date, on crops (section 4.2, Table 1 and Figure 3)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import to_network
from sits_keras.errors import DataError
from sits_keras.model import DisentangledSITS


class L1Distance(NamedTuple):
    """Absolute difference of generated and real images over pixels and bands, in [-1, 1] units.

    Attributes:
        mean: Mean of |generated - real|.
        std: Its standard deviation.
    """

    mean: float
    std: float


class TranslationScores(NamedTuple):
    """Rows of Table 1, and a baseline.

    Attributes:
        translation: The place of one date at another date.
        autoencoding: Both representations from one image.
        time_series: A whole series from the shared representation of one of its dates.
        unchanged: Baseline: the other date, unchanged. A translation must score below it.
    """

    translation: L1Distance
    autoencoding: L1Distance
    time_series: L1Distance
    unchanged: L1Distance


def sample_crops(
    series: Sequence[npt.NDArray[Any]], num_crops: int, band_max: Sequence[float], seed: int
) -> list[npt.NDArray[np.float32]]:
    """Sample random crops of series, each with all its dates.

    Args:
        series: `(time, height, width, bands)` uint16 stored values of each series.
        num_crops: Number of crops. Every series is equally likely.
        band_max: Reflectance of each band that maps to 1.
        seed: Seed of the sample.

    Returns:
        `num_crops` arrays of `(time, 64, 64, bands)` float32 in [-1, 1].

    Raises:
        DataError: If there is no series, or one is smaller than a crop.
    """
    return list(iterate_crops(series, num_crops, band_max, seed))


def iterate_crops(
    series: Sequence[npt.NDArray[Any]], num_crops: int, band_max: Sequence[float], seed: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the crops of `sample_crops` one at a time.

    Args:
        series: See `sample_crops`.
        num_crops: See `sample_crops`.
        band_max: See `sample_crops`.
        seed: See `sample_crops`.

    Yields:
        `(time, 64, 64, bands)` float32 in [-1, 1].
    """
    if not series:
        raise DataError("Expected at least one series to sample crops from. Received none.")
    for images in series:
        if min(images.shape[1:3]) < IMAGE_SIZE:
            raise DataError(
                f"Expected series of at least {IMAGE_SIZE} x {IMAGE_SIZE} pixels. "
                f"Received shape: {images.shape}."
            )
    rng = np.random.default_rng(seed)
    for _ in range(num_crops):
        images = series[int(rng.integers(len(series)))]
        row = rng.integers(images.shape[1] - IMAGE_SIZE + 1)
        col = rng.integers(images.shape[2] - IMAGE_SIZE + 1)
        crop = images[:, row : row + IMAGE_SIZE, col : col + IMAGE_SIZE]
        yield to_network(crop, band_max)


def measure_translation(
    model: DisentangledSITS,
    crops: Iterable[npt.NDArray[np.float32]],
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> TranslationScores:
    """Measure the rows of Table 1 for one set of places.

    Translation and autoencoding are two images of the reconstructed series, so each image is
    encoded once.

    Args:
        model: Model to measure.
        crops: `(time, 64, 64, bands)` float32 in [-1, 1] of each place, with at least two dates.
        seed: Seed of the choice of dates.
        batch_size: Minimum number of images generated at a time. A place is never split.

    Returns:
        The scores.

    Raises:
        DataError: If there are no crops, or one has a single date.
    """
    rng = np.random.default_rng(seed)
    sums = {name: _Moments() for name in TranslationScores._fields}
    for batch in _batches(crops, batch_size):
        lengths = np.array([len(crop) for crop in batch])
        if lengths.min() < 2:
            raise DataError("Expected crops of two or more dates. Received a crop of one date.")
        starts = np.cumsum(lengths) - lengths
        dates = np.array([rng.choice(length, 2, replace=False) for length in lengths])
        first, second = (starts[:, None] + dates).T
        series = np.concatenate(batch)
        place_of = np.repeat(np.arange(len(batch)), lengths)
        generated = model.combine(series[first], series, place_of, np.arange(len(series)))
        errors = np.asarray(generated) - series
        sums["translation"].add(errors[second])
        sums["autoencoding"].add(errors[first])
        sums["time_series"].add(errors)
        sums["unchanged"].add(series[first] - series[second])
    if not sums["unchanged"].count:
        raise DataError("Expected at least one crop to measure on. Received none.")
    return TranslationScores(**{name: moments.distance() for name, moments in sums.items()})


def translation_table(
    model: DisentangledSITS,
    places: Mapping[str, Sequence[npt.NDArray[Any]]],
    *,
    num_crops: int = 9600,
    seed: int = 0,
) -> dict[str, TranslationScores]:
    """Fill Table 1: a column for each set of places, such as trained-on and held-out places.

    Args:
        model: Model to measure.
        places: Series of each set, each `(time, height, width, bands)` uint16 stored values.
        num_crops: Number of crops sampled from each set. The paper uses 150 batches of 64.
        seed: Seed of crops and dates.

    Returns:
        Scores of each set.

    Raises:
        DataError: If a set has no series, or one with a single date or smaller than a crop.
    """
    columns = {}
    for name, series in places.items():
        crops = iterate_crops(series, num_crops, model.config.band_max, seed)
        columns[name] = measure_translation(model, crops, seed=seed)
    return columns


def translate_all(
    model: DisentangledSITS,
    shared_from: npt.NDArray[np.float32],
    exclusive_from: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Translate every place to every date: the grid of Figure 3.

    Args:
        model: Model that generates.
        shared_from: `(places, 64, 64, bands)` float32 in [-1, 1].
        exclusive_from: `(dates, 64, 64, bands)` float32 in [-1, 1].

    Returns:
        `(places, dates, 64, 64, bands)` float32 in [-1, 1].
    """
    num_places, num_dates = len(shared_from), len(exclusive_from)
    place_of, date_of = np.divmod(np.arange(num_places * num_dates), num_dates)
    images: npt.NDArray[np.float32] = np.asarray(
        model.combine(shared_from, exclusive_from, place_of, date_of)
    )
    return images.reshape(num_places, num_dates, *images.shape[1:])


def _batches(
    crops: Iterable[npt.NDArray[np.float32]], batch_size: int
) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Yield lists of consecutive crops whose dates add up to at least a batch."""
    batch: list[npt.NDArray[np.float32]] = []
    for crop in crops:
        batch.append(crop)
        if sum(map(len, batch)) >= batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


class _Moments:
    """Running mean and standard deviation of absolute values."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.squares = 0.0

    def add(self, differences: npt.NDArray[Any]) -> None:
        """Add the absolute values of some differences."""
        absolute = np.abs(differences, dtype=np.float64)
        self.count += absolute.size
        self.sum += float(absolute.sum())
        self.squares += float(np.square(absolute).sum())

    def distance(self) -> L1Distance:
        """Return mean and standard deviation of all values so far."""
        mean = self.sum / self.count
        return L1Distance(mean, float(np.sqrt(max(self.squares / self.count - mean**2, 0.0))))
