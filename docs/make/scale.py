"""Render the tables of docs/scale.md: cost of three sizes of job, from measured rates.

Usage: `python docs/make/scale.py`
"""

import math
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "scale.md"
BEGIN = "<!-- begin: python docs/make/scale.py -->"
END = "<!-- end -->"

# Measured on two cores, docs/results.md.
PLAIN_READS = 10.3e6  # bytes of pixels a second, JPEG 2000, one process
FRACTION_OF_PLAIN = 0.84  # of it, prepare in one process
TWO_TO_ONE = 1.78  # two workers to one
STEP_16 = 0.518  # seconds per step, width 16, 64 pairs
STEP_64 = 2 * 2.709  # width 64, twice a step of 32 pairs
CONTEXT = 1.37  # a step with padding="context" to one with zeros
PAIRS = 13_738  # pairs a second
DENSE_WINDOWS = 5_208  # a second at stride 8, width 16, on a busy machine: docs/scale.md
DENSE_TO_EXACT = 40  # at stride 8

# From the record format, or computed.
BYTES = 2 * 4  # of a pixel at one date: uint16, four bands
SCL_FRACTION = 1 / 32  # of the bytes of four bands of 10 m, read to screen a granule
FEATURES = 1024
TFLOP_16, TFLOP_64 = 0.0427, 0.599  # of a step of 64 pairs, benchmarks/train_step.py

DATES = 12
HOUR = 3600.0


class Job(NamedTuple):
    """A size of job: pixels of 10 m to store, and pixels of the granules to screen."""

    name: str
    pixels: float
    granule_pixels: float


PAPER = Job("the paper", 1_050 * 1024**2, 42 * 10_980**2)
FRANCE = Job("France, 544,000 km²", 544_000e4, 544_000e4)
LAND = Job("all land but Antarctica, 135 million km²", 135e6 * 1e4, 135e6 * 1e4)
JOBS = (PAPER, FRANCE, LAND)


def main() -> None:
    """Replace the tables of docs/scale.md."""
    PAGE.write_text(replace_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def replace_tables(page: str) -> str:
    """Return the page with tables that are computed from the rates above."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{render_tables()}\n\n{END}{after}"


def render_tables() -> str:
    """Return the tables of records, training and maps."""
    return "\n\n".join(
        [
            "## Records",
            _preparation(),
            "## Training",
            _training(),
            "## Maps",
            _maps(),
        ]
    )


def _preparation() -> str:
    rate = PLAIN_READS * FRACTION_OF_PLAIN
    rows = []
    for job in JOBS:
        stored = job.pixels * DATES * BYTES
        read = stored + job.granule_pixels * DATES * BYTES * SCL_FRACTION
        hours = read / rate / HOUR
        shards = max(1, round(job.pixels / 1024**2))
        rows.append(
            [
                job.name,
                f"{job.pixels:.3g}",
                _bytes(stored),
                _bytes(read),
                _hours(hours),
                _hours(hours / TWO_TO_ONE),
                f"{shards:,}",
            ]
        )
    columns = ("", "pixels", "records", "read", "one process", "two cores", "independent patches")
    return _table(columns, rows)


def _training() -> str:
    rows = []
    for title, steps, seconds, tflop in (
        ("the demo's size: width 16, 1,500 steps of 64", 1_500, STEP_16, TFLOP_16),
        ("width 16 at batches of 64, 4,000 steps", 4_000, STEP_16, TFLOP_16),
        ("the paper: width 64, 150,000 steps of 64", 150_000, STEP_64, TFLOP_64),
    ):
        rows.append(
            [
                title,
                _hours(steps * seconds / HOUR),
                _hours(CONTEXT * steps * seconds / HOUR),
                f"{steps * tflop / 1000:,.3g}",
                f"{64 / seconds:,.0f} of {PAIRS:,}",
            ]
        )
    columns = (
        "",
        "two cores",
        '`padding="context"`',
        "PFLOP",
        "pairs per second: needed, of those available",
    )
    return _table(columns, rows)


def _maps() -> str:
    rows = []
    pixels_a_second = DENSE_WINDOWS * 8**2
    for job in JOBS:
        dense = job.pixels / pixels_a_second / HOUR
        rows.append(
            [
                job.name,
                _hours(dense),
                _hours(dense * DENSE_TO_EXACT),
                f"{math.ceil(dense / 10):,}",
                _bytes(job.pixels / 32**2 * FEATURES * 4),
                _bytes(job.pixels / 32**2 * FEATURES),
            ]
        )
    columns = (
        "one date, width 16",
        "stride 8, dense, two cores",
        "exact",
        "two-core machines for a map in ten hours",
        "features at stride 32, float32",
        "int8",
    )
    return _table(columns, rows)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if count < 1000 or unit == "PB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.0f} min"
    if hours < 72:
        return f"{hours:.1f} h"
    days = hours / 24
    return f"{days:,.0f} days" if days < 730 else f"{days / 365.25:.3g} years"


def _table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(r) + " |" for r in [columns, ["---"] * len(columns), *rows])


if __name__ == "__main__":
    main()
