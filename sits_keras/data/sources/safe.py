"""Sentinel-2 products as Copernicus hands them out: SAFE folders, or zip files of them.

A zip is read where it is, through GDAL's `/vsizip`; nothing is unpacked.
"""

import contextlib
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from sits_keras.data.sources.granules import BANDS, CloudMask, Granule, Layer
from sits_keras.data.sources.metadata import (
    MAX_XML_BYTES,
    ProductMetadata,
    TileMetadata,
    parse_product,
    parse_tile,
    too_large,
)
from sits_keras.errors import DataError

_PRODUCT_XML = ("MTD_MSIL1C.xml", "MTD_MSIL2A.xml")
_TILE_XML = "MTD_TL.xml"
_SUFFIXES = (".jp2", ".tif", ".tiff")
_LAYER = re.compile(r".*_(?P<layer>B\d[0-9A]|SCL)(?:_(?P<metres>\d+)m)?")


class Product(NamedTuple):
    """A product: its tile, its granule, and all that its metadata say."""

    tile: TileMetadata
    metadata: ProductMetadata
    granule: Granule


def is_safe(path: Path) -> bool:
    """Whether a path is a SAFE folder, or a zip file, which is taken to hold one."""
    if path.suffix.lower() == ".zip":
        return path.is_file()
    return path.is_dir() and (
        path.suffix.upper() == ".SAFE" or any((path / name).is_file() for name in _PRODUCT_XML)
    )


def read_product(path: Path) -> Product:
    """Reads a product's metadata, and finds its images.

    Args:
        path: a SAFE folder, or a zip file of one.
    Raises:
        DataError: it is not one, or it is hostile: paths that lead out of it, entities, metadata
            of no end; or its metadata lack what is needed.
    """
    with _tree(path) as tree:
        names = tree.names()
        xml = _find(names, _PRODUCT_XML, path)
        metadata = parse_product(tree.read(xml), f"{path}/{xml}")
        root = PurePosixPath(xml).parent
        tile_xml = _find(
            [name for name in names if PurePosixPath(name).is_relative_to(root)], (_TILE_XML,), path
        )
        tile = parse_tile(tree.read(tile_xml), f"{path}/{tile_xml}")
        inside = set(names)

        def locate(image: PurePosixPath) -> str | None:
            """GDAL's name of an image of the product, if it is there."""
            # Product metadata name images without suffix, tile metadata name masks with one.
            stem = image.with_suffix("") if image.suffix in _SUFFIXES else image
            names = (f"{root / stem}{suffix}" for suffix in _SUFFIXES)
            return next((tree.gdal_name(name) for name in names if name in inside), None)

        images = _find_images([_checked(image, path) for image in metadata.images], locate)
        scl = images.pop("SCL", None)
        mask = CloudMask("SCL", scl) if scl else None
        if not mask and "MSK_CLASSI" in tile.masks:
            classi = locate(_checked(tile.masks["MSK_CLASSI"], path))
            mask = CloudMask("MSK_CLASSI", classi) if classi else None
        own = path.with_name(f"{path.stem}_cloud.tif")
        own_files = (own,) if not mask and own.is_file() else ()
        if own_files:
            mask = CloudMask("mask", str(own))
        granule = Granule(
            date=metadata.date,
            name=str(path),
            layers={band: _layer(band, image, metadata) for band, image in images.items()},
            mask=mask,
            cloud_cover=metadata.cloud_cover,
            baseline=metadata.baseline,
            level=metadata.level,
            crs=tile.crs,
            footprint=metadata.footprint,
            files=(*tree.files([xml, tile_xml], images.values()), *own_files),
        )
    return Product(tile, metadata, granule)


def _find_images(
    stems: Sequence[PurePosixPath], locate: Callable[[PurePosixPath], str | None]
) -> dict[str, str]:
    """Where the finest image of each band is, and of the scene classification."""
    finest: dict[str, tuple[int, str]] = {}
    for stem in stems:
        match = _LAYER.fullmatch(stem.name.split(".")[0])
        path = locate(stem) if match else None
        if match and path:
            found = (int(match["metres"] or 0), path)
            finest[match["layer"]] = min(found, finest.get(match["layer"], found))
    return {band: finest[band][1] for band in (*BANDS, "SCL") if band in finest}


def _layer(band: str, path: str, metadata: ProductMetadata) -> Layer:
    if band not in metadata.offsets:
        raise DataError(
            f"{path} is of processing baseline {metadata.baseline}, and its product states no "
            "offset for it. Fetch the product again."
        )
    scale = 1 / metadata.quantification
    return Layer(path, scale=scale, offset=metadata.offsets[band] * scale)


class _Tree(Protocol):
    """A product's files, wherever they are; names are relative, with forward slashes."""

    def names(self) -> list[str]: ...
    def read(self, name: str) -> bytes: ...
    def gdal_name(self, name: str) -> str: ...
    def files(self, names: list[str], images: Iterable[str]) -> tuple[Path, ...]: ...


class _Folder:
    def __init__(self, path: Path):
        self._path = path

    def names(self) -> list[str]:
        return sorted(
            file.relative_to(self._path).as_posix()
            for file in self._path.rglob("*")
            if file.is_file()
        )

    def read(self, name: str) -> bytes:
        file = self._path / name
        if file.stat().st_size > MAX_XML_BYTES:
            raise too_large(str(file), file.stat().st_size)
        return file.read_bytes()

    def gdal_name(self, name: str) -> str:
        return str(self._path / name)

    def files(self, names: list[str], images: Iterable[str]) -> tuple[Path, ...]:
        # Images go by their names for GDAL, which in a folder are paths.
        return (*(self._path / name for name in names), *map(Path, images))


class _Zip:
    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self._path = path
        self._archive = archive

    def names(self) -> list[str]:
        names = self._archive.namelist()
        for name in names:
            _checked(name, self._path)
        return sorted(name for name in names if not name.endswith("/"))

    def read(self, name: str) -> bytes:
        info = self._archive.getinfo(name)
        if info.file_size > MAX_XML_BYTES:
            raise too_large(f"{self._path}/{name}", info.file_size)
        try:
            with self._archive.open(info) as file:
                # A zip may lie about the size of what is in it.
                return file.read(MAX_XML_BYTES + 1)
        except (
            zipfile.BadZipFile,
            OSError,
            RuntimeError,
            ValueError,
            NotImplementedError,
        ) as error:
            raise _damaged(self._path, error) from error

    def gdal_name(self, name: str) -> str:
        return f"/vsizip/{{{self._path.resolve()}}}/{name}"

    def files(self, names: list[str], images: Iterable[str]) -> tuple[Path, ...]:
        return (self._path,)


@contextlib.contextmanager
def _tree(path: Path) -> Iterator[_Tree]:
    if path.is_dir():
        yield _Folder(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    with archive:
        yield _Zip(path, archive)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is no whole zip file: {error}. Fetch it again.")


def _checked(name: str, path: Path) -> PurePosixPath:
    """A path within a product.

    Raises:
        DataError: it leads out of the product.
    """
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or re.match(r"[A-Za-z]:", name):
        raise DataError(
            f"{path} names a file outside of itself, {name[:80]!r}: it is not read. "
            "Fetch it again from where you trust it."
        )
    return pure


def _find(names: list[str], wanted: tuple[str, ...], path: Path) -> str:
    found = [name for name in names if PurePosixPath(name).name in wanted]
    if not found:
        raise DataError(
            f"{path} has no {' or '.join(wanted)}: it is no Sentinel-2 product, or not a whole "
            "one. Fetch it again."
        )
    if len(found) > 1:
        raise DataError(
            f"{path} holds several products or granules: {found[0]} and {found[1]}. Expected "
            "one granule a product; fetch products of baseline 02.04 or later."
        )
    return found[0]
