"""Short form of the benchmarks of speed and memory: one table of ratios with their targets.

    python benchmarks/compare.py [--out bench.json] [--render docs/results.md]   # make bench
    python benchmarks/compare.py BASE.json NEW.json

Runs `prepare.py`, `startup.py` and `windows.py` in a short form (under ten minutes on two idle
cores), prints a table of their ratios, and writes them as JSON. With --render, the table replaces
the one between the marks in a document. Given two such files of one machine, prints how the ratios
of the second differ from those of the first. Every ratio is of things that were measured
alternately in one run, so it depends little on the machine, but on other jobs that run on it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
BEGIN, END = "<!-- ratios -->", "<!-- end of ratios -->"
RUNS = [
    ["prepare.py", "--side", "2048", "--dates", "2", "--repeats", "5", "--kind", "stack"],
    ["prepare.py", "--side", "2048", "--dates", "2", "--repeats", "5", "--kind", "bands"],
    ["prepare.py", "--side", "2048", "--dates", "2", "--repeats", "3", "--kind", "safe"],
    ["startup.py", "--repeats", "5"],
    ["windows.py", "--strides", "8", "--repeats", "5"],
]
# Bounds: ">=" or "<=", and the value.
TARGETS = {
    "rate of prepare to plain reads (stack)": (">=", 0.70),
    "rate of prepare to plain reads (bands)": (">=", 0.75),
    "rate of prepare to plain reads (safe)": (">=", 0.85),
    "rate of 2 workers to 1 (stack)": (">=", 1.8),
    "rate of 2 workers to 1 (safe)": (">=", 1.8),
    "memory for four times the input to that for it (stack)": ("<=", 1.02),
    "processor time of `sits-keras segment` to `import tensorflow`": ("<=", 0.7),
    "dense, stride 8: fraction of the arithmetic limit": (">=", 0.35),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="BASE.json NEW.json")
    parser.add_argument("--out", type=Path, help="file to write the ratios to")
    parser.add_argument("--render", type=Path, help="document to write the table into")
    args = parser.parse_args()
    if len(args.files) == 2:
        print(difference(*(json.loads(file.read_text("utf-8")) for file in args.files)))
        return
    if args.files:
        parser.error("Expected no file, or two to compare.")
    ratios = measure()
    if args.out:
        args.out.write_text(json.dumps(ratios, indent=1) + "\n", encoding="utf-8")
    print("\n" + table(ratios))
    if args.render:
        args.render.write_text(render(args.render.read_text("utf-8"), ratios), encoding="utf-8")


def measure() -> dict[str, list[float]]:
    """Run the benchmarks, each in a process of its own."""
    ratios: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for script, *options in RUNS:
            file = Path(folder) / "ratios.json"
            print(f"\n$ python benchmarks/{script} {' '.join(options)}", flush=True)
            command = [sys.executable, FOLDER / script, *options, "--json", file]
            subprocess.run(command, check=True)
            ratios |= json.loads(file.read_text("utf-8"))
    return ratios


def table(ratios: dict[str, list[float]]) -> str:
    """Return a Markdown table of the medians, the ranges and the targets."""
    lines = ["| ratio | median | range | target |", "|---|---|---|---|"]
    for name, values in ratios.items():
        median, target = statistics.median(values), ""
        if name in TARGETS:
            sign, bound = TARGETS[name]
            reached = median >= bound if sign == ">=" else median <= bound
            target = f"{sign} {bound:g}: {'reached' if reached else 'missed'}"
        spread = f"{min(values):.2f} to {max(values):.2f}"
        lines.append(f"| {name} | {median:.2f} | {spread} | {target} |")
    return "\n".join(lines)


def difference(base: dict[str, list[float]], new: dict[str, list[float]]) -> str:
    """Return a Markdown table of the ratios in both files, and of their quotients."""
    lines = ["| ratio | base | new | new / base |", "|---|---|---|---|"]
    for name in [*base, *(name for name in new if name not in base)]:
        cells = [
            f"{statistics.median(one[name]):.2f}" if name in one else "" for one in (base, new)
        ]
        quotient = ""
        if name in base and name in new:
            quotient = f"{statistics.median(new[name]) / statistics.median(base[name]):.2f}"
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {quotient} |")
    return "\n".join(lines)


def render(text: str, ratios: dict[str, list[float]]) -> str:
    """Return a document whose table of ratios, between the marks, is that of `ratios`."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"Expected the marks {BEGIN} and {END} in the document.")
    return f"{before}{BEGIN}\n{table(ratios)}\n{END}{after}"


def print_ratios(ratios: dict[str, list[float]], file: Path | None) -> None:
    """Print a table of ratios, and write them to a file if there is one.

    Args:
        ratios: Values of each repetition, by name.
        file: JSON file to write.
    """
    print("\n" + table(ratios))
    if file:
        file.write_text(json.dumps(ratios), encoding="utf-8")


if __name__ == "__main__":
    main()
