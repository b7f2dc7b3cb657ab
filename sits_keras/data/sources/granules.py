"""What a granule is, whichever product it came in (section 4.1)."""

import datetime
from pathlib import Path
from typing import Literal, NamedTuple

MaskKind = Literal["SCL", "QA60", "MSK_CLASSI", "mask"]


class Layer(NamedTuple):
    """One band of a granule: where its pixels lie, and what they mean.

    Attributes:
        path: the raster, by its name for GDAL (a file, or `/vsizip/...`, `/vsicurl/...`).
        number: of the band in that raster, from 1.
        scale, offset: `reflectance = number * scale + offset`; `None` for what the raster says
            itself, and 1/10000 and 0 where it says nothing.
    """

    path: str
    number: int = 1
    scale: float | None = None
    offset: float | None = None


class CloudMask(NamedTuple):
    """A raster that says where cloud is.

    Attributes:
        kind: how its values are to be read.
        path: the raster, by its name for GDAL.
        number: of its first band that is a mask, from 1.
    """

    kind: MaskKind
    path: str
    number: int = 1


class Granule(NamedTuple):
    """One place at one date.

    Attributes:
        date: of acquisition, UTC.
        name: path or identifier of the product, for messages and tables.
        layers: each band's layer, by band name; empty where `image` holds the bands.
        image: a raster that holds all bands, which are found by their names in it.
        mask: where cloud is, pixel by pixel, where the product says so.
        cloud_cover: share of cloud that the product states of itself, in [0, 1].
        baseline: processing baseline, such as `"05.09"`.
        level: `"L1C"` (top of atmosphere) or `"L2A"` (bottom of atmosphere).
        crs: what the metadata says of the pixels' CRS, such as `"EPSG:32631"`.
        footprint: (longitude, latitude) of the outline of what was seen, where it is said.
        files: what is on this machine of it, for telling whether it has changed.
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


class Series(NamedTuple):
    """One place at several dates, in ascending order."""

    id: str
    granules: tuple[Granule, ...]
