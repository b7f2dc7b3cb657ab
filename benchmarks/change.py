"""Change at pixel resolution against baselines, on labelled pairs; clicks; speed.

    python benchmarks/change.py MODEL PAIRS... [--every 1] [--clicks 8 16 32 64] [--plot CLICKS.png]
    python benchmarks/change.py MODEL --speed 2048 4096

MODEL is a preset. PAIRS are folders `<family>-<name>` with before.tif, after.tif and mask.tif;
larger pairs are cut to 320 px about their centre. Prints means by family: average precision (AP)
with its 95 % interval over pairs, F1, precision and recall at the automatic threshold, AUC, and the
highest F1 of any threshold, an oracle upper bound. With --random, "random layers" are those of an
untrained model.

With --pictures, writes `<pair>.png` for each: both images, the distances of "layers" and of
smoothed IR-MAD as percentiles of the scene, and the reference.

With --clicks, labelled points are drawn from the mask, half of them changed, and AP is printed by
their number. Nothing else uses the masks.

With --speed, maps a synthetic pair of each side and embeds one of its images at a stride of 8 px in
dense mode, alternately: the ratio of their times, and the maximum memory of a process that does so.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import matplotlib.figure
import numpy as np
from sklearn.metrics import average_precision_score

import sits_keras
from sits_keras import DisentangledSITS, hub, tasks
from sits_keras.data.rasters.points import Point
from sits_keras.data.rasters.read import read_info, read_mask, read_stored
from sits_keras.tasks.change.clicks import ClickedChange
from sits_keras.tasks.change.detection import open_pair
from sits_keras.tasks.change.pixels import PixelChange, detect_pixel_change
from sits_keras.tasks.change.scores import ChangeScores, mean_by_family, score_change
from sits_keras.tasks.pictures import make_panels, preview_image, save_figure

SIDE = 320  # px


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a preset")
    parser.add_argument("pairs", nargs="*", type=Path)
    parser.add_argument("--every", type=int, default=1, help="use every n-th pair")
    parser.add_argument("--random", action="store_true", help="layers of an untrained model too")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    parser.add_argument("--clicks", type=int, nargs="+", default=[])
    parser.add_argument("--seeds", type=int, default=4, help="draws of the clicks")
    parser.add_argument("--plot", type=Path, help="PNG of AP against the number of clicks")
    parser.add_argument("--speed", type=int, nargs="+", metavar="SIDE")
    args = parser.parse_args()
    encoders = [sits_keras.from_preset(args.model, name) for name in ("shared", "exclusive")]
    for side in args.speed or ():
        if len(args.speed) > 1:  # in processes of their own, because of the maximum memory
            subprocess.run([*sys.orig_argv[:2], args.model, "--speed", str(side)], check=True)
        else:
            measure_speed(encoders[0], side)
    if args.speed:
        return
    config = sits_keras.from_preset(args.model).config
    random = hub.wrap(DisentangledSITS(config, seed=1), "shared")
    scores: dict[str, list[ChangeScores]] = {}
    clicked: dict[str, dict[int, list[float]]] = {}
    for path in args.pairs[:: args.every]:
        before, after, mask = read_pair(path, encoders[0].bands)
        pair = open_pair(before, after, encoders[0].bands, any_size=True)
        valid = pair.valid(0, len(mask))
        if not (path / "mask.tif").is_file() or not 0 < mask[valid].mean() < 1:
            continue
        layers = detect_pixel_change(pair, "layers", encoders[:1])
        changes = {"layers": layers}
        if args.random:
            changes["random layers"] = detect_pixel_change(pair, "layers", [random])
        scores[path.name] = score_change(changes, mask)
        if args.pictures:
            baseline = detect_pixel_change(pair, "irmad smoothed")
            picture([layers, baseline], mask, args.pictures / f"{path.name}.png")
        if args.clicks:
            model = ClickedChange(layers, encoders)
            for count in args.clicks:
                for seed in range(args.seeds):
                    distance = model.fit(draw_clicks(mask, valid, count, seed)).map().distance
                    found = average_precision_score(mask[valid], distance[valid])
                    family = path.name.split("-")[0]
                    clicked.setdefault(family, {}).setdefault(count, []).append(found)
    report(scores)
    curves: dict[str, dict[int, float]] = {}
    for family, methods in mean_by_family(scores).items():
        curves[family] = {0: methods["layers"]["average_precision"]}
    for family, of_family in clicked.items():
        for count, found in of_family.items():
            curves[family][count] = float(np.mean(found))
            print(f"{family}: {count} clicks, AP {curves[family][count]:.3f}")
    if args.plot:
        plot(curves, args.plot)


def read_pair(path: Path, bands: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width = read_info(path / "before.tif").grid[:2]
    rows, cols = (
        slice(max(0, (n - SIDE) // 2), max(0, (n - SIDE) // 2) + SIDE) for n in (height, width)
    )
    before, after = (read_stored(path / f"{name}.tif", bands) for name in ("before", "after"))
    mask = np.zeros((height, width), bool)
    if (path / "mask.tif").is_file():
        mask = read_mask(path / "mask.tif")
    return before[rows, cols], after[rows, cols], mask[rows, cols]


def draw_clicks(mask: np.ndarray, valid: np.ndarray, count: int, seed: int) -> list[Point]:
    rng = np.random.default_rng(seed)
    points = []
    for changed in (True, False):
        places = np.argwhere(valid & (mask == changed))
        chosen = rng.choice(len(places), min(count // 2, len(places)), replace=False)
        points += [Point(int(row), int(col), changed) for row, col in places[chosen]]
    return points


def report(scores: dict) -> None:
    for family, methods in mean_by_family(scores).items():
        some = next(iter(methods.values()))
        print(f"{family}: {some['num_pairs']} pairs, chance {some['chance']:.3f}")
        print(f"  {'method':<36}AP     interval      F1     prec.  recall AUC    oracle F1")
        for name, mean in methods.items():
            print(
                f"  {name:<36}{mean['average_precision']:.3f}  {mean['ap_low']:.3f}-"
                f"{mean['ap_high']:.3f}  {mean['f1']:.3f}  {mean['precision']:.3f}  "
                f"{mean['recall']:.3f}  {mean['auc']:.3f}  {mean['best_f1']:.3f}"
            )


def picture(changes: list[PixelChange], mask: np.ndarray, path: Path) -> None:
    images = [preview_image(one) for one in changes[0].pair]
    figure, axes = make_panels(5, mask.shape)
    for axis, image, title in zip(axes, images, ("before", "after"), strict=False):
        axis.imshow(image)
        axis.set_title(title)
    for axis, change in zip(axes[2:], changes, strict=False):
        axis.imshow(change.calibration.percentile(change.map().distance), vmin=50, vmax=100)
        axis.set_title(change.method)
    axes[4].imshow(mask, cmap="gray")
    axes[4].set_title("reference")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path, True)


def plot(curves: dict[str, dict[int, float]], path: Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(5, 3.5), layout="constrained")
    axis = figure.add_subplot(xlabel="clicks", ylabel="average precision", ylim=(0, 1))
    for family, curve in curves.items():
        axis.plot(list(curve), list(curve.values()), marker="o", label=family)
    axis.set_xticks(sorted({count for curve in curves.values() for count in curve}))
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


def measure_speed(encoder: hub.HubEncoder, side: int) -> None:
    rng = np.random.default_rng(0)
    shape = (side, side, len(encoder.bands))
    images = [rng.integers(200, 4000, shape).astype(np.uint16) for _ in range(2)]
    times: dict[str, list[float]] = {"change": [], "embed": []}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.tif"
        for _ in range(3):
            start = time.process_time()
            tasks.map_change(images, out, encoder, overwrite=True)
            times["change"].append(time.process_time() - start)
            start = time.process_time()
            tasks.embed_raster(images[0], out, encoder, stride=8, mode="dense", overwrite=True)
            times["embed"].append(time.process_time() - start)
    change, embed = (min(times[name]) for name in ("change", "embed"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{side} px: change of a pair {change:.2f} s, embedding of an image {embed:.2f} s of CPU")
    print(f"ratio {change / embed:.2f}; to that of both images {change / embed / 2:.2f}")
    print(f"maximum memory {memory:.2f} GiB")


if __name__ == "__main__":
    main()
