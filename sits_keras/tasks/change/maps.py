"""Change maps of two dates, written as a raster and as a picture (section 4.6, Figure 7)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sits_keras.data.rasters.points import read_points
from sits_keras.data.rasters.read import read_mask
from sits_keras.data.rasters.rows import ImageSource, preview_step, thin
from sits_keras.errors import ConfigError
from sits_keras.files import check_suffix, refuse_existing
from sits_keras.hub import HubEncoder
from sits_keras.tasks.change.clicks import ClickedChange
from sits_keras.tasks.change.detection import (
    Change,
    check_threshold,
    detect_change,
    open_pair,
)
from sits_keras.tasks.change.pixels import detect_pixel_change, detect_translation_change
from sits_keras.tasks.change.scores import ChangeScores, score_change
from sits_keras.tasks.pictures import check_picture, make_panels, preview_image, save_figure
from sits_keras.tasks.windows import Encoder, Mode

if TYPE_CHECKING:
    from sits_keras.model import DisentangledSITS

ChangeMethod = Literal["layers", "pixels", "irmad", "translation", "exclusive"]
"""Method of change detection; "exclusive" is the paper's, by windows."""

ModelPart = Literal["shared", "exclusive", "model"]
"""Part of a model: one of its encoders, or the whole."""

_RED = (0.84, 0.0, 0.0)


class WrittenChange(NamedTuple):
    """A change map that was written.

    Attributes:
        change: Images, distances and threshold of the map.
        changed_fraction: Fraction of the pixels with data whose distance is above the threshold.
        scores: Scores of the map and of the baselines against the mask; empty without a mask.
    """

    change: Change
    changed_fraction: float
    scores: list[ChangeScores]


def used_parts(
    method: ChangeMethod, available: Sequence[ModelPart], *, with_labels: bool = False
) -> tuple[ModelPart, ...]:
    """Return the parts of a model that a method uses, in the order of `map_change`.

    Args:
        method: Method of `map_change`.
        available: Parts that there are: one encoder of a hub module, all of a preset or run.
        with_labels: Whether labelled points steer the map.

    Returns:
        The parts. `exclusive` and `translation` use theirs even if it is not available; the others
        use what encoders there are.
    """
    if method == "exclusive":
        return ("exclusive",)
    if method == "translation":
        return ("model",)
    encoders = [part for part in available if part != "model"]
    preferred = [part for part in ("shared", "exclusive") if part in encoders]
    return tuple(preferred if with_labels else preferred[:1])


def map_change(
    images: Sequence[ImageSource],
    out: Path | str,
    encoder: "Encoder | Sequence[HubEncoder] | DisentangledSITS",
    *,
    method: ChangeMethod | None = None,
    labels: Path | str | None = None,
    stride: int = 32,
    threshold: float | Literal["auto"] = "auto",
    clouds: Sequence[Path | str] = (),
    mask: Path | str | npt.NDArray[np.bool_] | None = None,
    picture: Path | str | None = None,
    bands: Sequence[str] | None = None,
    mode: Mode = None,
    workers: int = 1,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> WrittenChange:
    """Map what changed between two dates as a cloud-optimised GeoTIFF, in bounded memory.

    `layers` compares intermediate layers and bands at every pixel, without the difference that the
    scene has in common (`tasks.change.pixels`). `pixels` and `irmad` compare the bands only.
    `translation` compares both places as the whole model generates them at one date.
    `exclusive` is the method of the paper: the L1 distance of the features of windows, averaged
    over all windows that cover a pixel.

    Band 1 is the distance. Band 2 is 1 where it is above the threshold, else 0. All methods but
    `exclusive` write band 3: the percentage of the scene's pixels with a smaller distance. All are
    float32, NaN where either image has no data. The threshold and the estimated false-alarm rate
    are metadata of the file.

    Args:
        images: The earlier and the later image, on one grid: paths of rasters, or
            `(height, width, bands)` arrays of uint16 stored values or float reflectance.
        out: Output GeoTIFF.
        encoder: Encoder, such as `hub.load(...)`: the shared one for `layers`, the exclusive one
            for `exclusive`; both, the shared one first, for `labels`; the whole model for
            `translation`. `pixels` and `irmad` use only its bands.
        method: Method. By default `layers` for an encoder that has layers, else `exclusive`.
        labels: GeoJSON of points with a property `changed`, true or false, which steer the map: its
            distance is then the probability of change (`tasks.change.clicks`).
        stride: Distance between windows, in pixels, 1 to 64, for `exclusive`. The paper uses 32.
        threshold: Distance above which a pixel has changed, or "auto": 0.4 to 0.65 for `layers`
            (the more the rarer change is), a probability of 0.5 with labels, and Otsu's threshold
            for the others.
        clouds: Cloud masks of the earlier and of the later image, or one for both: SCL, QA60 or
            other rasters. By default the images' own masks (`tasks.change.detection.open_pair`).
        mask: Reference to score the map against: a raster whose first band is not zero where there
            was a change, or a `(height, width)` bool array.
        picture: PNG to write as well: both images, the distance, and the changed pixels in red.
        bands: Band names of the encoder. By default those that it states.
        mode: "exact" or "dense", for `exclusive`. By default dense where the encoder supports it at
            this stride.
        workers: Processes that encode windows, for `exclusive`. With more than 1 the encoder must
            be picklable.
        scheduler: Address of a Dask scheduler to use instead of processes.
        overwrite: Overwrite existing files.
        progress: Show a progress bar.

    Returns:
        The change, the changed fraction, and the scores.

    Raises:
        ExistsError: If an output exists and `overwrite` is false, or is one of the inputs.
        OutputError: If an output cannot be written.
        MissingError: If a raster does not exist.
        DataError: If a raster cannot be read or lacks a band, if the images or the mask are on
            different grids, or if no pixel has data in both images.
        ConfigError: If an argument is out of range, the encoder has no layers and the method needs
            them, an image is smaller than a window for `exclusive` and `translation`, or the
            encoder does not support dense mode although it is required.

    Examples:
        >>> encoder = sits_keras.from_preset("sits_rgbn_small", "shared")
        >>> done = map_change(["2020.tif", "2021.tif"], "change.tif", encoder)
        >>> print(f"{done.changed_fraction:.1%} changed")
    """
    if len(images) != 2:
        raise ConfigError(f"Expected two images, before and after. Received: {len(images)}.")
    out = Path(out)
    check_suffix(out, "OUT", ".tif", ".tiff")
    read = [one for one in (*images, *clouds, mask) if isinstance(one, Path | str)]
    refuse_existing(out, overwrite, read)
    picture = check_picture(picture, overwrite)
    encoders: list[Any] = list(encoder) if isinstance(encoder, Sequence) else [encoder]
    chosen = method or ("layers" if isinstance(encoders[0], HubEncoder) else "exclusive")
    if labels is not None and chosen != "layers":
        raise ConfigError(f"Labels steer the method 'layers'. Received: method={chosen!r}.")
    change: Change
    if chosen == "exclusive":
        change = detect_change(
            images[0],
            images[1],
            encoders[0],
            stride=stride,
            threshold=threshold,
            bands=bands,
            clouds=clouds,
            mode=mode,
            workers=workers,
            scheduler=scheduler,
            progress=progress,
        )
    elif chosen == "translation":
        if not hasattr(encoders[0], "translate"):
            raise ConfigError(
                "The method 'translation' generates images. Expected a whole model. Received: "
                f"{type(encoders[0]).__name__}. Load it with sits_keras.from_preset or "
                "sits_keras.load_model."
            )
        pair = open_pair(images[0], images[1], bands or encoders[0].config.bands, clouds=clouds)
        change = detect_translation_change(
            pair, encoders[0], threshold=check_threshold(threshold), progress=progress
        )
    else:
        limit = check_threshold(threshold)
        names = bands or getattr(encoders[0], "bands", None)
        pair = open_pair(images[0], images[1], names, clouds=clouds, any_size=True)
        points = None if labels is None else read_points(labels, pair.before.grid)
        change = detect_pixel_change(
            pair,
            chosen,
            encoders[:1],
            threshold=None if points else limit,
            progress=progress,
        )
        if points is not None:
            change = ClickedChange(change, encoders).fit(points, threshold=limit)
    # Score first: nothing is written if the mask does not fit.
    scores = [] if mask is None else score_change({"clicks" if labels else chosen: change}, mask)
    fraction = change.write(out, overwrite=overwrite)
    if picture is not None:
        reference = read_mask(mask) if isinstance(mask, Path | str) else mask
        plot_change(change, picture, mask=reference, overwrite=overwrite)
    return WrittenChange(change, fraction, scores)


def plot_change(
    change: Change,
    path: Path | str,
    *,
    mask: npt.NDArray[np.bool_] | None = None,
    overwrite: bool = False,
) -> Path:
    """Plot both images, the distance, and the changed pixels in red.

    Args:
        change: Change to plot.
        path: Output PNG.
        mask: `(height, width)` bool reference, outlined in yellow.
        overwrite: Overwrite an existing file.

    Returns:
        The path.

    Raises:
        ExistsError: If `path` exists and `overwrite` is false.
    """
    before, after = (preview_image(strips) for strips in change.pair)
    height, width = change.pair.before.grid[:2]
    step = preview_step(height, width)
    distance = thin(change.rows(), step)
    marked = np.where(
        (distance > change.threshold)[..., None], 0.4 * after + 0.6 * np.array(_RED), after
    )
    figure, axes = make_panels(4, before.shape)
    extent = (0, width, height, 0)
    for axis, title, image in (
        (axes[0], "before", before),
        (axes[1], "after", after),
        (axes[3], f"changed: distance above {change.threshold:.3g}", marked),
    ):
        axis.set_title(title, fontsize=10)
        axis.imshow(image, extent=extent, interpolation="nearest")
    axes[2].set_title("distance", fontsize=10)
    shown = axes[2].imshow(distance, extent=extent, cmap="viridis", interpolation="nearest")
    figure.colorbar(shown, cax=axes[2].inset_axes((1.02, 0, 0.04, 1)))  # as high as the image
    if mask is not None and 0 < np.count_nonzero(mask) < mask.size:
        reference = mask[::step, ::step].astype(float)
        rows, cols = np.indices(reference.shape) * step + 0.5 * step
        for axis in axes[2:]:
            axis.contour(cols, rows, reference, [0.5], colors="gold", linewidths=1)
        figure.supxlabel("yellow: outline of the reference", fontsize=9)
    return save_figure(figure, path, overwrite)
