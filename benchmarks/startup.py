"""Start-up time of the package and of its command line, compared with importing Keras.

    python benchmarks/startup.py [--repeats 7]

Measures new processes alternately in one run, so that only ratios matter: `import sits_keras`,
`import keras` (which imports TensorFlow), `sits-keras --help`, the help of a command, and an empty
Python program, which is part of each. Prints medians of wall-clock and processor time. On a
machine with other jobs, the processor time is more reliable.
"""

import argparse
import importlib.metadata
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "python -c pass": ["-c", "pass"],
    "import sits_keras": ["-c", "import sits_keras"],
    "sits-keras --help": ["-m", "sits_keras", "--help"],
    "sits-keras train --help": ["-m", "sits_keras", "train", "--help"],
    "import keras": ["-c", "import keras"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for turn in range(repeats + 1):
        for name, arguments in PROGRAMS.items():
            measured = measure(arguments)
            if turn:  # the first turn fills the caches
                times[name].append(measured)
    wall, cpu = (
        {name: statistics.median(one[kind] for one in all_) for name, all_ in times.items()}
        for kind in (0, 1)
    )
    print(f"{machine()}; medians of {repeats}\n")
    print("| | s | processor s | import keras / it |\n|---|---|---|---|")
    for name in PROGRAMS:
        ratio = cpu["import keras"] / cpu[name]
        print(f"| `{name}` | {wall[name]:.3f} | {cpu[name]:.3f} | {ratio:.1f} |")


def measure(arguments: list[str]) -> tuple[float, float]:
    """Return the wall-clock and processor seconds of a Python process."""
    before, start = used(), time.perf_counter()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=True)
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
