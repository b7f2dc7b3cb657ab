"""STAC item collections, such as a search of a catalogue gives: bands by their common names.

An item's assets may lie on this machine or behind URLs, which GDAL reads by range. What is said of
scale and offset is taken from the item; see `_radiometry`.
"""

import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pystac

from sits_keras.bands import BANDS, COMMON_NAMES
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.data.sources.granules import CloudMask, Granule, Layer
from sits_keras.data.sources.locations import gdal_name, redact
from sits_keras.data.sources.safe import needs_offset, parse_product
from sits_keras.errors import DataError

_FOR_LOOKING = {"visual", "overview", "thumbnail", "metadata"}  # roles of assets without pixels
_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
_BASELINES = ("s2:processing_baseline", "processing:version", "sentinel:processing_baseline")
_METADATA_ASSETS = ("product_metadata", "product-metadata", "granule_product_metadata")


class _Candidate(NamedTuple):
    """One band of one asset; of several for a band, the finest, and alone in its file, is taken."""

    metres: float
    num_bands: int
    key: str
    number: int
    asset: pystac.Asset
    stated: Mapping[str, Any]


def read_items(path: Path) -> Iterator[tuple[str, Granule]]:
    """The granules of a file of one item or an item collection.

    Yields:
        Name of the place (`T31TCJ` where an item names its tile), and the granule.
    Raises:
        DataError: it is no such file, or an item lacks what is needed.
    """
    for item in _load(path):
        try:
            yield _place(item, path), _granule(item, path)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"Item {item.id} of {path} is not as STAC has it ({type(error).__name__}: "
                f"{error}). Fetch it again."
            ) from error


def _load(path: Path) -> list[pystac.Item]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("type") == "FeatureCollection":
            return list(pystac.ItemCollection.from_dict(values).items)
        if values.get("type") == "Feature":
            return [pystac.Item.from_dict(values)]
    except Exception as error:  # pystac raises of many kinds, by what is amiss where
        raise DataError(
            f"{path} is no STAC item or item collection ({type(error).__name__}: {error})."
        ) from error
    raise DataError(
        f"{path} is of type {values.get('type')!r}. Expected a STAC item collection "
        "(FeatureCollection) or item (Feature), such as a search saves."
    )


def _place(item: pystac.Item, path: Path) -> str:
    properties = item.properties
    tile = properties.get("s2:mgrs_tile") or str(properties.get("grid:code", "")).removeprefix(
        "MGRS-"
    )
    if not tile and "mgrs:utm_zone" in properties:
        tile = "{:02d}{}{}".format(
            int(properties["mgrs:utm_zone"]),
            properties["mgrs:latitude_band"],
            properties["mgrs:grid_square"],
        )
    return f"T{tile.removeprefix('T')}" if tile else path.stem


def _granule(item: pystac.Item, path: Path) -> Granule:
    properties = item.properties
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise DataError(f"Item {item.id} of {path} has no datetime.")
    if moment.tzinfo:
        moment = moment.astimezone(datetime.UTC)
    baseline = next((str(properties[key]) for key in _BASELINES if key in properties), None)
    layers = {}
    for band, found in _find_bands(item).items():
        scale, offset = _radiometry(item, band, found, baseline, path)
        layers[band] = Layer(_gdal_name(found.asset.href, path), found.number, scale, offset)
    cover = properties.get("eo:cloud_cover")
    code = properties.get("proj:code") or properties.get("proj:epsg")
    scl = _find_mask(item)
    names = [*(layer.path for layer in layers.values()), *([_gdal_name(scl, path)] if scl else [])]
    return Granule(
        date=moment.date(),
        name=f"{path}#{item.id}",
        layers=layers,
        mask=CloudMask("SCL", _gdal_name(scl, path)) if scl else None,
        cloud_cover=None if cover is None else float(cover) / 100,
        baseline=baseline,
        level=_level(item),
        crs=f"EPSG:{str(code).upper().removeprefix('EPSG:')}" if code else None,
        files=(path, *(Path(name) for name in names if not name.startswith("/vsi"))),
    )


def _level(item: pystac.Item) -> str | None:
    properties = item.properties
    said = f"{properties.get('s2:product_type')} {properties.get('processing:level')} "
    said = (said + str(item.collection_id)).upper().replace("-", "")
    return next((level for level in ("L1C", "L2A") if level[1:] in said), None)


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
            metres = facts.get("spatial_resolution") or facts.get("gsd") or _suffix_metres(key)
            candidate = _Candidate(float(metres), len(bands), key, index + 1, asset, facts)
            if band and facts.get("data_type") != "uint8":
                found[band] = min(candidate, found.get(band, candidate), key=lambda one: one[:4])
    return {band: found[band] for band in BANDS if band in found}


def _band_name(names: Mapping[str, Any], key: str) -> str | None:
    for name in (
        names.get("name"),
        names.get("eo:common_name"),
        names.get("common_name"),
        key,
        key.split("_")[0],
    ):
        for known in (name, f"B0{str(name)[1:]}"):  # B4 is B04
            if known in BANDS:
                return str(known)
        if name in COMMON_NAMES:
            return COMMON_NAMES[str(name)]
    return None


def _suffix_metres(key: str) -> float:
    digits = key.rpartition("_")[2].removesuffix("m")
    return float(digits) if digits.isdigit() else 0.0


def _find_mask(item: pystac.Item) -> str | None:
    keys = [key for key in item.assets if key.lower().split("_")[0] == "scl"]
    return item.assets[min(keys, key=lambda key: (_suffix_metres(key), key))].href if keys else None


def _radiometry(
    item: pystac.Item, band: str, found: _Candidate, baseline: str | None, path: Path
) -> tuple[float | None, float | None]:
    """Scale and offset: as the item states them, else as its product's metadata do.

    A catalogue that has taken the offset in already says so beside `raster:bands` that still
    state it; the former counts. Where nothing is known of the baseline, the raster's own metadata
    decide.
    """
    stated = found.stated
    scale = stated.get("scale", stated.get("raster:scale"))
    offset = stated.get("offset", stated.get("raster:offset"))
    applied = next((item.properties[key] for key in _APPLIED if key in item.properties), None)
    needed = baseline is not None and needs_offset(baseline, f"Item {item.id} of {path}")
    if applied is True:
        return scale or 1 / QUANTIFICATION, 0.0
    if offset is not None and not (needed and applied is False and offset == 0):
        return scale or 1 / QUANTIFICATION, float(offset)
    for key in _METADATA_ASSETS:
        if key in item.assets:
            metadata = parse_product(_read_asset(item.assets[key].href, path), f"{item.id}/{key}")
            if band in metadata.offsets:
                unit = 1 / metadata.quantification
                return unit, metadata.offsets[band] * unit
    if needed:
        raise DataError(
            f"Item {item.id} of {path} is of processing baseline {baseline}, whose products have "
            f"an offset, but states none for {band} (raster:bands offset, raster:offset, "
            "earthsearch:boa_offset_applied, or an asset product_metadata). Add it to the item."
        )
    if baseline is not None:
        return scale or 1 / QUANTIFICATION, 0.0
    return scale, 0.0 if scale else None


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
