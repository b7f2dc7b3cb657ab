"""What all open pages share: the rasters, the model, and what was computed of them."""

import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import QUANTIFICATION, to_network
from sits_keras.data.rasters.read import read_mask
from sits_keras.data.rasters.rows import open_strips, preview_step, thin
from sits_keras.data.tiling import Window, sliding_offsets
from sits_keras.errors import ConfigError, DataError
from sits_keras.explore.engine.cache import (
    Cache,
    Vectors,
    choose_stride,
    raster_facts,
    write_vectors,
)
from sits_keras.explore.engine.exports import NUM_STEPS
from sits_keras.explore.engine.model import Subject, stoppable, weights_sha256
from sits_keras.explore.engine.pixel_search import find_pixels
from sits_keras.explore.engine.sources import Image, Place, Raster
from sits_keras.explore.engine.state import Segments, ThresholdScores, look_up, segment_vectors
from sits_keras.tasks.change.detection import Change, WindowDistances, open_pair, window_distances
from sits_keras.tasks.retrieval.search import Match
from sits_keras.tasks.windows.sliding import is_dense

Tell = Callable[[str], None]

MOST_READ = 512
"""Windows of a raster that is not in memory that are read for a comparison by raw pixels."""

_NUM_CHANGES = 8  # kept in memory


class ChangeState(NamedTuple):
    """What changed between two dates, as it is looked at.

    Attributes:
        change: the whole of it.
        distance: every `preview_step`th row and column, `(rows, columns)` float32, NaN where either
            date has no data.
        reference: the same of the mask, bool, `None` where there is none.
        scores: against the mask, at those pixels; `None` where it marks all of them or none.
    """

    change: Change
    distance: np.ndarray
    reference: np.ndarray | None
    scores: ThresholdScores | None


class Explorer:
    """The rasters and the model that are explored.

    Its methods may be called from any thread; those that encode rasters take long.

    Args:
        subject: the model.
        places: the rasters.
        cache: where vectors are kept.
        stride: pixels from a window to the next; by default the smallest of 4, 8, ... 64 at which
            a raster has at most 20,000 windows.
    Raises:
        ConfigError: the stride is none that windows of 64 px cover a raster at, or that the encoder
            can be run at.
    """

    def __init__(
        self,
        subject: Subject,
        places: Sequence[Place],
        cache: Cache,
        stride: int | None = None,
    ):
        if stride is not None and not 1 <= stride <= 64:
            raise ConfigError(f"The stride must be 1 to 64 px. Received: {stride}.")
        self._stop = threading.Event()
        self.subject = stoppable(subject, self._stop)
        self.places = list(places)
        self._cache, self._stride = cache, stride
        self._lock = threading.Lock()  # one raster is encoded at a time, for all cores are at it
        self._vectors: dict[Path, Vectors] = {}
        self._sums: dict[str, str] = {}
        self.raster = functools.cache(lambda image: Raster(image.path, subject.bands))
        self._changes: dict[tuple[Image, Image, int], ChangeState] = {}

    def stop(self) -> None:
        """Gives up what is being encoded or generated, wherever that is."""
        self._stop.set()

    def stride_of(self, image: Image) -> int:
        """Pixels from a window of a raster to the next."""
        if self._stride is not None:
            return self._stride
        encoder = self.subject.shared or self.subject.encoder("exclusive")
        return choose_stride(self.raster(image).grid, bool(encoder.dense_strides))

    def known(self, image: Image) -> Vectors | None:
        """The vectors of a raster where they are in memory's reach already."""
        return self._vectors.get(image.path)

    def vectors(self, image: Image, tell: Tell) -> Vectors:
        """The shared features of a raster's windows; from the cache, else computed.

        Args:
            image: the raster.
            tell: told how far it is, in a few words, and of damaged files.
        Raises:
            StoppedError: the server ends.
        """
        with self._lock:
            if image.path not in self._vectors:
                stride = self.stride_of(image)
                encoder = self.subject.encoder("shared")
                strips = open_strips(image.path, encoder.bands)
                facts = {
                    "kind": "vectors",
                    "raster": raster_facts(image.path),
                    "model": self._sum("shared"),
                    "stride": stride,
                    "dense": is_dense(encoder, stride, None),
                }

                def write(folder: Path) -> None:
                    write_vectors(folder, strips, encoder, stride, advance)

                def advance(share: float) -> None:
                    tell(f"Encoding {image.label}: {share:.0%}")

                arrays = self._cache.get(facts, write, tell)
                self._vectors[image.path] = Vectors(stride, **arrays)
        return self._vectors[image.path]

    def look_up(
        self,
        queried: Image,
        at: tuple[int, int],
        searched: Image,
        num_matches: int,
        min_distance: int,
    ) -> list[Match]:
        """A window looked up in a raster whose vectors are known, by shared features."""
        vectors = self._vectors[searched.path]
        return look_up(self._encode(queried, at), vectors, num_matches, min_distance)

    def look_up_pixels(
        self,
        queried: Image,
        at: tuple[int, int],
        searched: Image,
        num_matches: int,
        min_distance: int,
    ) -> list[Match]:
        """The same by raw pixels; of a large raster, the nearest of the `MOST_READ` likeliest."""
        vectors = self._vectors[searched.path]
        raster = self.raster(searched)
        read = raster.reader()
        matches, _ = find_pixels(
            self.raster(queried).window(*at),
            vectors.rows,
            vectors.cols,
            vectors.valid_fraction,
            vectors.blocks,
            lambda row, col: read(Window(row, col, IMAGE_SIZE, IMAGE_SIZE)),
            num_matches=num_matches,
            min_distance=min_distance,
            most=None if raster.is_small else MOST_READ,
        )
        return matches

    def change(self, before: Image, after: Image, stride: int, tell: Tell) -> ChangeState:
        """What changed between two dates of a place; from the cache, else computed.

        Raises:
            DataError: no pixel holds data in both.
            StoppedError: the server ends.
        """
        key = before, after, stride
        with self._lock:
            state = self._changes.pop(key, None) or self._make_change(*key, tell)
            self._changes[key] = state  # the last that was looked at is the last to go
            if len(self._changes) > _NUM_CHANGES:
                del self._changes[next(iter(self._changes))]
            return state

    def crops(self, images: Sequence[Image], at: tuple[int, int]) -> np.ndarray:
        """One window of several dates, `(images, 64, 64, bands)` float32 in [-1, 1].

        Raises:
            DataError: one of them holds no data there.
        """
        stored = [self.raster(image).window(*at) for image in images]
        for image, one in zip(images, stored, strict=True):
            if not one.any():
                raise DataError(f"{image.path} holds no data at {at[0]},{at[1]}. Choose another.")
        return to_network(np.stack(stored), self.subject.whole().config.band_max)

    def translate(
        self, place: Image, date: Image, at: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A window of one date, and of another; and the first as it goes over to the second.

        Returns:
            `(2, 64, 64, bands)` and `(NUM_STEPS, 64, 64, bands)` float32 in [-1, 1].
        """
        crops = self.crops([place, date], at)
        model = self.subject.whole()
        steps = model.interpolate(crops[:1], crops[:1], crops[1:], NUM_STEPS)
        return crops, np.asarray(steps)[0]

    def sample(self, place: Image, at: tuple[int, int], count: int, seed: int) -> np.ndarray:
        """A window at dates that are drawn, `(count, 64, 64, bands)` float32 in [-1, 1]."""
        return np.asarray(self.subject.whole().sample(self.crops([place], at), count, seed))[0]

    def segments(self, image: Image, num_clusters: int, stride: int, tell: Tell) -> Segments:
        """Clusters of a raster's windows, as a map."""
        vectors = self.vectors(image, tell)
        strips = open_strips(image.path, self.subject.bands)
        return segment_vectors(vectors, strips, num_clusters, stride, self.fit_stride(image))

    def fit_stride(self, image: Image) -> int:
        """Pixels between the windows that clusters are fitted on: 32, where the stride divides it,
        and there are enough windows for ten clusters."""
        stride = self.stride_of(image)
        grid = self.raster(image).grid
        for fitted in (32, 16, 8):
            rows, cols = (len(sliding_offsets(one, IMAGE_SIZE, fitted)) for one in grid[:2])
            if fitted % stride == 0 and rows * cols >= 50:
                return fitted
        return stride

    def _encode(self, image: Image, at: tuple[int, int]) -> np.ndarray:
        encoder = self.subject.encoder("shared")
        window = self.raster(image).window(*at, encoder.context_margin)
        return np.asarray(encoder(window[None].astype(np.float32) / QUANTIFICATION), np.float32)

    def _make_change(self, before: Image, after: Image, stride: int, tell: Tell) -> ChangeState:
        encoder = self.subject.encoder("exclusive")
        pair = open_pair(before.path, after.path, encoder.bands)
        facts = {
            "kind": "change",
            "rasters": [raster_facts(one.path) for one in (before, after)],
            "model": self._sum("exclusive"),
            "stride": stride,
            "dense": is_dense(encoder, stride, None),
        }

        def write(folder: Path) -> None:
            tell(f"Comparing {before.label} and {after.label}")
            found = window_distances(pair, encoder, stride)
            for name, values in found._asdict().items():
                np.save(folder / f"{name}.npy", values)

        arrays = self._cache.get(facts, write, tell)
        change = Change(pair, WindowDistances(**arrays), stride, None)
        step = preview_step(*pair.before.grid[:2])
        distance = thin(change.rows(), step)
        (place,) = (one for one in self.places if before in one.images)
        reference = None if place.mask is None else read_mask(place.mask)[::step, ::step]
        scores = None
        if reference is not None:
            known = np.isfinite(distance)
            truth = reference[known]
            if truth.any() and not truth.all():
                scores = ThresholdScores(distance[known], truth)
        return ChangeState(change, distance, reference, scores)

    def _sum(self, encoder: str) -> str:
        if encoder not in self._sums:
            self._sums[encoder] = weights_sha256(getattr(self.subject, encoder))
        return self._sums[encoder]
