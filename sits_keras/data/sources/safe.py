"""Sentinel-2 products as distributed by Copernicus: SAFE folders, or zip files of them.

A zip is read in place, through GDAL's `/vsizip`; nothing is unpacked.
"""

import contextlib
import datetime
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol
from xml.etree.ElementTree import ParseError

import defusedxml
import defusedxml.ElementTree

from sits_keras.bands import BANDS
from sits_keras.data.sources.granules import CloudMask, Granule, Layer
from sits_keras.data.sources.paths import is_hidden, walk_folder
from sits_keras.errors import DataError

MAX_XML_BYTES = 16 * 2**20
"""Size limit of metadata; that of real products takes half a megabyte."""

_MAX_DEPTH = 64  # real metadata is about ten levels deep
_FIRST_WITH_OFFSET = (4, 0)
_REMEDY = "Fetch the product again."

# Names of an element: the current one first, then those of L2A until 2018.
_START = ("PRODUCT_START_TIME",)
_BASELINE = ("PROCESSING_BASELINE",)
_IMAGES = ("IMAGE_FILE", "IMAGE_FILE_2A", "IMAGE_ID", "IMAGE_ID_2A")
_OFFSETS = {"L1C": ("RADIO_ADD_OFFSET",), "L2A": ("BOA_ADD_OFFSET",)}
_QUANTIFICATION = {
    "L1C": ("QUANTIFICATION_VALUE",),
    "L2A": ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"),
}

Elements = dict[str, list[tuple[dict[str, str], str]]]


class NotSentinel2Error(DataError):
    """A folder or zip file is not a Sentinel-2 product."""


class ProductMetadata(NamedTuple):
    """Content of a product's MTD_MSIL1C.xml or MTD_MSIL2A.xml.

    Attributes:
        level: `"L1C"` or `"L2A"`.
        date: Acquisition date, UTC.
        baseline: Processing baseline, such as `"05.09"`.
        quantification: Digital number of reflectance 1.
        offsets: Offset of each band in digital numbers, to be added to them.
        images: Path of each image within the product, without suffix.
        cloud_cover: Cloud cover in [0, 1], if stated.
        footprint: (longitude, latitude) of the outline of the imaged area, in degrees.
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
    """Content of a granule's MTD_TL.xml.

    Attributes:
        tile: Name of the tile, such as `"T31TCJ"`.
        crs: CRS of the pixels, such as `"EPSG:32631"`.
        corner: Easting and northing of the upper left corner, metres.
        masks: Path of each mask within the product, by type; the last one for types that each
            band has.
    """

    tile: str
    crs: str
    corner: tuple[float, float]
    masks: dict[str, str]


def parse_product(xml: bytes, name: str) -> ProductMetadata:
    """Read a product's metadata.

    Args:
        xml: Content of the file.
        name: Name of the file, for messages.

    Returns:
        The metadata.

    Raises:
        DataError: It is not such metadata, is hostile, or lacks an element that is needed, such
            as the offset from baseline 04.00 on.
    """
    elements = read_elements(xml, name)
    kinds = {value for _, value in elements.get("PRODUCT_TYPE", [])}
    level = {"S2MSI1C": "L1C", "S2MSI2A": "L2A", "S2MSI2Ap": "L2A"}.get(min(kinds, default=""))
    if level is None:
        raise DataError(
            f"{name} is of product type {', '.join(kinds) or '(none)'}. Expected S2MSI1C or "
            "S2MSI2A: Sentinel-2 at level 1C or 2A."
        )
    baseline = _one(elements, _BASELINE, name)
    quantification = _number(_one(elements, _QUANTIFICATION[level], name), name)
    if quantification <= 0:
        raise DataError(
            f"{name} has a quantification value of {quantification:g}. Expected about 10000. "
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
    """Read a granule's metadata; arguments and errors as in `parse_product`."""
    elements = read_elements(xml, name)
    tile = next((p for p in _one(elements, ("TILE_ID",), name).split("_") if _is_tile(p)), None)
    if tile is None:
        raise DataError(f"{name} does not name a tile in its TILE_ID. {_REMEDY}")
    crs = _one(elements, ("HORIZONTAL_CS_CODE",), name).upper()
    corner = tuple(_number(_one(elements, (key,), name), name) for key in ("ULX", "ULY"))
    masks = {a.get("type", ""): value for a, value in elements.get("MASK_FILENAME", [])}
    return TileMetadata(tile, crs, (corner[0], corner[1]), masks)


def read_elements(xml: bytes, name: str) -> Elements:
    """Return attributes and text of every element with text, by local name.

    Args:
        xml: Content of the file.
        name: Name of the file, for messages.

    Returns:
        Attributes and text of the elements of each name, in document order.

    Raises:
        DataError: It is too large or too deep, not XML, or declares entities.
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
                raise DataError(f"{name} nests elements {depth} deep. Products do not.")
            if event == "end":
                text = (element.text or "").strip()
                if text:
                    key = element.tag.rpartition("}")[2]
                    found.setdefault(key, []).append((dict(element.attrib), text))
                element.clear()
    except defusedxml.DefusedXmlException as error:
        raise DataError(
            f"{name} declares a document type or entities ({type(error).__name__}), which "
            "products do not: it is not read."
        ) from error
    except (ParseError, LookupError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} is not XML: {error}. {_REMEDY}") from error
    return found


def too_large(name: str, size: int) -> DataError:
    """Return the error for metadata of more than `MAX_XML_BYTES`."""
    return DataError(
        f"{name} has {size} bytes. Expected at most {MAX_XML_BYTES} of metadata: it is not read."
    )


def needs_offset(baseline: str, name: str) -> bool:
    """Return whether products of a processing baseline have an offset: from 04.00 on.

    Args:
        baseline: Processing baseline, such as `"05.09"`.
        name: Name of the product or item, for messages.

    Raises:
        DataError: It is not a processing baseline.
    """
    try:
        major, minor = map(int, baseline.split("."))
    except ValueError:
        raise DataError(
            f"{name} is of processing baseline {baseline[:40]!r}. Expected one such as 05.09."
        ) from None
    # 99.99 and 99.33 mark products that users made with Sen2Cor: they state one, or have none.
    return _FIRST_WITH_OFFSET <= (major, minor) < (99, 0)


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
    """A product: its tile, its granule, and all of its metadata."""

    tile: TileMetadata
    metadata: ProductMetadata
    granule: Granule


def is_safe(path: Path) -> bool:
    """Return whether a path is a SAFE folder, or a zip file, which may contain one."""
    if path.suffix.lower() == ".zip":
        return path.is_file()
    return path.is_dir() and (
        path.suffix.upper() == ".SAFE" or any((path / name).is_file() for name in _PRODUCT_XML)
    )


def read_product(path: Path) -> Product:
    """Read a product's metadata, and find its images.

    A raster `<name>_cloud.tif` beside the product is used as its cloud mask before those in it,
    with a warning.

    Args:
        path: SAFE folder, or zip file of one.

    Returns:
        The product.

    Raises:
        NotSentinel2Error: It is not a Sentinel-2 product.
        DataError: It is hostile (paths that lead out of it, entities, endless metadata), or its
            metadata lack an element that is needed.
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
            """Return GDAL's name of an image of the product, if it exists."""
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
        own_files = (own,) if own.is_file() else ()
        if own_files:
            if mask:
                warnings.warn(
                    "Products have a cloud mask of yours beside them (<name>_cloud.tif). It is "
                    "used, and their SCL or MSK_CLASSI is not.",
                    stacklevel=2,
                )
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
    """Return GDAL's name of the finest image of each band and of the scene classification."""
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
            f"offset for it. {_REMEDY}"
        )
    scale = 1 / metadata.quantification
    return Layer(path, scale=scale, offset=metadata.offsets[band] * scale)


class _Tree(Protocol):
    """Files of a product; names are relative, with forward slashes. Hidden ones are left out."""

    def names(self) -> list[str]: ...
    def read(self, name: str) -> bytes: ...
    def gdal_name(self, name: str) -> str: ...
    def files(self, names: list[str], images: Iterable[str]) -> tuple[Path, ...]: ...


class _Folder:
    def __init__(self, path: Path):
        self._path = path

    def names(self) -> list[str]:
        return sorted(file.relative_to(self._path).as_posix() for file in walk_folder(self._path))

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
        self._stored: dict[str, str] = {}

    def names(self) -> list[str]:
        # Archives made on Windows may separate folders by backslashes.
        stored = {_checked(name, self._path).as_posix(): name for name in self._stored_names()}
        self._stored = {name: one for name, one in stored.items() if not is_hidden(name)}
        return sorted(self._stored)

    def _stored_names(self) -> list[str]:
        # `orig_filename`, for on Windows `filename` has slashes in place of backslashes.
        names = [info.orig_filename for info in self._archive.infolist()]
        return [name for name in names if not name.endswith(("/", "\\"))]

    def read(self, name: str) -> bytes:
        info = self._archive.getinfo(self._stored[name])
        if info.file_size > MAX_XML_BYTES:
            raise too_large(f"{self._path}/{name}", info.file_size)
        try:
            with self._archive.open(info) as file:
                # A zip may state a wrong size of its members.
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
        # GDAL takes backslashes in an archive for slashes, too.
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
    remedy = "It may be truncated: fetch it again."
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.read(256).lstrip()[:1] in (b"<", b"{"):
            remedy = (
                "It is a page or a message of a server, saved under this name: log in where you "
                "fetch from, and fetch it again."
            )
    if isinstance(error, PermissionError):
        remedy = "Change its permissions (chmod)."
    return DataError(f"{path} is not a valid zip file: {error}. {remedy}")


def _checked(name: str, path: Path) -> PurePosixPath:
    """Return a path within a product.

    Raises:
        DataError: It leads out of the product.
    """
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or re.match(r"[A-Za-z]:", name):
        raise DataError(
            f"{path} names a file outside of itself, {name[:80]!r}: it is not read. "
            "Fetch it again from a source that you trust."
        )
    return pure


def _find(names: list[str], wanted: tuple[str, ...], path: Path) -> str:
    found = [name for name in names if PurePosixPath(name).name in wanted]
    if not found:
        raise _not_found(names, wanted, path)
    if len(found) > 1:
        raise DataError(
            f"{path} holds several products or granules: {found[0]} and {found[1]}. Expected "
            "one granule. Unpack a zip of several products; fetch products of baseline 02.04 or "
            "later."
        )
    return found[0]


# Of folders and zips that are not Sentinel-2 products: patterns in the path or in the names of
# their files, and what to do.
_OTHER_KINDS = (
    (r"(^|/)S1[A-D]_", "It is a product of Sentinel-1: leave it out."),
    (r"(^|/)S3[A-D]_|(^|/)S5P_", "It is a product of another Sentinel: leave it out."),
    (r"(^|/)L[COTEM]0[1-9]_", "It is a product of Landsat: leave it out."),
    (
        r"(^|/)S2[A-Z]_OPER_(MTD|PRD)",
        "It is a product of before December 2016, which has many granules: fetch the same "
        "acquisition from Collection 1.",
    ),
    (
        r"(^|/)tileInfo\.json$",
        "It is a tile of a cloud bucket, without the product's metadata: fetch the product "
        "(.SAFE), or use STAC items.",
    ),
    (r"\.(zip|tar|tgz|gz)$", "It holds archives: unpack it first."),
    (
        r"\.(jpe?g|png)$",
        "If it holds labelled chips, such as EuroSAT, `sits-keras classify train` takes it.",
    ),
)


def _not_found(names: list[str], wanted: tuple[str, ...], path: Path) -> DataError:
    has = f"{path} has no {' or '.join(wanted)}"
    for pattern, remedy in _OTHER_KINDS:
        if any(re.search(pattern, name, re.IGNORECASE) for name in (path.stem, *names)):
            return NotSentinel2Error(f"{has}: it is not a Sentinel-2 product. {remedy}")
    if path.suffix.upper() == ".SAFE" or re.match(r"S2[A-Z]_MSIL", path.name):
        return DataError(f"{has}: the product is not complete. Fetch it again.")
    return NotSentinel2Error(
        f"{has}: it is not a Sentinel-2 product (.SAFE), or not all of one. Leave it out."
    )
