"""Clusters of a segmentation: what they are, what they are called, and their file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from sits_keras.data.rasters.write import MapClass
from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.files import read_json, write_json

SegmentMethod = Literal["layers", "windows"]
"""Features of a segmentation: layers of the encoder at each pixel, or the paper's windows."""

MOST_CLUSTERS = 254
UNLABELLED = 0
"""Value of pixels without data; clusters are 1, 2, ..."""

_FORMAT, _VERSION = "sits_keras clusters", 1
_REMEDY = "Expected the .clusters.json that `sits-keras segment` writes beside its map."

# Paul Tol's muted scheme, for colour-blind readers.
_COLOURS = (
    (51, 34, 136),
    (68, 170, 153),
    (17, 119, 51),
    (153, 153, 51),
    (221, 204, 119),
    (204, 102, 119),
    (136, 34, 85),
    (136, 204, 238),
    (170, 68, 153),
    (187, 187, 187),
)


class Clusters(NamedTuple):
    """Clusters of a segmentation, from the darkest to the brightest.

    Attributes:
        method: Features that were clustered.
        bands: Names of the bands of `spectra`.
        centres: `(clusters, features)` float32: of standardised features of pixels, or of features
            of windows.
        spectra: `(clusters, bands)` float64, mean reflectance of each cluster.
        num_samples: Number of pixels or windows that the clusters were fitted on.
        encoder: Checksum of the encoder's weights, empty for a plain function.
    """

    method: SegmentMethod
    bands: tuple[str, ...]
    centres: npt.NDArray[np.float32]
    spectra: npt.NDArray[np.float64]
    num_samples: int
    encoder: str = ""

    @property
    def brightness(self) -> npt.NDArray[np.float64]:
        """Mean reflectance of each cluster over all bands, `(clusters,)` float64."""
        brightness: npt.NDArray[np.float64] = self.spectra.mean(axis=1)
        return brightness

    def classes(self) -> dict[int, MapClass]:
        """Return the name and colour of each value of a map."""
        colours = class_colours(len(self.spectra))
        return {
            value: MapClass(_describe(value, spectrum, self.bands), colour)
            for value, (spectrum, colour) in enumerate(
                zip(self.spectra, colours, strict=True), start=1
            )
        }

    def select(self, kept: npt.NDArray[np.intp]) -> "Clusters":
        """Return some of the clusters.

        Args:
            kept: Indices of the clusters, in the order wanted.
        """
        return self._replace(centres=self.centres[kept], spectra=self.spectra[kept])


def class_colours(count: int) -> list[tuple[int, int, int]]:
    """Return RGB colours for classes, distinguishable for colour-blind readers up to ten.

    Args:
        count: Number of classes. Beyond ten, colours repeat.
    """
    return [_COLOURS[index % len(_COLOURS)] for index in range(count)]


def _describe(value: int, spectrum: npt.NDArray[np.float64], bands: Sequence[str]) -> str:
    """Name a cluster by its mean spectrum, with the NDVI where the bands allow it."""
    found = dict(zip(bands, spectrum, strict=True))
    near_infrared = found.get("B08", found.get("B8A"))
    text = f"cluster {value}: "
    if near_infrared is not None and "B04" in found:
        total = near_infrared + found["B04"]
        text += f"NDVI {(near_infrared - found['B04']) / total if total > 0 else 0:.2f}; "
    return text + ", ".join(f"{band} {mean:.3f}" for band, mean in found.items())


def check_num_clusters(num_clusters: int) -> None:
    """Check the number of clusters.

    Args:
        num_clusters: Number of clusters.

    Raises:
        ConfigError: If it is not 2 to 254.
    """
    if not 2 <= num_clusters <= MOST_CLUSTERS:
        raise ConfigError(
            f"num_clusters must be 2 to {MOST_CLUSTERS}. Received: num_clusters={num_clusters}."
        )


def run_k_means(
    samples: npt.NDArray[np.float32], num_clusters: int, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp]]:
    """Cluster samples by k-means, the best of four starts.

    Args:
        samples: `(samples, features)` float32, at least as many as clusters.
        num_clusters: Number of clusters.
        seed: Seed of the starts.

    Returns:
        `(clusters, features)` float32 centres, and the cluster of each sample.
    """
    means = KMeans(num_clusters, random_state=seed, n_init=4, max_iter=100)
    # More threads would change the order of sums, and so the last digits.
    with threadpool_limits(1):
        labels = means.fit(samples).labels_
    return means.cluster_centers_.astype(np.float32), labels


def nearest_cluster(
    centres: npt.NDArray[np.float32], features: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Return the index of the centre nearest to each vector; a `Reduce`.

    Args:
        centres: `(clusters, num_features)` float32.
        features: `(windows, num_features)` float32.

    Returns:
        `(windows,)` uint8.
    """
    # |f - c|^2 without |f|^2, which is equal for all centres.
    lengths = np.square(centres).sum(axis=1)
    nearest: npt.NDArray[np.intp] = (lengths - 2 * features @ centres.T).argmin(axis=1)
    return nearest.astype(np.uint8)


def clusters_path(out: Path) -> Path:
    """Return the file of the clusters of a map: `classes.clusters.json` for `classes.tif`."""
    return out.with_suffix(".clusters.json")


def write_clusters(path: Path, clusters: Clusters) -> None:
    """Write clusters as JSON, to apply them to other images (`like`).

    Args:
        path: Output file. An existing file is overwritten.
        clusters: The clusters.
    """
    write_json(
        path,
        {
            "format": _FORMAT,
            "version": _VERSION,
            "method": clusters.method,
            "encoder": clusters.encoder,
            "num_samples": clusters.num_samples,
            "bands": list(clusters.bands),
            "clusters": [
                {
                    "value": value,
                    "name": one.name,
                    "colour": list(one.colour),
                    "spectrum": [round(float(mean), 6) for mean in spectrum],
                    # The shortest digits that give the same float32 again.
                    "centre": [float(number) for number in centre.astype(str)],
                }
                for (value, one), spectrum, centre in zip(
                    clusters.classes().items(), clusters.spectra, clusters.centres, strict=True
                )
            ],
        },
    )


def read_clusters(path: Path | str) -> Clusters:
    """Read clusters that `segment_raster` wrote.

    Args:
        path: The `.clusters.json` beside a map.

    Raises:
        MissingError: If the file does not exist.
        DataError: If it is damaged, or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(f"No file at {path}. {_REMEDY}")
    values = read_json(path, _REMEDY)
    if values.get("format") != _FORMAT or values.get("version") != _VERSION:
        raise DataError(
            f"{path} is not a file of clusters. {_REMEDY} Received: format "
            f"{values.get('format')!r}, version {values.get('version')!r}."
        )
    try:
        bands = tuple(map(str, values["bands"]))
        centres = np.array([one["centre"] for one in values["clusters"]], np.float32)
        spectra = np.array([one["spectrum"] for one in values["clusters"]], np.float64)
        found = Clusters(
            values["method"],
            bands,
            centres,
            spectra,
            int(values["num_samples"]),
            str(values["encoder"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}. {_REMEDY}") from error
    _check(path, found)
    return found


def _check(path: Path, found: Clusters) -> None:
    count = len(found.spectra)
    is_sound = (
        found.method in get_args(SegmentMethod)
        and 1 <= count <= MOST_CLUSTERS
        and found.spectra.shape == (count, len(found.bands))
        and found.centres.ndim == 2
        and len(found.centres) == count
        and bool(np.isfinite(found.centres).all() and np.isfinite(found.spectra).all())
    )
    if not is_sound:
        raise DataError(
            f"{path} is damaged: its clusters do not fit together. Expected a centre and a "
            f"spectrum of finite numbers for each cluster. {_REMEDY}"
        )
