"""Series of any sources (section 4.1).

A source is a Sentinel-2 product (SAFE folder, or zip of one), a file of STAC items, a folder of
dated rasters, or a folder of any of these. Products and items of one tile make up one series,
wherever they lie; a folder of dated rasters is a series of its own.
"""

import datetime
import itertools
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from sits_keras.data.sources.folders import is_raster, list_rasters, numbered, read_folder
from sits_keras.data.sources.granules import Conflict, Granule, Series
from sits_keras.data.sources.paths import list_folder
from sits_keras.data.sources.safe import NotSentinel2Error, is_safe, read_product
from sits_keras.data.sources.stac import read_items
from sits_keras.errors import ConfigError, DataError, MissingError, SitsKerasError

_STAC_SUFFIXES = {".json", ".geojson"}
_HEAD_BYTES = 2**20  # of a JSON file, which may be of any size
_EXPECTED = (
    "Expected Sentinel-2 products (.SAFE folders or their .zip), a STAC item collection (.json), "
    "<YYYY-MM-DD>.tif rasters of one place, or a folder of these"
)


class Unread(NamedTuple):
    """Part of a source that cannot be read.

    Attributes:
        series: Name of the file or folder.
        path: Path of the file or folder.
        error: Reason.
    """

    series: str
    path: str
    error: DataError | MissingError


def find_series(
    sources: Iterable[Path | str], *, newest: bool = False, allow_conflicts: bool = False
) -> list[Series]:
    """Find every series of some sources.

    Warns of files and folders that are not used (products of other missions).

    Args:
        sources: Products, files of STAC items, and folders.
        newest: Keep the newest of several granules of one tile and date, by processing baseline;
            of one baseline, the part that covers more, or the last processed.
        allow_conflicts: Return series with granules that `check_conflicts` would refuse.

    Returns:
        The series, in the order of their names.

    Raises:
        ConfigError: No source is given.
        MissingError: A source does not exist.
        DataError: A source contains no series or is damaged, a date is there twice, two series
            have one name, or a series mixes levels or UTM zones.
    """
    series, unread = _find(sources, newest, skip=False)
    _raise_all(unread)
    if not allow_conflicts:
        check_conflicts(series)
    return series


def _find(
    sources: Iterable[Path | str], newest: bool, skip: bool
) -> tuple[list[Series], list[Unread]]:
    """Return the series in some sources, and the parts of the sources that cannot be read.

    Args:
        sources: As in `find_series`.
        newest: As in `find_series`.
        skip: Whether to leave out rasters of a folder that cannot be used, instead of the folder.
    """
    folders: dict[str, Series] = {}
    tiles: dict[str, list[Granule]] = {}
    unread: list[Unread] = []
    foreign: list[NotSentinel2Error] = []
    seen: set[str] = set()
    given = False
    for source in map(Path, sources):
        given = True
        check_there(source)
        parts = _parts(source)
        if not parts:
            raise DataError(
                f"No image series found in {source}. {_EXPECTED}. Found: {_listing(source)}."
            )
        for part in parts:
            key = os.path.abspath(part)  # noqa: PTH100, which would follow a link
            if key in seen:
                continue  # given twice, such as a folder and a product in it
            seen.add(key)
            try:
                problems: list[str] | None = [] if skip else None
                _read_part(part, folders, tiles, problems)
                unread += [Unread(part.name, str(part), DataError(one)) for one in problems or []]
            except NotSentinel2Error as error:
                if part == source:
                    unread.append(Unread(part.name, str(part), error))
                else:
                    foreign.append(error)
            except (DataError, MissingError) as error:
                unread.append(Unread(part.name, str(part), error))
    if not given:
        raise ConfigError(f"No source is given. {_EXPECTED}.")
    if foreign and not (tiles or folders or unread):
        raise foreign[0]
    if foreign:
        warnings.warn(
            f"{len(foreign)} of the files and folders are not used: {foreign[0]}",
            stacklevel=3,
        )
    for name, granules in tiles.items():
        if name in folders:
            raise DataError(
                f"Two series are named {name}: the products of that tile, and a folder of that "
                "name. Rename the folder."
            )
        folders[name] = _tile_series(name, granules, newest)
    series = [folders[name] for name in sorted(folders)]
    return [one for one in series if one.granules or one.conflicts], unread


def _read_part(
    part: Path,
    folders: dict[str, Series],
    tiles: dict[str, list[Granule]],
    problems: list[str] | None,
) -> None:
    """Read a product, a file of items or a folder of rasters, and add what it contains."""
    if is_safe(part):
        product = read_product(part)
        tiles.setdefault(product.tile.tile, []).append(product.granule)
    elif part.suffix.lower() in _STAC_SUFFIXES:
        for name, granule in read_items(part):
            tiles.setdefault(name, []).append(granule)
    else:
        one = read_folder(part, problems)
        if one.id in folders:
            granules = folders[one.id].granules
            other = Path(granules[0].name).parent if granules else "another folder"
            raise DataError(
                f"Two series are named {one.id}: {other} and {part}. Rename one of the folders."
            )
        folders[one.id] = one


def _raise_all(unread: Sequence[Unread]) -> None:
    """Raise one error that lists all parts that cannot be read, if there are any."""
    if unread:
        raise combined_error([one.error for one in unread])


def combined_error(errors: Sequence[SitsKerasError]) -> SitsKerasError:
    """Return one error that lists several, or the only one itself.

    Args:
        errors: At least one error. All are of one kind, or the result is a DataError.
    """
    messages = list(dict.fromkeys(map(str, errors)))
    if len(messages) == 1:
        return errors[0]
    kind = MissingError if all(isinstance(one, MissingError) for one in errors) else DataError
    return kind(f"{len(messages)} errors in the sources: {numbered(messages)}")


def holds_series(source: Path) -> bool:
    """Return whether a path is a folder, a zip of a product or STAC items, and not a raster."""
    return source.is_dir() or source.suffix.lower() in {*_STAC_SUFFIXES, ".zip"}


def check_there(source: Path) -> None:
    """Check that a source exists.

    Raises:
        MissingError: It does not.
    """
    if not source.exists():
        raise MissingError(f"Nothing at {source}. {_EXPECTED}.")


def read_sources(
    sources: Path | str | Sequence[Path | str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    newest: bool = False,
    unread: list[Unread] | None = None,
    absolute: bool = False,
) -> list[Series]:
    """Find and select the series of one source or several.

    Args:
        sources: Sources as in `find_series`, or one of them.
        include: Names or patterns to include, as in `select_series`.
        exclude: Names or patterns to exclude, as in `select_series`.
        newest: As in `find_series`.
        unread: List that receives what cannot be read, unless that is everything; series may then
            have granules that `check_conflicts` would refuse. Without it, both are errors.
        absolute: Whether to name files by absolute paths, for processes in other folders.

    Returns:
        The series, in the order of their names.

    Raises:
        ConfigError: No source is given.
        MissingError: A source does not exist.
        DataError: As in `find_series` and `select_series`.
    """
    paths = [Path(p) for p in ([sources] if isinstance(sources, Path | str) else sources)]
    if absolute:
        paths = [path.absolute() for path in paths]
    found, left_out = _find(paths, newest, skip=unread is not None)
    if unread is None or not found:
        _raise_all(left_out)
    series = select_series(found, include, exclude)
    if unread is None:
        check_conflicts(series)
    else:
        unread += left_out
    return series


def select_series(
    series: Sequence[Series], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Series]:
    """Select the series whose name matches any of the `include` patterns and none of `exclude`.

    Args:
        series: Series to select from.
        include: Shell patterns (`*`, `?`); empty for all.
        exclude: Shell patterns.

    Returns:
        The selected series.

    Raises:
        DataError: Nothing is left, or a pattern of `include` matches no series.
    """
    names = [one.id for one in series]
    # Typed and copied accents differ in their bytes.
    include, exclude = (
        [unicodedata.normalize("NFC", pattern) for pattern in one] for one in (include, exclude)
    )
    for pattern in include:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise DataError(f"No series matches {pattern!r}. Available: {', '.join(names)}.")
    chosen = [
        one
        for one in series
        if (not include or any(fnmatchcase(one.id, pattern) for pattern in include))
        and not any(fnmatchcase(one.id, pattern) for pattern in exclude)
    ]
    if not chosen:
        raise DataError(f"Every series is excluded. Available: {', '.join(names)}.")
    return chosen


def _parts(source: Path) -> list[Path]:
    """Return the products, files of items and folders of rasters in a source."""
    if is_safe(source) or (source.is_file() and source.suffix.lower() in _STAC_SUFFIXES):
        return [source]
    if not source.is_dir():
        return []
    inside = list_folder(source)
    items = [path for path in inside if _holds_items(path)]
    if list_rasters(source) and not items:  # beside items, rasters are their assets
        return [source]
    folders = (path for path in inside if path.is_dir() and not is_safe(path))
    return [
        *filter(is_safe, inside),
        *items,
        *(folder for folder in folders if list_rasters(folder)),
    ]


def _holds_items(path: Path) -> bool:
    """Return whether a file of a folder is one of STAC items; a folder may hold other JSON too."""
    if not path.is_file() or path.suffix.lower() not in _STAC_SUFFIXES:
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    # Text in UTF-16 or UTF-32 has zeros between the letters.
    return b'"stac_version"' in head.replace(b"\0", b"")


def _tile_series(name: str, granules: Sequence[Granule], newest: bool) -> Series:
    first, *_ = in_order = sorted(granules, key=lambda granule: (granule.date, granule.name))
    conflicts: list[Conflict] = []
    fitting: list[Granule] = []
    for granule in in_order:
        for what, one, other in (
            ("level", first.level, granule.level),
            ("CRS", first.crs, granule.crs),
        ):
            if one and other and one != other:
                reason = (
                    f"has {what} {other}, but {first.name} has {one}. A series has one {what}: "
                    "prepare them separately"
                )
                conflicts.append(Conflict(granule, reason, "unfit"))
                break
        else:
            fitting.append(granule)
    kept: list[Granule] = []
    for _, group in itertools.groupby(fitting, key=lambda granule: granule.date):
        several = list(group)
        if len(several) == 1:
            kept += several
            continue
        best, why = _best(several)
        is_settled = newest and best is not None
        for granule in several:
            if is_settled and granule is best:
                kept.append(granule)
            else:
                conflicts.append(_conflict(granule, several, best, why, is_settled))
    return Series(name, tuple(kept), tuple(conflicts))


def _best(granules: Sequence[Granule]) -> tuple[Granule | None, str]:
    """Return the granule of a date to keep and the reason; `None` if none is better."""
    by_baseline = sorted(granules, key=_baseline)
    if _baseline(by_baseline[-1]) > _baseline(by_baseline[-2]):
        return by_baseline[-1], f"the newest processing baseline, {by_baseline[-1].baseline}"
    rivals = [one for one in granules if _baseline(one) == _baseline(by_baseline[-1])]
    areas = [_area(one) for one in rivals]
    # Two stations, or two orbits, see two parts of a tile; a product of the same pixels is newer.
    if all(areas) and max(areas) > 1.01 * sorted(areas)[-2]:
        return rivals[areas.index(max(areas))], "the part that covers more of the tile"
    times = [_processed(one) for one in rivals]
    if all(times) and times.count(max(times)) == 1:
        return rivals[times.index(max(times))], f"the last processed, {max(times)}"
    return None, ""


def _conflict(
    granule: Granule, several: Sequence[Granule], best: Granule | None, why: str, is_settled: bool
) -> Conflict:
    others = ", ".join(_short(one) for one in several if one is not granule)
    if best is None:
        return Conflict(granule, f"same date as {others}: remove all but one", "duplicate")
    if is_settled:
        return Conflict(granule, f"{_short(best)} is kept, {why}", "settled")
    which = "this one" if best is granule else _short(best)
    reason = f"same date as {others}: keep {which}, {why} (--newest)"
    return Conflict(granule, reason, "duplicate")


def _short(granule: Granule) -> str:
    return Path(granule.name).name.rpartition("#")[2]


def _baseline(granule: Granule) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", granule.baseline or ""))


def _processed(granule: Granule) -> str:
    """Return the time of processing, which is the last in a product's name; empty if unknown."""
    times = re.findall(r"\d{8}T\d{6}", Path(granule.name).name)
    return times[-1] if len(times) > 1 else ""


def _area(granule: Granule) -> float:
    """Return the area of what was seen, in square degrees; 0 if it is unknown."""
    if not granule.footprint:
        return 0.0
    pairs = zip(granule.footprint, (*granule.footprint[1:], granule.footprint[0]), strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2


def check_conflicts(series: Iterable[Series]) -> None:
    """Check that each date of some series has one granule, which fits the others.

    Raises:
        DataError: Granules do not fit the others of their series, or dates have several granules
            of which none is chosen. All are listed.
    """
    conflicts = [(one.id, conflict) for one in series for conflict in one.conflicts]
    unfit = [f"{one.granule.name} {one.reason}." for _, one in conflicts if one.kind == "unfit"]
    if len(unfit) == 1:
        raise DataError(unfit[0])
    if unfit:
        raise DataError(f"{len(unfit)} granules do not fit their series: {numbered(unfit)}")
    dates: dict[tuple[str, datetime.date], list[Conflict]] = {}
    for name, one in conflicts:
        if one.kind == "duplicate":
            dates.setdefault((name, one.granule.date), []).append(one)
    if dates:
        lines = []
        for (name, date), several in dates.items():
            shown = next((one for one in several if "keep this one" in one.reason), several[0])
            reason = shown.reason.replace("this one", "it").replace(" (--newest)", "")
            lines.append(f"{name} {date}: {_short(shown.granule)}, {reason}.")
        raise DataError(
            f"{len(dates)} {'dates have' if len(dates) > 1 else 'date has'} several granules, "
            f"expected one: {numbered(lines)} Use the newest of each (newest, --newest), or "
            "remove the others. `sits-keras inspect` shows all of them."
        )


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "a file of another kind" + (
            "; name the folder of the raster instead" if is_raster(folder) else ""
        )
    names = [path.name for path in list_folder(folder)]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "-"
