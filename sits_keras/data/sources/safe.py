"""Sentinel-2 products as Copernicus hands them out: SAFE folders, or zip files of them.

A zip is read where it is, through GDAL's `/vsizip`; nothing is unpacked.
"""

import contextlib
import datetime
import io
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol
from xml.etree.ElementTree import ParseError

import defusedxml
import defusedxml.ElementTree

from sits_keras.bands import BANDS
from sits_keras.data.sources.granules import CloudMask, Granule, Layer
from sits_keras.errors import DataError

MAX_XML_BYTES = 16 * 2**20
"""Real metadata takes half a megabyte."""

_MAX_DEPTH = 64  # real metadata is about ten levels deep
_FIRST_WITH_OFFSET = (4, 0)
_REMEDY = "Fetch the product again."

# Of an element's possible names, the first is today's; the others are those of L2A until 2018.
_START = ("PRODUCT_START_TIME",)
_BASELINE = ("PROCESSING_BASELINE",)
_IMAGES = ("IMAGE_FILE", "IMAGE_FILE_2A", "IMAGE_ID", "IMAGE_ID_2A")
_OFFSETS = {"L1C": ("RADIO_ADD_OFFSET",), "L2A": ("BOA_ADD_OFFSET",)}
_QUANTIFICATION = {
    "L1C": ("QUANTIFICATION_VALUE",),
    "L2A": ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"),
}

Elements = dict[str, list[tuple[dict[str, str], str]]]


class ProductMetadata(NamedTuple):
    """What a product says of itself, in MTD_MSIL1C.xml or MTD_MSIL2A.xml.

    Attributes:
        level: `"L1C"` or `"L2A"`.
        date: of acquisition, UTC.
        baseline: processing baseline, such as `"05.09"`.
        quantification: digital numbers to reflectance 1.
        offsets: of each band, in digital numbers, to be added to them.
        images: of every image, its path within the product, without suffix.
        cloud_cover: in [0, 1], where it is said.
        footprint: (longitude, latitude) of the outline of what was seen, in degrees.
    """

    level: str
    date: datetime.date
    baseline: str
    quantification: float
    offsets: dict[str, float]
    images: tuple[str, ...]
    cloud_cover: float | None
    footprint: tuple[tuple[float, float], ...]


class TileMetadata(NamedTuple):
    """What a granule says of its place, in MTD_TL.xml.

    Attributes:
        tile: such as `"T31TCJ"`.
        crs: such as `"EPSG:32631"`.
        corner: easting and northing of the upper left corner, metres.
        masks: path within the product of each mask, by type; of a type that each band has, the
            last one.
    """

    tile: str
    crs: str
    corner: tuple[float, float]
    masks: dict[str, str]


def parse_product(xml: bytes, name: str) -> ProductMetadata:
    """Reads a product's metadata.

    Args:
        xml: content of the file.
        name: of the file, for messages.
    Raises:
        DataError: it is no such metadata, hostile, or lacks what is needed; or its baseline is
            04.00 or later and it states no offset.
    """
    elements = read_elements(xml, name)
    kinds = {value for _, value in elements.get("PRODUCT_TYPE", [])}
    level = {"S2MSI1C": "L1C", "S2MSI2A": "L2A", "S2MSI2Ap": "L2A"}.get(min(kinds, default=""))
    if level is None:
        raise DataError(
            f"{name} is of product type {', '.join(kinds) or '(none)'}. Expected S2MSI1C or "
            "S2MSI2A, Sentinel-2 at level 1C or 2A."
        )
    baseline = _one(elements, _BASELINE, name)
    quantification = _number(_one(elements, _QUANTIFICATION[level], name), name)
    if quantification <= 0:
        raise DataError(
            f"{name} has a quantification value of {quantification:g}, expected 10000 or so. "
            f"{_REMEDY}"
        )
    return ProductMetadata(
        level=level,
        date=_date(_one(elements, _START, name), name),
        baseline=baseline,
        quantification=quantification,
        offsets=_offsets(elements, level, baseline, name),
        images=tuple(value for key in _IMAGES for _, value in elements.get(key, [])),
        cloud_cover=_cloud_cover(elements, name),
        footprint=_footprint(elements, name),
    )


def parse_tile(xml: bytes, name: str) -> TileMetadata:
    """Reads a granule's metadata; arguments and errors as in `parse_product`."""
    elements = read_elements(xml, name)
    tile = next((p for p in _one(elements, ("TILE_ID",), name).split("_") if _is_tile(p)), None)
    if tile is None:
        raise DataError(f"{name} names no tile in its TILE_ID. {_REMEDY}")
    crs = _one(elements, ("HORIZONTAL_CS_CODE",), name).upper()
    corner = tuple(_number(_one(elements, (key,), name), name) for key in ("ULX", "ULY"))
    masks = {a.get("type", ""): value for a, value in elements.get("MASK_FILENAME", [])}
    return TileMetadata(tile, crs, (corner[0], corner[1]), masks)


def read_elements(xml: bytes, name: str) -> Elements:
    """Attributes and text of every element that has text, by local name, in document order.

    Raises:
        DataError: too large, too deep, not XML, or it declares entities.
    """
    if len(xml) > MAX_XML_BYTES:
        raise too_large(name, len(xml))
    found: Elements = {}
    depth = 0
    try:
        for event, element in defusedxml.ElementTree.iterparse(
            io.BytesIO(xml), events=("start", "end"), forbid_dtd=True
        ):
            depth += 1 if event == "start" else -1
            if depth > _MAX_DEPTH:
                raise DataError(f"{name} nests elements {depth} deep, which no product does.")
            if event == "end":
                text = (element.text or "").strip()
                if text:
                    key = element.tag.rpartition("}")[2]
                    found.setdefault(key, []).append((dict(element.attrib), text))
                element.clear()
    except defusedxml.DefusedXmlException as error:
        raise DataError(
            f"{name} declares a document type or entities ({type(error).__name__}), which no "
            "product does: it is not read."
        ) from error
    except (ParseError, LookupError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} is not XML: {error}. {_REMEDY}") from error
    return found


def too_large(name: str, size: int) -> DataError:
    """The error for metadata of more than `MAX_XML_BYTES`."""
    return DataError(
        f"{name} has {size} bytes, more than the {MAX_XML_BYTES} that metadata may have: it is "
        "not read."
    )


def needs_offset(baseline: str, name: str) -> bool:
    """Whether products of a processing baseline come with an offset: from 04.00 on.

    Args:
        baseline: such as `"05.09"`.
        name: of what is of this baseline, for messages.
    Raises:
        DataError: it is no processing baseline.
    """
    try:
        major, minor = map(int, baseline.split("."))
    except ValueError:
        raise DataError(
            f"{name} is of processing baseline {baseline[:40]!r}. Expected one such as 05.09."
        ) from None
    # 99.99 marks what users made with Sen2Cor themselves: it states the offset, or there is none.
    return _FIRST_WITH_OFFSET <= (major, minor) < (99, 99)


def _offsets(elements: Elements, level: str, baseline: str, name: str) -> dict[str, float]:
    (key,) = _OFFSETS[level]
    offsets = dict.fromkeys(BANDS, 0.0) if not needs_offset(baseline, name) else {}
    for attributes, value in elements.get(key, []):
        number = _number(attributes.get("band_id", ""), name)
        if number not in range(len(BANDS)):
            raise DataError(f"{name} states a {key} for an unknown band, band_id {number:g}.")
        offsets[BANDS[int(number)]] = _number(value, name)
    if not offsets:
        raise DataError(
            f"{name} is of processing baseline {baseline} and states no {key}, which products "
            f"from 04.00 on do. {_REMEDY}"
        )
    return offsets


def _one(elements: Elements, keys: tuple[str, ...], name: str) -> str:
    for key in keys:
        if key in elements:
            return elements[key][0][1]
    raise DataError(f"{name} has no {keys[0]}. {_REMEDY}")


def _number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise DataError(f"{name} has {text[:40]!r} where a number is expected. {_REMEDY}")
    return number


def _date(text: str, name: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text[:10])
    except ValueError as error:
        raise DataError(f"{name} has {text[:40]!r} for a time. {_REMEDY}") from error


def _cloud_cover(elements: Elements, name: str) -> float | None:
    stated: list[Any] = elements.get("Cloud_Coverage_Assessment", [])
    return _number(stated[0][1], name) / 100 if stated else None


def _footprint(elements: Elements, name: str) -> tuple[tuple[float, float], ...]:
    positions = elements.get("EXT_POS_LIST", [({}, "")])[0][1].split()
    numbers = [_number(position, name) for position in positions]
    return tuple(zip(numbers[1::2], numbers[::2], strict=False))


def _is_tile(text: str) -> bool:
    return len(text) == 6 and text[0] == "T" and text[1:3].isdigit() and text[3:].isalpha()


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
