"""One image at the date of another (section 4.2, Table 1 and Figure 3)."""

from collections.abc import Sequence
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


def draw_crops(
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
    if not series:
        raise DataError("Expected at least one series to draw crops from. Received none.")
    for images in series:
        if min(images.shape[1:3]) < IMAGE_SIZE:
            raise DataError(
                f"Expected series of at least {IMAGE_SIZE} x {IMAGE_SIZE} pixels. "
                f"Received shape: {images.shape}."
            )
    rng = np.random.default_rng(seed)
    crops = []
    for _ in range(num_crops):
        images = series[int(rng.integers(len(series)))]
        row = rng.integers(images.shape[1] - IMAGE_SIZE + 1)
        col = rng.integers(images.shape[2] - IMAGE_SIZE + 1)
        crop = images[:, row : row + IMAGE_SIZE, col : col + IMAGE_SIZE]
        crops.append(to_network(crop, band_max))
    return crops


def measure_translation(
    model: DisentangledSITS, crops: Sequence[np.ndarray], *, seed: int = 0
) -> TranslationScores:
    """Fills the rows of Table 1.

    Args:
        model: what to measure.
        crops: of each place, `(time, 64, 64, bands)` float32 in [-1, 1], at least two dates.
        seed: seed of the choice of dates.
    Raises:
        DataError: there are no crops.
    """
    if not crops:
        raise DataError("Expected at least one crop to measure on. Received none.")
    rng = np.random.default_rng(seed)
    sums = {name: _Moments() for name in TranslationScores._fields}
    for crop in crops:
        first, second = rng.choice(len(crop), 2, replace=False)
        x, y = crop[first : first + 1], crop[second : second + 1]
        sums["translation"].add(np.asarray(model.translate(x, y)) - y)
        sums["autoencoding"].add(np.asarray(model.autoencode(x)) - x)
        sums["time_series"].add(np.asarray(model.reconstruct_series(crop, int(first))) - crop)
        sums["unchanged"].add(x - y)
    return TranslationScores(**{name: moments.distance() for name, moments in sums.items()})


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
