"""Speed of `sits_keras.data.prepare`, compared with plain windowed reads of the same pixels.

    python benchmarks/prepare.py [--side 2048] [--dates 6] [--repeats 3] [--kind safe|bands|stack]
                                 [--json FILE]

Creates clear dates of one tile (safe: products with JPEG 2000 images; bands: one GeoTIFF per band;
stack: one GeoTIFF with all bands) and measures alternately in one run, so that only ratios matter:

- MB of pixels per second of `prepare` in this process, compared with reading the same windows of
  the same bands and dates with rasterio in one thread, by wall-clock and by processor time;
- `prepare` on two workers compared with one, on clusters that are started in advance;
- the maximum memory of a process that prepares this input, and one four times as large.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import distributed
import numpy as np
import rasterio
from compare import print_ratios
from fake_products import make_safe, write_image
from rasterio.windows import Window

from sits_keras.config import PrepareConfig
from sits_keras.data import prepare
from sits_keras.data.execution import local_cluster
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.sources.series import find_series

RGBN = ("B02", "B03", "B04", "B08")
PATCH = 1024
CONFIG = PrepareConfig(shard_bytes=1)  # one shard per patch
MEMORY = """
import re, sys
from sits_keras.config import PrepareConfig
from sits_keras.data import prepare
prepare(sys.argv[1], sys.argv[2], PrepareConfig(shard_bytes=1), progress=False)
# Not ru_maxrss, which includes the memory of the parent process.
print(int(re.search("VmHWM:(.*)kB", open("/proc/self/status").read())[1]) / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=2 * PATCH, help="of the tile, pixels")
    parser.add_argument("--dates", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kind", choices=["safe", "bands", "stack"], default="safe")
    parser.add_argument("--json", type=Path, help="file to write the ratios to (see compare.py)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args)


def measure(folder: Path, args: argparse.Namespace) -> None:
    source = make_source(folder / "one", args.kind, args.side, args.dates)
    megabytes = 2 * len(RGBN) * args.side**2 * args.dates / 1e6
    outs = (folder / f"out-{index}" for index in range(10_000))
    plain, here, one, two = [], [], [], []
    clusters = [local_cluster(workers) for workers in (1, 2)]
    addresses = [cluster.scheduler_address for cluster in clusters]
    for address in addresses:  # workers import the package before timing starts
        prepare(source, next(outs), CONFIG, progress=False, scheduler=address)
    for _ in range(args.repeats):
        plain.append(clock(lambda: read_plainly(source, args.side)))
        here.append(clock(lambda: prepare(source, next(outs), CONFIG, progress=False)))
        for times, address in zip((one, two), addresses, strict=True):
            times.append(
                clock(
                    lambda address=address: prepare(
                        source, next(outs), CONFIG, progress=False, scheduler=address
                    )
                )
            )
    for cluster in clusters:
        cluster.close()
    large = make_source(folder / "four", args.kind, 2 * args.side, args.dates)
    peaks = [peak_memory(path, next(outs)) for path in (source, large)]

    print(f"{machine()}; {args.kind}, {args.dates} dates of {args.side} x {args.side} px,")
    print(f"{megabytes:.0f} MB of pixels; medians of {args.repeats} alternating runs\n")
    print("| | s | processor s | MB/s |\n|---|---|---|---|")
    for name, times in (
        ("plain windowed reads", plain),
        ("prepare, this process", here),
        ("prepare, 1 worker", one),
        ("prepare, 2 workers", two),
    ):
        wall, processor = (statistics.median(column) for column in zip(*times, strict=True))
        used = "" if "worker" in name else f"{processor:.2f}"
        print(f"| {name} | {wall:.2f} | {used} | {megabytes / wall:.1f} |")
    print(f"\npeak memory: {peaks[0]:.0f} MB, for four times the input {peaks[1]:.0f} MB")
    ratios = {
        "rate of prepare to plain reads": quotients(plain, here, 0),
        "the same, by processor time": quotients(plain, here, 1),
        "rate of 2 workers to 1": quotients(one, two, 0),
        "memory for four times the input to that for it": [peaks[1] / peaks[0]],
    }
    print_ratios({f"{name} ({args.kind})": values for name, values in ratios.items()}, args.json)


def quotients(slow: list[tuple[float, float]], fast: list[tuple[float, float]], column: int):
    return [one[column] / other[column] for one, other in zip(slow, fast, strict=True)]


def make_source(folder: Path, kind: str, side: int, dates: int) -> Path:
    """Create clear dates of one tile, with a texture of many scales."""
    rng = np.random.default_rng(0)
    for month in range(1, dates + 1):
        date = f"2023-{month:02d}-01"
        if kind == "safe":
            scl = np.full((side // 2, side // 2), 4)
            safe = make_safe(folder, date=date, side=side, scl=scl)
            for path in safe.rglob("*_B??_10m.jp2"):
                write_image(path, 1000 + texture(rng, side), 10)
        elif kind == "bands":
            for band in RGBN:
                write_image(folder / f"{date}_{band}.tif", texture(rng, side), 10)
        else:
            image = np.stack([texture(rng, side) for _ in RGBN], axis=-1)
            folder.mkdir(parents=True, exist_ok=True)
            write_raster(folder / f"{date}.tif", image, RGBN, Grid(side, side, None, None))
    return folder


def texture(rng: np.random.Generator, side: int) -> np.ndarray:
    image = np.zeros((side, side))
    for scale in (256, 64, 16, 4, 1):
        coarse = rng.normal(0, 60 * scale**0.3, (-(-side // scale),) * 2)
        image += coarse.repeat(scale, 0).repeat(scale, 1)[:side, :side]
    return np.clip(1500 + image, 1, 9000).astype(np.uint16)


def read_plainly(source: Path, side: int) -> None:
    """Read every window of every band and date sequentially, as `prepare` does."""
    (series,) = find_series([source])
    with rasterio.Env(GDAL_CACHEMAX=128, GDAL_NUM_THREADS=1):
        for row in range(0, side, PATCH):
            for col in range(0, side, PATCH):
                for granule in series.granules:
                    layers = [granule.layers[band].path for band in RGBN if granule.layers]
                    for path in layers or [granule.image]:
                        with rasterio.open(path) as dataset:
                            dataset.read(window=Window(col, row, PATCH, PATCH))


def clock(work) -> tuple[float, float]:
    """Return wall-clock seconds, and processor seconds of this process."""
    begun = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def peak_memory(source: Path, out: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, source, out], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def machine() -> str:
    packages = ", ".join(f"{m.__name__} {m.__version__}" for m in (rasterio, distributed, np))
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{packages}, GDAL {rasterio.__gdal_version__}"
    )


if __name__ == "__main__":
    main()
