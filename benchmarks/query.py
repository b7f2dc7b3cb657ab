"""Time of a question to an embedding raster, relative to one pass over the same memory.

    python benchmarks/query.py [--side 5490] [--dim 64] [--runs 5] [--whole] [--folder DIR]

Writes a raster of random int8 numbers to a temporary folder (side x side x dim bytes) and loads it.
Questions and passes are measured in turn, so that another program slows both; the median of each is
reported, as wall-clock time and as processor time. Random numbers are the worst case: no cell is
similar.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio

from sits_keras import tasks
from sits_keras.data.rasters.embeddings import open_embeddings
from sits_keras.tasks.retrieval.embeddings import SimilaritySearch

ROWS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=5490, help="Rows and columns of the raster.")
    parser.add_argument("--dim", type=int, default=64, help="Numbers of a cell.")
    parser.add_argument("--runs", type=int, default=5, help="Questions of each kind.")
    parser.add_argument("--folder", type=Path, help="Folder for the raster.  [default: temporary]")
    parser.add_argument("--whole", action="store_true", help="Also time the whole command.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "random.tif"
        write_random(path, args.side, args.dim)
        measure(path, args)


def write_random(path: Path, side: int, dim: int) -> None:
    """Write an uncompressed tiled raster of random numbers."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": side, "width": side, "count": dim, "dtype": "int8"}
    tiles = {"tiled": True, "blockxsize": ROWS, "blockysize": ROWS, "bigtiff": "if_safer"}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(20, 0, 6e5, 0, -20, 5e6)}
    with rasterio.open(path, "w", nodata=-128, **profile, **tiles, **place) as target:
        target.descriptions = [f"A{index:02d}" for index in range(dim)]
        target.scales = [0.02] * dim
        for row in range(0, side, ROWS):
            count = min(ROWS, side - row)
            values = rng.integers(-127, 128, (dim, count, side), dtype=np.int8)
            target.write(values, window=rasterio.windows.Window(0, row, side, count))


def measure(path: Path, args: argparse.Namespace) -> None:
    """Print a row for each kind of measurement."""
    begin = time.perf_counter()
    embeddings = open_embeddings(path).load()
    loading = time.perf_counter() - begin
    begin = time.perf_counter()
    search = SimilaritySearch(embeddings)
    lengths = time.perf_counter() - begin
    cells = [(args.side // 3, args.side // 2), (args.side // 2, 7), (5, args.side // 5)]
    stored = embeddings.read(0, args.side).reshape(-1)
    stored = stored[: len(stored) // 8 * 8].view(np.int64)
    run = {
        "one pass (sum of int64)": stored.sum,
        "question, 1 example": lambda: search.find(cells[:1]),
        "question, 3 examples": lambda: search.find(cells),
    }
    wall, processor = ({name: [] for name in run} for _ in range(2))
    for _ in range(args.runs):
        for name, one in run.items():
            begin = time.perf_counter(), time.process_time()
            one()
            wall[name].append(time.perf_counter() - begin[0])
            processor[name].append(time.process_time() - begin[1])
    gigabytes = args.side**2 * args.dim / 1e9
    print(f"{args.side} x {args.side} cells x {args.dim} int8 numbers, {gigabytes:.2f} GB")
    print(f"{os.cpu_count()} processors; loaded in {loading:.1f} s, lengths in {lengths:.1f} s\n")
    print("| | seconds | best | processor seconds | relative to one pass |")
    print("|---|---|---|---|---|")
    base = statistics.median(processor["one pass (sum of int64)"])
    for name in run:
        median, used = statistics.median(wall[name]), statistics.median(processor[name])
        print(
            f"| {name} | {median:.2f} | {min(wall[name]):.2f} | {used:.2f} | {used / base:.1f} |",
            flush=True,
        )
    if args.whole:
        begin = time.perf_counter(), time.process_time()
        tasks.query(path, path.with_name("found.geojson"), windows=cells[:1])
        used = time.process_time() - begin[1]
        print(
            f"| `query`, from file to files | {time.perf_counter() - begin[0]:.2f} | | {used:.2f} "
            f"| {used / base:.1f} |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\npeak memory {peak:.2f} GB")


if __name__ == "__main__":
    main()
