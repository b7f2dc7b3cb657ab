"""What a source is: where its granules lie, and their dates (section 4.1).

A source is a folder of dated GeoTIFFs, which is one series named after the folder, or a folder of
such folders:

    <series>/<YYYY-MM-DD>.tif
    <series>/<YYYY-MM-DD>_cloud.tif     optional, not zero where cloud, shadow or bad
"""

import datetime
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from sits_keras.errors import ConfigError, DataError, MissingError

_NAME = re.compile(r"(?P<date>\d{4}-\d{2}-\d{2})(?P<cloud>_cloud)?")
_SUFFIXES = {".tif", ".tiff"}


class Granule(NamedTuple):
    """One place at one date: the raster, and its cloud mask where there is one."""

    date: datetime.date
    path: Path
    cloud_path: Path | None


class Series(NamedTuple):
    """One place at several dates, in ascending order."""

    id: str
    granules: tuple[Granule, ...]


def find_series(sources: Iterable[Path | str]) -> list[Series]:
    """Every series of some sources, in the order of their names.

    Raises:
        ConfigError: no source is given.
        MissingError: a source is not there.
        DataError: a source holds no series, a file is not named by its date, a date is there
            twice, a mask has no image, or two series have one name.
    """
    found: dict[str, Series] = {}
    for source in map(Path, sources):
        if not source.is_dir():
            raise MissingError(
                f"No folder at {source}. Expected a folder of <YYYY-MM-DD>.tif rasters of one "
                "place, or a folder of such folders."
            )
        folders = (
            [source] if _rasters(source) else sorted(p for p in source.iterdir() if p.is_dir())
        )
        series = [_read_folder(folder) for folder in folders if _rasters(folder)]
        if not series:
            raise DataError(
                f"{source} holds no series: expected <YYYY-MM-DD>.tif files in it or in its "
                f"sub-folders. Found: {_listing(source)}."
            )
        for one in series:
            if one.id in found:
                raise DataError(
                    f"Two series are named {one.id}: {found[one.id].granules[0].path.parent} and "
                    f"{one.granules[0].path.parent}. Rename one of the folders."
                )
            found[one.id] = one
    if not found:
        raise ConfigError("No source is given. Expected one or more folders of rasters.")
    return [found[name] for name in sorted(found)]


def select_series(
    series: Sequence[Series], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Series]:
    """The series whose name fits any of the `include` patterns and none of `exclude`.

    Args:
        series: what to choose from.
        include: shell patterns (`*`, `?`); empty for all.
        exclude: shell patterns.
    Raises:
        DataError: nothing is left, or a pattern of `include` fits no series.
    """
    names = [one.id for one in series]
    for pattern in include:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise DataError(f"No series fits {pattern!r}. There are: {', '.join(names)}.")
    chosen = [
        one
        for one in series
        if (not include or any(fnmatchcase(one.id, pattern) for pattern in include))
        and not any(fnmatchcase(one.id, pattern) for pattern in exclude)
    ]
    if not chosen:
        raise DataError(f"Every series is excluded. There are: {', '.join(names)}.")
    return chosen


def _rasters(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())


def _listing(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir())
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "-"


def _read_folder(folder: Path) -> Series:
    images: dict[datetime.date, Path] = {}
    masks: dict[datetime.date, Path] = {}
    for path in _rasters(folder):
        date, is_mask = _parse_name(path)
        target = masks if is_mask else images
        if date in target:
            raise DataError(f"{path} and {target[date]} are of the same date. Remove one of them.")
        target[date] = path
    for date in sorted(masks.keys() - images.keys()):
        raise DataError(f"{masks[date]} is a cloud mask without an image of that date beside it.")
    granules = (Granule(date, images[date], masks.get(date)) for date in sorted(images))
    return Series(folder.resolve().name, tuple(granules))


def _parse_name(path: Path) -> tuple[datetime.date, bool]:
    match = _NAME.fullmatch(path.stem)
    try:
        if match:
            return datetime.date.fromisoformat(match["date"]), bool(match["cloud"])
    except ValueError:
        pass  # digits that are no date, such as a 13th month
    raise DataError(
        f"{path} is not named by its date. Expected <YYYY-MM-DD>.tif or <YYYY-MM-DD>_cloud.tif."
    )
