"""Start-up time of the package and of its command line, compared with importing TensorFlow.

    python benchmarks/startup.py [--repeats 7] [--all] [--json FILE]

Measures new processes alternately in one run, so that only ratios matter: `import sits_keras`,
`import tensorflow` (which imports Keras), `sits-keras --help`, the help of a command, `segment` of
a scene of 256 x 256 px, and an empty Python program, which is part of each; with --all, every
command that can work on that scene. Prints medians of wall-clock and processor time. On a machine
with other jobs, the processor time is more reliable.
"""

import argparse
import importlib.metadata
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from compare import print_ratios

from sits_keras.data.rasters.read import Grid, write_raster

TENSORFLOW = "import tensorflow"
PROGRAMS = {
    "python -c pass": ["-c", "pass"],
    "import sits_keras": ["-c", "import sits_keras"],
    "sits-keras --help": ["-m", "sits_keras", "--help"],
    "sits-keras train --help": ["-m", "sits_keras", "train", "--help"],
    TENSORFLOW: ["-c", "import tensorflow"],
}
PRESET = Path(__file__).resolve().parents[1] / "savedmodels" / "sits_rgbn_small"
SIDE = 256


def commands(folder: Path) -> dict[str, list[str]]:
    """Return commands that work on a small scene, written to `folder`; `segment` is the first."""
    rng = np.random.default_rng(0)
    image = rng.integers(500, 3000, (SIDE, SIDE, 4)).astype(np.uint16)
    grid = Grid(SIDE, SIDE, "EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0))
    (folder / "series").mkdir()
    scenes = [str(folder / "series" / f"2023-0{month}-01.tif") for month in (1, 2)]
    for scene in scenes:
        write_raster(Path(scene), image, ("B02", "B03", "B04", "B08"), grid)
    one, two = scenes
    model = ["--model", str(PRESET), "--overwrite"]
    lines = {
        "segment": [one, "segments.tif", *model],
        "embed": [one, "features.tif", *model],
        "change": [one, two, "change.tif", *model],
        "translate": [one, two, "translated.tif", *model],
        "retrieve": [one, two, "found.json", *model],
        "info": [str(PRESET)],
        "inspect": [str(folder / "series")],
        "prepare": [str(folder / "series"), "records", "--overwrite"],
        "presets": [],
    }
    return {f"sits-keras {verb}": ["-m", "sits_keras", verb, *rest] for verb, rest in lines.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--all", action="store_true", help="measure every command on a small scene")
    parser.add_argument("--json", type=Path, help="file to write the ratios to (see compare.py)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        works = commands(Path(folder))
        if not args.all:
            works = dict(list(works.items())[:1])
        programs = PROGRAMS | works
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for turn in range(args.repeats + 1):
            for name, arguments in programs.items():
                measured = measure(arguments, folder)
                if turn:  # the first turn fills the caches
                    times[name].append(measured)
    print(f"{machine()}; medians of {args.repeats}\n")
    print("| | s | processor s |\n|---|---|---|")
    for name, each in times.items():
        wall, processor = (statistics.median(column) for column in zip(*each, strict=True))
        print(f"| `{name}` | {wall:.3f} | {processor:.3f} |")
    ratios = {
        f"processor time of `{name}` to `{TENSORFLOW}`": [
            one[1] / other[1] for one, other in zip(each, times[TENSORFLOW], strict=True)
        ]
        for name, each in times.items()
        if name != TENSORFLOW
    }
    print_ratios(ratios, args.json)


def measure(arguments: list[str], folder: str) -> tuple[float, float]:
    """Return the wall-clock and processor seconds of a Python process."""
    before, start = used(), time.perf_counter()
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": root}
    subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, check=True
    )
    return time.perf_counter() - start, used() - before


def used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def machine() -> str:
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("keras", "tensorflow"))
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(versions)
    )


if __name__ == "__main__":
    main()
