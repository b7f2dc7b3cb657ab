"""Folders of dated rasters of one place: GeoTIFF, cloud-optimised or not, or JPEG 2000.

A date is one raster of several bands, or a raster for each band:

    <series>/2020-04-21.tif             or   <series>/2020-04-21_B02.tif
                                             <series>/T31UFS_20200421T105031_B03_10m.jp2
    <series>/2020-04-21_SCL.tif         optional: the scene classification of L2A,
    <series>/2020-04-21_QA60.tif        the cloud bits that Earth Engine hands out,
    <series>/2020-04-21_cloud.tif       or your own mask, not zero where cloud, shadow or bad
"""

import datetime
import re
from pathlib import Path

from sits_keras.data.sources.granules import BANDS, CloudMask, Granule, Layer, MaskKind, Series
from sits_keras.errors import DataError

_SUFFIXES = {".tif", ".tiff", ".jp2"}
_MASKS: dict[str, MaskKind] = {"SCL": "SCL", "QA60": "QA60", "cloud": "mask"}  # the best first
_NAME = re.compile(
    r"(?:.*[_.-])?"
    r"(?P<date>\d{4}-\d{2}-\d{2}|\d{8})(?:T\d{6})?"
    rf"(?:_(?P<part>{'|'.join((*BANDS, *_MASKS))})(?:_\d+m)?)?"
)
_EXPECTED = (
    "Expected <YYYY-MM-DD>.tif for a raster of all bands, <YYYY-MM-DD>_B02.tif and so on for one "
    "a band, or <YYYY-MM-DD>_cloud.tif."
)


def list_rasters(folder: Path) -> list[Path]:
    """The rasters that lie in a folder itself."""
    return sorted(path for path in folder.iterdir() if is_raster(path))


def is_raster(path: Path) -> bool:
    """Whether a path is a file that is named like a raster."""
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def read_folder(folder: Path) -> Series:
    """The series of a folder of dated rasters, named after the folder.

    Raises:
        DataError: a file is not named by its date, a date is there twice, or a mask has no image.
    """
    # The files of each date by what they hold: "" for all bands, else a band or a mask.
    dates: dict[datetime.date, dict[str, Path]] = {}
    for path in list_rasters(folder):
        date, part = _parse_name(path)
        parts = dates.setdefault(date, {})
        if part in parts:
            raise _twice(path, parts[part])
        parts[part] = path
    granules = tuple(_granule(date, dates[date]) for date in sorted(dates))
    return Series(folder.resolve().name, granules)


def _granule(date: datetime.date, parts: dict[str, Path]) -> Granule:
    layers = {band: Layer(str(parts[band])) for band in BANDS if band in parts}
    image = parts.get("")
    if image and layers:
        raise _twice(image, Path(next(iter(layers.values())).path))
    masks = [CloudMask(kind, str(parts[part])) for part, kind in _MASKS.items() if part in parts]
    if not image and not layers:
        raise DataError(f"{masks[0].path} is a mask without an image of that date beside it.")
    return Granule(
        date=date,
        name=str(image or Path(next(iter(layers.values())).path).with_name(f"{date}_*")),
        layers=layers,
        image=str(image) if image else None,
        mask=masks[0] if masks else None,
        files=tuple(parts.values()),
    )


def _twice(path: Path, other: Path) -> DataError:
    return DataError(f"{path} and {other} are of the same date. Remove one of them.")


def _parse_name(path: Path) -> tuple[datetime.date, str]:
    match = _NAME.fullmatch(path.stem)
    try:
        if match:
            return datetime.date.fromisoformat(match["date"]), match["part"] or ""
    except ValueError:
        pass  # digits that are no date, such as a 13th month
    raise DataError(f"{path} is not named by its date. {_EXPECTED}")
