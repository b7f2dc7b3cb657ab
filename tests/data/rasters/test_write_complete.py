import numpy as np
import pytest
import rasterio

from sits_keras.data.rasters.read import Grid, read_info
from sits_keras.data.rasters.write import open_map, whole_raster
from sits_keras.errors import DataError, OutputError


def write(path):
    profile = {"driver": "GTiff", "height": 300, "width": 300, "count": 2, "dtype": "uint16"}
    values = np.random.default_rng(0).integers(1, 9999, (2, 300, 300)).astype(np.uint16)
    with rasterio.open(path, "w", crs="EPSG:32631", **profile) as target:
        target.write(values)


pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_whole_raster_truncated_file_does_not_get_its_name(share, tmp_path):
    path = tmp_path / "map.tif"
    path.write_text("what was there")

    def write_in_part():
        with whole_raster(path) as aside:
            write(aside)
            with aside.open("r+b") as file:
                file.truncate(int(share * aside.stat().st_size))

    with pytest.raises(OutputError, match=r"map\.tif could not be written whole: .* MB are free"):
        write_in_part()
    assert [one.name for one in tmp_path.iterdir()] == ["map.tif"]
    assert path.read_text() == "what was there"


def test_whole_raster_complete_file_gets_its_name(tmp_path):
    with whole_raster(tmp_path / "map.tif") as aside:
        write(aside)
    assert read_info(tmp_path / "map.tif").grid.height == 300


def test_whole_raster_lets_other_errors_pass(tmp_path):
    for error in (DataError("a.tif is cut off."), ZeroDivisionError()):
        with pytest.raises(type(error)), whole_raster(tmp_path / "map.tif"):
            raise error


def test_whole_raster_that_gdal_cannot_write_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "map.tif"
    values = np.random.default_rng(0).integers(0, 255, (400, 400)).astype(np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with (
            pytest.raises(OutputError, match="could not be written whole"),
            open_map(path, Grid(400, 400, None, None), ["x"], "uint8", 0) as target,
        ):
            target.write(0, values)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
