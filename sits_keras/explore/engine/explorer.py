"""Rasters and model that all open pages share, and what was computed from them."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import to_network
from sits_keras.data.rasters.points import Point
from sits_keras.data.rasters.read import read_mask
from sits_keras.data.rasters.rows import preview_step, thin
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError
from sits_keras.explore.engine.analysis import (
    ThresholdScores,
    find_by_features,
    find_by_pixels,
)
from sits_keras.explore.engine.cache import (
    Cache,
    Vectors,
    choose_stride,
    raster_facts,
    write_vectors,
)
from sits_keras.explore.engine.calls import NUM_STEPS, ExploredModel
from sits_keras.explore.engine.embeddings import ExploredEmbeddings
from sits_keras.explore.engine.sources import (
    DatedRaster,
    ExploredImage,
    ExploredPlace,
    MeanReader,
    RasterReader,
    SeriesMean,
)
from sits_keras.hub.encoder import weights_sha256
from sits_keras.tasks.change.clicks import ClickedChange
from sits_keras.tasks.change.detection import Change, WindowDistances, open_pair, window_distances
from sits_keras.tasks.change.maps import ChangeMethod
from sits_keras.tasks.change.pixels import (
    PixelChange,
    detect_pixel_change,
    detect_translation_change,
)
from sits_keras.tasks.retrieval.search import Match
from sits_keras.tasks.segmentation.maps import Segments, compute_segments
from sits_keras.tasks.windows import is_dense

OnProgress = Callable[[str], None]
"""Function that receives a few words about the progress of some work."""

MAX_READ = 512
"""Maximum number of windows that a comparison by raw pixels reads from a large raster."""

_NUM_CHANGES = 8  # kept in memory


class StoppedError(Exception):
    """The server ends, and running work is cancelled."""


class Stoppable:
    """An encoder or a model that raises StoppedError once an event is set.

    Work on a raster calls it for each batch or tile, and so ends soon after.

    Args:
        target: Encoder or model.
        event: Event that ends its use.
    """

    def __init__(self, target: Any, event: threading.Event):
        self._target, self._event = target, event

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The target's class, which `isinstance` asks for."""
        return type(self._target)

    def __call__(self, *arguments: Any) -> Any:
        """Call the encoder or model."""
        self._check()
        return self._target(*arguments)

    def __getattr__(self, name: str) -> Any:
        self._check()
        return getattr(self._target, name)

    def _check(self) -> None:
        if self._event.is_set():
            raise StoppedError


class ShownChange(NamedTuple):
    """A change between two dates, with what the page shows of it.

    Attributes:
        change: The whole change.
        distance: Every `preview_step`th row and column of the distance, `(rows, columns)` float32,
            NaN where either date has no data.
        reference: The same of the mask, bool, or `None` without a mask.
        scores: Scores of these pixels against the mask; `None` where it marks all of them or none.
    """

    change: Change
    distance: npt.NDArray[np.float32]
    reference: npt.NDArray[np.bool_] | None
    scores: ThresholdScores | None


class Explorer:
    """The rasters and the model that are explored.

    Any thread may call the methods. Those that encode rasters take long.

    Args:
        model: Model to explore.
        places: Rasters to explore.
        cache: Cache of vectors and changes.
        stride: Distance between windows, in pixels, 1 to 64. By default the smallest of 4, 8, ...
            64 at which a raster has at most 20,000 windows.
        embeddings: Embedding raster to search as well.

    Raises:
        ConfigError: The stride is out of range.
    """

    def __init__(
        self,
        model: ExploredModel,
        places: Sequence[ExploredPlace],
        cache: Cache,
        stride: int | None = None,
        embeddings: ExploredEmbeddings | None = None,
    ):
        if stride is not None and not 1 <= stride <= 64:
            raise ConfigError(
                f"The stride is out of range. Expected 1 to 64 px. Received: {stride}."
            )
        self._stop = threading.Event()
        parts = {name: getattr(model, name) for name in ("shared", "exclusive", "model")}
        wrapped = {name: part and Stoppable(part, self._stop) for name, part in parts.items()}
        self.model = model._replace(**cast(dict[str, Any], wrapped))
        self.places = list(places)
        self.embeddings = embeddings
        self._cache, self._stride = cache, stride
        self._lock = threading.Lock()  # one raster is encoded at a time, on all cores
        self._vectors: dict[ExploredImage, Vectors] = {}
        self._checksums: dict[str, str] = {}
        self._readers: dict[ExploredImage, RasterReader | MeanReader] = {}
        self._changes: dict[tuple[DatedRaster, DatedRaster, ChangeMethod, int], ShownChange] = {}
        self._clicked: tuple[ShownChange, ClickedChange] | None = None  # of the last pair

    def stop(self) -> None:
        """Cancel running work, in whatever thread it runs."""
        self._stop.set()

    def raster(self, image: ExploredImage) -> RasterReader | MeanReader:
        """Return the reader of a raster, or of the mean of a series."""
        if image not in self._readers:
            self._readers[image] = (
                MeanReader(image.path, self.model.bands, image.grid)
                if isinstance(image, SeriesMean)
                else RasterReader(image.path, self.model.bands)
            )
        return self._readers[image]

    def stride_of(self, image: ExploredImage) -> int:
        """Return the distance between the windows of a raster, in pixels."""
        if self._stride is not None:
            return self._stride
        encoder = self.model.shared or self.model.encoder("exclusive")
        return choose_stride(self.raster(image).grid, bool(encoder.dense_strides))

    def known_vectors(self, image: ExploredImage) -> Vectors | None:
        """Return the vectors of an image if they were computed or read already."""
        return self._vectors.get(image)

    def vectors(self, image: ExploredImage, on_progress: OnProgress) -> Vectors:
        """Return the shared features of an image's windows, from the cache or computed.

        Args:
            image: Raster, or mean of a series.
            on_progress: Function that receives the progress, and reports of damaged entries.

        Raises:
            StoppedError: The server ends.
        """
        with self._lock:
            if image not in self._vectors:
                stride = self.stride_of(image)
                encoder = self.model.encoder("shared")
                reader = self.raster(image)
                strips = reader.strips()
                facts = {
                    "kind": "vectors",
                    "raster": reader.facts(),
                    "model": self._checksum("shared"),
                    "stride": stride,
                    "dense": is_dense(encoder, stride, None),
                }

                def write(folder: Path) -> None:
                    write_vectors(folder, strips, encoder, stride, report)

                def report(fraction: float) -> None:
                    on_progress(f"Encoding {image.label}: {fraction:.0%}")

                arrays = self._cache.get(facts, write, on_progress)
                self._vectors[image] = Vectors(stride, **arrays)
        return self._vectors[image]

    def find_by_features(
        self,
        query: ExploredImage,
        at: tuple[int, int],
        searched: ExploredImage,
        num_matches: int,
        min_distance: int,
    ) -> list[Match]:
        """Find a window in a raster whose vectors are known, by shared features.

        Args:
            query: Raster of the window, or mean of a series.
            at: First row and column of the window.
            searched: Raster or mean to search.
            num_matches: Maximum number of matches.
            min_distance: Minimum distance between matches, in pixels.

        Returns:
            The matches, nearest first.
        """
        vectors = self._vectors[searched]
        features = self.raster(query).encode(self.model.encoder("shared"), *at)
        return find_by_features(features, vectors, num_matches, min_distance)

    def find_by_pixels(
        self,
        query: ExploredImage,
        at: tuple[int, int],
        searched: ExploredImage,
        num_matches: int,
        min_distance: int,
    ) -> list[Match]:
        """Find a window by raw pixels, as `find_by_features` does by features.

        In a large raster only the `MAX_READ` windows that are nearest by means of blocks are
        compared.
        """
        raster = self.raster(searched)
        read = raster.reader()
        matches, _ = find_by_pixels(
            self.raster(query).window(*at),
            self._vectors[searched],
            lambda row, col: read(Window(row, col, IMAGE_SIZE, IMAGE_SIZE)),
            num_matches=num_matches,
            min_distance=min_distance,
            max_compared=None if raster.is_small else MAX_READ,
        )
        return matches

    def change(
        self,
        before: DatedRaster,
        after: DatedRaster,
        method: ChangeMethod,
        stride: int,
        on_progress: OnProgress,
    ) -> ShownChange:
        """Return the change between two dates of a place, from the cache or computed.

        Args:
            before: Earlier date.
            after: Later date.
            method: Method of `tasks.map_change`.
            stride: Distance between windows, in pixels, for the method "exclusive".
            on_progress: Called with the progress.

        Raises:
            DataError: No pixel holds data in both.
            StoppedError: The server ends.
        """
        key = before, after, method, stride if method == "exclusive" else 0
        with self._lock:
            shown = self._changes.pop(key, None) or self._make_change(*key, on_progress)
            self._changes[key] = shown  # the least recently shown one is the first to go
            if len(self._changes) > _NUM_CHANGES:
                del self._changes[next(iter(self._changes))]
            return shown

    def steered_change(
        self,
        before: DatedRaster,
        after: DatedRaster,
        points: Sequence[Point],
        on_progress: OnProgress,
    ) -> ShownChange:
        """Return the change between two dates, steered by labelled points.

        The pair is encoded at its first point; after that, only the regression is fitted.

        Args:
            before: Earlier date.
            after: Later date.
            points: Labelled pixels.
            on_progress: Called with the progress.

        Raises:
            DataError: No point has data in both images.
            StoppedError: The server ends.
        """
        shown = self.change(before, after, "layers", 0, on_progress)
        with self._lock:
            if self._clicked is None or self._clicked[0] is not shown:
                on_progress(f"Encoding {before.label} and {after.label}")
                parts = self.model.change_parts("layers", with_labels=True)
                encoders = [self.model.encoder(part) for part in parts if part != "model"]
                clicked = ClickedChange(cast(PixelChange, shown.change), encoders)
                self._clicked = shown, clicked
            clicked = self._clicked[1]
        return self._preview(before, clicked.fit(points))

    def crops(self, images: Sequence[DatedRaster], at: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Return one window of several dates, `(images, 64, 64, bands)` float32 in [-1, 1].

        Raises:
            DataError: A date has no data in the window.
        """
        stored = [self.raster(image).window(*at) for image in images]
        for image, crop in zip(images, stored, strict=True):
            if not crop.any():
                raise DataError(
                    f"{image.path} has no data in the window at {at[0]},{at[1]}. Choose another "
                    "window."
                )
        return to_network(np.stack(stored), self.model.whole().config.band_max)

    def translate(
        self, place: DatedRaster, date: DatedRaster, at: tuple[int, int]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Generate a window of one date at another date, and at steps in between.

        Returns:
            Both real windows, `(2, 64, 64, bands)`, and the steps from the first date to the
            second, `(NUM_STEPS, 64, 64, bands)`, float32 in [-1, 1].
        """
        crops = self.crops([place, date], at)
        model = self.model.whole()
        steps = model.interpolate(crops[:1], crops[:1], crops[1:], NUM_STEPS)
        return crops, np.asarray(steps)[0]

    def sample(
        self, place: DatedRaster, at: tuple[int, int], num_samples: int, seed: int
    ) -> npt.NDArray[np.float32]:
        """Generate a window at sampled dates, `(num_samples, 64, 64, bands)` in [-1, 1]."""
        crops = self.crops([place], at)
        samples = np.asarray(self.model.whole().sample(crops, num_samples, seed), np.float32)
        first: npt.NDArray[np.float32] = samples[0]
        return first

    def segments(
        self, image: ExploredImage, num_clusters: int, min_region: int, on_progress: OnProgress
    ) -> Segments:
        """Map the clusters of an image's pixels, as `tasks.segment_raster` does."""
        on_progress(f"Segmenting {image.label}")
        with self._lock:
            return compute_segments(
                self.raster(image).clear_strips(),
                self.model.encoder("shared"),
                num_clusters=num_clusters,
                min_region=min_region,
            )

    def _make_change(
        self,
        before: DatedRaster,
        after: DatedRaster,
        method: ChangeMethod,
        stride: int,
        on_progress: OnProgress,
    ) -> ShownChange:
        change: Change
        if method == "exclusive":
            change = self._compare_windows(before, after, stride, on_progress)
        else:
            on_progress(f"Comparing {before.label} and {after.label}")
            images = open_pair(
                before.path, after.path, self.model.bands, any_size=method != "translation"
            )
            if method == "translation":
                change = detect_translation_change(images, self.model.whole())
            else:
                parts = self.model.change_parts(method)
                encoders = [self.model.encoder(part) for part in parts if part != "model"]
                change = detect_pixel_change(images, method, encoders)
        return self._preview(before, change)

    def _preview(self, before: DatedRaster, change: Change) -> ShownChange:
        """Return what the page shows of a change, with its scores against the place's mask."""
        step = preview_step(*change.pair.before.grid[:2])
        distance = thin(change.rows(), step)
        (place,) = (place for place in self.places if before in place.images)
        reference = None if place.mask is None else read_mask(place.mask)[::step, ::step]
        scores = None
        if reference is not None:
            known = np.isfinite(distance)
            truth = reference[known]
            if truth.any() and not truth.all():
                scores = ThresholdScores(distance[known], truth)
        return ShownChange(change, distance, reference, scores)

    def _compare_windows(
        self, before: DatedRaster, after: DatedRaster, stride: int, on_progress: OnProgress
    ) -> Change:
        """Return the change of windows; their distances are kept in the cache."""
        encoder = self.model.encoder("exclusive")
        pair = open_pair(before.path, after.path, encoder.bands)
        facts = {
            "kind": "change",
            "rasters": [raster_facts(image.path) for image in (before, after)],
            "model": self._checksum("exclusive"),
            "stride": stride,
            "dense": is_dense(encoder, stride, None),
        }

        def write(folder: Path) -> None:
            on_progress(f"Comparing {before.label} and {after.label}")
            distances = window_distances(pair, encoder, stride)
            for name, values in distances._asdict().items():
                np.save(folder / f"{name}.npy", values)

        arrays = self._cache.get(facts, write, on_progress)
        return Change(pair, WindowDistances(**arrays), stride, None)

    def _checksum(self, encoder: str) -> str:
        if encoder not in self._checksums:
            self._checksums[encoder] = weights_sha256(getattr(self.model, encoder))
        return self._checksums[encoder]
