"""Which band of Sentinel-2 each band of a raster is: by its name, else by its colour."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sits_keras.data.sources.granules import BANDS
from sits_keras.errors import DataError

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

UNNAMED_BANDS = (
    *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08"),
    *("B09", "B10", "B11", "B12", "B8A"),
)
"""What the bands of a chip of 13 bands without names are: EuroSAT's order, B8A at the end, where
products have it after B08."""

# "B4", or as GDAL's driver has it, "B4, central wavelength 665 nm".
_NUMBER = re.compile(r"b0?(\d{1,2}|8a)(,.*)?", re.IGNORECASE)
_NO_NAME = re.compile(r"(band|layer)[ _]?\d+", re.IGNORECASE)
_PRIMARY = ("red", "green", "blue")
_COLOURS = (*_PRIMARY, "nir", "coastal")  # "rededge" and "swir" are several bands each


class BandNames(NamedTuple):
    """What the bands of a raster are, in file order.

    Attributes:
        names: of each, `None` where nothing says.
        are_colours: the raster names none of its bands, and its colours have told.
    """

    names: tuple[str | None, ...]
    are_colours: bool


def band_name(name: str) -> str:
    """The name that is used here (`B02`, `B8A`) of a band that others call B2, b02 or blue.

    Any other name is given back as it is.
    """
    if match := _NUMBER.fullmatch(name.strip()):
        number = match[1].upper().rjust(2, "0")
        if f"B{number}" in BANDS:
            return f"B{number}"
    return COMMON_NAMES.get(name.strip().lower(), name)


def name_bands(descriptions: Sequence[str | None], colours: Sequence[str]) -> BandNames:
    """Names of a raster's bands.

    Args:
        descriptions: the band's description where it has one. "Band 1" and the like, which only
            count, say nothing.
        colours: the colour interpretation of each. They tell where no band has a description, and
            red, green and blue are each the colour of one.
    """
    names = [
        band_name(text) if text and not _NO_NAME.fullmatch(text.strip()) else None
        for text in descriptions
    ]
    if any(names) or any(colours.count(colour) != 1 for colour in _PRIMARY):
        return BandNames(tuple(names), False)
    told = [one if one in _COLOURS and colours.count(one) == 1 else "" for one in colours]
    return BandNames(tuple(COMMON_NAMES.get(one) for one in told), True)


def band_indices(known: BandNames, bands: Sequence[str], dtype: str, path: Path | str) -> list[int]:
    """One-based indices of some bands in a raster.

    They are found by name. A raster that says of none of its bands what they are must hold as many
    as are asked for, and is taken to hold them in that order.

    Args:
        known: what `name_bands` gave.
        bands: band names, in the order wanted.
        dtype: of the raster's pixels.
        path: of the raster, for messages.
    Raises:
        DataError: a band is not there; the number of unnamed bands is another; or the raster is a
            picture of 8 bits.
    """
    if dtype in ("uint8", "int8"):
        # Not above: the help of the command line takes names of bands from here, without NumPy.
        from sits_keras.data.radiometry import picture_error

        raise picture_error(path)
    names = known.names
    if not any(names):
        if len(names) != len(bands):
            raise DataError(
                f"{path} has {len(names)} bands without names, expected {len(bands)}: "
                f"{', '.join(bands)}. Give it those alone, or {_how_to_name(len(names))}."
            )
        return list(range(1, len(bands) + 1))
    missing = [band for band in bands if band not in names]
    if missing:
        has = ", ".join(name or "(unnamed)" for name in names)
        if known.are_colours:
            raise DataError(
                f"{path} has no band {', '.join(missing)}. It names no bands; by their colours "
                f"they are {has}. If there are others, {_how_to_name(len(names))}."
            )
        raise DataError(f"{path} has no band {', '.join(missing)}. It has: {has}.")
    return [names.index(band) + 1 for band in bands]


def warn_of_colours(known: BandNames, bands: Sequence[str], path: Path | str) -> None:
    """Warns where a raster's colours say that its bands are in another order than expected."""
    names = known.names
    if known.are_colours and names[: len(bands)] != tuple(bands):
        read = ", ".join(f"{i} is {name}" for i, name in enumerate(names, start=1) if name)
        warnings.warn(
            f"{path} names no bands, and its colours say another order than "
            f"{', '.join(bands)}: band {read}. It is read by its colours; if they are wrong, name "
            "its bands.",
            stacklevel=3,
        )


def _how_to_name(count: int) -> str:
    how = "name them in file order (rasterio.open(FILE, 'r+').descriptions = 'B02', ...)"
    if count != len(UNNAMED_BANDS):
        return how
    return f"{how}; of 13, products have B01 to B08, B8A, B09 to B12, and EuroSAT B01 to B12, B8A"
