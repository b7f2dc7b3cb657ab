import datetime
import warnings

import numpy as np
import pytest
import rasterio
from conftest import UTM

from sits_keras.data.plausibility import count_stored, offset_message, warn_of_pair
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.rasters.rows import open_strips
from sits_keras.errors import DataError

BANDS = ("B02", "B03", "B04", "B08")


def land(brightness=1.0):
    """Digital numbers of squares of 8 pixels, reflectance 0.02 to 0.45."""
    squares = np.random.default_rng(0).uniform(200, 4500, (10, 10, 4)) * brightness
    return np.rint(np.kron(squares, np.ones((8, 8, 1)))).astype(np.uint16)


def open_warned(path, values, tags=None):
    """Warnings of a raster that is opened for a map."""
    write_raster(path, values, BANDS, Grid(80, 80, "EPSG:32631", UTM))
    if tags:
        with rasterio.open(path, "r+") as raster:
            raster.scales, raster.offsets = (tags[0],) * 4, (tags[1],) * 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        open_strips(path, BANDS)
    return [str(one.message) for one in caught if one.category is UserWarning]


@pytest.mark.parametrize(
    ("values", "tags", "words"),
    [
        (land(0.4) - np.uint16(1000), None, "wrapped around"),
        (land(0.4), (1e-4, -0.1), "(scale 0.0001, offset -0.1: the raster's own tags)"),
        ((land() / 10_000).astype(np.float32), (1e-4, 0.0), "(scale 0.0001, offset 0"),
        ((land(0.2) / 100).astype(np.float32), None, "Divide percent by 100"),
        (np.rint(land() / 100).astype(np.uint16), None, "is very dark"),
    ],
)
def test_open_strips_unlikely_values_are_reported(tmp_path, values, tags, words):
    (message,) = open_warned(tmp_path / "a.tif", values, tags)
    assert words in message
    assert str(tmp_path / "a.tif") in message


def test_open_strips_plausible_values_cause_no_warning(tmp_path):
    snow = land() + np.uint16(8000)
    assert open_warned(tmp_path / "land.tif", land()) == []
    assert open_warned(tmp_path / "snow.tif", snow) == []
    assert open_warned(tmp_path / "tags.tif", land() + np.uint16(1000), (1e-4, -0.1)) == []


def test_open_strips_error_of_digital_numbers_names_their_tags(tmp_path):
    with pytest.raises(DataError, match=r"up to \S+ \(scale 1, offset -1000\)\. Expected about 0"):
        open_warned(tmp_path / "a.tif", land(), (1, -1000))


def test_warn_of_pair_names_the_image_with_an_offset():
    old, new = count_stored(land(0.9)), count_stored(land(0.9) + np.uint16(1000))
    with pytest.warns(UserWarning, match=r"below 0\.1 in samples of new\.tif, but .* in old\.tif"):
        warn_of_pair([("old.tif", old), ("new.tif", new)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_pair([("old.tif", old), ("older.tif", old)])
        warn_of_pair([("new.tif", new), ("newer.tif", new)])
        warn_of_pair([("old.tif", old), ("the image", None)])
        warn_of_pair([("old.tif", old), ("snow.tif", count_stored(land() + np.uint16(8000)))])


def test_warn_of_pair_needs_an_image_that_is_mostly_clear():
    hazy = land(0.9) + np.uint16(1000)
    hazy[:, 30:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_pair([("old.tif", count_stored(land(0.9))), ("hazy.tif", count_stored(hazy))])


def test_offset_message_baseline_in_the_names_is_sure():
    dates = [
        (datetime.date(2020, 1, day), name, count_stored(land() + np.uint16(offset)))
        for day, name, offset in ((1, "S2A_N0209_a.tif", 0), (2, "S2A_MSIL2A_N0500_b.tif", 1000))
    ]
    assert "state such a baseline" in offset_message("lake", dates)
