"""Granules, their layers and masks, whatever product they come from (section 4.1)."""

import datetime
from pathlib import Path
from typing import Literal, NamedTuple

MaskKind = Literal["SCL", "QA60", "MSK_CLASSI", "mask"]


class Layer(NamedTuple):
    """One band of a granule: its raster, and the reflectance of its values.

    Attributes:
        path: Name of the raster for GDAL (a file, or `/vsizip/...`, `/vsicurl/...`).
        number: Index of the band in that raster, from 1.
        scale: Reflectance of a difference of 1: `reflectance = value * scale + offset`. `None`
            for the raster's own scale, and 1/10000 if it has none.
        offset: Reflectance of the value 0; `None` for the raster's own, and 0 if it has none.
    """

    path: str
    number: int = 1
    scale: float | None = None
    offset: float | None = None


class CloudMask(NamedTuple):
    """A raster of clouds.

    Attributes:
        kind: Meaning of its values.
        path: Name of the raster for GDAL.
        number: Index of its first band that is a mask, from 1.
    """

    kind: MaskKind
    path: str
    number: int = 1


class Granule(NamedTuple):
    """One place at one date.

    Attributes:
        date: Acquisition date, UTC.
        name: Path or identifier of the product, for messages and tables.
        layers: Layer of each band, by band name; empty if `image` holds the bands.
        image: Raster of all bands, which are found by their names in it.
        mask: Cloud mask, if there is one.
        cloud_cover: Cloud cover that the metadata states, in [0, 1].
        baseline: Processing baseline, such as `"05.09"`.
        level: `"L1C"` (top of atmosphere) or `"L2A"` (bottom of atmosphere).
        crs: CRS of the pixels that the metadata states, such as `"EPSG:32631"`.
        footprint: (longitude, latitude) of the outline of the imaged area, if stated.
        files: Files of the granule on this machine, by which changes are detected.
    """

    date: datetime.date
    name: str
    layers: dict[str, Layer]
    image: str | None = None
    mask: CloudMask | None = None
    cloud_cover: float | None = None
    baseline: str | None = None
    level: str | None = None
    crs: str | None = None
    footprint: tuple[tuple[float, float], ...] | None = None
    files: tuple[Path, ...] = ()


class Conflict(NamedTuple):
    """A granule of a series that is not used.

    Attributes:
        granule: The granule.
        reason: Reason why it is not used.
        kind: `"settled"` if another granule of its date is used instead, `"duplicate"` if it is
            not known which one to use, `"unfit"` if it does not fit the others of the series.
    """

    granule: Granule
    reason: str
    kind: Literal["settled", "duplicate", "unfit"]


class Series(NamedTuple):
    """One place at several dates.

    Attributes:
        id: Name of the place.
        granules: Granules in ascending order of their dates, one for each date.
        conflicts: Granules that are not used.
    """

    id: str
    granules: tuple[Granule, ...]
    conflicts: tuple[Conflict, ...] = ()
