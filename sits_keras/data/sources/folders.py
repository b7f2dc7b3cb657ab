"""Folders of dated rasters: date and band of each raster, from its file name."""

import collections
import datetime
import os
import re
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sits_keras.bands import BANDS, COMMON_NAMES, band_name
from sits_keras.data.sources.granules import CloudMask, Granule, Layer, MaskKind, Series
from sits_keras.data.sources.paths import list_folder
from sits_keras.errors import DataError

_SUFFIXES = {".tif", ".tiff", ".jp2"}
_LISTED = 20  # problems in one message

MASKS: dict[str, MaskKind] = {
    "cloud": "mask",
    "SCL": "SCL",
    "MSK_CLASSI": "MSK_CLASSI",
    "QA60": "QA60",
}
"""Kind of each mask by its name; of several for a date, the first counts: a user made it."""


def find_mask(image: Path) -> CloudMask | None:
    """Return the cloud mask beside a raster: `<name>_cloud.tif`, `<name>_SCL.tif` and so on."""
    for part in MASKS:
        path = image.with_name(f"{image.stem}_{part}{image.suffix}")
        if path.is_file():
            return named_mask(path)
    return None


def named_mask(path: Path) -> CloudMask:
    """Return a cloud mask of the kind that the end of its name states, else 0 where clear."""
    name = path.stem.upper()
    kinds = (kind for part, kind in MASKS.items() if name.endswith(part.upper()))
    return CloudMask(next(kinds, "mask"), str(path))


NOT_BANDS = {
    "AOT": "aerosol",
    "WVP": "water vapour",
    "TCI": "a picture",
    "PVI": "a picture",
    "RGB": "a picture",
    "CLD": "a probability of cloud",
    "CLP": "a probability of cloud",
    "MSK_CLDPRB": "a probability of cloud",
    "SNW": "a probability of snow",
    "MSK_SNWPRB": "a probability of snow",
    "MSK_DETFOO": "the detectors' footprint",
    "MSK_QUALIT": "a mask of quality",
    "CLM": "a mask that cannot be read",
    "FMASK": "a mask that cannot be read",
    "QA_PIXEL": "a mask that cannot be read",
    "DATAMASK": "a mask that cannot be read",
    "NDVI": "an index",
    "NDWI": "an index",
    "EVI": "an index",
    "NBR": "an index",
    "SAVI": "an index",
    "SAA": "an angle",
    "SZA": "an angle",
    "VAA": "an angle",
    "VZA": "an angle",
    "DEM": "elevation",
}
"""Other content that names of rasters state, and its meaning."""

EXPECTED_NAMES = (
    "Expected <YYYY-MM-DD>.tif for a raster of all bands, <YYYY-MM-DD>_B02.tif and so on for one "
    "band, or <YYYY-MM-DD>_cloud.tif for a mask."
)


class RasterName(NamedTuple):
    """Date and content of a raster, from its name.

    Attributes:
        date: Acquisition date, UTC.
        part: Band name, key of `MASKS` or `NOT_BANDS`, or `""` for all bands.
        metres: Pixel size that the name states, 0 if it states none.
    """

    date: datetime.date
    part: str
    metres: int = 0


_TIME = r"T\d{6}"
_TILE = r"T?\d{1,2}[A-Z]{3}"
# Forms of names with several dates, of which `date` is that of acquisition. Everything else in
# these names says nothing about the date; what is around them may name a band.
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        # Product: sensing time, then processing time.
        rf"S2[A-Z]_MSIL\d[A-Z]p?_(?P<date>\d{{8}}){_TIME}_N\d{{4}}_R\d{{3}}_{_TILE}_\d{{8}}{_TIME}"
        r"(?:\.SAFE)?",
        # Product until 2016: processing time, then sensing time twice.
        rf"S2[A-Z]_OPER_PRD_MSIL\d[A-Z]_[A-Z]+_\d{{8}}{_TIME}_R\d{{3}}_V(?P<date>\d{{8}}){_TIME}"
        rf"(?:_\d{{8}}{_TIME})?(?:\.SAFE)?",
        # Earth Engine: sensing time, processing time, tile.
        rf"(?<![A-Z0-9])(?P<date>\d{{8}}){_TIME}_\d{{8}}{_TIME}_{_TILE}(?![A-Z0-9])",
        # Harmonized Landsat Sentinel-2: year and day of the year.
        rf"HLS\.S30\.{_TILE}\.(?P<day>\d{{7}}){_TIME}\.v\d+\.\d+",
        # The R package sits; its CLOUD of Sentinel-2 is the scene classification. In small letters
        # it is a mask of this package, as in every other name.
        rf"SENTINEL-2[A-Z]?_MSI_{_TILE}_(?P<scl>(?-i:CLOUD))_(?P<date>\d{{4}}-\d{{2}}-\d{{2}})",
    )
)
_REFUSED = tuple(
    (re.compile(form, re.IGNORECASE), reason)
    for form, reason in (
        (
            r"-\d{10}-\d{10}$",
            "is one of the parts of an image, as Earth Engine exports large ones. Join them first "
            "(gdalbuildvrt, then gdal_translate), and name the result by its date.",
        ),
        (
            r"(?<![A-Z0-9])(L[COTEM]0\d_L\d|HLS\.L30)",
            "is named like an image of Landsat, whose bands have other numbers: its B5 is near "
            "infrared. Expected Sentinel-2.",
        ),
        (
            r"(?<![A-Z0-9])(S(1[A-D]_[A-Z0-9]{2}_|3[A-D]_[A-Z]{2}_|5P_)|SENTINEL-[135]|LANDSAT|CBERS"
            r"|MODIS|PLANETSCOPE)",
            "is named like an image of another sensor. Expected Sentinel-2.",
        ),
        (
            r"(?<![A-Z0-9])S2[A-Z]_OPER_MSI_",
            "names the time of its processing, not of its acquisition. Name it by its acquisition "
            "date.",
        ),
    )
)
_DATE = re.compile(
    r"(?<![0-9A-Za-z])(?P<year>(?:19|20)\d{2})(?P<between>[-_.]?)(?P<month>\d{2})(?P=between)"
    r"(?P<day>\d{2})"
    # Followed by a time, or by neither a letter nor a digit.
    r"(?=$|[^0-9A-Za-z]|T\d{2}|Z(?![0-9A-Za-z])|(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d)?(?![0-9]))"
)
_BAND = re.compile(r"(?<![A-Za-z0-9])B(?:\d{1,3}[A-Za-z]?)(?![A-Za-z0-9])", re.IGNORECASE)
_METRES = re.compile(r"(?<![A-Za-z0-9])R?(\d{2})m(?![A-Za-z0-9])")
_MEANINGLESS = re.compile(r"R?\d+m|T?\d+Z?|raw|z|v\d+|copy", re.IGNORECASE)
_LIKE_A_MASK = re.compile(r"clouds?|masks?|clouds?mask|cloudcover|shadows?", re.IGNORECASE)
_MAJA_MASK = re.compile(r"_(?:CLM|EDG|SAT|MG2|IAB|PVD|DFP|ATB|USE)(?:_R[12]|_XS)$")
_OTHER_READINGS = (
    (
        re.compile(r"(?<!\d)\d{2}([-_.]?)\d{2}\1(?:19|20)\d{2}(?!\d)"),
        "{0} may be day, month and year.",
    ),
    (
        re.compile(r"(?<!\d)(?:19|20)\d{2}[-_]?[0-3]\d{2}(?![-_.]?\d)"),
        "{0} may be year and day of year.",
    ),
    (re.compile(r"(?<!\d)(?:19|20)\d{2}[-_]?[01]\d(?![-_.]?\d)"), "{0} may be a month."),
)


def list_rasters(folder: Path) -> list[Path]:
    """Return the rasters in a folder itself, sorted by name; hidden files are skipped.

    Args:
        folder: Folder to list.
    """
    return [path for path in list_folder(folder) if is_raster(path)]


def is_raster(path: Path) -> bool:
    """Return whether a path is a file, or a broken link, that is named like a raster."""
    if path.suffix.lower() not in _SUFFIXES:
        return False
    return path.is_file() or (path.is_symlink() and not path.exists())


def read_folder(folder: Path, problems: list[str] | None = None) -> Series:
    """Read the names of the rasters in a folder.

    Warns of rasters that are not used: those that are not bands, bands at a coarser resolution
    than another, and all but one of several cloud masks of a date.

    Args:
        folder: Folder of rasters of one place, named by their dates (see `parse_name`).
        problems: List that receives what is wrong with rasters, which are then left out; without
            it, they are an error.

    Returns:
        The series, named after the folder.

    Raises:
        DataError: A raster is not named by its date, two are of the same date and content, a mask
            has no image of its date, or there is no image. All problems are listed.
    """
    dates: dict[datetime.date, dict[str, _Named]] = {}
    found: list[str] = []
    unclear: set[datetime.date] = set()
    unused: list[str] = []
    for path in list_rasters(folder):
        try:
            date, part, metres = parse_name(path.stem)
        except DataError as error:
            found.append(f"{path} {error}")
            continue
        if part in NOT_BANDS:
            unused.append(f"{part} ({NOT_BANDS[part]})")
            continue
        parts = dates.setdefault(date, {})
        known = parts.get(part)
        if known and metres and known.metres and metres != known.metres:
            unused.append(f"{part} at {max(metres, known.metres)} m (there is a finer one)")
            parts[part] = min(known, _Named(metres, path))
        elif known:
            found.append(_twice(path, known.path, date))
            unclear.add(date)
        else:
            parts[part] = _Named(metres, path)
    for date, parts in dates.items():
        if wrong := _part_problems(date, {part: one.path for part, one in parts.items()}):
            found += wrong
            unclear.add(date)
    if not dates and not found:
        found.append(f"{folder} has no image: {_counted(unused)}. {EXPECTED_NAMES}")
    if problems is not None:
        problems += found
    elif found:
        raise DataError(describe_problems(folder, found))
    granules = []
    for date in sorted(dates.keys() - unclear):
        parts_of_date = {part: one.path for part, one in dates[date].items()}
        granules.append(_granule(date, parts_of_date))
        masks = [part for part in MASKS if part in parts_of_date]
        unused += [f"{mask} as a mask (beside {masks[0]})" for mask in masks[1:]]
    if unused:
        warnings.warn(f"{folder}: rasters are not used: {_counted(unused)}.", stacklevel=2)
    name = Path(os.path.abspath(folder)).name  # noqa: PTH100, which would follow a link
    return Series(unicodedata.normalize("NFC", name), tuple(granules))


class _Named(NamedTuple):
    metres: int
    path: Path


def _part_problems(date: datetime.date, parts: dict[str, Path]) -> list[str]:
    """Return what is wrong with the rasters of a date together."""
    bands = [parts[band] for band in BANDS if band in parts]
    if "" in parts and bands:
        return [_twice(parts[""], bands[0], date)]
    if "" not in parts and not bands:
        path = next(iter(parts.values()))
        return [f"{path} is a mask without an image of that date beside it."]
    return []


def _granule(date: datetime.date, parts: dict[str, Path]) -> Granule:
    layers = {band: Layer(str(parts[band])) for band in BANDS if band in parts}
    image = parts.get("")
    masks = [CloudMask(kind, str(parts[part])) for part, kind in MASKS.items() if part in parts]
    return Granule(
        date=date,
        name=str(image or Path(next(iter(layers.values())).path).with_name(f"{date}_*")),
        layers=layers,
        image=str(image) if image else None,
        mask=masks[0] if masks else None,
        files=tuple(parts.values()),
    )


def _twice(path: Path, other: Path, date: datetime.date) -> str:
    return f"{path} and {other} are of the same date, {date}. Keep one of them in the folder."


def _counted(entries: Sequence[str]) -> str:
    return ", ".join(
        f"{count} of {entry}" for entry, count in sorted(collections.Counter(entries).items())
    )


def describe_problems(source: Path, problems: Sequence[str]) -> str:
    """Return the message of an error that lists the problems of a source.

    Args:
        source: Folder or file.
        problems: Sentences, at least one.
    """
    if len(problems) == 1:
        return problems[0]
    return f"{source} has {len(problems)} problems. {numbered(problems)}"


def numbered(entries: Sequence[str]) -> str:
    """Return entries as one text, numbered if there are several, the first 20 of many.

    Args:
        entries: Sentences, at least one.
    """
    if len(entries) == 1:
        return entries[0]
    listed = [f"({number}) {entry}" for number, entry in enumerate(entries[:_LISTED], start=1)]
    more = [f"And {len(entries) - _LISTED} more."] if entries[_LISTED:] else []
    return " ".join([*listed, *more])


def parse_name(stem: str) -> RasterName:
    """Find date and band in the name of a raster.

    Known forms are tried in turn: products (compact, and until 2016), Earth Engine, HLS, the R
    package sits. Any other name must contain exactly one date (`2020-04-21`, `20200421`,
    `2020_04_21` or `2020.04.21`, with or without a time) and at most one band, in any order.

    Args:
        stem: File name without its suffix.

    Returns:
        Date and content.

    Raises:
        DataError: The name contains no date, several, or several bands. The message continues a
            sentence that begins with the file's path.

    Examples:
        >>> parse_name("T31UFS_20200421T105031_B02_10m")
        RasterName(date=datetime.date(2020, 4, 21), part='B02', metres=10)
        >>> parse_name("SENTINEL-2_MSI_20LKP_B8A_2018-07-18").part
        'B8A'
    """
    name = unicodedata.normalize("NFC", stem)
    for pattern, reason in _REFUSED:
        if pattern.search(name):
            raise DataError(reason)
    if _MAJA_MASK.search(name):
        date, rest = _find_date(_MAJA_MASK.sub("", name))
        return RasterName(date, "CLM")
    date, rest = _find_date(name)
    metres = [int(found) for found in _METRES.findall(rest)]
    return RasterName(date, _find_part(rest), min(metres, default=0))


def _find_date(name: str) -> tuple[datetime.date, str]:
    """Return the date of a name, and the rest of it."""
    for form in _FORMS:
        if match := form.search(name):
            groups = match.groupdict()
            if groups.get("day"):
                date = _calendar_date(groups["day"], "%Y%j")
            else:
                date = _calendar_date(groups["date"].replace("-", ""), "%Y%m%d")
            if date:
                part = "SCL" if groups.get("scl") else ""
                return date, f"{name[: match.start()]}_{part}_{name[match.end() :]}"
    found: dict[datetime.date, str] = {}
    for match in _DATE.finditer(name):
        date = _calendar_date(match["year"] + match["month"] + match["day"], "%Y%m%d")
        if date:
            found[date] = match[0]
    if len(found) > 1:
        dates = " and ".join(map(str, found))
        raise DataError(
            f"has several dates in its name, {dates}. Expected one, that of acquisition. Leave out "
            "the time of processing; name a composite by one date."
        )
    if not found:
        raise DataError(f"is not named by its date. {_other_reading(name)}{EXPECTED_NAMES}")
    (date,) = found
    return date, _DATE.sub("_", name)


def _calendar_date(digits: str, form: str) -> datetime.date | None:
    try:
        date = datetime.datetime.strptime(digits, form).date()
    except ValueError:
        return None  # a 13th month
    return date if 1970 <= date.year < 2100 else None


def _other_reading(name: str) -> str:
    for pattern, words in _OTHER_READINGS:
        if match := pattern.search(name):
            return words.format(match[0]) + " "
    return ""


def _find_part(rest: str) -> str:
    """Return the band, the mask or the other content in a name without its date."""
    found: dict[str, str] = {}
    for match in _BAND.finditer(rest):
        band = band_name(match[0])
        if band not in BANDS:
            raise DataError(f"names {match[0]}, not a band of Sentinel-2. {EXPECTED_NAMES}")
        found[band] = match[0]
    upper = f"_{rest.upper()}_"
    for other in ("SCL", "QA60", "MSK_CLASSI", *NOT_BANDS):
        if re.search(rf"[^A-Z0-9]{other}(?=[^A-Z0-9])", upper):
            found.setdefault(other, other)
    tokens = [one for one in re.split(r"[^A-Za-z0-9]+", rest) if one]
    tokens = [one for one in tokens if not _MEANINGLESS.fullmatch(one)]
    ends = {tokens[0], tokens[-1]} if tokens else set()
    for token in sorted(ends):
        if token.lower() == "cloud":
            found["cloud"] = token
        elif _LIKE_A_MASK.fullmatch(token) and not found:
            raise DataError(f"looks like a mask. {EXPECTED_NAMES}")
    if not found and tokens:
        # A colour is a common word: it counts alone, or at the end.
        last = tokens[-1].lower()
        if last in COMMON_NAMES and (len(tokens) == 1 or rest.rstrip("_").lower().endswith(last)):
            found[COMMON_NAMES[last]] = tokens[-1]
    if len(found) > 1:
        raise DataError(
            f"has several bands in its name, {' and '.join(found.values())}. {EXPECTED_NAMES}"
        )
    return next(iter(found), "")
