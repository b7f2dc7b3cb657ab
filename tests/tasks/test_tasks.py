"""The functions that `sits_keras.tasks` exports, and the options of their commands."""

import inspect

import numpy as np
import pytest

from sits_keras import cli, tasks

DOORS = {
    "embed_raster": ("image", "out", "encoder"),
    "segment_raster": ("image", "out", "encoder"),
    "map_change": ("images", "out", "encoder"),
    "translate_raster": ("images", "out", "model"),
    "classify_raster": ("image", "out", "classifier"),
    "classify_chips": ("data", "out", "classifier"),
    "retrieve": ("query", "search", "out", "encoder"),
    "train_classifier": ("data", "out", "model"),
    "evaluate": ("data", "out", "model"),
}
WRITE_RASTERS = {
    "embed_raster": ("embed",),
    "segment_raster": ("segment",),
    "map_change": ("change",),
    "translate_raster": ("translate",),
    "classify_raster": ("classify", "predict"),
}


def command_of(words):
    command = cli.sits_keras
    for word in words:
        command = command.get_command(None, word)
    return command


@pytest.mark.parametrize("name", DOORS)
def test_door_takes_inputs_output_and_model_then_keywords(name):
    parameters = inspect.signature(getattr(tasks, name)).parameters.values()
    positional = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert tuple(positional) == DOORS[name]
    assert {"overwrite", "progress"} <= {one.name for one in parameters}


@pytest.mark.parametrize("name", DOORS)
def test_door_docstring_documents_each_parameter(name):
    door = getattr(tasks, name)
    lines = [line.strip() for line in inspect.getdoc(door).splitlines()]
    for parameter in inspect.signature(door).parameters:
        assert any(line.startswith(f"{parameter}: ") for line in lines), parameter
    assert "Examples:" in lines


@pytest.mark.parametrize("name", WRITE_RASTERS)
def test_every_verb_that_writes_a_raster_takes_a_picture(name):
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
