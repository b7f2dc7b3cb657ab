"""Facts about Sentinel-2's bands, and rules that find the bands of a raster."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sits_keras.errors import ConfigError, DataError

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""The bands of Sentinel-2, in the order of `band_id` in product metadata."""

UNNAMED_BANDS = (
    *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08"),
    *("B09", "B10", "B11", "B12", "B8A"),
)
"""Order assumed for a chip of 13 bands without names: EuroSAT's, with B8A at the end. Products have
it after B08."""

BAND_MAX = {
    "B01": 0.30,
    "B02": 0.30,
    "B03": 0.30,
    "B04": 0.40,
    "B05": 0.40,
    "B06": 0.50,
    "B07": 0.60,
    "B08": 0.60,
    "B8A": 0.60,
    "B09": 0.60,
    "B11": 0.60,
    "B12": 0.50,
}
"""Reflectance that the networks see as 1.0, by band. The paper does not give it. It is close to the
99.9th percentile over snow-free, cloud-free land, so that [-1, 1] is well used and only snow and
cloud are clipped."""

COMMON_NAMES = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "rededge071": "B05",
    "rededge2": "B06",
    "rededge075": "B06",
    "rededge3": "B07",
    "rededge078": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
    "cirrus": "B10",
    "swir16": "B11",
    "swir22": "B12",
}
"""Band of each common name of STAC's EO extension. `rededge` alone is three bands: not here."""

EO_COMMON_NAMES = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge",
    "B06": "rededge",
    "B07": "rededge",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B11": "swir16",
    "B12": "swir22",
}
"""Common name of each band that the EO extension (version 1.1.0) allows in an item."""

# "B4", or as GDAL's driver writes it, "B4, central wavelength 665 nm".
_NUMBER = re.compile(r"b0?(\d{1,2}|8a)(,.*)?", re.IGNORECASE)
# Earth Engine's toBands, products and xarray add the image, the quantity and the pixel size.
_PREFIX = re.compile(
    r"(\d{8}T\d{6}_(\d{8}T\d{6}_)?(T\d{2}[A-Z]{3}_)?|(reflectance|boa|toa|l1c|l2a|s2)[:_. ])",
    re.IGNORECASE,
)
_SUFFIX = re.compile(r"[_ ](10|20|60) ?m", re.IGNORECASE)
_MASKS = {"SCL", "QA60", "MSK_CLASSI_OPAQUE", "MSK_CLASSI_CIRRUS", "MSK_CLASSI_SNOW_ICE"}
_LIKE_A_MASK = re.compile(
    r"clm|clp|cld|cs|cs_cdf|probability|(s2)?cloudless|msk_(cldprb|snwprb|qual[a-z]*|opaque|cirrus).*"
    r"|f-?mask|qa\d*|qa_.*|.*(cloud|shadow|mask).*",
    re.IGNORECASE,
)
_NO_NAME = re.compile(r"(band|layer)[ _]?\d+", re.IGNORECASE)
_ALPHA = "alpha"  # colour of a band of opacity, which is not one of the image
_PRIMARY = ("red", "green", "blue")
_COLOURS = (*_PRIMARY, "nir", "coastal")  # "rededge" and "swir" are several bands each


class RasterBands(NamedTuple):
    """Bands of a raster, in file order.

    Attributes:
        names: Name of each band, `None` if the raster does not give it.
        are_colours: Whether the names come from the colour interpretation, because no band has
            a name.
    """

    names: tuple[str | None, ...]
    are_colours: bool


def default_band_max(bands: Sequence[str]) -> tuple[float, ...]:
    """Return the entries of `BAND_MAX` for some bands.

    Args:
        bands: Band names.

    Returns:
        Reflectance of each band that the networks see as 1.0.

    Raises:
        ConfigError: `BAND_MAX` has no entry for a band.
    """
    unknown = [band for band in bands if band not in BAND_MAX]
    if unknown:
        raise ConfigError(
            f"No default band_max is known for {', '.join(unknown)}: give band_max, the "
            f"reflectance that 1.0 stands for, for each band. Known: {', '.join(BAND_MAX)}."
        )
    return tuple(BAND_MAX[band] for band in bands)


def band_name(name: str) -> str:
    """Return the name used here (`B02`, `B8A`) for a band that others call B2, b02 or blue.

    Args:
        name: Description of a band, or an asset's name. The image, the quantity or the pixel size
            may be a part of it (`B02_20m`, `reflectance:B04`).

    Returns:
        The band's name in `BANDS`, or that of a mask (`SCL`, `QA60`, `MSK_CLASSI_OPAQUE`); any
        other name unchanged.

    Examples:
        >>> band_name("b8a"), band_name("blue"), band_name("scl"), band_name("distance")
        ('B8A', 'B02', 'SCL', 'distance')
    """
    text = name.strip()
    if prefix := _PREFIX.match(text):
        text = text[prefix.end() :]
    if suffix := _SUFFIX.search(text):
        text = text[: suffix.start()] if suffix.end() == len(text) else text
    if match := _NUMBER.fullmatch(text):
        number = match[1].upper().rjust(2, "0")
        if f"B{number}" in BANDS:
            return f"B{number}"
    if text.upper() in _MASKS:
        return text.upper()
    return COMMON_NAMES.get(text.lower(), name)


def is_like_a_mask(name: str) -> bool:
    """Return whether a band that is not known has a name that masks have.

    Args:
        name: Description of a band, such as `CLM` or `cloud_probability`.
    """
    known = (*BANDS, *_MASKS, "dataMask")
    return band_name(name) not in known and bool(_LIKE_A_MASK.fullmatch(name.strip()))


def name_bands(descriptions: Sequence[str | None], colours: Sequence[str]) -> RasterBands:
    """Name a raster's bands after their descriptions or, without any, their colours.

    Args:
        descriptions: Description of each band, if it has one. "Band 1" and the like, which only
            count, do not name a band.
        colours: Colour interpretation of each band. It is used if no band has a description,
            and red, green and blue are each the colour of exactly one band.

    Returns:
        The bands' names.
    """
    names = [
        band_name(text) if text and not _NO_NAME.fullmatch(text.strip()) else None
        for text in descriptions
    ]
    if any(names) or any(colours.count(colour) != 1 for colour in _PRIMARY):
        opacity = [_ALPHA if colour == _ALPHA else None for colour in colours]
        return RasterBands(
            tuple(one or other for one, other in zip(names, opacity, strict=True)), False
        )
    unique = [one if one in _COLOURS and colours.count(one) == 1 else "" for one in colours]
    return RasterBands(tuple(COMMON_NAMES.get(one) for one in unique), True)


def band_indices(known: RasterBands, bands: Sequence[str], path: Path | str) -> list[int]:
    """Find some bands in a raster.

    Bands are found by name. A raster without any band names must have exactly as many bands as
    are wanted, beside a band of opacity, and they are taken in that order.

    Args:
        known: Result of `name_bands`.
        bands: Band names, in the order wanted.
        path: Path of the raster, for messages.

    Returns:
        One-based indices of the bands.

    Raises:
        DataError: A band is missing or is there twice, or the number of unnamed bands differs.
    """
    names = known.names
    if not any(name for name in names if name != _ALPHA):
        unnamed = [index for index, name in enumerate(names, start=1) if name is None]
        if len(unnamed) != len(bands):
            raise DataError(
                f"{path} has {len(unnamed)} bands without names, expected {len(bands)}: "
                f"{', '.join(bands)}. Give it those alone, or {_how_to_name(len(unnamed))}."
            )
        return unnamed
    missing = [band for band in bands if band not in names]
    if missing:
        has = ", ".join(name or "(unnamed)" for name in names)
        if known.are_colours:
            raise DataError(
                f"{path} has no band {', '.join(missing)}. It names no bands; by their colours "
                f"they are {has}. If there are others, {_how_to_name(len(names))}."
            )
        raise DataError(f"{path} has no band {', '.join(missing)}. It has: {has}.")
    twice = [band for band in bands if names.count(band) > 1]
    if twice:
        raise DataError(
            f"{path} has band {twice[0]} {names.count(twice[0])} times. Expected one band of "
            f"each name. Keep one of them (gdal_translate -b), or rename the others."
        )
    return [names.index(band) + 1 for band in bands]


def warn_of_colours(known: RasterBands, bands: Sequence[str], path: Path | str) -> None:
    """Warn if a raster's colours give another order of bands than expected.

    Args:
        known: Result of `name_bands`.
        bands: Band names, in the order expected.
        path: Path of the raster, for the message.
    """
    names = known.names
    if known.are_colours and names[: len(bands)] != tuple(bands):
        read = ", ".join(f"{i} is {name}" for i, name in enumerate(names, start=1) if name)
        warnings.warn(
            f"{path} names no bands, and its colours give another order than "
            f"{', '.join(bands)}: band {read}. It is read by its colours; if they are wrong, name "
            "its bands.",
            stacklevel=3,
        )


def _how_to_name(count: int) -> str:
    how = "name them in file order (rasterio.open(FILE, 'r+').descriptions = 'B02', ...)"
    if count != len(UNNAMED_BANDS):
        return how
    return f"{how}; of 13, products have B01 to B08, B8A, B09 to B12, and EuroSAT B01 to B12, B8A"
