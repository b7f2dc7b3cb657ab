import json

import pytest
from fake_embeddings import random_vectors, write_embeddings


@pytest.fixture
def raster(tmp_path):
    return write_embeddings(tmp_path / "e.tif", random_vectors(4, 40, 60))


def test_query_prints_found_places(raster, call, tmp_path):
    out = tmp_path / "like.geojson"
    command = ("query", raster, "--window", "3,4", "--out", out, "--matches", 5, "--quiet")
    done = call(*command)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{out}, like.tif: 5 places like 1 example, similarity 0.")
    assert (tmp_path / "like.tif").is_file()
    done = call(*command, "--overwrite", "--json")
    assert [one["rank"] for one in json.loads(done.out)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--like", "0,0"], "The place 0,0 is outside"),
        (["--like", "east"], "'east' is not LON,LAT, such as 11.35,46.49"),
        (["--window", "40,0"], "Expected rows 0 to 39"),
        ([], "There is no example to search for."),
    ],
)
def test_query_bad_example_is_refused(arguments, message, raster, refuse, tmp_path):
    assert message in refuse("query", raster, *arguments, "--out", tmp_path / "out.geojson", "-q")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["e.tif"]


def test_query_of_an_image_is_refused(tiny_series, refuse, tmp_path):
    image = tiny_series / "a" / "2020-01-01.tif"
    message = refuse("query", image, "--window", "0,0", "--out", tmp_path / "out.geojson", "-q")
    assert "is not an embedding raster. Expected at least two bands named A00" in message


def test_convert_and_info_describe_the_same_embeddings(raster, call, tmp_path):
    pytest.importorskip("zarr", "3.0", reason="needs zarr 3, of the extra `zarr`")
    done = call("convert", raster, tmp_path / "e.zarr", "-q")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{tmp_path / 'e.zarr'}: 4 numbers of 40 x 60 cells, int8\n"
    kinds = {}
    for path in (raster, tmp_path / "e.zarr"):
        facts = json.loads(call("info", path, "--json").out)
        kind = facts.pop("kind")
        assert facts.pop("bytes") > 0
        kinds[kind] = facts
    assert list(kinds) == ["embedding raster", "embeddings in a Zarr store"]
    assert kinds["embedding raster"] == kinds["embeddings in a Zarr store"]
    assert kinds["embedding raster"]["cell"] == "20 metre"


def test_info_of_another_raster_is_refused(tiny_series, refuse):
    message = refuse("info", tiny_series / "a" / "2020-01-01.tif")
    assert "is not an embedding raster. Expected at least two bands named A00" in message


def test_convert_to_another_format_is_refused(raster, refuse, tmp_path):
    assert "OUT must end in .zarr" in refuse("convert", raster, tmp_path / "e.nc")
