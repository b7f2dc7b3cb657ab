"""A call of a function of `sits_keras.tasks`, run here or shown as Python or as a command."""

import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from sits_keras import tasks
from sits_keras.data.rasters.points import Point, write_points
from sits_keras.data.rasters.read import read_info
from sits_keras.errors import ConfigError
from sits_keras.hub import HubEncoder
from sits_keras.tasks.change.maps import ChangeMethod, ModelPart, used_parts

if TYPE_CHECKING:
    from sits_keras.model import DisentangledSITS

NUM_STEPS = 11
"""Images of an interpolation: one every 10 %."""

POINTS_NAME = "points.geojson"
"""Labelled points that an export of a change writes, and the shown lines read."""

TranslationKind = Literal["raster", "picture", "steps", "samples"]

_VERBS = {
    "retrieve": "retrieve",
    "map_change": "change",
    "segment_raster": "segment",
    "translate_raster": "translate",
    "query": "query",
}
_OPTIONS = {"windows": "window"}  # of the command, where it is not the name without `num_`


class ExploredModel(NamedTuple):
    """Parts of a model that the page can use, and its name.

    Attributes:
        name: Name on a command line: a preset's name, or a path.
        kind: A preset, a hub module (one encoder), or a whole model as a file or a run's folder.
        shared: Shared encoder, or `None` for a module of the exclusive one.
        exclusive: Exclusive encoder, or `None` for a module of the shared one.
        model: Whole model, or `None` for a module.
    """

    name: str
    kind: Literal["preset", "module", "model"]
    shared: HubEncoder | None
    exclusive: HubEncoder | None
    model: "DisentangledSITS | None"

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands that the model takes, in order."""
        return self.encoder("exclusive" if self.shared is None else "shared").bands

    @property
    def change_methods(self) -> tuple[ChangeMethod, ...]:
        """Methods of `map_change` for which the model has the parts, the default first."""
        methods: tuple[ChangeMethod, ...] = get_args(ChangeMethod)
        return tuple(
            method
            for method in methods
            if not any(map(self.missing_reason, self.change_parts(method)))
        )

    def missing_reason(self, part: ModelPart) -> str:
        """Return a sentence on why a part is missing, or an empty string if the model has it."""
        if getattr(self, part) is not None:
            return ""
        found = "shared" if self.exclusive is None else "exclusive"
        needed = "whole model" if part == "model" else f"{part} encoder"
        return (
            f"This view needs the {needed}. {self.name} is a hub module, which contains only the "
            f"{found} encoder. Name the preset, .keras file or run that it was exported from."
        )

    def encoder(self, part: Literal["shared", "exclusive"]) -> HubEncoder:
        """Return an encoder.

        Raises:
            ConfigError: The encoder is missing.
        """
        found: HubEncoder | None = getattr(self, part)
        if found is None:
            raise ConfigError(self.missing_reason(part))
        return found

    def whole(self) -> "DisentangledSITS":
        """Return the whole model.

        Raises:
            ConfigError: The model is missing.
        """
        if self.model is None:
            raise ConfigError(self.missing_reason("model"))
        return self.model

    def change_parts(
        self, method: ChangeMethod, *, with_labels: bool = False
    ) -> tuple[ModelPart, ...]:
        """Return the parts that a method of change uses, see `tasks.change.maps.used_parts`."""
        parts: tuple[ModelPart, ...] = ("shared", "exclusive", "model")
        available = [part for part in parts if getattr(self, part) is not None]
        return used_parts(method, available, with_labels=with_labels)

    def load(self, parts: Sequence[ModelPart]) -> Any:
        """Return a part, or a list of several encoders.

        Raises:
            ConfigError: A part is missing.
        """
        found = [self.whole() if part == "model" else self.encoder(part) for part in parts]
        return found[0] if len(found) == 1 else found

    def loading(self, part: ModelPart) -> str:
        """Return the Python expression that loads a part."""
        if self.kind == "module":
            return f"sits_keras.hub.load({self.name!r})"
        if self.kind == "preset":
            encoder = "" if part == "model" else f", {part!r}"
            return f"sits_keras.from_preset({self.name!r}{encoder})"
        whole = f"sits_keras.load_model({self.name!r})"
        return whole if part == "model" else f"sits_keras.hub.wrap({whole}, {part!r})"


@dataclasses.dataclass(frozen=True)
class TaskCall:
    """One call of a function of `sits_keras.tasks`.

    Attributes:
        model: Model that the function applies.
        function: Name of the function.
        parts: Part of the model that the function takes, or several encoders; or none.
        inputs: Positional arguments before the output: paths, or lists of paths.
        out: Name of the output file.
        options: Keyword arguments. `picture` and `labels` are names of files beside `out`.
        also_written: Names of further files that are written.
        points: Labelled points to write as `labels` before the call.
    """

    model: ExploredModel
    function: str
    parts: Sequence[ModelPart]
    inputs: Sequence[Path | Sequence[Path]]
    out: str
    options: Mapping[str, Any]
    also_written: Sequence[str] = ()
    points: Sequence[Point] = ()

    def write(self, folder: Path) -> list[Path]:
        """Call the function.

        Args:
            folder: Existing folder to write the files to.

        Returns:
            Paths of the files.

        Raises:
            SitsKerasError: As the function raises it.
        """
        options = dict(self.options)
        for name in ("picture", "labels"):
            if name in options:
                options[name] = folder / options[name]
        if self.points:
            (images,) = self.inputs
            before = images if isinstance(images, Path) else images[0]
            write_points(options["labels"], self.points, read_info(before).grid)
        part = [self.model.load(self.parts)] if self.parts else []
        getattr(tasks, self.function)(*self.inputs, folder / self.out, *part, **options)
        return [folder / name for name in (self.out, *self.also_written)]

    def python(self) -> str:
        """Return Python code that makes the same call in the working directory."""
        loading = [self.model.loading(part) for part in self.parts]
        name = "model" if "model" in self.parts else "encoder"
        if len(loading) > 1:
            name, loading = "encoders", ["[", *(f"    {one}," for one in loading), "]"]
        arguments = [
            *map(_python_value, self.inputs),
            repr(self.out),
            *([name] if self.parts else []),
            *(f"{option}={_python_value(value)}" for option, value in self.options.items()),
        ]
        start = [
            "from sits_keras.tensorflow_import import import_tensorflow",
            "",
            "import_tensorflow()",
            "",
        ]
        lines = [
            *(start if self.parts else []),
            "import sits_keras",
            "",
            *([f"{name} = " + "\n".join(loading)] if self.parts else []),
            f"sits_keras.tasks.{self.function}(",
            *(f"    {argument}," for argument in arguments),
            ")",
        ]
        return "\n".join(lines) + "\n"

    def command(self) -> str:
        """Return the command line that makes the same call in the working directory."""
        words = ["sits-keras", _VERBS[self.function]]
        for value in self.inputs:
            words += [str(value)] if isinstance(value, Path) else map(str, value)
        words += [self.out, "--model", self.model.name] if self.parts else ["--out", self.out]
        for option, value in self.options.items():
            flag = _OPTIONS.get(option, option.removeprefix("num_").replace("_", "-"))
            for word in _command_values(value):
                words += [f"--{flag}", word]
        return shlex.join(words)


def _python_value(value: Any) -> str:
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, list):
        return f"[{', '.join(map(_python_value, value))}]"
    return repr(value)


def _command_values(value: Any) -> Iterator[str]:
    """Yield the words of an option: several where a list repeats it."""
    if isinstance(value, list):
        for one in value:
            yield from _command_values(one)
    elif isinstance(value, tuple):
        yield ",".join(map(str, value))
    else:
        yield str(value)


def retrieval_call(
    model: ExploredModel,
    query: Path,
    search: Path,
    *,
    at: tuple[int, int],
    num_matches: int,
    min_distance: int,
    stride: int,
) -> TaskCall:
    """Describe `tasks.retrieve`: one window of a raster looked up in another, by the grid.

    Args:
        model: Explored model.
        query: Raster or series of the window.
        search: Raster or series to search.
        at: Row and column of the window's upper left pixel.
        num_matches: Maximum number of matches.
        min_distance: Minimum distance between matches, in pixels.
        stride: Distance between searched windows, in pixels.
    """
    options = {
        "at": [at],
        "method": "grid",  # that of the cached vectors
        "num_matches": num_matches,
        "min_distance": min_distance,
        "stride": stride,
    }
    inputs = [query, search]
    return TaskCall(model, "retrieve", ["shared"], inputs, "found.geojson", options, ["found.png"])


def query_call(
    model: ExploredModel,
    embeddings: Path,
    *,
    cell: tuple[int, int],
    num_matches: int,
    min_distance: int,
) -> TaskCall:
    """Describe `tasks.query`: the places of embeddings like one cell, and their picture.

    Args:
        model: Explored model, which the function does not take.
        embeddings: Embedding raster, or a folder of such rasters.
        cell: Row and column of the example.
        num_matches: Maximum number of places.
        min_distance: Minimum distance between places, and from the example, in cells.
    """
    options = {
        "windows": [cell],
        "num_matches": num_matches,
        "min_distance": min_distance,
        "picture": "similar.png",
    }
    also = ["similar.tif", "similar.png"]
    return TaskCall(model, "query", [], [embeddings], "similar.geojson", options, also)


def change_call(
    model: ExploredModel,
    before: Path,
    after: Path,
    *,
    method: ChangeMethod,
    stride: int,
    threshold: float | Literal["auto"],
    mask: Path | None,
    points: Sequence[Point] = (),
) -> TaskCall:
    """Describe `tasks.map_change`: the map of a change, and its picture.

    Args:
        model: Explored model.
        before: Earlier raster.
        after: Later raster.
        method: Method of `map_change`.
        stride: Distance between windows, in pixels, for the method "exclusive".
        threshold: Distance above which a pixel has changed, or "auto".
        mask: Reference of the change, if there is one.
        points: Labelled points that steer the map, for the method "layers". They are written as
            `POINTS_NAME`.
    """
    options: dict[str, Any] = {"method": method}
    also = ["change.png"]
    if points:
        options["labels"] = POINTS_NAME
        also.append(POINTS_NAME)
    if method == "exclusive":
        options["stride"] = stride
    options["threshold"] = threshold
    if mask is not None:
        options["mask"] = mask
    options["picture"] = "change.png"
    inputs = [[before, after]]
    parts = model.change_parts(method, with_labels=bool(points))
    return TaskCall(model, "map_change", parts, inputs, "change.tif", options, also, points)


def segmentation_call(
    model: ExploredModel, image: Path, *, num_clusters: int, min_region: int
) -> TaskCall:
    """Describe `tasks.segment_raster`: the map of clusters, and its picture.

    Args:
        model: Explored model.
        image: Raster or series to segment.
        num_clusters: Number of classes.
        min_region: Pixels of the smallest region.
    """
    options = {"num_clusters": num_clusters, "min_region": min_region, "picture": "classes.png"}
    also = ["classes.tif.aux.xml", "classes.clusters.json", "classes.png"]
    return TaskCall(model, "segment_raster", ["shared"], [image], "classes.tif", options, also)


def translation_call(
    model: ExploredModel,
    kind: TranslationKind,
    place: Path,
    date: Path,
    *,
    at: tuple[int, int],
    num_samples: int,
    seed: int,
) -> TaskCall:
    """Describe `tasks.translate_raster`: a place at another date.

    Args:
        model: Explored model.
        kind: The whole raster; or a picture of one window: at the other date, at steps from the
            one date to the other, or at sampled dates.
        place: Raster of the place.
        date: Raster of the date. Unused for samples.
        at: Row and column of the window's upper left pixel. Unused for the whole raster.
        num_samples: Number of sampled dates.
        seed: Seed of the samples.
    """
    outputs: dict[TranslationKind, tuple[str, dict[str, Any]]] = {
        "raster": ("translated.tif", {}),
        "picture": ("translated.png", {"at": at}),
        "steps": ("between.png", {"num_steps": NUM_STEPS, "at": at}),
        "samples": ("sampled.png", {"num_samples": num_samples, "seed": seed, "at": at}),
    }
    out, options = outputs[kind]
    inputs = [[place]] if kind == "samples" else [[place, date]]
    return TaskCall(model, "translate_raster", ["model"], inputs, out, options)
