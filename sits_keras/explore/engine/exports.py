"""Files that a page offers for download, each at an address that cannot be guessed."""

import abc
import dataclasses
import secrets
import shlex
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from bokeh.server.views.auth_request_handler import AuthRequestHandler
from tornado.web import HTTPError

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.rasters.read import read_mask
from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.tiling import Window
from sits_keras.explore.engine.model import Subject
from sits_keras.tasks.change.maps import detect_change
from sits_keras.tasks.pictures import draw_change, draw_classes
from sits_keras.tasks.retrieval import search as lookup
from sits_keras.tasks.segmentation.maps import write_segments
from sits_keras.tasks.translation import rasters as mosaics
from sits_keras.tasks.translation.rasters import draw_snapshot

_CHUNK = 2**20


class Exports:
    """Which files are offered, by the secret in their address."""

    def __init__(self) -> None:
        self._files: dict[str, Path] = {}
        self._lock = threading.Lock()

    def offer(self, file: Path) -> str:
        """The address of a file, relative to the page's."""
        secret = secrets.token_urlsafe(16)
        with self._lock:
            self._files[secret] = file
        return f"export/{secret}/{file.name}"

    def forget(self, folder: Path) -> None:
        """Offers the files of a folder no more."""
        with self._lock:
            self._files = {
                secret: file for secret, file in self._files.items() if folder not in file.parents
            }

    def find(self, secret: str, name: str) -> Path | None:
        """The file at an address, `None` where there is none."""
        file = self._files.get(secret)
        return file if file is not None and file.name == name and file.is_file() else None


class ExportHandler(AuthRequestHandler):
    """Sends a file; who asks is checked as for the page (`access`)."""

    def initialize(self, exports: Exports) -> None:
        """Tornado's constructor."""
        self._exports = exports

    async def get(self, secret: str, name: str) -> None:
        """Sends it in parts, for it may be larger than is well held in memory."""
        file = self._exports.find(secret, name)
        if file is None:
            raise HTTPError(404)
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        self.set_header("Content-Length", file.stat().st_size)
        self.set_header("X-Content-Type-Options", "nosniff")
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                self.write(chunk)
                await self.flush()


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
    apart: int
    stride: int

    def arguments(self) -> list[Any]:
        """See `Request`."""
        row, col = self.at
        return [
            *("retrieve", self.queried, self.searched, "found.geojson"),
            *("--model", self.subject.name, "--at", f"{row},{col}", "--matches", self.matches),
            *("--apart", self.apart, "--stride", self.stride),
        ]

    def python(self) -> str:
        """See `Request`."""
        row, col = self.at
        return f"""{_START}
from pathlib import Path

import sits_keras
from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.tiling import Window
from sits_keras.tasks.retrieval import search as lookup

{self.subject.python("shared")}
queried = open_strips({str(self.queried)!r}, encoder.bands)
searched = open_strips({str(self.searched)!r}, encoder.bands)
windows = [Window({row}, {col}, {IMAGE_SIZE}, {IMAGE_SIZE})]
found = lookup.find_windows(
    encoder,
    queried,
    windows,
    searched,
    stride={self.stride},
    num_matches={self.matches},
    apart={self.apart},
)
lookup.write_matches(queried, windows, searched, found, Path("found.geojson"))
"""

    def write(self, folder: Path) -> list[Path]:
        """See `Request`."""
        encoder = self.subject.encoder("shared")
        queried = open_strips(self.queried, encoder.bands)
        searched = open_strips(self.searched, encoder.bands)
        windows = [Window(*self.at, IMAGE_SIZE, IMAGE_SIZE)]
        found = lookup.find_windows(
            encoder,
            queried,
            windows,
            searched,
            stride=self.stride,
            num_matches=self.matches,
            apart=self.apart,
        )
        out = folder / "found.geojson"
        lookup.write_matches(queried, windows, searched, found, out)
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
        reading = "from sits_keras.data.rasters.read import read_mask\n" if self.mask else ""
        mask = f", mask=read_mask({str(self.mask)!r})" if self.mask else ""
        return f"""{_START}
import sits_keras
{reading}from sits_keras.tasks.change.maps import detect_change
from sits_keras.tasks.pictures import draw_change

{self.subject.python("exclusive")}
change = detect_change(
    {str(self.before)!r},
    {str(self.after)!r},
    encoder,
    stride={self.stride},
    threshold={self.threshold!r},
)
change.write("change.tif")
draw_change(change, "change.png"{mask})
"""

    def write(self, folder: Path) -> list[Path]:
        """See `Request`."""
        encoder = self.subject.encoder("exclusive")
        found = detect_change(
            self.before, self.after, encoder, stride=self.stride, threshold=self.threshold
        )
        found.write(folder / "change.tif")
        mask = read_mask(self.mask) if self.mask else None
        draw_change(found, folder / "change.png", mask=mask)
        return [folder / "change.tif", folder / "change.png"]


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
from sits_keras.tasks.pictures import draw_classes
from sits_keras.tasks.segmentation.maps import write_segments

{self.subject.python("shared")}
image = {str(self.image)!r}
clusters, preview = write_segments(
    image,
    "classes.tif",
    encoder,
    num_clusters={self.num_clusters},
    stride={self.stride},
    fit_stride={self.fit_stride},
)
draw_classes(image, preview, clusters.classes(), "classes.png", bands=encoder.bands)
"""

    def write(self, folder: Path) -> list[Path]:
        """See `Request`."""
        encoder = self.subject.encoder("shared")
        out, picture = folder / "classes.tif", folder / "classes.png"
        clusters, preview = write_segments(
            self.image,
            out,
            encoder,
            num_clusters=self.num_clusters,
            stride=self.stride,
            fit_stride=self.fit_stride,
        )
        draw_classes(self.image, preview, clusters.classes(), picture, bands=encoder.bands)
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
        """Of `draw_snapshot`."""
        options = {
            "steps": {"steps": NUM_STEPS},
            "samples": {"samples": self.samples, "seed": self.seed},
        }
        return options.get(self.kind, {})

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
        lines = f"{_START}\nfrom pathlib import Path\n\nimport sits_keras\n"
        if self.kind == "raster":
            return f"""{lines}from sits_keras.tasks.translation import rasters as mosaics

{self.subject.python()}
mosaics.translate_raster(model, {rasters[0]!r}, {rasters[1]!r}, Path({self._out!r}))
"""
        options = "".join(f", {name}={value}" for name, value in self._options.items())
        return f"""{lines}from sits_keras.tasks.translation.rasters import draw_snapshot

{self.subject.python()}
draw_snapshot(model, {rasters!r}, Path({self._out!r}), at={self.at!r}{options})
"""

    def write(self, folder: Path) -> list[Path]:
        """See `Request`."""
        model = self.subject.whole()
        out = folder / self._out
        if self.kind == "raster":
            mosaics.translate_raster(model, self.place, self.date, out)
        else:
            options: dict[str, Any] = dict(self._options)
            draw_snapshot(model, self._rasters, out, at=self.at, **options)
        return [out]
