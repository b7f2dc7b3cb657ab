"""What an export writes, and the command and the Python lines that write the same."""

import abc
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sits_keras import tasks
from sits_keras.explore.engine.model import Subject

NUM_STEPS = 11
"""Of an interpolation: every 10 %."""

TranslationKind = Literal["raster", "picture", "steps", "samples"]

_START = "from sits_keras.tensorflow_import import import_tensorflow\n\nimport_tensorflow()\n"


@dataclasses.dataclass(frozen=True)
class Request(abc.ABC):
    """Something to write.

    Attributes:
        subject: the model.
    """

    subject: Subject

    def command(self) -> str:
        """The command line that writes the same files into the folder that it is called in."""
        return shlex.join(["sits-keras", *map(str, self.arguments())])

    @abc.abstractmethod
    def arguments(self) -> list[Any]:
        """Of that command line."""

    @abc.abstractmethod
    def python(self) -> str:
        """Python lines that do."""

    @abc.abstractmethod
    def write(self, folder: Path) -> list[Path]:
        """Writes the files into a folder and returns them; errors as the functions of `tasks`."""


@dataclasses.dataclass(frozen=True)
class Lookup(Request):
    """`sits-keras retrieve`: a window looked up in another raster."""

    queried: Path
    searched: Path
    at: tuple[int, int]
    matches: int
    min_distance: int
    stride: int

    def arguments(self) -> list[Any]:
        """See `Request`."""
        row, col = self.at
        return [
            *("retrieve", self.queried, self.searched, "found.geojson"),
            *("--model", self.subject.name, "--at", f"{row},{col}", "--matches", self.matches),
            *("--min-distance", self.min_distance, "--stride", self.stride),
        ]

    def python(self) -> str:
        """See `Request`."""
        row, col = self.at
        return f"""{_START}
import sits_keras
from sits_keras import tasks

{self.subject.python("shared")}
tasks.retrieve(
    {str(self.queried)!r},
    {str(self.searched)!r},
    "found.geojson",
    encoder,
    at=[({row}, {col})],
    num_matches={self.matches},
    min_distance={self.min_distance},
    stride={self.stride},
)
"""

    def write(self, folder: Path) -> list[Path]:
        """See `Request`."""
        out = folder / "found.geojson"
        tasks.retrieve(
            self.queried,
            self.searched,
            out,
            self.subject.encoder("shared"),
            at=[self.at],
            num_matches=self.matches,
            min_distance=self.min_distance,
            stride=self.stride,
        )
        return [out, out.with_suffix(".png")]


@dataclasses.dataclass(frozen=True)
class ChangeMap(Request):
    """`sits-keras change`: the map of what changed, and its picture."""

    before: Path
    after: Path
    stride: int
    threshold: float | Literal["auto"]
    mask: Path | None

    def arguments(self) -> list[Any]:
        """See `Request`."""
        return [
            *("change", self.before, self.after, "change.tif", "--model", self.subject.name),
            *("--stride", self.stride, "--threshold", self.threshold),
            *(("--mask", self.mask) if self.mask else ()),
            *("--picture", "change.png"),
        ]

    def python(self) -> str:
        """See `Request`."""
        mask = f"\n    mask={str(self.mask)!r}," if self.mask else ""
        return f"""{_START}
import sits_keras
from sits_keras import tasks

{self.subject.python("exclusive")}
tasks.map_change(
    [{str(self.before)!r}, {str(self.after)!r}],
    "change.tif",
    encoder,
    stride={self.stride},
    threshold={self.threshold!r},{mask}
    picture="change.png",
)
"""

    def write(self, folder: Path) -> list[Path]:
        """See `Request`."""
        out, picture = folder / "change.tif", folder / "change.png"
        tasks.map_change(
            [self.before, self.after],
            out,
            self.subject.encoder("exclusive"),
            stride=self.stride,
            threshold=self.threshold,
            mask=self.mask,
            picture=picture,
        )
        return [out, picture]


@dataclasses.dataclass(frozen=True)
class Segmentation(Request):
    """`sits-keras segment`: the map of clusters, and its picture."""

    image: Path
    num_clusters: int
    stride: int
    fit_stride: int

    def arguments(self) -> list[Any]:
        """See `Request`."""
        return [
            *("segment", self.image, "classes.tif", "--model", self.subject.name),
            *("--clusters", self.num_clusters, "--stride", self.stride),
            *("--fit-stride", self.fit_stride, "--picture", "classes.png"),
        ]

    def python(self) -> str:
        """See `Request`."""
        return f"""{_START}
import sits_keras
from sits_keras import tasks

{self.subject.python("shared")}
tasks.segment_raster(
    {str(self.image)!r},
    "classes.tif",
    encoder,
    num_clusters={self.num_clusters},
    stride={self.stride},
    fit_stride={self.fit_stride},
    picture="classes.png",
)
"""

    def write(self, folder: Path) -> list[Path]:
        """See `Request`."""
        out, picture = folder / "classes.tif", folder / "classes.png"
        tasks.segment_raster(
            self.image,
            out,
            self.subject.encoder("shared"),
            num_clusters=self.num_clusters,
            stride=self.stride,
            fit_stride=self.fit_stride,
            picture=picture,
        )
        return [out, out.with_name(f"{out.name}.aux.xml"), picture]


@dataclasses.dataclass(frozen=True)
class Translation(Request):
    """`sits-keras translate`: a place at another date, as a raster or as a picture of 64 px."""

    kind: TranslationKind
    place: Path
    date: Path
    at: tuple[int, int]
    samples: int
    seed: int

    @property
    def _rasters(self) -> Sequence[Path]:
        return [self.place] if self.kind == "samples" else [self.place, self.date]

    @property
    def _out(self) -> str:
        names = {"steps": "between.png", "samples": "drawn.png", "picture": "translated.png"}
        return names.get(self.kind, "translated.tif")

    @property
    def _options(self) -> dict[str, int]:
        """Of `translate_raster`, without the prefix `num_`."""
        options = {
            "steps": {"steps": NUM_STEPS},
            "samples": {"samples": self.samples, "seed": self.seed},
        }
        return options.get(self.kind, {})

    @property
    def _keywords(self) -> dict[str, Any]:
        """Keyword arguments of `translate_raster`."""
        if self.kind == "raster":
            return {}
        counts = {
            name if name == "seed" else f"num_{name}": value
            for name, value in self._options.items()
        }
        return {"at": self.at, **counts}

    def arguments(self) -> list[Any]:
        """See `Request`."""
        options = [part for name, value in self._options.items() for part in (f"--{name}", value)]
        at = [] if self.kind == "raster" else ["--at", "{},{}".format(*self.at)]
        return [
            *("translate", *self._rasters, self._out, "--model", self.subject.name),
            *options,
            *at,
        ]

    def python(self) -> str:
        """See `Request`."""
        rasters = [str(one) for one in self._rasters]
        options = "".join(f", {name}={value!r}" for name, value in self._keywords.items())
        return f"""{_START}
import sits_keras
from sits_keras import tasks

{self.subject.python()}
tasks.translate_raster({rasters!r}, {self._out!r}, model{options})
"""

    def write(self, folder: Path) -> list[Path]:
        """See `Request`."""
        return tasks.translate_raster(
            self._rasters, folder / self._out, self.subject.whole(), **self._keywords
        )
