"""Cost of padding in training, and agreement of whole-raster encoding with window encoding.

    python benchmarks/padding.py                       # seconds per training step, both paddings
    python benchmarks/padding.py MODEL DATA [--stride 8]

MODEL is a run or a .keras file. DATA is a folder with `scenes/*.tif` and `change/*/before.tif` and
`after.tif`. The windows of each scene are encoded separately and together. The comparison prints
the cosine similarity, the fraction of windows and of pixels (by votes of windows) with equal
clusters, and for the exclusive encoder the intersection over union of the pixels above Otsu's
threshold.

The weights of a model with zero padding are also applied to the whole raster, with zero and with
reflection padding in every layer: an approximation of dense encoding without `padding="context"`.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np
import tensorflow as tf
from sklearn.cluster import MiniBatchKMeans

from sits_keras import DisentangledSITS, hub, load_model
from sits_keras.config import IMAGE_SIZE, ModelConfig
from sits_keras.data.rasters.read import read_stored
from sits_keras.tasks.change.detection import otsu_threshold
from sits_keras.tasks.window_sums import sum_over_windows

NUM_CLUSTERS = 7
BATCH = 64

Encode = Callable[[np.ndarray], np.ndarray]
"""From `(height, width, bands)` reflectance to `(rows, cols, features)` of its windows."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--width", type=int, default=16, help="of the models that are timed")
    parser.add_argument("--batch", type=int, default=16, help="pairs in a batch")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}\n"
    )
    if args.model is None:
        time_steps(args.width, args.batch, args.repeats)
    elif args.data is None:
        parser.error("DATA is missing")
    else:
        compare(load_model(args.model), args.data, args.stride)


def time_steps(width: int, batch: int, repeats: int) -> None:
    """Print the seconds of a training step with each padding, measured alternately."""
    steps = {padding: make_step(width, batch, padding) for padding in ("zeros", "context")}
    seconds: dict[str, list[float]] = {padding: [] for padding in steps}
    for _ in range(repeats):
        for padding, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[padding].append(time.perf_counter() - start)
    medians = {padding: statistics.median(values) for padding, values in seconds.items()}
    for padding, median in medians.items():
        print(
            f"{padding:8s} {median:7.3f} s per step, {median / medians['zeros']:5.2f} times zeros"
        )


def make_step(width: int, batch: int, padding: str) -> Callable[[], None]:
    """Return a compiled training step on sampled pairs."""
    model = DisentangledSITS(ModelConfig.from_dict({"width": width, "padding": padding}))
    model.compile()
    side = IMAGE_SIZE + sum(model.context_margin)
    images = np.random.default_rng(0).uniform(-1, 1, (batch, side, side, 4)).astype(np.float32)
    update = tf.function(model.update, autograph=False)
    pair = tf.constant(images), tf.constant(images[::-1].copy())
    update(*pair)
    return lambda: update(*pair)


def compare(model: DisentangledSITS, data: Path, stride: int) -> None:
    """Print the agreement of features of whole rasters with those of windows."""
    bands = model.config.bands
    shared, exclusive = hub.wrap(model), hub.wrap(model, "exclusive")
    print(f"padding={model.config.padding}, {int(model.optimizer.iterations)} steps")
    for file in sorted((data / "scenes").glob("*.tif")):
        scene = read_stored(file, bands).astype(np.float32) / 10_000
        for name, windowed, dense, step in ways(model, shared, stride):
            one, other = windowed(scene), dense(scene)
            print(f"{file.stem}, {name}: {agreement(one, other, step)}")
    if not exclusive.dense_strides:
        return
    common = either = 0
    folders = [p for p in sorted((data / "change").iterdir()) if (p / "before.tif").is_file()]
    for folder in folders:
        pair = [
            read_stored(folder / f"{when}.tif", bands).astype(np.float32) / 10_000
            for when in ("before", "after")
        ]
        if min(pair[0].shape[:2]) >= IMAGE_SIZE:
            maps = [
                changed_pixels(encode(pair[0]), encode(pair[1]), 4)
                for encode in (encode_windows(exclusive, 4), at_once(exclusive, 4))
            ]
            common += np.count_nonzero(maps[0] & maps[1])
            either += np.count_nonzero(maps[0] | maps[1])
    print(f"change maps of {len(folders)} pairs: intersection over union {common / either:.4f}")


def ways(
    model: DisentangledSITS, encoder: hub.HubEncoder, stride: int
) -> Iterator[tuple[str, Encode, Encode, int]]:
    """Yield each comparison: name, features of windows, features of the raster, stride of both."""
    if encoder.dense_strides:
        dense = at_once(encoder, stride)
        yield "windows with context", encode_windows(encoder, stride), dense, stride
        yield "windows alone, reflected", encode_windows(encoder, stride, alone=True), dense, stride
    else:
        yield "zeros in every layer", encode_windows(encoder, 16), padded(model, "CONSTANT"), 16
        reflected = padded(model, "REFLECT", windows=True), padded(model, "REFLECT")
        yield "reflected in every layer", *reflected, 16


def surround(image: np.ndarray, context_margin: tuple[int, int]) -> np.ndarray:
    return np.pad(image, (context_margin, context_margin, (0, 0)), mode="reflect")


def starts(image: np.ndarray, stride: int) -> list[range]:
    return [range(0, length - IMAGE_SIZE + 1, stride) for length in image.shape[:2]]


def encode_windows(encoder: hub.HubEncoder, stride: int, *, alone: bool = False) -> Encode:
    """Encode windows one by one, with or without their context."""

    def encode(image: np.ndarray) -> np.ndarray:
        rows, cols = starts(image, stride)
        context_margin = (0, 0) if alone else encoder.context_margin
        side, source = IMAGE_SIZE + sum(context_margin), surround(image, context_margin)
        crops = [source[row : row + side, col : col + side] for row in rows for col in cols]
        batches = [crops[first : first + BATCH] for first in range(0, len(crops), BATCH)]
        features = [np.asarray(encoder.flattened(np.stack(batch))) for batch in batches]
        return np.concatenate(features).reshape(len(rows), len(cols), -1)

    return encode


def at_once(encoder: hub.HubEncoder, stride: int) -> Encode:
    return lambda image: np.asarray(
        encoder.dense(surround(image, encoder.context_margin)[None], stride)
    )[0]


def padded(model: DisentangledSITS, mode: str, *, windows: bool = False) -> Encode:
    """Apply the shared encoder's weights to a raster or its windows, at a stride of 16 px.

    Every layer pads like "same", but by `mode`.
    """

    @tf.function(autograph=False)
    def run(x: Any) -> Any:
        for index in range(1, 6):
            conv, norm, activation = (
                model.shared_encoder.get_layer(f"shared_{index}_{name}")
                for name in ("conv", "norm", "activation")
            )
            pads = (1, conv.kernel_size[0] - conv.strides[0] - 1)
            x = tf.pad(x, ((0, 0), pads, pads, (0, 0)), mode)
            x = activation(norm(tf.nn.conv2d(x, conv.kernel, conv.strides, "VALID")))
        return x

    def encode(image: np.ndarray) -> np.ndarray:
        rows, cols = starts(image, 16)
        height, width = (length // 16 * 16 for length in image.shape[:2])
        scaled = np.clip(2 * image / np.float32(model.config.band_max) - 1, -1, 1)
        if windows:
            lines = [
                run(np.stack([scaled[r : r + IMAGE_SIZE, c : c + IMAGE_SIZE] for c in cols]))
                for r in rows
            ]
            return np.stack([np.asarray(line).reshape(len(cols), -1) for line in lines])
        grid = np.asarray(run(scaled[None, :height, :width]))[0]
        cells = [grid[a : a + len(rows), b : b + len(cols)] for a in range(4) for b in range(4)]
        return np.concatenate(cells, axis=-1)

    return encode


def agreement(one: np.ndarray, other: np.ndarray, stride: int) -> str:
    """Return the cosine similarity and the fractions of windows and pixels with equal clusters."""
    first, second = (features.reshape(-1, one.shape[-1]) for features in (one, other))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosine = (first * second).sum(axis=1) / norms
    clusters = MiniBatchKMeans(NUM_CLUSTERS, random_state=0, n_init=10).fit(first[::7])
    labels = [clusters.predict(f).reshape(one.shape[:2]) for f in (first, second)]
    votes = [sum_windows(np.eye(NUM_CLUSTERS)[each], stride).argmax(axis=-1) for each in labels]
    return (
        f"cosine {cosine.mean():.6f} (least {cosine.min():.4f}), equal clusters of "
        f"{np.mean(labels[0] == labels[1]):.2%} of windows, {np.mean(votes[0] == votes[1]):.2%} of "
        "pixels"
    )


def changed_pixels(before: np.ndarray, after: np.ndarray, stride: int) -> np.ndarray:
    """Return the pixels whose windows differ by more than Otsu's threshold on average."""
    distances = np.abs(before - after).sum(axis=-1, dtype=np.float64)
    sums = sum_windows(np.stack([distances, np.ones_like(distances)], axis=-1), stride)
    mean = sums[..., 0] / sums[..., 1]
    return mean > otsu_threshold(*np.histogram(mean, 256))


def sum_windows(values: np.ndarray, stride: int) -> np.ndarray:
    """Return the sums of the windows over each pixel, `(height, width, values)`."""
    height, width = ((count - 1) * stride + IMAGE_SIZE for count in values.shape[:2])
    cols = np.arange(values.shape[1]) * stride
    rows = ((index * stride, cols, line) for index, line in enumerate(values))
    return np.concatenate([part for _, part in sum_over_windows(rows, height, width)])


if __name__ == "__main__":
    main()
