import numpy as np
import pytest
import rasterio

from sits_keras import tasks
from sits_keras.data.rasters import embeddings
from sits_keras.data.rasters.embeddings import open_embeddings
from sits_keras.data.rasters.read import read_info
from sits_keras.data.tiling import Window
from sits_keras.errors import DataError
from sits_keras.explore.engine.embeddings import ExploredEmbeddings
from sits_keras.tasks.pictures import fit_colours


@pytest.fixture
def explored(similar):
    return ExploredEmbeddings(similar)


def test_explored_embeddings_find_shows_what_query_writes(explored, similar, tmp_path):
    said = []
    shown = explored.find((30, 45), 5, 8, said.append)
    done = tasks.query(similar, tmp_path / "a.geojson", windows=[(30, 45)], num_matches=5)
    assert shown.places == done.places
    with rasterio.open(tmp_path / "a.tif") as raster:
        np.testing.assert_array_equal(shown.similarity, raster.read(1))
    explored.find((9, 9), 5, 8, said.append)
    assert said == ["Loading similar.tif"]  # once
    with pytest.raises(DataError, match="no data at row 0, column 4"):
        explored.find((0, 4), 5, 8, said.append)


def test_explored_embeddings_picture_shows_principal_components(explored, similar, monkeypatch):
    monkeypatch.setattr(embeddings, "ROWS_AT_A_TIME", 16)
    assert explored.grid == read_info(similar).grid
    whole = explored.picture()
    _, expected = fit_colours(open_embeddings(similar))
    has_data = whole[..., 3] == 255
    np.testing.assert_array_equal(~has_data[:5, :5], True)
    assert has_data.sum() == 60 * 80 - 25
    np.testing.assert_array_equal(whole[has_data][:, :3], np.rint(expected[has_data] * 255))
    part = Window(7, 10, 50, 33)
    np.testing.assert_array_equal(explored.picture(part), whole[7:57, 10:43])
    np.testing.assert_array_equal(explored.picture(part, 20), whole[7:57:3, 10:43:3])
