"""STAC item collections, such as the results of a search: bands by their common names.

Assets of an item may be files of this machine or URLs, which GDAL reads by range. Scale and offset
are those of the item; see `_radiometry`.
"""

import datetime
import json
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pystac

from sits_keras.bands import BANDS, band_name
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.sources.folders import describe_problems
from sits_keras.data.sources.granules import CloudMask, Granule, Layer
from sits_keras.data.sources.paths import gdal_name, redact
from sits_keras.data.sources.safe import needs_offset, parse_product
from sits_keras.errors import DataError

_FOR_LOOKING = {"visual", "overview", "thumbnail", "metadata"}  # roles of assets without pixels
_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
_BASELINES = ("s2:processing_baseline", "processing:version", "sentinel:processing_baseline")
_METADATA_ASSETS = ("product_metadata", "product-metadata", "granule_product_metadata")


_NOT_OPTICAL = {"pan", "lwir", "lwir11", "lwir12"}  # common names of bands of other sensors
_PLATFORM = re.compile(r"(sentinel|s)[-_ ]?2(?!\d)", re.IGNORECASE)


class _Candidate(NamedTuple):
    """Band of an asset. Of several for a band, the finest is used, and one alone in its file."""

    metres: float
    num_bands: int
    key: str
    number: int
    asset: pystac.Asset
    stated: Mapping[str, Any]


class _Statement(NamedTuple):
    """Scale and offset of a band, and the statement that contradicts them; empty if none does."""

    scale: float | None
    offset: float | None
    contradiction: str = ""


def read_items(path: Path) -> list[tuple[str, Granule]]:
    """Read the granules of a file of one item or an item collection.

    Warns if the file is a part of the search, if items state two offsets that contradict each
    other, and if every item states a cloud cover of exactly 0.

    Args:
        path: JSON file, in UTF-8, UTF-16 or UTF-32.

    Returns:
        Name of the place (`T31TCJ` if an item names its tile), and the granule, of each item.

    Raises:
        DataError: It is not such a file, or items lack what is needed. All problems are listed.
    """
    found: dict[tuple[str, datetime.date], tuple[str, Granule]] = {}
    problems, contradictions = [], []
    items = _load(path)
    for item in items:
        try:
            granule, contradiction = _granule(item, path)
            place = _place(item, path)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problems.append(
                str(error)
                if isinstance(error, DataError)
                else f"Item {item.id} of {path} does not follow STAC ({type(error).__name__}: "
                f"{redact(error)}). Correct it, or leave it out."
            )
            continue
        if (item.id, granule.date) not in found:  # pages of a search may overlap
            found[item.id, granule.date] = place, granule
            contradictions += [f"{item.id} {contradiction}"] if contradiction else []
    if problems:
        raise DataError(describe_problems(path, problems))
    if contradictions:
        more = f" and {len(contradictions) - 3} more" if contradictions[3:] else ""
        warnings.warn(
            f"{path}: two statements about an offset contradict each other: "
            f"{'; '.join(contradictions[:3])}{more}. Compare dark pixels with another product of "
            "the place, and correct the items if they are wrong.",
            stacklevel=2,
        )
    covers = [granule.cloud_cover for _, granule in found.values() if granule.mask is None]
    if len(covers) > 2 and not any(covers) and None not in covers:
        warnings.warn(
            f"{path}: all {len(covers)} items state a cloud cover of exactly 0, which may mean "
            "that it was never computed. Look at the images, or add masks (asset scl).",
            stacklevel=2,
        )
    return list(found.values())


def _load(path: Path) -> list[pystac.Item]:
    try:
        values = json.loads(path.read_bytes())  # finds UTF-16, and skips a byte order mark
        if values.get("type") == "FeatureCollection":
            _warn_if_partial(values, path)
            return list(pystac.ItemCollection.from_dict(values).items)
        if values.get("type") == "Feature":
            return [pystac.Item.from_dict(values)]
    except Exception as error:  # pystac raises errors of many kinds
        raise DataError(
            f"{path} is not a STAC item or item collection ({type(error).__name__}: "
            f"{redact(error)})."
        ) from error
    raise DataError(
        f"{path} is of type {values.get('type')!r}. Expected a STAC item collection "
        "(FeatureCollection) or item (Feature), such as a saved search."
    )


def _warn_if_partial(values: Mapping[str, Any], path: Path) -> None:
    """Warn if a saved search holds the first page of its results."""
    matched = values.get("numberMatched") or (values.get("context") or {}).get("matched")
    count = len(values.get("features") or [])
    if isinstance(matched, int) and matched > count:
        warnings.warn(
            f"{path} holds {count} of the {matched} items of its search, the first page. Save all "
            "of them: search.item_collection().save_object(...) of pystac_client.",
            stacklevel=2,
        )


def _place(item: pystac.Item, path: Path) -> str:
    properties = item.properties
    tile = str(
        properties.get("s2:mgrs_tile")
        or str(properties.get("grid:code", "")).upper().removeprefix("MGRS-")
    )
    if not tile and "mgrs:utm_zone" in properties:
        tile = "{}{}{}".format(
            int(properties["mgrs:utm_zone"]),
            properties["mgrs:latitude_band"],
            properties["mgrs:grid_square"],
        )
    # Catalogues write tiles in lower case, with or without T, and zones without their zero.
    tile = tile.strip().upper()
    tile = tile.removeprefix("T") if len(tile) > 4 else tile
    return f"T{tile.zfill(5)}" if tile else path.stem


def _granule(item: pystac.Item, path: Path) -> tuple[Granule, str]:
    """Return an item as a granule, and what contradicts the offset that is taken."""
    properties = item.properties
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise DataError(f"Item {item.id} of {path} has no datetime.")
    if moment.tzinfo:
        moment = moment.astimezone(datetime.UTC)
    platform = str(properties.get("platform") or properties.get("constellation") or "")
    if platform and not _PLATFORM.match(platform):
        raise DataError(
            f"Item {item.id} of {path} is of the platform {platform}, whose bands have other "
            "numbers. Expected Sentinel-2. Leave it out of the search."
        )
    baseline = next((str(properties[key]) for key in _BASELINES if key in properties), None)
    layers = {}
    contradiction = ""
    try:
        bands = _find_bands(item)
    except DataError as error:
        raise DataError(f"Item {item.id} of {path}: {error}") from error
    for band, found in bands.items():
        scale, offset, other = _radiometry(item, band, found, baseline, path)
        layers[band] = Layer(_gdal_name(found.asset.href, path), found.number, scale, offset)
        contradiction = contradiction or other
    cover = properties.get("eo:cloud_cover")
    scl = _find_mask(item)
    names = [*(layer.path for layer in layers.values()), *([_gdal_name(scl, path)] if scl else [])]
    granule = Granule(
        date=moment.date(),
        name=f"{path}#{item.id}",
        layers=layers,
        mask=CloudMask("SCL", _gdal_name(scl, path)) if scl else None,
        cloud_cover=None if cover is None else float(cover) / 100,
        baseline=baseline,
        level=_level(item),
        crs=_crs(properties),
        files=(path, *(Path(name) for name in names if not name.startswith("/vsi"))),
    )
    return granule, contradiction


def _crs(properties: Mapping[str, Any]) -> str | None:
    """Return the CRS that an item states by an EPSG code; `None` if it states none."""
    code = str(properties.get("proj:code") or properties.get("proj:epsg") or "").upper()
    number = re.fullmatch(r"(?:EPSG:)?(\d+)(?:\.0+)?", code)
    return f"EPSG:{number[1]}" if number else None


def _level(item: pystac.Item) -> str | None:
    properties = item.properties
    stated = f"{properties.get('s2:product_type')} {properties.get('processing:level')} "
    stated = (stated + str(item.collection_id)).upper().replace("-", "")
    return next((level for level in ("L1C", "L2A") if level[1:] in stated), None)


def _find_bands(item: pystac.Item) -> dict[str, _Candidate]:
    found: dict[str, _Candidate] = {}
    for key, asset in item.assets.items():
        if _FOR_LOOKING & set(asset.roles or []) or "visual" in key or "TCI" in key:
            continue
        stated = [*asset.extra_fields.get("raster:bands", [])]
        bands = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or [{}]
        for index, names in enumerate(bands):
            facts = {
                **asset.extra_fields,
                **names,
                **(stated[index] if index < len(stated) else {}),
            }
            band = _band_name(names, key if len(bands) == 1 else "")
            # Of unknown size, it may be the coarsest.
            metres = (
                facts.get("spatial_resolution")
                or facts.get("gsd")
                or _suffix_metres(key)
                or math.inf
            )
            candidate = _Candidate(float(metres), len(bands), key, index + 1, asset, facts)
            if band and facts.get("data_type") != "uint8":
                found[band] = min(candidate, found.get(band, candidate), key=lambda one: one[:4])
    return {band: found[band] for band in BANDS if band in found}


def _band_name(names: Mapping[str, Any], key: str) -> str | None:
    """Return the band of an asset or of a part of one; `None` if it is not a band.

    Raises:
        DataError: Its name and its common name are of two bands, as those of other sensors.
    """
    name = _known(names.get("name"))
    common = _known(names.get("eo:common_name")) or _known(names.get("common_name"))
    if str(names.get("eo:common_name") or names.get("common_name")) in _NOT_OPTICAL:
        return None
    if name and common and name != common and {name, common} != {"B08", "B8A"}:
        raise DataError(
            f"a band is named {names.get('name')} and has the common name "
            f"{names.get('eo:common_name') or names.get('common_name')}, which is {common} of "
            "Sentinel-2. Expected Sentinel-2, whose numbers agree. Leave other sensors out of the "
            "search."
        )
    return name or common or _known(key) or _known(key.split("_")[0])


def _known(name: object) -> str | None:
    """Return the band of a name; `None` if the name is not of a band."""
    band = band_name(str(name)) if name else ""
    return band if band in BANDS else None


def _suffix_metres(key: str) -> float:
    """Return the pixel size that ends an asset's key (`B02_10m`), 0 if none does."""
    digits = key.rpartition("_")[2].removesuffix("m")
    return float(digits) if digits.isdigit() else 0.0


def _find_mask(item: pystac.Item) -> str | None:
    keys = [key for key in item.assets if key.lower().split("_")[0] == "scl"]
    finest = min(keys, key=lambda key: (_suffix_metres(key) or math.inf, key), default=None)
    return item.assets[finest].href if finest else None


def _radiometry(
    item: pystac.Item, band: str, found: _Candidate, baseline: str | None, path: Path
) -> _Statement:
    """Return scale and offset as the item states them, else as its product's metadata do.

    A catalogue that has applied the offset already states it beside `raster:bands` that still state
    it; the former counts. If the baseline is unknown, the raster's own metadata decide.
    """
    stated = found.stated
    scale = stated.get("scale", stated.get("raster:scale"))
    offset = stated.get("offset", stated.get("raster:offset"))
    applied = next((item.properties[key] for key in _APPLIED if key in item.properties), None)
    needed = baseline is not None and needs_offset(baseline, f"Item {item.id} of {path}")
    unit = scale or 1 / QUANTIFICATION
    if applied is True:
        return _Statement(unit, 0.0)
    if offset is not None and not (needed and applied is False and offset == 0):
        if abs(offset) > 1 and unit < 0.01:
            words = f"states {offset:g}, which is taken as digital numbers: {offset * unit:g}"
            return _Statement(unit, offset * unit, words)
        contradiction = ""
        if needed and offset == 0:
            contradiction = f"is of baseline {baseline}, which has an offset, but states 0 (taken)"
        elif baseline is not None and not needed and offset != 0 and not _is_own(baseline):
            contradiction = (
                f"is of baseline {baseline}, which has no offset, but states {offset:g} (taken)"
            )
        return _Statement(unit, float(offset), contradiction)
    for key in _METADATA_ASSETS:
        if key in item.assets:
            metadata = parse_product(_read_asset(item.assets[key].href, path), f"{item.id}/{key}")
            if band in metadata.offsets:
                unit = 1 / metadata.quantification
                return _Statement(unit, metadata.offsets[band] * unit)
    if needed:
        raise DataError(
            f"Item {item.id} of {path} is of processing baseline {baseline}, whose products have "
            f"an offset, but states none for {band} (raster:bands offset, raster:offset, "
            "earthsearch:boa_offset_applied, or an asset product_metadata). Add it to the item."
        )
    if baseline is not None:
        return _Statement(unit, 0.0)
    return _Statement(scale, 0.0 if scale else None)


def _is_own(baseline: str) -> bool:
    """Return whether a baseline is one of products that users made (99.99)."""
    return baseline.startswith("99.")


def _read_asset(href: str, path: Path) -> bytes:
    try:
        if urlsplit(href).scheme in ("http", "https"):
            return pystac.StacIO.default().read_text(href).encode()
        return Path(_gdal_name(href, path)).read_bytes()
    except Exception as error:  # of many kinds, by how the asset is reached
        raise DataError(
            f"{redact(href)} cannot be read: {redact(error)}. It states {path}'s offsets."
        ) from error


def _gdal_name(href: str, path: Path) -> str:
    return gdal_name(href, path.parent, path)
