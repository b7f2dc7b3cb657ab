"""Speed and memory of embedding a series, and what averages and few numbers cost and buy.

    python benchmarks/embed_series.py speed PRESET [--dates 1 4 16] [--side 1024]
    python benchmarks/embed_series.py accuracy PRESET CHIPS...
    python benchmarks/embed_series.py halves PRESET SERIES...
    python benchmarks/embed_series.py windows PRESET SERIES... [--classifier FOLDER]

`speed` embeds a synthetic series of each number of dates, each in a process of its own, and prints
pixels a second, the ratio to reading the same pixels, and the peak memory.

`accuracy` scores labelled chips by the mean and the deviation of the numbers of their pixels: a
linear probe, fivefold, and Recall@1 (the nearest other chip has the same class). Rows: all
standardised features, and 128 to 16 numbers as float32, float16 or int8.

`halves` embeds the even and the odd dates of each series separately. It prints the adjusted Rand
index of k-means maps of the two (7 classes, fitted on both), and Recall@1 of pixels: the fraction
of sampled pixels of one half whose nearest sampled pixel of the other half is at most 2 px away.
It compares one date of each half with the average of all.

`windows` compares features of windows of the two halves at stride 4: Recall@1 is the fraction of
up to 400 windows of one half whose nearest window of the other half, by L1 distance, is at the
same place. With a classifier, it prints the fraction of equal pixels of the two class maps, at a
stride of 16.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import rasterio

import sits_keras
from sits_keras import tasks
from sits_keras.data.eurosat import read_labelled
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.hub.layers import LayerEncoder
from sits_keras.hub.projection import PROJECTED_LAYERS, Projection
from sits_keras.tasks.classification.classifier import Classifier
from sits_keras.tasks.embedding.pixels import PixelEmbedder, write_pixels
from sits_keras.tasks.retrieval.distances import l1_distances
from sits_keras.tasks.series import SeriesImage, SeriesStrips, open_series
from sits_keras.tasks.windows import iterate_windows

CLASSES = 7
SAMPLED = 1500
QUERIES = 400


def speed(preset: str, num_dates: Sequence[int], side: int) -> None:
    """Time each number of dates in a process of its own, and print a table."""
    print("dates | px/s | ratio to reading | peak memory, MB")
    for count in num_dates:
        with tempfile.TemporaryDirectory() as folder:
            write_series(Path(folder) / "series", count, side)
            command = [sys.executable, __file__, "one", preset, folder]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout, end=""
            )


def write_series(folder: Path, count: int, side: int) -> None:
    """Write dates of random fields, with masks."""
    folder.mkdir()
    grid = Grid(side, side, "EPSG:32631", (10.0, 0.0, 6e5, 0.0, -10.0, 5e6))
    bands = ("B02", "B03", "B04", "B08")
    for date in range(count):
        rng = np.random.default_rng(date)
        fields = rng.integers(300, 3000, (side // 16, side // 16, 4)).repeat(16, 0).repeat(16, 1)
        image = (fields + rng.integers(-100, 100, fields.shape)).astype(np.uint16)
        cloud = (rng.random((side // 64, side // 64, 1)) < 0.2).repeat(64, 0).repeat(64, 1)
        name = f"20{20 + date // 12}-{date % 12 + 1:02}-01"
        write_raster(folder / f"{name}.tif", image, bands, grid)
        write_raster(folder / f"{name}_cloud.tif", cloud.astype(np.uint8), ["cloud"], grid)


def one(preset: str, folder: Path) -> None:
    """Embed the series in a folder, and print a row of the table."""
    encoder = sits_keras.from_preset(preset, "shared")
    embedder = make_embedder(encoder, open_series(folder / "series", encoder.bands), "int8", 64)
    series = embedder.series
    (small,) = series.windows(side=series.grid.height)
    list(embedder.blocks([small._replace(height=256, width=256)]))  # traces the network
    started = time.perf_counter()
    for window in series.windows():
        for index in range(len(series.acquisitions)):
            series.read(index, window)
    reading = time.perf_counter() - started
    started = time.perf_counter()
    write_pixels(embedder, folder / "out.tif")
    took = time.perf_counter() - started
    count = len(series.acquisitions)
    pixels = series.grid.height * series.grid.width * count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count} | {pixels / took:,.0f} | {took / reading:.1f} | {peak:,.0f}")


def make_embedder(
    encoder: sits_keras.hub.HubEncoder, series: SeriesImage, dtype: str, dim: int
) -> PixelEmbedder:
    return PixelEmbedder(encoder, series, encoder.projection, dim, dtype, 1)


def steps(encoder: sits_keras.hub.HubEncoder) -> dict[str, tuple[Projection, int, str]]:
    """Return the projection, numbers and dtype of each step of the table."""
    stored = encoder.projection
    layers = LayerEncoder(encoder, PROJECTED_LAYERS)
    sizes = [len(layers.bands), *(grid.num_channels for grid in layers.grids)]
    # A classifier that standardises its features does not see scales.
    whole = stored._replace(axes=np.eye(sum(sizes), dtype=np.float32))
    return {
        f"all {sum(sizes)} features, float32": (whole, sum(sizes), "float32"),
        "128 numbers, float32": (stored, 128, "float32"),
        "64 numbers, float32": (stored, 64, "float32"),
        "64 numbers, float16": (stored, 64, "float16"),
        "64 numbers, int8": (stored, 64, "int8"),
        "32 numbers, int8": (stored, 32, "int8"),
        "16 numbers, float32": (stored, 16, "float32"),
        "16 numbers, int8": (stored, 16, "int8"),
    }


def accuracy(preset: str, paths: Sequence[Path], limit: int | None) -> None:
    """Print the scores of labelled chips after each step."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    encoder = sits_keras.from_preset(preset, "shared")
    table = steps(encoder)
    empty = open_series(np.zeros((64, 64, len(encoder.bands)), np.uint16), encoder.bands)
    exact = {
        id(one): PixelEmbedder(encoder, empty, one, one.axes.shape[1], "float32", 1)
        for one, _, _ in table.values()
    }
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in table}
    labels: list[str] = []
    for path in paths:
        chips = read_labelled(path, encoder.bands, limit=limit)
        for index, label in enumerate(chips.labels):
            labels.append(chips.classes[label])
            image = chips.reflectance(slice(index, index + 1))[0].astype(np.float32)
            numbers = compute(exact, open_series(image, encoder.bands), table)
            for name, values in numbers.items():
                pixels = values.reshape(-1, values.shape[-1])
                vectors[name].append(np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)]))
    classes = np.array(labels)
    print(f"{len(classes)} chips | linear probe | Recall@1")
    for name, features in vectors.items():
        values = np.stack(features)
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        best = max(
            cross_val_score(
                make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300)),
                values,
                classes,
                cv=folds,
            ).mean()
            for c in (0.03, 0.1, 0.3)
        )
        scaled = StandardScaler().fit_transform(values)
        nearest = nearest_of(scaled, scaled, own=True)
        recall = (classes[nearest] == classes).mean()
        print(f"{name} | {100 * best:.1f} % | {100 * recall:.1f} %", flush=True)


def compute(
    embedders: dict[int, PixelEmbedder],
    series: SeriesImage,
    table: dict[str, tuple[Projection, int, str]],
) -> dict[str, np.ndarray]:
    """Return the numbers of the pixels of a chip after each step, from those of each projection."""
    exact: dict[int, np.ndarray] = {}
    for key, embedder in embedders.items():
        embedder.series = series
        (block,) = embedder.blocks(series.windows())
        exact[key] = block.values
    found: dict[str, np.ndarray] = {}
    for name, (projection, dim, dtype) in table.items():
        values = exact[id(projection)][..., :dim]
        if dtype == "int8":
            step = np.float32(projection.step)
            values = np.clip(np.rint(values / step), -127, 127) * step
        found[name] = values.astype("float16" if dtype == "float16" else np.float32)
    return {name: values.astype(np.float32) for name, values in found.items()}


def nearest_of(queries: np.ndarray, others: np.ndarray, own: bool = False) -> np.ndarray:
    """Return the index of the nearest of some vectors, by Euclidean distance."""
    distance = np.square(others).sum(axis=1) - 2 * queries @ others.T
    if own:
        np.fill_diagonal(distance, np.inf)
    return distance.argmin(axis=1)


def halves(preset: str, folders: Sequence[Path]) -> None:
    """Print the agreement of two disjoint halves of the dates of each series."""
    encoder = sits_keras.from_preset(preset, "shared")
    print("series | dates | ARI, one date | ARI, averages | Recall@1, one date | averages")
    for folder in folders:
        series = open_series(folder, encoder.bands)
        count = len(series.acquisitions)
        row = []
        for pair in halves_of(series):
            images = []
            for half in pair:
                embedder = make_embedder(encoder, half, "int8", 64)
                (block,) = embedder.blocks(half.windows())
                images.append(block.values)
            row.append(agreement(*images))
        (one_ari, one_recall), (ari, recall) = row
        print(
            f"{folder.name} | {count} | {one_ari:.2f} | {ari:.2f} | {100 * one_recall:.0f} % | "
            f"{100 * recall:.0f} %",
            flush=True,
        )


def halves_of(series: SeriesImage) -> list[list[SeriesImage]]:
    """Return the clearest date of the even and of the odd dates, and the even and odd dates."""
    parts = [list(range(start, len(series.acquisitions), 2)) for start in (0, 1)]
    clearest = [[clearest_of(series, part)] for part in parts]
    return [
        [
            SeriesImage(
                series.name,
                series.grid,
                series.bands,
                tuple(series.acquisitions[index] for index in part),
            )
            for part in chosen
        ]
        for chosen in (clearest, parts)
    ]


def windows(preset: str, folders: Sequence[Path], classifier: Path | None) -> None:
    """Print how well features and classes of windows of two halves of the dates agree."""
    encoder = sits_keras.from_preset(preset, "shared")
    known = None if classifier is None else tasks.load_classifier(classifier)
    print("series | dates | Recall@1, one date | averages | equal classes, one date | averages")
    for folder in folders:
        series = open_series(folder, encoder.bands)
        cells = [folder.name, str(len(series.acquisitions))]
        for pair in halves_of(series):
            first, second = (
                np.stack([one.features for one in iterate_windows(encoder, SeriesStrips(half), 4)])
                for half in pair
            )
            one, other = (values.reshape(-1, values.shape[-1]) for values in (first, second))
            chosen = np.random.default_rng(0).permutation(len(one))[:QUERIES]
            nearest = l1_distances(one[chosen], other).argmin(axis=1)
            cells.append(f"{100 * (nearest == chosen).mean():.0f} %")
        for pair in halves_of(series) if known is not None else []:
            maps = [class_map(half, known) for half in pair]
            has_data = np.all(maps, axis=0)
            cells.append(f"{100 * (maps[0] == maps[1])[has_data].mean():.0f} %")
        print(" | ".join(cells), flush=True)


def class_map(half: SeriesImage, classifier: Classifier) -> np.ndarray:
    """Return the classes of the pixels of some dates."""
    with tempfile.TemporaryDirectory() as folder:
        out, dates = Path(folder) / "classes.tif", Path(folder) / "dates"
        dates.mkdir()
        for image in (Path(scene.name) for one in half.acquisitions for scene in one.scenes):
            for file in image.parent.glob(f"{image.stem}*"):  # and its mask
                (dates / file.name).symlink_to(file.absolute())
        tasks.classify_raster(dates, out, classifier, stride=16)
        with rasterio.open(out) as source:
            return source.read(1)


def clearest_of(series: SeriesImage, indices: Sequence[int]) -> int:
    """Return the date of most clear pixels, the first of several."""
    (window,) = series.windows(side=max(series.grid[:2]))
    return max(indices, key=lambda index: series.read(index, window)[1].sum())


def agreement(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return the adjusted Rand index of two maps, and Recall@1 of sampled pixels."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    known = (first[..., 0] != -128) & (second[..., 0] != -128)
    one, other = first[known].astype(np.float32), second[known].astype(np.float32)
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(len(one), min(SAMPLED, len(one)), replace=False))
    both = np.concatenate([one[chosen], other[chosen]])
    clusters = KMeans(CLASSES, n_init=3, random_state=0).fit(both)
    score = adjusted_rand_score(clusters.predict(one), clusters.predict(other))
    places = np.argwhere(known)[chosen]
    nearest = nearest_of(one[chosen], other[chosen])
    distance = np.abs(places - places[nearest]).max(axis=1)
    return float(score), float((distance <= 2).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("speed", "accuracy", "halves", "windows", "one"):
        command = commands.add_parser(name)
        command.add_argument("preset")
        if name == "speed":
            command.add_argument("--dates", type=int, nargs="+", default=[1, 4, 16])
            command.add_argument("--side", type=int, default=1024)
        else:
            command.add_argument("paths", type=Path, nargs="+")
        if name == "accuracy":
            command.add_argument("--limit", type=int)
        if name == "windows":
            command.add_argument("--classifier", type=Path, help="Folder of `classify train`.")
    args = parser.parse_args()
    if args.command == "speed":
        speed(args.preset, args.dates, args.side)
    elif args.command == "accuracy":
        accuracy(args.preset, args.paths, args.limit)
    elif args.command == "halves":
        halves(args.preset, args.paths)
    elif args.command == "windows":
        windows(args.preset, args.paths, args.classifier)
    else:
        one(args.preset, *args.paths)


if __name__ == "__main__":
    main()
