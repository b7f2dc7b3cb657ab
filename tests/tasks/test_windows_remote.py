"""Windows that the workers of a Dask cluster encode."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("distributed", reason="needs the extra [dask]")

from clusters import cluster
from fake_encoders import FilterEncoder

from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.rasters.rows import open_strips
from sits_keras.tasks import windows
from sits_keras.tasks.change.detection import detect_change
from sits_keras.tasks.embedding.rasters import embed_raster
from sits_keras.tasks.retrieval.search import find_windows, sample_queries
from sits_keras.tasks.segmentation.maps import segment_raster

pytestmark = pytest.mark.integration

BANDS = ("B02", "B03")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a real scheduler on loopback, with two workers."""
    with cluster(tmp_path_factory.mktemp("cluster"), 2) as (url, _):
        yield url


@pytest.fixture
def rasters(tmp_path, monkeypatch):
    """Two dates of 200 x 180 px with holes; blocks are of 64 px, so that there are some."""
    monkeypatch.setattr(windows, "TILE_SIDE", 64)
    rng = np.random.default_rng(0)
    paths = []
    for name in ("one", "other"):
        image = rng.integers(1, 5000, (200, 180, 2)).astype(np.uint16)
        image[:90, :70] = 0
        paths.append(tmp_path / f"{name}.tif")
        write_raster(paths[-1], image, BANDS, Grid(200, 180, None, None))
    return paths


@pytest.mark.parametrize("mode", ["exact", "dense"])
def test_embed_raster_workers_give_same_features(mode, rasters, scheduler, tmp_path):
    encoder = FilterEncoder()
    for where, name in ((None, "here.tif"), (scheduler, "there.tif")):
        embed_raster(
            rasters[0],
            tmp_path / name,
            encoder,
            stride=16,
            dtype="int8",
            mode=mode,
            scheduler=where,
        )
    assert encoder.sizes  # here, and not there
    assert (tmp_path / "here.tif").read_bytes() == (tmp_path / "there.tif").read_bytes()


def test_segment_raster_workers_give_same_map(rasters, scheduler, tmp_path):
    for where, name in ((None, "here.tif"), (scheduler, "there.tif")):
        out = tmp_path / name
        encoder = FilterEncoder()
        options = {"method": "windows", "num_clusters": 3, "fit_stride": 16}
        segment_raster(rasters[0], out, encoder, scheduler=where, **options)
        assert bool(encoder.sizes) is (where is None)
    assert (tmp_path / "here.tif").read_bytes() == (tmp_path / "there.tif").read_bytes()


def test_detect_change_workers_give_same_distances(rasters, scheduler):
    here, there = (
        detect_change(*rasters, FilterEncoder(), stride=16, scheduler=where)
        for where in (None, scheduler)
    )
    assert here.threshold == there.threshold
    for one, other in zip(here.windows, there.windows, strict=True):
        np.testing.assert_array_equal(one, other)


def test_find_windows_workers_give_same_matches(rasters, scheduler):
    one, other = map(open_strips, rasters)
    queries = sample_queries(one, 5, stride=16)
    here, there = (
        find_windows(FilterEncoder(), one, queries, other, stride=16, scheduler=where)
        for where in (None, scheduler)
    )
    assert here == there


def test_embed_raster_relative_path_is_resolved_for_workers(rasters, scheduler, monkeypatch):
    monkeypatch.chdir(rasters[0].parent)  # the workers are in another folder
    pair = (path.name for path in rasters)
    change = detect_change(*pair, FilterEncoder(), stride=32, scheduler=scheduler)
    np.testing.assert_array_equal(
        change.windows.distances, detect_change(*rasters, FilterEncoder()).windows.distances
    )


def test_embed_raster_hub_module_is_sent_to_workers(rasters, scheduler, tiny_module, tmp_path):
    from sits_keras import hub

    image = np.random.default_rng(1).integers(1, 5000, (64, 96, 4)).astype(np.uint16)
    path = tmp_path / "four.tif"
    write_raster(path, image, ("B02", "B03", "B04", "B08"), Grid(64, 96, None, None))
    encoder = hub.load(tiny_module)
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(
            embed_raster, path, tmp_path / "b.parquet", encoder, scheduler=scheduler
        )
        embed_raster(path, tmp_path / "a.parquet", encoder)
        there.result()
    import pyarrow.parquet

    one, other = (
        np.array(pyarrow.parquet.read_table(tmp_path / f"{name}.parquet")["features"].to_pylist())
        for name in "ab"
    )
    np.testing.assert_allclose(one, other, atol=1e-6)
