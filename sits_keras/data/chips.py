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
import numpy.typing as npt
import PIL.Image

from sits_keras.bands import UNNAMED_BANDS
from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.rasters.read import Grid, read_info, read_stored
from sits_keras.data.sources.paths import is_hidden
from sits_keras.errors import ConfigError, DataError, MissingError, SitsKerasError

PICTURE_BANDS = ("B04", "B03", "B02")
"""Bands of the red, green and blue of a picture."""

PICTURE_MAX = 0.275
"""Reflectance that a picture shows as 255: measured on EuroSAT's chips, which exist in both forms,
JPEG = 255 x clip(DN / 2750, 0, 1), top of atmosphere."""

MAX_CHIP_BYTES = 16 * 2**20
"""Largest accepted file of a chip: all 13 bands in float64 are 400 kB."""

_PICTURES = {".jpg", ".jpeg", ".png"}
_RASTERS = {".tif", ".tiff"}


class Chip(NamedTuple):
    """Pixels of one chip.

    Attributes:
        values: `(64, 64, bands)`, uint8 of a picture (255 is reflectance `PICTURE_MAX`), uint16
            stored values of a GeoTIFF.
        grid: Grid of its pixels; `None` for a picture.
        content: Bytes of its file.
    """

    values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    grid: Grid | None
    content: bytes


class ChipSource(NamedTuple):
    """A folder or archive of chips.

    Attributes:
        path: Path of the folder or archive.
        kind: `"picture"` or `"raster"`; all chips are of one kind.
        names: Names of the chips within it, with `/` between folders, in ascending order.
        empty: Names of the folders without files or folders.
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
        """Reflectance at which the values are clipped; `None` if they are not."""
        return PICTURE_MAX if self.kind == "picture" else None


def find_chips(path: Path) -> ChipSource:
    """List the chips of a folder or zip archive, at any depth.

    Other files are skipped, and so are hidden ones and the copies that macOS adds.

    Args:
        path: Path of the folder or archive.

    Raises:
        MissingError: The path does not exist.
        DataError: The path is of another kind, or contains no chips, or both pictures and GeoTIFFs.
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
        raise MissingError(f"No file or folder at {path}. Expected a folder or .zip of chips.")
    entries = [entry for entry in entries if not is_hidden(entry)]
    names = {
        kind: sorted(e for e in entries if PurePosixPath(e).suffix.lower() in suffixes)
        for kind, suffixes in (("picture", _PICTURES), ("raster", _RASTERS))
    }
    if names["picture"] and names["raster"]:
        raise DataError(
            f"{path} contains pictures and GeoTIFFs, such as {names['picture'][0]} and "
            f"{names['raster'][0]}. Expected one kind, because their values have different units. "
            "Move one kind to another folder."
        )
    kind: Literal["picture", "raster"] = "picture" if names["picture"] else "raster"
    if not names[kind]:
        raise DataError(
            f"{path} does not contain chips. Expected files "
            f"{', '.join(sorted(_PICTURES | _RASTERS))} of {IMAGE_SIZE} x {IMAGE_SIZE} pixels."
        )
    folders = {entry.rstrip("/") for entry in entries if entry.endswith("/")}
    parents = {str(PurePosixPath(entry).parent) for entry in entries}
    return ChipSource(path, kind, tuple(names[kind]), tuple(sorted(folders - parents)))


def read_chips(source: ChipSource, names: Sequence[str], bands: Sequence[str]) -> Iterator[Chip]:
    """Read chips, one at a time.

    The bands of a GeoTIFF are found by name; 13 bands without names are assumed to be
    `UNNAMED_BANDS`.

    Args:
        source: Result of `find_chips`.
        names: Names of the chips to read, in the order wanted.
        bands: Band names, in the order wanted.

    Yields:
        Pixels of a chip.

    Raises:
        ConfigError: A band is not one of those that pictures show.
        DataError: A chip is damaged, too large, of another size, or lacks a band.
    """
    if source.kind == "picture":
        unknown = [band for band in bands if band not in PICTURE_BANDS]
        if unknown:
            raise ConfigError(
                f"{source.path} contains pictures, which show {', '.join(PICTURE_BANDS)}. "
                f"Received: {', '.join(unknown)}. Use GeoTIFFs, or a model of those three bands."
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
                # GDAL reads files. Not under the member's own name, which may point anywhere.
                file = scratch / "chip.tif"
                file.write_bytes(content)
            yield Chip(*_read_raster(file, bands, where), content)


def _read_raster(
    file: Path, bands: Sequence[str], where: str
) -> tuple[npt.NDArray[np.uint16], Grid]:
    try:
        info = read_info(file)
        _check_size(info.grid.height, info.grid.width, where)
        if any(info.bands) or len(info.bands) != len(UNNAMED_BANDS):
            return read_stored(file, bands), info.grid
        unknown = [band for band in bands if band not in UNNAMED_BANDS]
        if unknown:
            raise DataError(
                f"{where} has no band {', '.join(unknown)}. Its bands have no names, and are "
                f"assumed to be {', '.join(UNNAMED_BANDS)}."
            )
        values = read_stored(file, UNNAMED_BANDS)
        return values[..., [UNNAMED_BANDS.index(band) for band in bands]], info.grid
    except SitsKerasError as error:
        raise type(error)(str(error).replace(str(file), where)) from error


def _decode_picture(content: bytes, where: str) -> npt.NDArray[np.uint8]:
    try:
        with PIL.Image.open(io.BytesIO(content)) as picture:
            size, mode = (picture.height, picture.width), picture.mode
            # Checked before a pixel is decoded: a small file can contain a huge picture.
            if size == (IMAGE_SIZE, IMAGE_SIZE) and mode == "RGB":
                return np.array(picture)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        cause = str(error).split(" <_io")[0].rstrip(".")
        raise DataError(f"{where} cannot be read: {cause}. Remove it or fetch it again.") from error
    _check_size(*size, where)
    raise DataError(f"{where} is a picture of mode {mode}. Expected RGB of 8 bits. Convert it.")


def _check_size(height: int, width: int, where: str) -> None:
    if (height, width) != (IMAGE_SIZE, IMAGE_SIZE):
        raise DataError(
            f"{where} has {height} x {width} pixels. Expected {IMAGE_SIZE} x {IMAGE_SIZE}. Crop "
            "it, or resample it to 10 m pixels."
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
    _check_bytes(len(content), where)  # the directory may state another size
    return content


def _check_bytes(size: int, where: str) -> None:
    if size > MAX_CHIP_BYTES:
        raise DataError(
            f"{where} has {size:,} bytes. Expected at most {MAX_CHIP_BYTES:,} for a chip. Remove "
            "it: it is not a chip, or was made to fill the memory."
        )


@contextlib.contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is not a zip archive, or is truncated: {str(error).rstrip('.')}. Expected a "
            "folder or a .zip of chips."
        ) from error
    with archive:
        yield archive


def _members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the stored name of each member, by its name with `/` between folders."""
    # Archives made on Windows may separate folders by backslashes.
    return {name.replace("\\", "/"): name for name in archive.namelist()}
