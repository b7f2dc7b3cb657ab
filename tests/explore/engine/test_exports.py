"""What is exported, what the shown command writes and what the shown Python lines do, is one."""

import json
import shlex

import numpy as np
import pytest

from sits_keras import cli
from sits_keras.data.rasters.read import read_info
from sits_keras.explore.engine.exports import ChangeMap, Lookup, Segmentation, Translation
from sits_keras.explore.engine.model import Subject

pytestmark = pytest.mark.integration

OTHERS = {"matches": 3, "min_distance": 32, "stride": 8}


@pytest.fixture
def dates(meadow):
    return sorted(one for one in meadow.glob("*.tif") if "cloud" not in one.name)


@pytest.fixture
def make(subject, dates, felled):
    def build(name):
        first, *_, last = dates
        before, after = felled / "before.tif", felled / "after.tif"
        at = (10, 20)
        return {
            "lookup": lambda: Lookup(subject, first, last, at, **OTHERS),
            "change": lambda: ChangeMap(subject, before, after, 16, "auto", felled / "mask.tif"),
            "threshold": lambda: ChangeMap(subject, before, after, 32, 1.25, None),
            "segments": lambda: Segmentation(subject, first, 3, 8, 16),
            "raster": lambda: Translation(subject, "raster", first, last, at, 2, 5),
            "picture": lambda: Translation(subject, "picture", first, last, at, 2, 5),
            "steps": lambda: Translation(subject, "steps", first, last, at, 2, 5),
            "samples": lambda: Translation(subject, "samples", first, last, at, 2, 5),
        }[name]()

    return build


FILES = {
    "lookup": ["found.geojson", "found.png"],
    "change": ["change.png", "change.tif"],
    "threshold": ["change.png", "change.tif"],
    "segments": ["classes.png", "classes.tif", "classes.tif.aux.xml"],
    "raster": ["translated.tif"],
    "picture": ["translated.png"],
    "steps": ["between.png"],
    "samples": ["drawn.png"],
}


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", list(FILES))
def test_the_shown_lines_write_what_is_exported(name, make, tmp_path, monkeypatch, capsys):
    request = make(name)
    folders = [tmp_path / way for way in ("exported", "command", "python")]
    for folder in folders:
        folder.mkdir()
    exported, command, python = folders

    written = request.write(exported)
    assert sorted(file.name for file in written) == FILES[name]

    monkeypatch.chdir(command)
    program, *arguments = shlex.split(request.command())
    assert program == "sits-keras"
    assert cli.run(arguments) == 0, capsys.readouterr().err

    monkeypatch.chdir(python)
    exec(compile(request.python(), name, "exec"), {})

    assert sorted(content(exported)) == FILES[name]
    assert content(exported) == content(command)
    assert content(exported) == content(python)
    for file in exported.glob("*.tif"):
        assert read_info(file).grid.crs == "EPSG:32631"


def test_what_is_shown_is_what_is_exported(explore, meadow, make, tmp_path):
    explorer = explore(meadow, stride=8)
    first, *_, last = explorer.places[0].images
    explorer.vectors(last, lambda text: None)
    shown = explorer.look_up(first, (10, 20), last, 3, 32)
    make("lookup").write(tmp_path)
    boxes = json.loads((tmp_path / "found.geojson").read_text())["features"]
    properties = [box["properties"] for box in boxes]
    assert [one.window[:2] for one in shown] == [(box["row"], box["col"]) for box in properties]
    np.testing.assert_allclose(
        [one.distance for one in shown], [box["distance"] for box in properties], rtol=1e-4
    )


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("preset", "encoder = sits_keras.from_preset('it''s', 'shared')"),
        ("module", "encoder = sits_keras.hub.load('it''s')"),
        ("model", "encoder = sits_keras.hub.wrap(sits_keras.load_model('it''s'), 'shared')"),
    ],
)
def test_names_are_quoted(kind, line, subject, tmp_path):
    one = Subject("it's", kind, subject.shared, None, subject.model)
    assert one.python("shared") == line.replace("'it''s'", '"it\'s"')
    request = Lookup(one, tmp_path / "a b.tif", tmp_path / "$c.tif", (0, 0), **OTHERS)
    words = shlex.split(request.command())
    assert words[2:4] == [str(tmp_path / "a b.tif"), str(tmp_path / "$c.tif")]
    assert words[words.index("--model") + 1] == "it's"
    compile(request.python(), "lines", "exec")
