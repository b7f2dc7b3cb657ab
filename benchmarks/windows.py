"""Speed of encoding sliding windows in exact and dense mode, compared with alternatives.

    python benchmarks/windows.py [--raster SCENE.tif] [--width 16] [--strides 4 8 32] [--repeats 3]
                                 [--json FILE]

Measures shared encoders with random weights alternately in one run, so that only ratios matter:

- exact and dense mode of an encoder with padding="context", which give the same features;
- exact mode of an encoder with padding="zeros", compared with a loop of `model.predict` over
  stacked windows, and with PyTorch: `unfold`, then the same architecture, weights and batches,
  channels last;
- all of them, compared with the time of the arithmetic at the machine's matrix-product rate;
- with --memory, the maximum memory of a process that segments by pixels, maps change in, or embeds
  a synthetic raster 10,980 px wide, of several heights, at a stride of 8.

Methods that encode each window are measured on the first rows of the raster, because their time is
proportional to the number of windows. PyTorch is skipped if it is not installed.
"""

import argparse
import functools
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import tensorflow as tf
from compare import print_ratios

from sits_keras import DisentangledSITS, ModelConfig, hub
from sits_keras.data.rasters.read import Grid, read_info, read_stored, write_raster
from sits_keras.data.rasters.rows import open_strips
from sits_keras.tasks.windows import BATCH_SIZE, iterate_windows

try:
    import torch
except ImportError:
    torch = None

SIDES = 704, 928  # px; multiples of the strides below
NUM_ALONE = 1500  # approximate number of windows for methods that encode each window separately
TILE_WIDTH = 10_980
VERBS = ["segment", "change", "embed"]
MEMORY = """
import sys
from sits_keras import DisentangledSITS, ModelConfig, hub
from sits_keras import tasks
verb, image, out, width = sys.argv[1:]
network = "exclusive" if verb == "change" else "shared"
encoder = hub.wrap(DisentangledSITS(ModelConfig(width=int(width), padding="context")), network)
if verb == "change":
    tasks.map_change([image, image], out, encoder, method="exclusive", stride=8, mode="dense")
else:
    write = tasks.embed_raster if verb == "embed" else tasks.segment_raster
    write(image, out, encoder, stride=8, mode="dense")
print(open("/proc/self/status").read())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--raster", type=Path, help="with B02, B03, B04, B08; made up by default")
    parser.add_argument("--width", type=int, default=16, help="of the networks")
    parser.add_argument("--strides", type=int, nargs="+", default=[4, 8, 32])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write the ratios to (see compare.py)")
    parser.add_argument("--memory", action="store_true", help="measure memory, not time")
    parser.add_argument("--heights", type=int, nargs="+", default=[512, 1024], help="for --memory")
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=VERBS, help="for --memory")
    args = parser.parse_args()
    if args.memory:
        measure_memory(args.width, args.verbs, args.heights)
    else:
        measure_speed(args)


def measure_speed(args: argparse.Namespace) -> None:
    models = {
        padding: DisentangledSITS(ModelConfig(width=args.width, padding=padding))
        for padding in ("zeros", "context")
    }
    image = make_image(*SIDES)
    if args.raster:
        bands = models["zeros"].config.bands
        image = read_stored(args.raster, bands)[: SIDES[0], : SIDES[1]]
    encoders = {padding: hub.wrap(model) for padding, model in models.items()}
    network = models["zeros"].shared_encoder
    gain = 2 / np.array(models["zeros"].config.band_max, np.float32)
    twin = torch_twin(network, gain) if torch else None
    gflops = product_rate()
    print(f"{machine()}; width {args.width}, {image.shape[1]} x {image.shape[0]} px,")
    print(f"{gflops:.0f} GFLOP/s of float32 matrix products; medians of {args.repeats} runs\n")
    print("| stride | method | windows/s | Mpx/s | fraction of the arithmetic limit |")
    print("|---|---|---|---|---|")
    ratios: dict[str, list[float]] = {}
    for stride in args.strides:
        per_row = (image.shape[1] - 64) // stride + 1
        num_rows = min(-(-NUM_ALONE // per_row), (image.shape[0] - 64) // stride + 1)
        part = image[: 64 + (num_rows - 1) * stride]
        ways = {
            "dense, context": functools.partial(run, encoders["context"], "dense", image, stride),
            "exact, context": functools.partial(run, encoders["context"], "exact", part, stride),
            "exact, zeros": functools.partial(run, encoders["zeros"], "exact", part, stride),
            "model.predict, zeros": functools.partial(predict, network, gain, part, stride),
        }
        if twin:
            ways["PyTorch, zeros"] = functools.partial(unfold, twin, part, stride)
        for work in ways.values():
            work()  # without tracing and first use
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.repeats):
            for name, work in ways.items():
                begun = time.perf_counter()
                count = work()
                times[name].append((time.perf_counter() - begun) / count)
        for name, each in times.items():
            rate = 1 / statistics.median(each)
            limit = gflops * 1e9 / operations(network, name, stride)
            print(
                f"| {stride} | {name} | {rate:,.0f} | {rate * stride**2 / 1e6:.3f} "
                f"| {rate / limit:.2f} |"
            )
            if name == "dense, context":
                ratios[f"dense, stride {stride}: fraction of the arithmetic limit"] = [
                    1 / one / limit for one in each
                ]
        pairs = [("dense, context", "exact, context"), ("exact, zeros", "model.predict, zeros")]
        pairs += [("exact, zeros", "PyTorch, zeros")] if twin else []
        for fast, slow in pairs:
            ratios[f"stride {stride}: rate of {fast} to {slow}"] = [
                s / f for f, s in zip(times[fast], times[slow], strict=True)
            ]
    print_ratios(ratios, args.json)


def run(encoder: hub.HubEncoder, mode: str, image: np.ndarray, stride: int) -> int:
    rows = iterate_windows(encoder, open_strips(image), stride, mode=mode)
    return sum(len(row.features) for row in rows)


def predict(network: keras.Model, gain: np.ndarray, image: np.ndarray, stride: int) -> int:
    count = 0
    for row in range(0, image.shape[0] - 63, stride):
        cols = range(0, image.shape[1] - 63, stride)
        crops = np.stack([image[row : row + 64, col : col + 64] for col in cols])
        scaled = np.clip(crops / np.float32(10_000) * gain - 1, -1, 1)
        count += len(network.predict(scaled, verbose=0).reshape(len(crops), -1))
    return count


def torch_twin(network: keras.Model, gain: np.ndarray):
    """Return the same shared encoder in PyTorch, from `(batch, bands, 64, 64)` reflectance."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    blocks: list[torch.nn.Module] = []
    for index in range(1, 6):
        conv = network.get_layer(f"shared_{index}_conv")
        norm = network.get_layer(f"shared_{index}_norm")
        kernel = torch.tensor(np.asarray(conv.kernel).transpose(3, 2, 0, 1))
        stride = conv.strides[0]
        blocks.append(torch.nn.ZeroPad2d((1, 1, 1, 1) if stride == 2 else (1, 2, 1, 2)))
        blocks.append(torch.nn.Conv2d(*kernel.shape[1::-1], 4, stride, bias=False))
        blocks[-1].weight.data = kernel
        blocks.append(torch.nn.BatchNorm2d(len(kernel), eps=norm.epsilon))
        blocks.append(
            torch.nn.LeakyReLU(network.get_layer(f"shared_{index}_activation").negative_slope)
        )
    stack = torch.nn.Sequential(*blocks).eval().to(memory_format=torch.channels_last)
    scale = torch.tensor(gain)[:, None, None]

    def encode(images):
        return stack(torch.clamp(images * scale - 1, -1, 1)).permute(0, 2, 3, 1).flatten(1)

    probe = np.random.default_rng(0).uniform(0, 0.5, (2, 64, 64, len(gain))).astype(np.float32)
    with torch.inference_mode():
        found = encode(torch.tensor(probe).permute(0, 3, 1, 2)).numpy()
    scaled = np.clip(probe * gain - 1, -1, 1)
    expected = np.asarray(network(scaled, training=False)).reshape(2, -1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    return encode


def unfold(encode, image: np.ndarray, stride: int) -> int:
    count = 0
    with torch.inference_mode():
        whole = torch.tensor(image.astype(np.float32) / 10_000).permute(2, 0, 1)
        windows = whole.unfold(1, 64, stride).unfold(2, 64, stride)  # bands, rows, cols, 64, 64
        places = [(r, c) for r in range(windows.shape[1]) for c in range(windows.shape[2])]
        for first in range(0, len(places), BATCH_SIZE):
            rows, cols = map(list, zip(*places[first : first + BATCH_SIZE], strict=True))
            batch = windows[:, rows, cols].permute(1, 0, 2, 3)
            features = encode(batch.contiguous(memory_format=torch.channels_last))
            count += len(features.numpy())
    return count


def operations(network: keras.Model, way: str, stride: int) -> int:
    """Return the floating-point operations of the convolutions per window, away from the edges."""
    kernels = [network.get_layer(f"shared_{index}_conv").kernel.shape for index in range(1, 6)]
    if way.startswith("dense"):
        spacing = np.gcd(stride, 16)
        sides = [stride // min(2**index, spacing) for index in (1, 2, 3, 4, 4)]
    else:
        sides = [70, 34, 16, 7, 4] if way.endswith("context") else [32, 16, 8, 4, 4]
    return sum(
        2 * int(np.prod(kernel)) * int(side) ** 2
        for kernel, side in zip(kernels, sides, strict=True)
    )


def product_rate(side: int = 2048, repeats: int = 5) -> float:
    """Return the GFLOP/s of float32 matrix products, the best of NumPy's and TensorFlow's."""
    one = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    tensor = tf.constant(one)
    best = np.inf
    for product in (lambda: one @ one, lambda: (tensor @ tensor).numpy()):
        for _ in range(repeats):
            begun = time.perf_counter()
            product()
            best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best / 1e9


def make_image(height: int, width: int) -> np.ndarray:
    """Return a texture of many scales, `(height, width, 4)` uint16."""
    rng = np.random.default_rng(0)
    image = np.full((height, width, 4), 1500.0, np.float32)
    for scale in (64, 16, 4, 1):
        coarse = rng.normal(0, 60 * scale**0.3, (-(-height // scale), -(-width // scale), 4))
        image += coarse.repeat(scale, 0).repeat(scale, 1)[:height, :width]
    return np.clip(image, 1, 9000).astype(np.uint16)


def measure_memory(width: int, verbs: list[str], heights: list[int]) -> None:
    print(f"{machine()}; width {width}, stride 8, dense\n")
    print(f"| raster, px | {', MiB | '.join(verbs)}, MiB |\n|{'---|' * (len(verbs) + 1)}")
    with tempfile.TemporaryDirectory() as folder:
        for height in heights:
            path = Path(folder) / f"{height}.tif"
            image = make_image(height, TILE_WIDTH)
            write_raster(path, image, ModelConfig().bands, Grid(*image.shape[:2], None, None))
            assert read_info(path).grid.width == TILE_WIDTH
            peaks = [f"{peak_memory(verb, path, width):,.0f}" for verb in verbs]
            print(f"| {TILE_WIDTH} x {height} | {' | '.join(peaks)} |", flush=True)


def peak_memory(verb: str, path: Path, width: int) -> float:
    out = path.with_name(f"{verb}.tif")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, verb, path, out, str(width)],
        check=True,
        capture_output=True,
        text=True,
    )
    out.unlink()
    # Not ru_maxrss, which includes the memory of the parent process.
    return float(re.search("VmHWM:(.*)kB", done.stdout)[1]) / 1024


def machine() -> str:
    packages = [f"{module.__name__} {module.__version__}" for module in (tf, keras, np)]
    if torch:
        packages.append(f"torch {torch.__version__}")
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, {', '.join(packages)}"


if __name__ == "__main__":
    main()
