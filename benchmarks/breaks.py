"""Break dates of synthetic series and of fires that are placed into real series.

    python benchmarks/breaks.py [DATA] [--model sits_rgbn_small] [--season auto|none|harmonic]

Runs `tasks.map_breaks` with its default threshold. The synthetic series have 16 clear and 5 cloudy
dates within about 18 months, a felled stand and a parcel that is built over; crops rotate, which
does not count as a break. With DATA, the reflectance of wildfires (`change/wildfire-*`, after
divided by before, relative to the pixels around) is multiplied into series of DATA/series from a
date on, at the pixels of the official perimeter; in half of them the burn fades within two months.

Printed are, over the pixels without a break, those that have one in the map, by year (false
alarms); over the pixels with one, the fraction that is found, the average precision of the
strength, the median error of the date, counted in the pixel's clear dates, and the fraction of
errors of at most one; and the fraction of the pixels found that are marked as recovered.
"""

import argparse
import datetime
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np
import rasterio
from sklearn.metrics import average_precision_score

import sits_keras
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.synthetic import make_series, write_series
from sits_keras.tasks.change.series import map_breaks

BANDS = ("B02", "B03", "B04", "B08")
SEEDS, SIZE = (204, 205, 206, 207), 128  # others were used to choose
MAX_DATES = 24
FADES = 60  # days


class Truth(NamedTuple):
    """A series with known breaks.

    Attributes:
        folder: Dated rasters.
        dates: Their dates.
        clear: `(dates, height, width)` bool.
        breaks: `(height, width)` index of the first date of a break, -1 where there is none.
    """

    folder: Path
    dates: list[datetime.date]
    clear: np.ndarray
    breaks: np.ndarray


def make_synthetic(seed: int, folder: Path) -> Truth:
    """Write a synthetic series."""
    series = make_series(seed, height=SIZE, width=SIZE, num_dates=16, num_cloudy=5)
    write_series(series, folder)
    return Truth(folder, list(series.dates), ~series.clouds, series.breaks())


def place_fire(series: Path, fire: Path, folder: Path, seed: int, fades: bool) -> Truth:
    """Write a real series with a fire in it."""
    rng = np.random.default_rng(seed)
    paths = sorted(one for one in series.glob("????-??-??.tif"))
    if len(paths) > MAX_DATES:
        paths = [paths[int(i)] for i in np.linspace(0, len(paths) - 1, MAX_DATES).round()]
    images, clear = [], []
    for path in paths:
        with rasterio.open(path) as source:
            images.append(np.moveaxis(source.read(), 0, -1).astype(float))
        clear.append((images[-1] > 0).all(axis=-1))
        mask = path.with_name(f"{path.stem}_cloud.tif")
        if mask.exists():
            with rasterio.open(mask) as source:
                clear[-1] &= source.read(1) == 0
    ratio, burnt = read_fire(fire, images[0].shape[:2], rng)
    dates = [datetime.date.fromisoformat(path.stem) for path in paths]
    first = int(rng.integers(len(dates) * 3 // 10, len(dates) * 7 // 10))
    folder.mkdir()
    for date, image, is_clear in zip(dates, images, clear, strict=True):
        if date >= dates[first]:
            left = np.exp(-(date - dates[first]).days / FADES) if fades else 1.0
            image = np.where(image > 0, np.maximum(image * (1 + left * (ratio - 1)), 1), 0)
        grid = Grid(*image.shape[:2], None, None)
        write_raster(folder / f"{date}.tif", np.rint(image).astype(np.uint16), BANDS, grid)
        cloud = (~is_clear).astype(np.uint8)[..., None]
        write_raster(folder / f"{date}_cloud.tif", cloud, ["cloud"], grid)
    return Truth(folder, dates, np.stack(clear), np.where(burnt, first, -1))


def read_fire(
    folder: Path, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the change of reflectance by a fire as a factor, and its perimeter.

    It is a window of the fire of which about a quarter burnt.
    """
    read = []
    for name in ("before", "after", "mask"):
        with rasterio.open(folder / f"{name}.tif") as source:
            read.append(np.moveaxis(source.read(), 0, -1).astype(float))
    before, after, burnt = read[0], read[1], read[2][..., 0] > 0
    valid = (before > 0).all(axis=-1) & (after > 0).all(axis=-1)
    ratio = after / np.maximum(before, 1)
    ratio = np.clip(ratio / np.median(ratio[valid & ~burnt], axis=0), 0.2, 4)
    burnt &= valid
    height, width = (min(one, other) for one, other in zip(shape, burnt.shape, strict=True))
    corners = [
        (
            int(rng.integers(burnt.shape[0] - height + 1)),
            int(rng.integers(burnt.shape[1] - width + 1)),
        )
        for _ in range(200)
    ]
    row, col = min(
        corners,
        key=lambda at: abs(burnt[at[0] : at[0] + height, at[1] : at[1] + width].mean() - 0.25),
    )
    part = slice(row, row + height), slice(col, col + width)
    factor, perimeter = np.ones((*shape, len(BANDS))), np.zeros(shape, bool)
    perimeter[:height, :width] = burnt[part]
    factor[:height, :width] = np.where(burnt[part][..., None], ratio[part], 1)
    return factor, perimeter


def score(truth: Truth, path: Path, threshold: float) -> list[float]:
    """Return false alarms a year, recall, AP, median error, errors within one, and recovered."""
    with rasterio.open(path) as source:
        found, _, recovered, _, strength = source.read()
    known, is_true = np.isfinite(found), truth.breaks >= 0
    years = (truth.dates[-1] - truth.dates[0]).days / 365.25
    alarms = np.mean(strength[known & ~is_true] > threshold) / years
    hit = known & is_true & (found > 0)
    codes = [date.year * 1000 + date.timetuple().tm_yday for date in truth.dates]
    # Errors in clear dates, from the first clear date on which a break can be seen.
    rank = truth.clear.cumsum(axis=0)
    at = np.maximum(truth.breaks, 0)[None]
    seen = np.take_along_axis(rank, at, axis=0)[0] + ~np.take_along_axis(truth.clear, at, axis=0)[0]
    error = np.abs(rank[np.searchsorted(codes, found[hit]), *np.nonzero(hit)] - seen[hit])
    return [
        float(alarms),
        hit.sum() / (known & is_true).sum(),
        average_precision_score(is_true[known], strength[known]),
        float(np.median(error)) if error.size else np.nan,
        float(np.mean(error <= 1)) if error.size else np.nan,
        float(np.mean(recovered[hit])) if error.size else np.nan,
    ]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--model", default="sits_rgbn_small")
    parser.add_argument("--season", default="auto")
    parser.add_argument("--count", type=int, default=4, help="number of series of each kind")
    args = parser.parse_args()
    encoder = sits_keras.from_preset(args.model, "shared")
    print("| series | false alarms a year | found | AP | median error | <= 1 | recovered |")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)

        def show(kind: str, truths: list[Truth]) -> None:
            rows = []
            for truth in truths:
                out = root / f"{truth.folder.name}-breaks.tif"
                done = map_breaks(truth.folder, out, encoder, season=args.season)
                rows.append(score(truth, out, done.threshold))
            means = np.nanmean(rows, axis=0)
            errors = ", ".join(f"{row[3]:.0f}" for row in rows)
            print(
                f"| {kind} ({len(rows)}) | {means[0]:.2%} | {means[1]:.2f} | {means[2]:.2f} | "
                f"{errors} | {means[4]:.2f} | {means[5]:.2f} |",
                flush=True,
            )

        show("synthetic", [make_synthetic(one, root / f"s{one}") for one in SEEDS[: args.count]])
        if args.data is None:
            return
        places = sorted((args.data / "series").glob("earthnet-29SND-*"))[: args.count]
        fires = sorted((args.data / "change").glob("wildfire-*"))
        for fades in (False, True):
            truths = [
                place_fire(place, fire, root / f"f{index}-{fades}", index, fades)
                for index, (place, fire) in enumerate(zip(places, fires, strict=False))
            ]
            show("fires that fade" if fades else "fires", truths)


if __name__ == "__main__":
    main()
