"""Synthetic Sentinel-2 products with the structure and names of real ones."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
METRES = dict(zip(BANDS, (60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 60, 20, 20), strict=True))
SIDE = 384  # pixels of 10 m; 192 of 20 m, 64 of 60 m

PRODUCT = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-{short}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/{short}.xsd">
 <n1:General_Info>
  <Product_Info>
   <PRODUCT_START_TIME>{date}T10:50:31.024Z</PRODUCT_START_TIME>
   <PRODUCT_TYPE>S2MSI{short}</PRODUCT_TYPE>
   <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
   <Product_Organisation><Granule_List><Granule>{images}</Granule></Granule_List>
   </Product_Organisation>
  </Product_Info>
  <Product_Image_Characteristics>
   <{prefix}QUANTIFICATION_VALUE unit="none">{quantification}</{prefix}QUANTIFICATION_VALUE>
   {offsets}
  </Product_Image_Characteristics>
 </n1:General_Info>
 <n1:Geometric_Info><Global_Footprint><EXT_POS_LIST>48.6 1.6 48.6 3.1 47.7 3.1 48.6 1.6
 </EXT_POS_LIST></Global_Footprint></n1:Geometric_Info>
 <n1:Quality_Indicators_Info><Cloud_Coverage_Assessment>{cloud}</Cloud_Coverage_Assessment>
 </n1:Quality_Indicators_Info>
</n1:Level-{short}_User_Product>
"""
TILE = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-{short}_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/Tile.xsd">
 <n1:General_Info><TILE_ID>S2A_OPER_MSI_{level}_TL_VGS2_A001234_{tile}_N{baseline}</TILE_ID>
 </n1:General_Info>
 <n1:Geometric_Info><Tile_Geocoding>
  <HORIZONTAL_CS_CODE>{crs}</HORIZONTAL_CS_CODE>
  <Geoposition resolution="10"><ULX>600000</ULX><ULY>5400000</ULY></Geoposition>
 </Tile_Geocoding></n1:Geometric_Info>
 <n1:Quality_Indicators_Info>{masks}</n1:Quality_Indicators_Info>
</n1:Level-{short}_Tile_ID>
"""


def ground(band: str, metres: int, date: int = 0, side: int = SIDE) -> np.ndarray:
    """Return reflectance x 10,000 of a band, at least 100: ramps that differ by band and date."""
    rows, cols = np.indices((side * 10 // metres, side * 10 // metres)) % SIDE
    return 100 + 200 * BANDS.index(band) + 50 * date + rows * metres // 10 + cols * metres // 20


def write_image(
    path: Path,
    values: np.ndarray,
    metres: int,
    crs: str = "EPSG:32631",
    corner=(600_000, 5_400_000),
) -> None:
    """Write `(height, width)` or `(bands, height, width)` as lossless JPEG 2000 or GeoTIFF."""
    values = values if values.ndim == 3 else values[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"driver": "GTiff", "compress": "deflate"}
    if path.suffix == ".jp2":
        options = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
        options |= {"blockxsize": 1024, "blockysize": 1024} if values.shape[-1] > 1024 else {}
    transform = rasterio.Affine(metres, 0, corner[0], 0, -metres, corner[1])
    count, height, width = values.shape
    with rasterio.open(
        path,
        "w",
        height=height,
        width=width,
        count=count,
        dtype=values.dtype,
        crs=crs,
        transform=transform,
        **options,
    ) as target:
        target.write(values)


def make_safe(
    folder: Path,
    *,
    level: str = "L2A",
    baseline: str = "05.09",
    date: str = "2023-06-01",
    tile: str = "T31UDQ",
    crs: str = "EPSG:32631",
    cloud: float = 0.5,
    offset: int | None = -1000,
    quantification: int = 10_000,
    bands: tuple[str, ...] = ("B02", "B03", "B04", "B08"),
    when: int = 0,
    side: int = SIDE,
    scl: np.ndarray | None = None,
    classi: np.ndarray | None = None,
    holes: dict[str, slice] | None = None,
    suffix: str = ".jp2",
    archive: bool = False,
) -> Path:
    """Write a product whose ground has the reflectance `ground(band, metres, when)`.

    Args:
        folder: Folder to write the product to.
        offset: Offset of every band in the metadata; `None` for metadata without one.
        side: Pixels of 10 m.
        scl: Scene classification of `side / 2` pixels; `None` for a product without one.
        classi: Mask of 2 x `side / 6` pixels; `None` for a product without one.
        holes: Rows without data, by band.
        archive: Whether to replace the product by a zip of it.
    """
    days = date.replace("-", "")
    name = f"S2A_MSI{level}_{days}T105031_N{baseline.replace('.', '')}_R051_{tile}_{days}T150000"
    safe = folder / f"{name}.SAFE"
    granule = f"GRANULE/{level}_{tile}_A001234_{days}T105031"
    stems = []
    for band in bands:
        sub = "" if level == "L1C" else f"R{METRES[band]}m/"
        end = "" if level == "L1C" else f"_{METRES[band]}m"
        stems.append(f"{granule}/IMG_DATA/{sub}{tile}_{days}T105031_{band}{end}")
        shift = (offset or 0) / quantification
        numbers = np.rint(
            (ground(band, METRES[band], when, side) / 10_000 - shift) * quantification
        )
        if holes and band in holes:
            numbers[holes[band]] = 0
        write_image(safe / (stems[-1] + suffix), numbers.astype(np.uint16), METRES[band], crs)
    if scl is not None:
        stems.append(f"{granule}/IMG_DATA/R20m/{tile}_{days}T105031_SCL_20m")
        write_image(safe / (stems[-1] + suffix), scl.astype(np.uint8), 20, crs)
    masks = ""
    if classi is not None:
        path = f"{granule}/QI_DATA/MSK_CLASSI_B00{suffix}"
        masks = f'<MASK_FILENAME type="MSK_CLASSI">{path}</MASK_FILENAME>'
        write_image(safe / path, classi.astype(np.uint8), 60, crs)
    tag = "BOA_ADD_OFFSET" if level == "L2A" else "RADIO_ADD_OFFSET"
    offsets = "".join(
        f'<{tag} band_id="{index}">{offset}</{tag}>' for index in range(13) if offset is not None
    )
    values = {
        "level": level,
        "short": level[1:],
        "prefix": "BOA_" if level == "L2A" else "",
        "date": date,
        "baseline": baseline,
        "images": "".join(f"<IMAGE_FILE>{stem}</IMAGE_FILE>" for stem in stems),
        "quantification": quantification,
        "offsets": offsets,
        "cloud": cloud,
        "tile": tile,
        "crs": crs,
        "masks": masks,
    }
    (safe / granule).mkdir(parents=True, exist_ok=True)
    (safe / f"MTD_MSI{level}.xml").write_text(PRODUCT.format(**values))
    (safe / granule / "MTD_TL.xml").write_text(TILE.format(**values))
    return zip_product(safe) if archive else safe


def zip_product(safe: Path) -> Path:
    """Replace a product by a zip of it."""
    path = safe.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(safe.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(safe.parent).as_posix())
    shutil.rmtree(safe)
    return path


def make_series(folder: Path, num_dates: int = 3, **options: Any) -> Path:
    """Write clear products of one tile, a month apart, into a folder."""
    side = options.get("side", SIDE) // 2
    for index in range(num_dates):
        settings = {"scl": np.full((side, side), 4), **options}
        make_safe(folder, date=f"2023-{index + 1:02d}-01", when=index, **settings)
    return folder
