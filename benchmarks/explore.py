"""Response time of `sits-keras explore` to a click, and its memory for a large raster.

    python benchmarks/explore.py [--model sits_rgbn_small] [--side 1024] [--clicks 40]
    python benchmarks/explore.py --memory [--side 10980]

Measures the work of the server on two dates of a procedural place: encoding, once per raster;
the time from a click to the boxes of shared features, which are displayed first; to those of raw
pixels; and from a labelled point to the map of change that it steers. Uses the cores of this
process; --cores 2 limits it to two.

With --memory, measures the maximum memory of a process that opens a large raster and displays all
of it and parts of it. Features are not computed; see benchmarks/windows.py.
"""

import argparse
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil

MEMORY = """
import re, sys, time
from pathlib import Path
from sits_keras.data.tiling import Window
from sits_keras.explore.engine.sources import RasterReader

def peak():
    return int(re.search("VmHWM:(.*)kB", open("/proc/self/status").read())[1]) / 1024

raster = RasterReader(Path(sys.argv[1]), ("B02", "B03", "B04", "B08"))
print(f"| opened | | {peak():,.0f} |")
side = raster.grid.height
for name, part in (
    ("all of it", None),
    ("a quarter", Window(side // 4, side // 4, side // 2, side // 2)),
    ("1,024 px", Window(side // 2, side // 2, 1024, 1024)),
):
    begun = time.perf_counter()
    shape = raster.picture(part).shape
    print(f"| {name} | {time.perf_counter() - begun:.2f} | {peak():,.0f} |")
begun = time.perf_counter()
raster.window(side // 2, side // 3, (31, 47))
print(f"| a window and its context | {time.perf_counter() - begun:.2f} | {peak():,.0f} |")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="sits_rgbn_small", help="a preset's name or folder")
    parser.add_argument("--side", type=int, help="of the raster, px; 1024, or 10980 for --memory")
    parser.add_argument("--clicks", type=int, default=40)
    parser.add_argument("--cores", type=int, help="keep to so many of them")
    parser.add_argument("--memory", action="store_true", help="measure memory, not time")
    args = parser.parse_args()
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    with tempfile.TemporaryDirectory() as folder:
        if args.memory:
            measure_memory(Path(folder), args.side or 10_980)
        else:
            measure_clicks(Path(folder), args.model, args.side or 1024, args.clicks)


def measure_clicks(folder: Path, model: str, side: int, num_clicks: int) -> None:
    from sits_keras.tensorflow_import import import_tensorflow

    import_tensorflow()
    from sits_keras.cli.explore import load_explored_model
    from sits_keras.data.rasters.points import Point
    from sits_keras.explore.engine.cache import Cache
    from sits_keras.explore.engine.explorer import Explorer
    from sits_keras.explore.engine.sources import find_places
    from sits_keras.presets.folders import find_preset

    explored = load_explored_model(find_preset(model))
    # In another process, because its memory is not measured.
    writer = multiprocessing.get_context("spawn").Process(
        target=write_dates, args=(folder / "place", side, explored.bands)
    )
    writer.start()
    writer.join()
    places = find_places([folder / "place"], explored.bands)
    explorer = Explorer(explored, places, Cache(folder / "cache"))
    first, second = places[0].images
    encoding = [
        timed(lambda one=one: explorer.vectors(one, lambda text: None)) for one in (first, second)
    ]
    vectors = explorer.vectors(second, lambda text: None)
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {"boxes of shared features": [], "boxes of raw pixels": []}
    for click in range(num_clicks + 3):
        at = tuple(int(one) for one in rng.integers(0, side - 63, 2))
        asked = (first, at, second, 5, 32)
        for name, find in (
            ("boxes of shared features", explorer.find_by_features),
            ("boxes of raw pixels", explorer.find_by_pixels),
        ):
            begun = time.perf_counter()
            find(*asked)
            if click >= 3:  # without tracing and first reads
                times[name].append(1e3 * (time.perf_counter() - begun))
    points: list[Point] = []
    for click in range(min(num_clicks, 16) + 1):
        row, col = map(int, rng.integers(0, side, 2))
        points.append(Point(row, col, click % 2 == 0))
        begun = time.perf_counter()
        explorer.steered_change(first, second, points, lambda text: None)
        if click:  # the first point encodes both dates
            name = "a map steered by 2 and more points"
            times.setdefault(name, []).append(1e3 * (time.perf_counter() - begun))
    print(f"{machine()}; {model}, {side} x {side} px, stride {vectors.stride} px, ", end="")
    print(f"{vectors.valid_fraction.size:,} windows, {num_clicks} clicks")
    print(
        f"encoded once in {encoding[1]:.1f} s (the first raster, with tracing, {encoding[0]:.1f})\n"
    )
    print("| click to | median, ms | 95 %, ms | largest, ms |")
    print("|---|---|---|---|")
    for name, each in times.items():
        print(
            f"| {name} | {statistics.median(each):.0f} | {np.quantile(each, 0.95):.0f} "
            f"| {max(each):.0f} |"
        )
    peak = re.search("VmHWM:(.*)kB", Path("/proc/self/status").read_text())[1]
    print(f"\nmaximum memory of the process: {int(peak) / 1024:,.0f} MiB")


def measure_memory(folder: Path, side: int) -> None:
    write_dates(folder / "place", side, ("B02", "B03", "B04", "B08"), num_dates=1)
    (path,) = (folder / "place").glob("*.tif")
    show_memory(path, side, "with overviews")
    plain = folder / "plain.tif"
    with rasterio.Env(GDAL_CACHEMAX=2**28):
        rasterio.shutil.copy(path, plain, driver="GTiff", tiled=True, compress="deflate")
    path.unlink()
    show_memory(plain, side, "without overviews")


def show_memory(path: Path, side: int, how: str) -> None:
    print(
        f"{machine()}; {side} x {side} px, {how}, {path.stat().st_size / 2**20:,.0f} MiB on disk\n"
    )
    print("| displayed part | s | maximum memory so far, MiB |\n|---|---|---|", flush=True)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, path], check=True, capture_output=True, text=True
    )
    print(done.stdout, end="")
    assert re.search(r"\d", done.stdout)


def write_dates(folder: Path, side: int, bands: tuple[str, ...], num_dates: int = 2) -> None:
    """Write two dates with a texture of many scales; the second is brighter with new noise."""
    from sits_keras.data.rasters.read import Grid
    from sits_keras.data.rasters.write import open_map

    grid = Grid(side, side, "EPSG:32632", (10.0, 0.0, 6e5, 0.0, -10.0, 5e6))
    folder.mkdir()
    rng = np.random.default_rng(0)
    land = np.full((1024, 1024, len(bands)), 1200.0, np.float32)
    for scale in (128, 32, 8, 2):
        coarse = rng.normal(0, 50 * scale**0.3, (1024 // scale, 1024 // scale, len(bands)))
        land += coarse.repeat(scale, 0).repeat(scale, 1)
    for date in range(num_dates):
        gain = 1 + 0.1 * date
        with open_map(folder / f"2020-0{date + 1}-01.tif", grid, bands, "uint16", 0) as target:
            for row in range(0, side, 1024):
                rows = min(1024, side - row)
                line = np.concatenate(
                    [np.roll(land, 31 * (row + col), 1) for col in range(0, side, 1024)], 1
                )
                line = line[:rows, :side] * gain + rng.normal(0, 60, (rows, side, len(bands)))
                target.write(row, np.clip(line, 1, 9000).astype(np.uint16))


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def machine() -> str:
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, numpy {np.__version__}"


if __name__ == "__main__":
    main()
