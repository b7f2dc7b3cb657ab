"""Labelled and unlabelled image chips in a folder or a zip archive."""

import contextlib
import io
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
import PIL.Image

from sits_keras.bands import UNNAMED_BANDS
from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.read import Grid, read_info, read_stored
from sits_keras.data.sources.locations import is_hidden
from sits_keras.errors import ConfigError, DataError, MissingError, SitsKerasError

PICTURE_BANDS = ("B04", "B03", "B02")
"""What the red, green and blue of a picture are."""

PICTURE_MAX = 0.275
"""Reflectance that a picture shows as 255: measured on EuroSAT's chips that are there in both
forms, JPEG = 255 x clip(DN / 2750, 0, 1), top of atmosphere."""

MAX_CHIP_BYTES = 16 * 2**20
"""The largest file that is taken for a chip: all 13 bands in float64 are 400 kB."""

_PICTURES = {".jpg", ".jpeg", ".png"}
_RASTERS = {".tif", ".tiff"}


class Chip(NamedTuple):
    """The pixels of one chip.

    Attributes:
        values: `(64, 64, bands)`, uint8 of a picture (255 is reflectance `PICTURE_MAX`), uint16
            stored values of a GeoTIFF.
        grid: where its pixels lie; `None` for a picture.
        content: the bytes of its file.
    """

    values: np.ndarray
    grid: Grid | None
    content: bytes


class ChipSource(NamedTuple):
    """A folder or archive of chips.

    Attributes:
        path: of the folder or archive.
        kind: `"picture"` or `"raster"`; one source holds one kind.
        names: of the chips within it, `/` between folders, in ascending order.
        empty: names of the folders that hold no file and no folder.
    """

    path: Path
    kind: Literal["picture", "raster"]
    names: tuple[str, ...]
    empty: tuple[str, ...]

    @property
    def unit(self) -> float:
        """Reflectance of a value of 1."""
        return PICTURE_MAX / 255 if self.kind == "picture" else 1 / QUANTIFICATION

    @property
    def clipped_at(self) -> float | None:
        """Reflectance at which the files clip, `None` where they do not."""
        return PICTURE_MAX if self.kind == "picture" else None


def find_chips(path: Path) -> ChipSource:
    """Lists the chips of a folder or zip archive, however deep they lie.

    Other files, hidden ones and the copies that macOS adds are passed over.

    Raises:
        MissingError: nothing is there.
        DataError: it is neither, holds no chips, or pictures beside GeoTIFFs.
    """
    if path.is_dir():
        entries = [
            entry.relative_to(path).as_posix() + ("/" if entry.is_dir() else "")
            for entry in path.rglob("*")
        ]
    elif path.is_file():
        with _open_archive(path) as archive:
            entries = list(_members(archive))
    else:
        raise MissingError(f"Nothing at {path}. Expected a folder or a .zip archive of chips.")
    entries = [entry for entry in entries if not is_hidden(entry)]
    names = {
        kind: sorted(e for e in entries if PurePosixPath(e).suffix.lower() in suffixes)
        for kind, suffixes in (("picture", _PICTURES), ("raster", _RASTERS))
    }
    if names["picture"] and names["raster"]:
        raise DataError(
            f"{path} holds pictures beside GeoTIFFs, such as {names['picture'][0]} and "
            f"{names['raster'][0]}. Expected one kind: their brightness means different things."
        )
    kind: Literal["picture", "raster"] = "picture" if names["picture"] else "raster"
    if not names[kind]:
        raise DataError(
            f"{path} holds no chips. Expected {', '.join(sorted(_PICTURES | _RASTERS))} files of "
            f"{IMAGE_SIZE} x {IMAGE_SIZE} pixels."
        )
    folders = {entry.rstrip("/") for entry in entries if entry.endswith("/")}
    parents = {str(PurePosixPath(entry).parent) for entry in entries}
    return ChipSource(path, kind, tuple(names[kind]), tuple(sorted(folders - parents)))


def read_chips(source: ChipSource, names: Sequence[str], bands: Sequence[str]) -> Iterator[Chip]:
    """Reads chips, one at a time.

    The bands of a GeoTIFF are found by name; one of 13 bands without names is taken to hold
    `UNNAMED_BANDS`.

    Args:
        source: what `find_chips` gave.
        names: of the chips to read, in the order wanted.
        bands: band names, in the order wanted.
    Raises:
        ConfigError: bands are asked for that pictures do not show.
        DataError: a chip is damaged, too large, of another size, or lacks a band. The message
            names it.
    """
    if source.kind == "picture":
        unknown = [band for band in bands if band not in PICTURE_BANDS]
        if unknown:
            raise ConfigError(
                f"{source.path} holds pictures, which show {', '.join(PICTURE_BANDS)}. There is no "
                f"{', '.join(unknown)} in them: use GeoTIFFs, or a model of those three bands."
            )
    with contextlib.ExitStack() as stack:
        archive = None
        if not source.path.is_dir():
            archive = stack.enter_context(_open_archive(source.path))
            members = _members(archive)
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sits_keras-")))
        for name in names:
            where = f"{source.path}, {name}," if archive else str(source.path / name)
            content = (
                _read_member(archive, members.get(name, name), where)
                if archive
                else _read_file(source.path / name, where)
            )
            if source.kind == "picture":
                shown = [PICTURE_BANDS.index(band) for band in bands]
                yield Chip(_decode_picture(content, where)[..., shown], None, content)
                continue
            file = source.path / name
            if archive:
                # GDAL reads files. The name is ours: a member's own may point anywhere.
                file = scratch / "chip.tif"
                file.write_bytes(content)
            yield Chip(*_read_raster(file, bands, where), content)


def _read_raster(file: Path, bands: Sequence[str], where: str) -> tuple[np.ndarray, Grid]:
    try:
        info = read_info(file)
        _check_size(info.grid.height, info.grid.width, where)
        if any(info.bands) or len(info.bands) != len(UNNAMED_BANDS):
            return read_stored(file, bands), info.grid
        unknown = [band for band in bands if band not in UNNAMED_BANDS]
        if unknown:
            raise DataError(
                f"{where} has no band {', '.join(unknown)}. Its bands have no names, and are "
                f"taken to be {', '.join(UNNAMED_BANDS)}."
            )
        values = read_stored(file, UNNAMED_BANDS)
        return values[..., [UNNAMED_BANDS.index(band) for band in bands]], info.grid
    except SitsKerasError as error:
        raise type(error)(str(error).replace(str(file), where)) from error


def _decode_picture(content: bytes, where: str) -> np.ndarray:
    try:
        with PIL.Image.open(io.BytesIO(content)) as picture:
            size, mode = (picture.height, picture.width), picture.mode
            # Looked at before a pixel is decoded: a small file can hold a huge picture.
            if size == (IMAGE_SIZE, IMAGE_SIZE) and mode == "RGB":
                return np.array(picture)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        cause = str(error).split(" <_io")[0].rstrip(".")
        raise DataError(f"{where} cannot be read: {cause}. Remove it or fetch it again.") from error
    _check_size(*size, where)
    raise DataError(f"{where} is a picture of mode {mode}, expected RGB of 8 bits.")


def _check_size(height: int, width: int, where: str) -> None:
    if (height, width) != (IMAGE_SIZE, IMAGE_SIZE):
        raise DataError(
            f"{where} is of {height} x {width} pixels, expected {IMAGE_SIZE} x {IMAGE_SIZE}. Cut "
            "or resample it to 10 m pixels."
        )


def _read_file(file: Path, where: str) -> bytes:
    if not file.is_file():
        raise MissingError(f"No file at {file}. Expected a chip.")
    _check_bytes(file.stat().st_size, where)
    return file.read_bytes()


def _read_member(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    try:
        _check_bytes(archive.getinfo(name).file_size, where)
        with archive.open(name) as member:
            content = member.read(MAX_CHIP_BYTES + 1)
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        cause = str(error).rstrip(".")
        raise DataError(f"{where} cannot be read: {cause}. Fetch the archive again.") from error
    _check_bytes(len(content), where)  # whatever the directory said
    return content


def _check_bytes(size: int, where: str) -> None:
    if size > MAX_CHIP_BYTES:
        raise DataError(
            f"{where} would take {size:,} bytes, and a chip {MAX_CHIP_BYTES:,} at most. It is no "
            "chip, or was made to fill the memory."
        )


@contextlib.contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is no zip archive, or is cut off: {str(error).rstrip('.')}. Expected a folder "
            "or a .zip of chips."
        ) from error
    with archive:
        yield archive


def _members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the stored name of each member, by its name with `/` between folders."""
    # Archives made on Windows may separate folders by backslashes.
    return {name.replace("\\", "/"): name for name in archive.namelist()}
