"""Convert embedding rasters to Zarr, describe them, and write STAC items beside them."""

import datetime
import importlib.metadata
import itertools
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pystac
from tqdm import tqdm

from sits_keras.data.rasters.embeddings import (
    INT8_NODATA,
    ZARR_ARRAY,
    ZARR_NAME,
    Embeddings,
    Header,
    import_zarr,
    open_embeddings,
)
from sits_keras.data.rasters.geoparquet import read_table_header
from sits_keras.data.rasters.read import Grid, describe_crs
from sits_keras.data.rasters.write import outline
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError, ExistsError
from sits_keras.files import check_creatable, check_suffix, read_json, write_json, written_aside
from sits_keras.hub.metadata import SENTINEL_2_PERIOD

ITEM_SUFFIX = ".item.json"
"""End of the name of the STAC item beside a file: `scene.tif.item.json` for `scene.tif`."""

_CHUNK = 128  # cells a side that are compressed together, with all bands
_SHARD = 1024  # cells a side of a file
_SOURCE = "https://dataspace.copernicus.eu/data-collections/copernicus-sentinel-data/sentinel-2"
_MLM_MEDIA_TYPE = "application/geo+json"
_MEDIA_TYPES = {
    ".tif": pystac.MediaType.COG,
    ".tiff": pystac.MediaType.COG,
    ".vrt": "application/xml",
    ".parquet": "application/vnd.apache.parquet",
    ".zarr": "application/vnd.zarr; version=3",
}
_USES = ["classification", "retrieval", "segmentation", "similarity_search"]

# Conventions of Zarr: https://github.com/geo-embeddings/embeddings-zarr-convention and
# https://github.com/zarr-conventions. The description of each is part of its schema.
_CONVENTIONS = [
    {
        "uuid": "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
        "schema_url": "https://raw.githubusercontent.com/geo-embeddings/"
        "embeddings-zarr-convention/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/geo-embeddings/embeddings-zarr-convention/blob/v1/"
        "README.md",
        "name": "geoemb:",
        "description": "Geoembeddings convention for geospatial embedding arrays with model "
        "provenance",
    },
    {
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/proj/refs/tags/v0.1/"
        "schema.json",
        "spec_url": "https://github.com/zarr-conventions/proj/blob/v0.1/README.md",
        "name": "proj",
        "description": "Coordinate reference system information for geospatial data",
    },
    {
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v1/"
        "schema.json",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v1/README.md",
        "name": "spatial:",
        "description": "Spatial coordinate information",
    },
]
_EXTENSIONS = [
    "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
]


def convert_embeddings(
    embeddings: Path | str | Embeddings,
    out: Path | str,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> Header:
    """Write an embedding raster or mosaic as a Zarr store, version 3, in bounded memory.

    The store has an array `embeddings` of (band, y, x) in chunks of 128 x 128 cells with all bands,
    in files (shards) of 1,024 x 1,024 cells, compressed with Blosc and Zstandard; coordinates `x`
    and `y` of the centres of cells, and `band`; and `spatial_ref` with the CRS. Its attributes
    follow the conventions geoemb, proj and spatial, and those of CF, which xarray decodes. A STAC
    item is written beside it (see `write_item`).

    Args:
        embeddings: Embedding raster, folder of such rasters, or opened embeddings.
        out: Output folder, `.zarr`.
        overwrite: Overwrite an existing Zarr store.
        progress: Show a progress bar.

    Returns:
        Description of what was written.

    Raises:
        ExistsError: If `out` exists and `overwrite` is false, or is not a Zarr store.
        OutputError: If `out` cannot be written.
        MissingError: If the embeddings do not exist.
        DataError: If they cannot be read.
        ConfigError: If `out` has another suffix.
        MissingLibraryError: If zarr is not installed.

    Examples:
        >>> convert_embeddings("embeddings.tif", "embeddings.zarr").grid.height
    """
    out = Path(out)
    check_suffix(out, "OUT", ".zarr")
    if out.exists() and not (overwrite and (out / ZARR_NAME).is_file()):
        raise ExistsError(
            f"{out} exists and is not a Zarr store. Choose another name."
            if overwrite
            else f"{out} already exists. Choose another name, or pass overwrite (--overwrite)."
        )
    check_creatable(out)
    zarr = import_zarr()
    opened = embeddings if isinstance(embeddings, Embeddings) else open_embeddings(embeddings)
    header = opened.header
    num_bands = len(header.bands)
    height, width = header.grid[:2]
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(out) as aside:
        group = zarr.create_group(aside, zarr_format=3, attributes=_group_attributes(header))
        array = group.create_array(
            ZARR_ARRAY,
            shape=(num_bands, height, width),
            chunks=(num_bands, _CHUNK, _CHUNK),
            shards=(num_bands, _SHARD, _SHARD),
            dtype=header.dtype,
            compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"),
            fill_value=INT8_NODATA if header.dtype == "int8" else math.nan,
            dimension_names=("band", "y", "x"),
            attributes=_array_attributes(header),
        )
        for name, values, attributes in _coordinates(header):
            group.create_array(
                name,
                data=values,
                chunks=values.shape,
                dimension_names=(name,) if values.ndim else (),
                attributes=attributes,
            )
        corners = itertools.product(range(0, height, _SHARD), range(0, width, _SHARD))
        with tqdm(total=height * width, desc="convert", unit="px", disable=not progress) as bar:
            for row, col in corners:  # each file is written once
                part = Window(row, col, min(_SHARD, height - row), min(_SHARD, width - col))
                rows, cols = slice(row, row + part.height), slice(col, col + part.width)
                array[:, rows, cols] = opened.read_window(part)
                bar.update(part.height * part.width)
        with warnings.catch_warnings():
            # Not part of version 3 yet, as zarr warns; without it, xarray warns.
            warnings.simplefilter("ignore", UserWarning)
            zarr.consolidate_metadata(aside)
    write_item(out, source=Path(opened.name))
    return header


def describe_embeddings(path: Path | str) -> dict[str, Any]:
    """Describe an embedding raster, a mosaic, a Zarr store or a table of windows.

    Args:
        path: What `open_embeddings` takes, or a GeoParquet table of `sits-keras embed`.

    Returns:
        Facts by name, JSON values: kind, numbers of a vector, data type, scales, size and position,
        and the metadata of the file.

    Raises:
        MissingError: If `path` does not exist.
        DataError: If it is not of embeddings, or cannot be read.
    """
    return _facts_of(Path(path)).summary


def item_path(path: Path) -> Path:
    """Return the path of the STAC item of embeddings: `scene.tif.item.json` for `scene.tif`."""
    return path.with_name(path.name + ITEM_SUFFIX)


def write_item(
    path: Path | str, *, model: Mapping[str, Any] | None = None, source: Path | None = None
) -> Path:
    """Write the STAC item of an embedding raster, mosaic, Zarr store or table beside it.

    The item has fields of the STAC extension for embeddings (version 0.0.1, a proposal) and the
    projection. Its link `emb:model` leads to the STAC item of the encoder, which has the MLM
    extension and is written beside it.

    Args:
        path: Embedding raster, folder of such rasters, Zarr store or GeoParquet table.
        model: STAC item of the encoder (see `hub.metadata.make_stac_item`).
        source: Embeddings that `path` was converted from. If `model` is not given, the item of the
            encoder beside them is copied, if there is one.

    Returns:
        Path of the item: `scene.tif.item.json` for `scene.tif`.

    Raises:
        MissingError: If `path` does not exist.
        DataError: If it is not of embeddings, or cannot be read.
    """
    path = Path(path)
    facts = _facts_of(path)
    period: dict[str, Any] = {"datetime": None}
    if len(facts.dates) == 1:
        period = {"datetime": facts.dates[0]}
    elif facts.dates:
        period |= {"start_datetime": facts.dates[0], "end_datetime": facts.dates[-1]}
    else:
        begin, end = SENTINEL_2_PERIOD
        period |= {"start_datetime": begin, "end_datetime": end}
    item = pystac.Item(
        id=path.stem,
        geometry=facts.geometry,
        bbox=None if facts.geometry is None else _bounds(facts.geometry),
        properties={
            "description": f"{facts.summary['numbers']} numbers of an encoder of Sentinel-2 images "
            "for each cell.",
            "emb:fit_for_use": _USES,
            **facts.properties,
        },
        stac_extensions=_EXTENSIONS,
        **period,
    )
    media_type = _MEDIA_TYPES.get(path.suffix.lower(), "application/x-directory")
    item.add_asset(
        "embeddings", pystac.Asset(f"./{path.name}", media_type=media_type, roles=["data"])
    )
    quality = path.with_name(f"{path.stem}.quality{path.suffix}")
    if quality.is_file():
        asset = pystac.Asset(
            f"./{quality.name}", media_type=pystac.MediaType.COG, roles=["uncertainty"]
        )
        item.add_asset("quality", asset)
    model_name = _write_model(path, model, source, facts.properties["emb:runtime_parameters"])
    if model_name:
        item.add_link(pystac.Link("emb:model", f"./{model_name}", _MLM_MEDIA_TYPE, "Encoder"))
    item.add_link(pystac.Link("emb:source-data", _SOURCE, "text/html", "Sentinel-2"))
    out = item_path(path)
    write_json(out, item.to_dict(include_self_link=False, transform_hrefs=False))
    return out


def _write_model(
    path: Path, model: Mapping[str, Any] | None, source: Path | None, tags: Mapping[str, Any]
) -> str | None:
    """Write or copy the STAC item of the encoder beside a file; return its name.

    The files of the encoder are elsewhere, so its asset has a URN instead of a relative path.
    """
    if model is not None:
        name = f"{model['id']}.mlm.json"
        content = dict(model)
        if "model" in content.get("assets", {}):
            urn = _encoder_urn({"encoder": model["id"], **tags})
            content["assets"] = {"model": {**content["assets"]["model"], "href": urn}}
        write_json(path.with_name(name), content)
        return name
    beside = item_path(source) if source else None
    if source is None or beside is None or not beside.is_file():
        return None
    links = read_json(beside, "Write the embeddings again.").get("links", [])
    href = next((one["href"] for one in links if one.get("rel") == "emb:model"), "")
    name = Path(href).name
    found = source.with_name(name)
    if not name or not found.is_file():
        return None
    if found.resolve().parent != path.resolve().parent:
        shutil.copyfile(found, path.with_name(name))
    return name


class _Facts(NamedTuple):
    """Description of embeddings for a person, and for a STAC item."""

    summary: dict[str, Any]
    properties: dict[str, Any]
    geometry: dict[str, Any] | None
    dates: list[datetime.datetime]


def _facts_of(path: Path) -> _Facts:
    if path.suffix.lower() == ".parquet":
        return _table_facts(path)
    opened = open_embeddings(path)
    header, grid = opened.header, opened.grid
    kind = "embedding raster"
    if path.is_dir():
        kind = "embeddings in a Zarr store" if (path / ZARR_NAME).is_file() else "embedding mosaic"
    crs = describe_crs(grid)
    summary: dict[str, Any] = {
        "kind": kind,
        "numbers": len(header.bands),
        "dtype": header.dtype,
        **_scale_summary(header),
        "size": f"{grid.height} x {grid.width} cells",
        "crs": crs.name,
        "cell": crs.cell,
        "other bands": list(header.extra),
        **header.tags,
    }
    properties: dict[str, Any] = {"data_type": header.dtype}
    if crs.metres is not None:
        properties["gsd"] = crs.metres
    properties["emb:runtime_parameters"] = {"dimensions": len(header.bands), **header.tags}
    if header.dtype == "int8":
        properties["emb:quantization"] = {
            "method": "linear",
            "original_dtype": "float32",
            "quantized_dtype": "int8",
            "scale": _equal_or_all(header.scales),
            "offset": _equal_or_all(header.offsets),
        }
    geometry = None
    if grid.transform is not None:
        properties["proj:shape"] = [grid.height, grid.width]
        properties["proj:transform"] = [*grid.transform, 0, 0, 1]
    if grid.crs is not None and grid.transform is not None:
        properties |= {"proj:code": crs.code} if crs.code else {"proj:wkt2": crs.wkt}
        geometry = outline(Window(0, 0, grid.height, grid.width), grid)
    return _Facts(summary, properties, geometry, _dates_of(header.tags))


def _table_facts(path: Path) -> _Facts:
    table = read_table_header(path)
    summary = {
        "kind": "table of embeddings",
        "numbers": table.num_features,
        "dtype": table.dtype,
        "scale": "none" if table.scales is None else "one for each number",
        "windows": table.num_rows,
        "bounds": "unknown" if table.bounds is None else list(table.bounds),
    }
    properties: dict[str, Any] = {
        "data_type": table.dtype,
        "emb:runtime_parameters": {"dimensions": table.num_features},
    }
    if table.scales is not None:
        properties["emb:quantization"] = {
            "method": "linear",
            "original_dtype": "float32",
            "quantized_dtype": table.dtype,
            "scale": table.scales,
            "offset": [0.0],
        }
    geometry = None
    if table.bounds is not None:
        west, south, east, north = table.bounds
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
    return _Facts(summary, properties, geometry, [])


def _scale_summary(header: Header) -> dict[str, Any]:
    if header.dtype != "int8":
        return {"scale": "none"}
    scales, offsets = _equal_or_all(header.scales), _equal_or_all(header.offsets)
    return {
        "scale": scales[0] if len(scales) == 1 else "one for each number",
        "offset": offsets[0] if len(offsets) == 1 else "one for each number",
    }


def _equal_or_all(values: npt.NDArray[np.float32]) -> list[float]:
    """Return one number if all are equal, else all; as short decimals, such as 0.05."""
    is_equal = bool((values == values[0]).all())
    # float(value) would be 0.05000000074505806, and not the number in the GeoTIFF.
    return [float(str(value)) for value in (values[:1] if is_equal else values)]


def _encoder_urn(tags: Mapping[str, Any]) -> str:
    """Return the name of an encoder and the checksum of its weights, which has no URL, as a URN."""
    name, checksum = tags.get("encoder", "unknown"), tags.get("encoder_sha256")
    return f"urn:sits-keras:encoder:{name}" + (f":sha256:{checksum}" if checksum else "")


def _dates_of(tags: Mapping[str, str]) -> list[datetime.datetime]:
    texts = [text.strip() for text in tags.get("dates", "").split(",") if text.strip()]
    try:
        days = sorted(datetime.date.fromisoformat(text) for text in texts)
    except ValueError as error:
        raise DataError(
            f"The dates {tags['dates']!r} in the metadata are not dates ({error}). Expected "
            "YYYY-MM-DD, comma-separated. Embed the source again."
        ) from error
    return [datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC) for day in days]


def _bounds(geometry: Mapping[str, Any]) -> list[float]:
    parts = geometry["coordinates"]
    rings = parts if geometry["type"] == "Polygon" else [ring for part in parts for ring in part]
    lons, lats = np.concatenate([np.asarray(ring, np.float64) for ring in rings]).T
    if geometry["type"] == "MultiPolygon":  # across 180 degrees: west is greater than east
        return [float(lons[lons > 0].min()), float(lats.min()), float(lons[lons < 0].max()),
                float(lats.max())]  # fmt: skip
    return [float(lons.min()), float(lats.min()), float(lons.max()), float(lats.max())]


def _group_attributes(header: Header) -> dict[str, Any]:
    grid = header.grid
    crs = describe_crs(grid)
    urn = _encoder_urn(header.tags)
    attributes: dict[str, Any] = {
        "zarr_conventions": _CONVENTIONS if grid.crs and grid.transform else _CONVENTIONS[:1],
        "Conventions": "CF-1.11",
        "geoemb:type": "pixel",
        "geoemb:dimensions": len(header.bands),
        "geoemb:model": urn,
        "geoemb:source_data": [_SOURCE],
        "geoemb:data_type": header.dtype,
        "geoemb:build_version": f"sits_keras {importlib.metadata.version('sits_keras')}",
        "sits_keras": dict(header.tags),
    }
    if crs.metres is not None:
        attributes["geoemb:gsd"] = crs.metres
    if header.dtype == "int8":
        scales, offsets = _equal_or_all(header.scales), _equal_or_all(header.offsets)
        attributes["geoemb:quantization"] = {
            "method": "linear",
            "original_dtype": "float32",
            "quantized_dtype": "int8",
        }
        if len(scales) == len(offsets) == 1:
            attributes["geoemb:quantization"]["scale"] = {
                "type": "scalar",
                "scale": scales[0],
                "offset": offsets[0],
            }
    if grid.transform is not None:
        a, b, c, d, e, f = grid.transform
        xs = [c + a * col + b * row for row, col in _corners(grid)]
        ys = [f + d * col + e * row for row, col in _corners(grid)]
        attributes |= {
            "spatial:dimensions": ["y", "x"],
            "spatial:transform_type": "affine",
            "spatial:transform": list(grid.transform),
            "spatial:shape": [grid.height, grid.width],
            "spatial:registration": "pixel",
            "spatial:bbox": [min(xs), min(ys), max(xs), max(ys)],
        }
    if grid.crs is not None:
        attributes |= {"proj:code": crs.code} if crs.code else {"proj:wkt2": crs.wkt}
    return attributes


def _corners(grid: Grid) -> list[tuple[int, int]]:
    return list(itertools.product((0, grid.height), (0, grid.width)))


def _array_attributes(header: Header) -> dict[str, Any]:
    scales, offsets = _equal_or_all(header.scales), _equal_or_all(header.offsets)
    attributes: dict[str, Any] = {
        "long_name": "embedding",
        "band_names": list(header.bands),
        "scale": scales,
        "offset": offsets,
        "coordinates": "spatial_ref",
    }
    if header.grid.crs is not None:
        attributes["grid_mapping"] = "spatial_ref"
    if header.dtype == "int8":
        attributes["_FillValue"] = INT8_NODATA
        if len(scales) == len(offsets) == 1:
            attributes |= {"scale_factor": scales[0], "add_offset": offsets[0]}
    return attributes


def _coordinates(header: Header) -> Iterator[tuple[str, npt.NDArray[Any], dict[str, Any]]]:
    """Yield the name, values and attributes of each coordinate."""
    grid = header.grid
    a, b, c, d, e, f = grid.transform or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    yield "band", np.arange(len(header.bands)), {"long_name": "number of the embedding"}
    if b == d == 0:  # a rotated grid has no coordinates of rows and columns
        for name, length, step, start in (("x", grid.width, a, c), ("y", grid.height, e, f)):
            standard = {"standard_name": f"projection_{name}_coordinate"} if grid.crs else {}
            centres = start + step * (np.arange(length) + 0.5)
            yield name, centres, {"axis": name.upper(), **standard}
    if grid.crs is not None:
        wkt = describe_crs(grid).wkt
        transform = " ".join(f"{value:.17g}" for value in (c, a, b, f, d, e))
        yield (
            "spatial_ref",
            np.array(0),
            {"crs_wkt": wkt, "spatial_ref": wkt, "GeoTransform": transform},
        )
