"""The functions that `sits_keras.tasks` exports, and the options of their commands."""

import inspect

import numpy as np
import pytest
from rasterio.crs import CRS

from sits_keras import cli, tasks
from sits_keras.config import ModelConfig
from sits_keras.data.rasters.read import Grid, write_raster

BANDS = ("B02", "B03", "B04", "B08")
TRANSFORM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)

TASKS = {
    "embed_raster": ("source", "out", "encoder"),
    "segment_raster": ("image", "out", "encoder"),
    "map_change": ("images", "out", "encoder"),
    "map_breaks": ("series", "out", "encoder"),
    "translate_raster": ("images", "out", "model"),
    "classify_raster": ("image", "out", "classifier"),
    "classify_chips": ("data", "out", "classifier"),
    "query": ("embeddings", "out"),
    "retrieve": ("query", "search", "out", "encoder"),
    "train_classifier": ("data", "out", "model"),
    "evaluate": ("data", "out", "model"),
    "convert_embeddings": ("embeddings", "out"),
    "write_webmap": ("rasters", "out"),
}
WRITE_RASTERS = {
    "embed_raster": ("embed",),
    "segment_raster": ("segment",),
    "map_change": ("change",),
    "map_breaks": ("change",),
    "translate_raster": ("translate",),
    "classify_raster": ("classify", "predict"),
    "query": ("query",),
}


def command_of(words):
    command = cli.sits_keras
    for word in words:
        command = command.get_command(None, word)
    return command


@pytest.mark.parametrize("name", TASKS)
def test_task_takes_inputs_output_and_model_then_keywords(name):
    parameters = inspect.signature(getattr(tasks, name)).parameters.values()
    positional = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert tuple(positional) == TASKS[name]
    assert {"overwrite", "progress"} <= {one.name for one in parameters}


@pytest.mark.parametrize("name", TASKS)
def test_task_docstring_documents_each_parameter(name):
    function = getattr(tasks, name)
    lines = [line.strip() for line in inspect.getdoc(function).splitlines()]
    for parameter in inspect.signature(function).parameters:
        assert any(line.startswith(f"{parameter}: ") for line in lines), parameter
    assert "Examples:" in lines


@pytest.mark.parametrize("name", WRITE_RASTERS)
def test_task_that_writes_a_raster_takes_a_picture(name):
    assert "picture" in inspect.signature(getattr(tasks, name)).parameters
    options = {option for one in command_of(WRITE_RASTERS[name]).params for option in one.opts}
    assert {"--picture", "--overwrite", "--quiet"} <= options


@pytest.mark.parametrize("count", [0, 1, 3])
def test_map_change_with_another_number_of_images_is_refused(count, tmp_path):
    images = [np.ones((64, 64, 1), np.uint16)] * count
    with pytest.raises(ValueError, match=f"Expected two images.* Received: {count}"):
        tasks.map_change(images, tmp_path / "out.tif", np.mean)


@pytest.mark.parametrize("name", ["embed_raster", "segment_raster", "classify_raster"])
def test_picture_with_another_suffix_is_refused_before_anything_is_read(name, tmp_path):
    with pytest.raises(ValueError, match=r"picture \(--picture\) must end in \.png"):
        getattr(tasks, name)("none.tif", tmp_path / "out.tif", np.mean, picture="a.jpg")
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(FileExistsError, match=r"a\.png"):
        getattr(tasks, name)("none.tif", tmp_path / "out.tif", np.mean, picture=tmp_path / "a.png")


class Echo:
    """A model whose translation is the place."""

    config = ModelConfig(bands=BANDS)

    def translate(self, place, date):
        return place


def band_means(images):
    return images.mean(axis=(1, 2))


@pytest.fixture
def write(tmp_path):
    def write(name, crs="EPSG:32631", transform=TRANSFORM):
        values = np.random.default_rng(0).integers(1, 3000, (64, 96, 4)).astype(np.uint16)
        write_raster(tmp_path / name, values, BANDS, Grid(64, 96, crs, transform))
        return tmp_path / name

    return write


SAME_GRIDS = {
    "last digits": {"transform": tuple(np.nextafter(value, np.inf) for value in TRANSFORM)},
    "a millionth of a pixel": {"transform": (*TRANSFORM[:2], TRANSFORM[2] + 1e-5, *TRANSFORM[3:])},
    "CRS as text": {"crs": CRS.from_epsg(32631).to_wkt()},
}


@pytest.mark.parametrize("other", SAME_GRIDS.values(), ids=SAME_GRIDS)
def test_grids_that_differ_by_rounding_only_are_the_same_to_every_verb(other, write, tmp_path):
    first, second = write("a.tif"), write("b.tif", **other)
    done = tasks.map_change([first, second], tmp_path / "change.tif", band_means, stride=32)
    assert done.changed_fraction == 0
    tasks.translate_raster([first, second], tmp_path / "new.tif", Echo())
    found = tasks.retrieve(
        first, second, tmp_path / "f.geojson", band_means, at=[(0, 0)], stride=32
    )
    assert found.near_fraction == 1


def test_grids_that_differ_by_a_hundredth_of_a_pixel_are_refused(write, tmp_path):
    shifted = (*TRANSFORM[:2], TRANSFORM[2] + 0.1, *TRANSFORM[3:])
    images = write("a.tif"), write("b.tif", transform=shifted)
    with pytest.raises(ValueError, match="are not on the same grid"):
        tasks.map_change(images, tmp_path / "change.tif", band_means)
    with pytest.raises(ValueError, match="are not on the same grid"):
        tasks.translate_raster(images, tmp_path / "new.tif", Echo())
    found = tasks.retrieve(*images, tmp_path / "f.geojson", band_means, at=[(0, 0)])
    assert found.near_fraction is None
    assert not list(tmp_path.glob("new*"))
