"""Tests that an export, the shown command and the shown Python lines write the same bytes."""

import inspect
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from sits_keras import cli, tasks
from sits_keras.data.rasters.points import Point, read_points
from sits_keras.data.rasters.read import read_info
from sits_keras.explore.engine.calls import (
    ExploredModel,
    change_call,
    query_call,
    retrieval_call,
    segmentation_call,
    translation_call,
)

pytestmark = pytest.mark.integration

POINTS = (Point(30, 40, True), Point(90, 15, False), Point(12, 100, False))
RETRIEVAL = {"num_matches": 3, "min_distance": 32, "stride": 8}


@pytest.fixture
def dates(meadow):
    return sorted(one for one in meadow.glob("*.tif") if "cloud" not in one.name)


@pytest.fixture
def make(model, dates, meadow, felled, similar):
    def build(name):
        first, *_, last = dates
        before, after = felled / "before.tif", felled / "after.tif"
        sampling = {"at": (10, 20), "num_samples": 2, "seed": 5}
        if name in ("raster", "picture", "steps", "samples"):
            return translation_call(model, name, first, last, **sampling)
        return {
            "retrieve": lambda: retrieval_call(model, first, last, at=(10, 20), **RETRIEVAL),
            "change": lambda: change_call(
                model,
                before,
                after,
                method="layers",
                stride=16,
                threshold="auto",
                mask=felled / "mask.tif",
            ),
            "points": lambda: change_call(
                model,
                before,
                after,
                method="layers",
                stride=16,
                threshold="auto",
                mask=None,
                points=POINTS,
            ),
            "threshold": lambda: change_call(
                model, before, after, method="exclusive", stride=32, threshold=1.25, mask=None
            ),
            "query": lambda: query_call(
                model, similar, cell=(30, 45), num_matches=5, min_distance=8
            ),
            "segments": lambda: segmentation_call(model, first, num_clusters=3, min_region=4),
            "series": lambda: segmentation_call(model, meadow, num_clusters=3, min_region=4),
            "retrieve in series": lambda: retrieval_call(
                model, meadow, meadow, at=(10, 20), **RETRIEVAL
            ),
        }[name]()

    return build


FILES = {
    "retrieve": ["found.geojson", "found.png"],
    "change": ["change.png", "change.tif"],
    "points": ["change.png", "change.tif", "points.geojson"],
    "threshold": ["change.png", "change.tif"],
    "query": ["similar.geojson", "similar.png", "similar.tif"],
    "segments": ["classes.clusters.json", "classes.png", "classes.tif", "classes.tif.aux.xml"],
    "series": ["classes.clusters.json", "classes.png", "classes.tif", "classes.tif.aux.xml"],
    "retrieve in series": ["found.geojson", "found.png"],
    "raster": ["translated.tif"],
    "picture": ["translated.png"],
    "steps": ["between.png"],
    "samples": ["sampled.png"],
}


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", list(FILES))
def test_task_call_command_and_python_write_the_exported_bytes(
    name, make, tmp_path, monkeypatch, capsys
):
    call = make(name)
    folders = [tmp_path / way for way in ("exported", "command", "python")]
    for folder in folders:
        folder.mkdir()
    exported, command, python = folders

    written = call.write(exported)
    assert sorted(file.name for file in written) == FILES[name]

    for folder in (command, python):  # as a user who has downloaded the points
        if call.points:
            shutil.copy(exported / "points.geojson", folder)

    monkeypatch.chdir(command)
    program, *arguments = shlex.split(call.command())
    assert program == "sits-keras"
    assert cli.run(arguments) == 0, capsys.readouterr().err

    monkeypatch.chdir(python)
    exec(compile(call.python(), name, "exec"), {})

    assert sorted(content(exported)) == FILES[name]
    assert content(exported) == content(command)
    assert content(exported) == content(python)
    for file in exported.glob("*.tif"):
        assert read_info(file).grid.crs == "EPSG:32631"


def test_change_call_with_points_writes_the_points_and_uses_both_encoders(make, felled, tmp_path):
    call = make("points")
    call.write(tmp_path)
    grid = read_info(felled / "before.tif").grid
    assert read_points(tmp_path / "points.geojson", grid) == list(POINTS)
    assert read_info(tmp_path / "change.tif").bands[0] == "distance"
    assert call.parts == ("shared", "exclusive")
    assert "encoders = [\n    sits_keras.from_preset(" in call.python()


def test_find_by_features_shows_what_is_exported(explore, meadow, make, tmp_path):
    explorer = explore(meadow, stride=8)
    first, *_, last = explorer.places[0].images
    explorer.vectors(last, lambda text: None)
    shown = explorer.find_by_features(first, (10, 20), last, 3, 32)
    make("retrieve").write(tmp_path)
    boxes = json.loads((tmp_path / "found.geojson").read_text())["features"]
    properties = [box["properties"] for box in boxes]
    assert [one.window[:2] for one in shown] == [(box["row"], box["col"]) for box in properties]
    np.testing.assert_allclose(
        [one.distance for one in shown], [box["distance"] for box in properties], rtol=1e-4
    )


@pytest.mark.parametrize("name", list(FILES))
def test_task_call_passes_arguments_that_the_function_takes(name, make):
    call = make(name)
    function = inspect.signature(getattr(tasks, call.function))
    function.bind(*call.inputs, call.out, *([None] if call.parts else []), **call.options)
    assert f"sits_keras.tasks.{call.function}(\n" in call.python()


def test_task_call_renders_python_and_command_from_one_description(model, tmp_path):
    call = change_call(
        model._replace(name="run", kind="model"),
        Path("a.tif"),
        Path("b.tif"),
        method="exclusive",
        stride=8,
        threshold="auto",
        mask=Path("m.tif"),
    )
    assert call.command() == (
        "sits-keras change a.tif b.tif change.tif --model run --method exclusive --stride 8 "
        "--threshold auto --mask m.tif --picture change.png"
    )
    assert (
        call.python()
        == """from sits_keras.tensorflow_import import import_tensorflow

import_tensorflow()

import sits_keras

encoder = sits_keras.hub.wrap(sits_keras.load_model('run'), 'exclusive')
sits_keras.tasks.map_change(
    ['a.tif', 'b.tif'],
    'change.tif',
    encoder,
    method='exclusive',
    stride=8,
    threshold='auto',
    mask='m.tif',
    picture='change.png',
)
"""
    )


@pytest.mark.parametrize(
    ("kind", "part", "expression"),
    [
        ("preset", "shared", "sits_keras.from_preset(NAME, 'shared')"),
        ("preset", "model", "sits_keras.from_preset(NAME)"),
        ("module", "shared", "sits_keras.hub.load(NAME)"),
        ("model", "shared", "sits_keras.hub.wrap(sits_keras.load_model(NAME), 'shared')"),
        ("model", "model", "sits_keras.load_model(NAME)"),
    ],
)
def test_explored_model_loading_quotes_the_name(kind, part, expression, model):
    quoted = ExploredModel("it's", kind, model.shared, None, model.model)
    assert quoted.loading(part) == expression.replace("NAME", '"it\'s"')


def test_task_call_quotes_paths_and_names(model, tmp_path):
    quoted = ExploredModel("it's", "preset", model.shared, None, model.model)
    paths = tmp_path / "a b.tif", tmp_path / "$c.tif"
    call = retrieval_call(quoted, *paths, at=(0, 0), **RETRIEVAL)
    words = shlex.split(call.command())
    assert words[2:4] == [str(path) for path in paths]
    assert words[words.index("--model") + 1] == "it's"
    compile(call.python(), "lines", "exec")
