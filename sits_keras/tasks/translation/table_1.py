"""One place at the date of another, on crops (section 4.2, Table 1 and Figure 3)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import to_network
from sits_keras.errors import DataError
from sits_keras.model import DisentangledSITS


class Distance(NamedTuple):
    """Mean and standard deviation over pixels and bands of |generated - real|, in [-1, 1] units."""

    mean: float
    std: float


class TranslationScores(NamedTuple):
    """The rows of Table 1, and the distance of the two dates themselves.

    Attributes:
        translation: the place of one date at another date.
        autoencoding: both representations from one image.
        time_series: a whole series from the shared representation of one of its dates.
        unchanged: one date taken for the other, as it is: what a translation must beat.
    """

    translation: Distance
    autoencoding: Distance
    time_series: Distance
    unchanged: Distance


def sample_crops(
    series: Sequence[np.ndarray], num_crops: int, band_max: Sequence[float], seed: int
) -> list[np.ndarray]:
    """Random crops of some series, each with all its dates.

    Args:
        series: of each, `(time, height, width, bands)` uint16 stored values.
        num_crops: how many; a series is drawn as often as any other.
        band_max: reflectance of each band that becomes 1.
        seed: seed of the draws.
    Returns:
        `num_crops` arrays of `(time, 64, 64, bands)` float32 in [-1, 1].
    Raises:
        DataError: there is no series, or one is smaller than a crop.
    """
    return list(iterate_crops(series, num_crops, band_max, seed))


def iterate_crops(
    series: Sequence[np.ndarray], num_crops: int, band_max: Sequence[float], seed: int
) -> Iterator[np.ndarray]:
    """The crops of `sample_crops`, one after the other."""
    if not series:
        raise DataError("Expected at least one series to draw crops from. Received none.")
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
    crops: Iterable[np.ndarray],
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> TranslationScores:
    """Fills the rows of Table 1 for one set of places.

    Translation and autoencoding are two images of the reconstructed series, so that each image is
    encoded once.

    Args:
        model: what to measure.
        crops: of each place, `(time, 64, 64, bands)` float32 in [-1, 1], at least two dates.
        seed: seed of the choice of dates.
        batch_size: images generated at a time, at least; a place is never cut.
    Raises:
        DataError: there are no crops, or one has a single date.
    """
    rng = np.random.default_rng(seed)
    sums = {name: _Moments() for name in TranslationScores._fields}
    for batch in _batches(crops, batch_size):
        lengths = np.array([len(crop) for crop in batch])
        if lengths.min() < 2:
            raise DataError("Expected crops of two or more dates. Received one of 1.")
        starts = np.cumsum(lengths) - lengths
        dates = np.array([rng.choice(length, 2, replace=False) for length in lengths])
        first, second = (starts[:, None] + dates).T
        series = np.concatenate(batch)
        place_of = np.repeat(np.arange(len(batch)), lengths)
        generated = model.combine(series[first], series, place_of, np.arange(len(series)))
        wrong = np.asarray(generated) - series
        sums["translation"].add(wrong[second])
        sums["autoencoding"].add(wrong[first])
        sums["time_series"].add(wrong)
        sums["unchanged"].add(series[first] - series[second])
    if not sums["unchanged"].count:
        raise DataError("Expected at least one crop to measure on. Received none.")
    return TranslationScores(**{name: moments.distance() for name, moments in sums.items()})


def translation_table(
    model: DisentangledSITS,
    places: Mapping[str, Sequence[np.ndarray]],
    *,
    num_crops: int = 9600,
    seed: int = 0,
) -> dict[str, TranslationScores]:
    """Table 1: a column for each set of places, those trained on and those that were not, say.

    Args:
        model: what to measure.
        places: of each set, its series, each `(time, height, width, bands)` uint16 stored values.
        num_crops: crops drawn from each set; the paper's 150 batches of 64.
        seed: seed of crops and dates.
    Raises:
        DataError: a set has no series, or one of a single date or smaller than a crop.
    """
    columns = {}
    for name, series in places.items():
        crops = iterate_crops(series, num_crops, model.config.band_max, seed)
        columns[name] = measure_translation(model, crops, seed=seed)
    return columns


def translate_all(
    model: DisentangledSITS, shared_from: np.ndarray, exclusive_from: np.ndarray
) -> np.ndarray:
    """Every place at every date: the grid of Figure 3.

    Args:
        model: what generates.
        shared_from: `(places, 64, 64, bands)` float32 in [-1, 1].
        exclusive_from: `(dates, 64, 64, bands)` float32 in [-1, 1].
    Returns:
        `(places, dates, 64, 64, bands)` float32 in [-1, 1].
    """
    num_places, num_dates = len(shared_from), len(exclusive_from)
    place_of, date_of = np.divmod(np.arange(num_places * num_dates), num_dates)
    images = np.asarray(model.combine(shared_from, exclusive_from, place_of, date_of))
    return images.reshape(num_places, num_dates, *images.shape[1:])


def _batches(crops: Iterable[np.ndarray], batch_size: int) -> Iterator[list[np.ndarray]]:
    """Consecutive crops whose dates add up to a batch."""
    batch: list[np.ndarray] = []
    for crop in crops:
        batch.append(crop)
        if sum(map(len, batch)) >= batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


class _Moments:
    """Running mean and deviation of absolute values."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.squares = 0.0

    def add(self, differences: np.ndarray) -> None:
        absolute = np.abs(differences, dtype=np.float64)
        self.count += absolute.size
        self.sum += float(absolute.sum())
        self.squares += float(np.square(absolute).sum())

    def distance(self) -> Distance:
        mean = self.sum / self.count
        return Distance(mean, float(np.sqrt(max(self.squares / self.count - mean**2, 0.0))))
