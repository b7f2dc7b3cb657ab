"""Agreement of segmentations with the land and between dates, compared with k-means on pixels.

    python benchmarks/segments.py DATA [--model sits_rgbn_small] [--series NAME ...] [--dates 5]
        [--methods NAME ...]

Every method finds seven clusters in each image by itself. Measured are:

- the adjusted mutual information between the maps of two dates of a place, for all pairs of up to
  five dates of each place (`--dates`), over the pixels that are clear on both. The places are
  folders of DATA/series and DATA/more/series; by default those that no preset was trained on;
- the adjusted Rand index with the exact land classes of three procedural series at two dates.

The methods are:

- layers: `tasks.segment_raster`, with and without a minimum region;
- windows: the paper's, at a stride of 8, fitted at 16;
- pixels: k-means on the reflectance of pixels, and on reflectance that is standardised by band;
- normalised pixels: k-means on the reflectance less its mean over a window of 64 px, divided by its
  deviation over the same window.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np
import rasterio
from scipy.ndimage import uniform_filter
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

import sits_keras
from sits_keras.data.synthetic import make_series
from sits_keras.tasks.segmentation import segment

NUM_CLUSTERS = 7
HELD_OUT = ("earthnet-29SQC-2873-1465", "ns-forest", "greenearthnet-34TET", "botswana-34kgd")
MIN_CLEAR = 0.97
SEEDS, SIZE = (100, 101, 102), 192  # of the procedural series

Image = np.ndarray  # (height, width, bands) uint16, 0 without data
Method = Callable[[Image], np.ndarray]


def clear_dates(folder: Path) -> Iterator[tuple[Image, np.ndarray]]:
    """Yield the dates of a place that are nearly free of clouds, and which pixels are clear."""
    for path in sorted(folder.glob("????-??-??.tif")):
        with rasterio.open(path) as source:
            image = np.moveaxis(source.read(), 0, -1)
        clear = (image > 0).all(axis=-1)
        mask = path.with_name(f"{path.stem}_cloud.tif")
        if mask.exists():
            with rasterio.open(mask) as source:
                clear &= source.read(1) == 0
        if clear.mean() >= MIN_CLEAR:
            yield np.where(clear[..., None], image, 0).astype(np.uint16), clear


def cluster(features: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """Map k-means clusters of the features of clear pixels, 0 elsewhere."""
    values = features[clear]
    rng = np.random.default_rng(0)
    sample = values[rng.choice(len(values), min(len(values), 20_000), replace=False)]
    means = KMeans(NUM_CLUSTERS, random_state=0, n_init=4, max_iter=100).fit(sample)
    labels = np.zeros(clear.shape, int)
    labels[clear] = 1 + means.predict(values)
    return labels


def pixels(image: Image) -> np.ndarray:
    """K-means on reflectance."""
    return cluster(image / 10_000, image[..., 0] > 0)


def standardised_pixels(image: Image) -> np.ndarray:
    """K-means on reflectance, standardised by band."""
    clear = image[..., 0] > 0
    values = image[clear]
    return cluster((image - values.mean(axis=0)) / values.std(axis=0), clear)


def normalised_pixels(image: Image) -> np.ndarray:
    """K-means on reflectance, standardised over windows of 64 px."""
    clear = image[..., 0] > 0
    fraction = uniform_filter(clear.astype(float), 64)[..., None] + 1e-9
    values = image / 10_000.0
    mean = uniform_filter(values, (64, 64, 0)) / fraction
    square = uniform_filter(values**2, (64, 64, 0)) / fraction
    return cluster((values - mean) / np.sqrt(np.maximum(square - mean**2, 1e-8)), clear)


def main() -> None:
    """Print a table of both measures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="sits_rgbn_small")
    parser.add_argument("--series", nargs="*", default=HELD_OUT)
    parser.add_argument("--dates", type=int, default=5)
    parser.add_argument("--methods", nargs="*", help="by default all")
    args = parser.parse_args()
    encoder = sits_keras.from_preset(args.model, "shared")

    def layers(min_region: int) -> Method:
        return lambda image: segment(
            image, encoder, num_clusters=NUM_CLUSTERS, min_region=min_region
        )[0]

    methods: dict[str, Method] = {
        "layers": layers(16),
        "layers, all regions": layers(1),
        "windows": lambda image: segment(
            image, encoder, method="windows", num_clusters=NUM_CLUSTERS, fit_stride=16
        )[0],
        "pixels": pixels,
        "standardised pixels": standardised_pixels,
        "normalised pixels": normalised_pixels,
    }
    methods = {name: run for name, run in methods.items() if name in (args.methods or methods)}
    rows: dict[str, list[float]] = {name: [] for name in methods}
    for name in args.series:
        (folder,) = (one for one in args.data.glob(f"**/{name}") if one.parent.name == "series")
        dates = list(clear_dates(folder))
        chosen = np.unique(np.linspace(0, len(dates) - 1, min(len(dates), args.dates)).round())
        dates = [dates[int(index)] for index in chosen]
        for method, run in methods.items():
            maps = [run(image) for image, _ in dates]
            scores = []
            for first in range(len(dates)):
                for second in range(first):
                    both = dates[first][1] & dates[second][1]
                    scores.append(adjusted_mutual_info_score(maps[first][both], maps[second][both]))
            rows[method].append(float(np.mean(scores)))
    for seed in SEEDS:
        truth = make_series(seed, height=SIZE, width=SIZE, num_dates=12, num_cloudy=0)
        for date in (3, 9):
            for method, run in methods.items():
                labels = run(truth.images[date])
                rows[method].append(adjusted_rand_score(truth.states[date].ravel(), labels.ravel()))
    count = len(args.series)
    print("| method |", " | ".join(args.series), "| mean AMI | ARI by scene | mean ARI |")
    for method, scores in rows.items():
        places, scenes = scores[:count], scores[count:]
        print(
            f"| {method} |",
            " | ".join(f"{score:.3f}" for score in places),
            f"| {np.mean(places):.3f} | {', '.join(f'{one:.2f}' for one in scenes)} |",
            f"{np.mean(scenes):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
