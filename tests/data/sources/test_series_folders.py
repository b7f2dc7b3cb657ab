import datetime
from pathlib import Path

import numpy as np
import pytest
from fake_products import METRES, SIDE, ground, write_image

from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.sources.granules import CloudMask
from sits_keras.data.sources.series import read_folder
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError

WHOLE = Window(0, 0, SIDE, SIDE)


@pytest.fixture
def touch(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).touch()
        return tmp_path

    return make


def only(folder):
    (granule,) = read_folder(folder).granules
    return granule


def test_a_file_for_each_band_makes_one_granule(tmp_path):
    for band in ("B02", "B04", "B11"):
        path = tmp_path / f"2020-04-21_{band}.tif"
        write_image(path, ground(band, METRES[band]).astype(np.uint16), METRES[band])
    granule = only(tmp_path)
    assert granule.date == datetime.date(2020, 4, 21)
    assert granule.image is None
    with GranuleReader(granule, ("B11", "B02")) as reader:
        stored = reader.read(WHOLE)
    coarse = ground("B11", 20).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(stored, np.stack([coarse, ground("B02", 10)], axis=-1))


@pytest.mark.parametrize(
    "name",
    [
        "2020-04-21_B02.tif",
        "20200421_B02.tif",
        "T31UFS_20200421T105031_B02_10m.jp2",
        "S2A_MSIL2A_20200421_B02.TIF",
        "lake.2020-04-21_B02_20m.tiff",
    ],
)
def test_names_of_band_files(touch, name):
    granule = only(touch(name))
    assert granule.date == datetime.date(2020, 4, 21)
    assert [Path(layer.path).name for layer in granule.layers.values()] == [name]


@pytest.mark.parametrize(
    ("masks", "kind"),
    [
        (("SCL", "QA60", "cloud"), "SCL"),
        (("QA60", "cloud"), "QA60"),
        (("cloud",), "mask"),
    ],
)
def test_the_best_mask_is_taken(touch, masks, kind):
    names = [f"2020-04-21_{mask}.tif" for mask in masks]
    folder = touch("2020-04-21.tif", *names)
    granule = only(folder)
    assert granule.mask == CloudMask(kind, str(folder / names[0]))
    assert len(granule.files) == 1 + len(masks)


def test_all_bands_and_one_of_them_at_one_date_is_refused(touch):
    folder = touch("2020-04-21.tif", "2020-04-21_B02.tif")
    with pytest.raises(DataError, match=r"2020-04-21.tif and .*_B02.tif are of the same date"):
        read_folder(folder)


def test_bits_of_qa60_are_cloud_and_cirrus(tmp_path):
    grid = Grid(64, 64, None, None)
    write_raster(tmp_path / "2020-04-21.tif", np.ones((64, 64, 1), np.uint16), ["B02"], grid)
    bits = np.zeros((64, 64, 1), np.uint16)
    bits[0], bits[1], bits[2], bits[3] = 1 << 10, 1 << 11, 3 << 10, 1 << 9
    write_raster(tmp_path / "2020-04-21_QA60.tif", bits, ["QA60"], grid)
    with GranuleReader(only(tmp_path), ("B02",)) as reader:
        assert reader.cloud_source == "QA60"
        assert reader.coverage() == (64 * 64, 64 * 64, 3 * 64)


@pytest.mark.parametrize(
    ("band", "value", "share"), [("SCL", 9, 1), ("SCL", 4, 0), ("QA60", 1024, 1)]
)
def test_a_mask_may_be_a_band_of_the_raster(tmp_path, band, value, share):
    image = np.full((64, 64, 2), 500, np.uint16)
    image[..., 1] = value
    write_raster(tmp_path / "2020-04-21.tif", image, ["B02", band], Grid(64, 64, None, None))
    with GranuleReader(only(tmp_path), ("B02",)) as reader:
        assert reader.cloud_source == band
        assert reader.coverage().cloud == share
