import json

import matplotlib.image
import numpy as np
import pytest
import rasterio
import rasterio.warp
from fake_embeddings import UTM, moved, place_at, random_vectors, write_embeddings

from sits_keras.data.rasters.embeddings import open_embeddings
from sits_keras.errors import ConfigError, DataError, ExistsError
from sits_keras.tasks import query
from sits_keras.tasks.retrieval import embeddings
from sits_keras.tasks.retrieval.embeddings import SimilaritySearch


def cosines(vectors, examples):
    """Cosines of `(features, height, width)` numbers with those of some cells, in float64."""
    flat = vectors.reshape(len(vectors), -1).astype(np.float64)
    chosen = np.stack([vectors[:, row, col] for row, col in examples], axis=1).astype(np.float64)
    lengths = np.linalg.norm(flat, axis=0)
    values = chosen.T @ flat / lengths / np.linalg.norm(chosen, axis=0)[:, None]
    return values.reshape(len(examples), *vectors.shape[1:])


def greedy(similarity, examples, num_matches, min_distance):
    """The places of `query`, one after the other, by looking at all cells each time."""
    left = similarity.copy()
    rows, cols = np.indices(left.shape)

    def exclude(row, col):
        near = np.maximum(abs(rows - row), abs(cols - col)) < max(min_distance, 1)
        left[near] = -np.inf

    for row, col in examples:
        exclude(row, col)
    found = []
    for _ in range(num_matches):
        row, col = np.unravel_index(left.argmax(), left.shape)
        if not np.isfinite(left[row, col]):
            break
        found.append((row, col))
        exclude(row, col)
    return found


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("is_loaded", [False, True])
@pytest.mark.parametrize(("num_matches", "min_distance"), [(30, 4), (3, 2)])
def test_query_finds_the_most_similar_places(
    num_matches, min_distance, dtype, is_loaded, tmp_path, monkeypatch
):
    monkeypatch.setattr(embeddings, "ROWS_AT_A_TIME", 16)
    monkeypatch.setattr(embeddings, "_CELLS_OF_A_TASK", 70)
    monkeypatch.setattr(embeddings, "_CELLS_AT_A_TIME", 32)
    stored = random_vectors(5, 50, 40).astype(dtype)
    scales, offsets = np.array([0.5, 1, 2, 0.1, 0.3]), np.array([3.0, 0, 1, 0, -8])
    path = write_embeddings(tmp_path / "e.tif", stored, scales=scales, offsets=offsets)
    examples = [(3, 4), (49, 39)]
    expected = cosines(stored * scales[:, None, None] + offsets[:, None, None], examples)
    opened = open_embeddings(path)
    done = query(
        opened.load() if is_loaded else opened,
        tmp_path / "out.geojson",
        windows=examples,
        num_matches=num_matches,
        min_distance=min_distance,
    )
    assert done.examples == examples
    best = expected.max(axis=0)
    assert [(p.row, p.col) for p in done.places] == greedy(
        best, examples, num_matches, min_distance
    )
    for rank, place in enumerate(done.places, start=1):
        assert place.rank == rank
        assert place.example == expected[:, place.row, place.col].argmax()
        assert place.similarity == pytest.approx(best[place.row, place.col], abs=1e-5)
    with rasterio.open(tmp_path / "out.tif") as raster:
        assert raster.tags()["examples"] == "3,4; 49,39"
        assert (raster.crs, raster.transform) == (rasterio.CRS.from_epsg(32631), UTM)
        np.testing.assert_allclose(raster.read(1), best, atol=1e-5)


def test_query_with_equal_scales_is_exact(tmp_path):
    stored = random_vectors(64, 30, 30)
    path = write_embeddings(tmp_path / "e.tif", stored, scales=0.0173)
    query(path, tmp_path / "out.geojson", windows=[(7, 8)])
    flat = stored.reshape(64, -1).astype(np.int64)
    dots = stored[:, 7, 8].astype(np.int64) @ flat
    lengths = np.sqrt((flat * flat).sum(axis=0).astype(np.float32))
    expected = dots.astype(np.float32) / (lengths * lengths.reshape(30, 30)[7, 8])
    with rasterio.open(tmp_path / "out.tif") as raster:
        np.testing.assert_array_equal(raster.read(1).ravel(), expected)


def test_query_keeps_cells_without_data_out(tmp_path):
    stored = random_vectors(4, 30, 30)
    stored[:, 10:20] = -128
    done = query(
        write_embeddings(tmp_path / "e.tif", stored),
        tmp_path / "out.geojson",
        windows=[(0, 0)],
        num_matches=1000,
        min_distance=1,
    )
    assert len(done.places) == 20 * 30 - 1
    assert not any(10 <= place.row < 20 for place in done.places)
    with rasterio.open(tmp_path / "out.tif") as raster:
        values = raster.read(1)
    assert np.isnan(values[10:20]).all()
    assert np.isfinite(values[:10]).all()


def test_query_of_equal_vectors_takes_the_first_in_the_raster(tmp_path):
    path = write_embeddings(tmp_path / "e.tif", np.ones((2, 40, 40), np.int8))
    done = query(path, tmp_path / "o.json", windows=[(0, 0)], num_matches=3, min_distance=10)
    assert [(place.row, place.col) for place in done.places] == [(0, 10), (0, 20), (0, 30)]


def test_query_of_a_mosaic_equals_that_of_the_whole(tmp_path):
    stored = random_vectors(4, 60, 80)
    whole = write_embeddings(tmp_path / "whole.tif", stored)
    for col in (0, 30):
        part = stored[:, :, col : col + 50]
        write_embeddings(tmp_path / "tiles" / f"{col}.tif", part, transform=moved(0, col))
    options = {"windows": [(30, 40)], "num_matches": 10}
    one = query(whole, tmp_path / "one.geojson", **options)
    two = query(tmp_path / "tiles", tmp_path / "two.geojson", **options)
    assert one == two
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()
    assert (tmp_path / "one.geojson").read_bytes() == (tmp_path / "two.geojson").read_bytes()


def test_query_like_a_place_writes_outlines_in_degrees(tmp_path):
    path = write_embeddings(tmp_path / "e.tif", random_vectors(3, 40, 60))
    done = query(path, tmp_path / "out.geojson", like=[place_at(12.5, 31.5)], num_matches=2)
    assert done.examples == [(12, 31)]
    features = json.loads((tmp_path / "out.geojson").read_text())["features"]
    assert len(features) == 2
    first = features[0]["properties"]
    place = done.places[0]
    assert (first["rank"], first["row"], first["col"]) == (1, place.row, place.col)
    assert first["similarity"] == pytest.approx(place.similarity, abs=1e-6)
    ring = np.array(features[0]["geometry"]["coordinates"][0])
    xs, ys = rasterio.warp.transform("OGC:CRS84", "EPSG:32631", *ring.T)
    corner = [600_000 + 20 * place.col, 5_000_000 - 20 * place.row]
    np.testing.assert_allclose([min(xs), max(ys)], corner, atol=0.01)


def test_query_picture_shows_components_beside_similarities(tmp_path):
    path = write_embeddings(tmp_path / "e.tif", random_vectors(3, 40, 60))
    query(path, tmp_path / "out.json", windows=[(3, 4)], picture=tmp_path / "out.png")
    height, width, _ = matplotlib.image.imread(tmp_path / "out.png").shape
    assert width > 2 * height


def test_search_of_loaded_embeddings_can_be_repeated(tmp_path):
    path = write_embeddings(tmp_path / "e.tif", random_vectors(3, 40, 60), scales=[1, 2, 3])
    search = SimilaritySearch(open_embeddings(path).load())
    once = SimilaritySearch(open_embeddings(path))
    for cell in ((3, 4), (39, 59)):
        assert search.find([cell], num_matches=5) == once.find([cell], num_matches=5)


# Bad input


def test_query_bad_input_is_refused(tmp_path):
    stored = random_vectors(3, 20, 20)
    stored[:, 5, 5] = -128
    stored[:, 6, 6] = 0
    path = write_embeddings(tmp_path / "e.tif", stored)
    out = tmp_path / "out.geojson"
    with pytest.raises(ConfigError, match=r"no example to search for.*--like LON,LAT"):
        query(path, out)
    with pytest.raises(ConfigError, match=r"OUT must end in \.geojson or \.json"):
        query(path, tmp_path / "out.tif", windows=[(0, 0)])
    with pytest.raises(ConfigError, match="num_matches must be at least 1"):
        query(path, out, windows=[(0, 0)], num_matches=0)
    with pytest.raises(DataError, match="no data at row 5, column 5"):
        query(path, out, windows=[(5, 5)])
    with pytest.raises(DataError, match="row 6, column 6 is 0 and has no direction"):
        query(path, out, windows=[(6, 6)])
    with pytest.raises(DataError, match="no cell with data other than the examples"):
        query(path, out, windows=[(0, 0)], min_distance=30)
    with pytest.raises(ConfigError, match=r"outside .*e\.tif"):
        query(path, out, like=[(0, 0)])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["e.tif"]
    with pytest.raises(ExistsError, match="also an input"):
        query(path, tmp_path / "e.geojson", windows=[(0, 0)], overwrite=True)
