"""Draws the figures of docs/concepts.md, from a place that the demo holds out.

    make demo
    python docs/make/figures.py demo

They go to docs/images/: networks.png, windows.png, series.png, shared.png, exclusive.png, and
segments.png of docs/howto/maps.md.
"""

import argparse
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from sits_keras.tensorflow_import import import_tensorflow

import_tensorflow()

import matplotlib.figure  # noqa: E402
import matplotlib.patches  # noqa: E402
import numpy as np  # noqa: E402
import PIL.Image  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402

from sits_keras import DisentangledSITS, cli, hub, load_model  # noqa: E402
from sits_keras.data import synthetic  # noqa: E402
from sits_keras.data.radiometry import (  # noqa: E402
    QUANTIFICATION,
    show_reflectance,
    to_network,
)
from sits_keras.data.rasters.read import Grid, write_raster  # noqa: E402
from sits_keras.data.rasters.rows import open_strips  # noqa: E402
from sits_keras.tasks import pictures  # noqa: E402
from sits_keras.tasks.windows import iterate_windows  # noqa: E402

IMAGES = Path(__file__).resolve().parents[1] / "images"
HELD_OUT = 4  # the seed of place-04, which the demo does not train on
NUM_DATES = 6
STRIDE = 8
BLUE, ORANGE, GREY = "#4477aa", "#ee7733", "#777777"


def main() -> None:
    """Draw all figures into docs/images/."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("demo", type=Path, help="the folder that `make demo` wrote")
    args = parser.parse_args()
    model = load_model(args.demo / "run")
    place = synthetic.make_series(HELD_OUT)
    clear = place.clear_dates()
    chosen = [clear[i] for i in np.linspace(0, len(clear) - 1, NUM_DATES).round().astype(int)]
    images = place.images[chosen]
    dates = [str(place.dates[index]) for index in chosen]

    draw_networks()
    draw_windows(images[2])
    plot_series(model, images, dates)
    draw_shared(model, images, dates)
    draw_distances(model, images, dates)
    draw_segments()


def plot_series(model: DisentangledSITS, images: np.ndarray, dates: list[str]) -> None:
    """One place, and the same made of its first date alone and each date's exclusive part."""
    side = slice(96, 160)
    crop = to_network(images[:, side, side], model.config.band_max)
    made = np.asarray(model.reconstruct_series(crop, shared_from=0))
    pictures.plot_series(
        [("what was there", crop), ("place of the 1st date", made)],
        dates,
        IMAGES / "series.png",
        bands=model.config.bands,
        band_max=model.config.band_max,
    )


def draw_shared(model: DisentangledSITS, images: np.ndarray, dates: list[str]) -> None:
    """Shared features of every window as false colours, the same three axes for all dates."""
    encoder = hub.wrap(model, "shared")
    maps = [features_of(encoder, image) for image in images]
    every = np.concatenate([one.reshape(-1, one.shape[-1]) for one in maps])
    axes = PCA(3, random_state=0).fit(every)
    low, high = np.percentile(axes.transform(every), (2, 98), axis=0)
    figure = matplotlib.figure.Figure((1.55 * NUM_DATES, 3.5), layout="constrained")
    grid = figure.subplots(2, NUM_DATES)
    for column, (image, features, date) in enumerate(zip(images, maps, dates, strict=True)):
        colours = (axes.transform(features.reshape(-1, features.shape[-1])) - low) / (high - low)
        shown = np.clip(colours, 0, 1).reshape(*features.shape[:2], 3)
        grid[0, column].imshow(show_reflectance(image / QUANTIFICATION, model.config.bands))
        grid[1, column].imshow(shown, interpolation="nearest")
        grid[0, column].set_title(date, fontsize=10)
    for row, title in zip(grid, ("image", "shared features"), strict=True):
        row[0].set_ylabel(title, fontsize=9)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    save(figure, "shared.png")


def draw_distances(model: DisentangledSITS, images: np.ndarray, dates: list[str]) -> None:
    """Draw distances between dates, relative to the distance between two places."""
    other = synthetic.make_series(HELD_OUT + 5)  # place-09, held out as well
    elsewhere = other.images[other.clear_dates()[0]]
    shared, exclusive = (hub.wrap(model, one) for one in ("shared", "exclusive"))
    measures: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "pixels": lambda stored: stored / QUANTIFICATION,
        "shared": functools.partial(features_of, shared),
        "exclusive": functools.partial(features_of, exclusive),
    }
    figure = matplotlib.figure.Figure((10.5, 4.2), layout="constrained")
    for axis, (name, measure) in zip(figure.subplots(1, 3), measures.items(), strict=True):
        maps = [measure(image) for image in images]
        far = measure(elsewhere)
        scale = np.mean([distance(one, far) for one in maps])
        table = np.array([[distance(a, b) / scale for b in maps] for a in maps])
        axis.imshow(table, cmap="cividis", vmin=0, vmax=1.2)
        for row, col in np.ndindex(*table.shape):
            colour = "white" if table[row, col] < 0.6 else "black"
            axis.text(
                col, row, f"{table[row, col]:.2f}", ha="center", va="center", c=colour, size=8
            )
        axis.set_title(name, fontsize=11)
        axis.set_xticks(range(len(dates)), dates, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(len(dates)), dates, fontsize=8)
        off = table[~np.eye(len(table), dtype=bool)]
        print(f"{name}: dates of one place differ by {off.mean():.2f} of what two places do")
    save(figure, "exclusive.png")


def draw_segments() -> None:
    """Draw the picture of `sits-keras segment --picture` for a procedural scene."""
    land = synthetic.make_series(HELD_OUT, height=512, width=768, num_dates=4, num_cloudy=0)
    with tempfile.TemporaryDirectory() as folder:
        scene, out = Path(folder) / "scene.tif", Path(folder) / "classes.tif"
        write_raster(scene, land.images[1], land.bands, Grid(512, 768, None, None))
        picture = IMAGES / "segments.png"
        command = [
            "segment",
            str(scene),
            str(out),
            "--model",
            "sits_rgbn_small",
            "--picture",
            str(picture),
        ]
        cli.run([*command, "--clusters", "5", "--overwrite", "-q"])
    with PIL.Image.open(picture) as image:  # 256 colours are enough, and a third of the bytes
        image.convert("RGB").quantize().save(picture)


def features_of(encoder: hub.HubEncoder, stored: np.ndarray) -> np.ndarray:
    """Features of all windows of an image, `(rows, cols, features)`."""
    strips = open_strips(stored, encoder.bands)
    return np.stack([row.features for row in iterate_windows(encoder, strips, STRIDE)])


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean absolute difference."""
    return float(np.abs(one.astype(np.float64) - other).mean())


def draw_networks() -> None:
    """The four networks, and what goes in and comes out of each."""
    figure = matplotlib.figure.Figure((10.5, 5.2), layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(0, 21.2), ylim=(0, 10.4), aspect="equal")
    axis.axis("off")

    def box(x: float, y: float, text: str, colour: str, width: float = 3.6, filled: bool = True):
        style = {"boxstyle": "round,pad=0.05,rounding_size=0.25", "lw": 1.6, "ec": colour}
        face = colour if filled else "white"
        axis.add_patch(matplotlib.patches.FancyBboxPatch((x, y), width, 1.3, fc=face, **style))
        axis.text(
            x + width / 2,
            y + 0.65,
            text,
            ha="center",
            va="center",
            size=8.5,
            color="white" if filled else "black",
        )

    def arrow(start: tuple[float, float], end: tuple[float, float], colour: str = GREY) -> None:
        axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.5})

    for y, name, other, up in ((7.4, "x", "y", -1), (1.7, "y", "x", 1)):
        shared, exclusive = y + 0.95 * up, y - 0.95 * up  # the shared ones face each other
        box(0.1, y, f"image {name}\n64 x 64 x bands", GREY, filled=False)
        box(4.8, shared, r"shared encoder $E_{sh}$", BLUE)
        box(4.8, exclusive, r"exclusive encoder $E_{ex}$", ORANGE)
        box(9.5, shared, f"place of {name}\n4 x 4 x 64", BLUE, filled=False)
        box(
            9.5, exclusive, f"date of {name}: mean and\nlog variance, 64 each", ORANGE, filled=False
        )
        box(
            14.2,
            y,
            f"decoder $G$: $\\hat{{{name}}}$, the\nplace of {other} at the date of {name}",
            GREY,
        )
        for row in (shared, exclusive):
            arrow((3.8, y + 0.65), (4.7, row + 0.65))
            arrow((8.5, row + 0.65), (9.4, row + 0.65))
        arrow((13.2, exclusive + 0.65), (14.1, y + 0.65), ORANGE)
    arrow((13.2, 7.1), (15.2, 3.15), BLUE)
    arrow((13.2, 3.3), (15.2, 7.25), BLUE)
    box(18.6, 4.55, "discriminator $D$\nreal ($x$, $y$)\nor generated?", "#aa3377", 2.4)
    arrow((17.9, 7.9), (19.6, 6.0))
    arrow((17.9, 2.5), (19.6, 4.4))
    axis.annotate(
        "", (11.3, 4.1), (11.3, 6.3), arrowprops={"arrowstyle": "<->", "color": BLUE, "ls": ":"}
    )
    axis.text(11.1, 5.2, "alike: eq. 1", color=BLUE, size=9, ha="right", va="center")
    axis.text(0.1, 5.2, "two dates of one place", size=9, style="italic", va="center")
    save(figure, "networks.png")


def draw_windows(stored: np.ndarray) -> None:
    """Draw a window, its neighbours at a stride, and its context."""
    figure = matplotlib.figure.Figure((5.6, 4.9), layout="constrained")
    axis = figure.subplots()
    image = show_reflectance(stored / QUANTIFICATION, ("B02", "B03", "B04", "B08"))
    axis.imshow(0.4 * image + 0.6)

    for row, col, side, colour, style in (
        (33, 33, 142, ORANGE, ":"),
        (64, 96, 64, BLUE, "--"),
        (96, 64, 64, BLUE, "--"),
        (64, 64, 64, "black", "-"),
    ):
        outline = {"fill": False, "ec": colour, "ls": style, "lw": 2}
        axis.add_patch(matplotlib.patches.Rectangle((col, row), side, side, **outline))
    for x, y, text, colour in (
        (66, 61, "a window, 64 px", "black"),
        (102, 139, "the next ones, stride 32", BLUE),
        (35, 30, "what its features depend on: 31 px before, 47 px after", ORANGE),
    ):
        axis.text(x, y, text, c=colour, size=9, weight="bold", bbox={"fc": "white", "lw": 0})
    axis.set(xlim=(0, 224), ylim=(192, 0), xticks=range(0, 225, 32), yticks=range(0, 193, 32))
    axis.tick_params(labelsize=8)
    save(figure, "windows.png")


def save(figure: matplotlib.figure.Figure, name: str) -> None:
    """Write a figure to docs/images/."""
    figure.savefig(IMAGES / name, dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main()
