import importlib.util
import re
import socket

import numpy as np
import pytest

from sits_keras import hub, load_model
from sits_keras.cli.explore import load_explored_model
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.explore import server

pytestmark = pytest.mark.integration


@pytest.fixture
def raster(tmp_path):
    def make(name, crs="EPSG:32631", side=64):
        pixels = np.full((side, side, 4), 1000, np.uint16)
        transform = (10.0, 0.0, 6e5, 0.0, -10.0, 5e6)
        grid = Grid(side, side, crs, transform)
        write_raster(tmp_path / name, pixels, ("B02", "B03", "B04", "B08"), grid)
        return tmp_path / name

    return make


@pytest.fixture
def options(tmp_path):
    return ("--port", 0, "--cache", tmp_path / "cache", "--no-browser")


def test_explore_of_unsuitable_rasters_exits_with_2(raster, options, refuse, tiny_run, tmp_path):
    command = ("explore", "--model", tiny_run, *options)
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    assert "text.tif cannot be read" in refuse(*command, text)
    one, other = raster("a.tif"), raster("b.tif", "EPSG:32632")
    assert "have different CRS: EPSG:32631 and EPSG:32632" in refuse(*command, one, other)
    assert "smaller than a window" in refuse(*command, raster("small.tif", side=63))
    assert f"{tmp_path / 'none'} does not exist." in refuse(*command, tmp_path / "none")
    assert "is not on the grid of any raster" in refuse(
        *command, one, "--mask", raster("m.tif", side=65)
    )
    assert "a.tif is not an embedding raster" in refuse(*command, one, "--embeddings", one)
    assert "No file at" in refuse(*command, one, "--embeddings", tmp_path / "none.tif")


def test_explore_of_missing_model_exits_with_2(raster, options, refuse, tmp_path):
    message = refuse("explore", raster("a.tif"), "--model", tmp_path / "none", *options)
    assert message.startswith(f"No model at {tmp_path / 'none'}.")


def test_explore_at_used_port_exits_with_2(raster, refuse, tiny_run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refuse("explore", raster("a.tif"), "--model", tiny_run, "--port", port)
    assert message == (
        f"Cannot serve at 127.0.0.1:{port}: the port is in use. Choose another port with --port, "
        "or --port 0 for any free one."
    )


def test_explore_with_unwritable_cache_exits_with_2(raster, refuse, tiny_run, tmp_path):
    (tmp_path / "file").touch()
    command = ("explore", raster("a.tif"), "--model", tiny_run, "--port", 0)
    assert "Cannot write the cache" in refuse(*command, "--cache", tmp_path / "file" / "cache")


def test_explore_without_bokeh_names_the_package(raster, refuse, tiny_run, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bokeh" else find(name)
    )
    message = refuse("explore", raster("a.tif"), "--model", tiny_run)
    assert message.endswith("pip install bokeh.")


def test_load_explored_model_loads_all_parts(tiny_run, tiny_module, tiny_preset, tmp_path):
    whole = load_explored_model(tiny_run)
    assert (whole.kind, whole.name) == ("model", str(tiny_run))
    assert None not in (whole.shared, whole.exclusive, whole.model)
    module = load_explored_model(tiny_module)
    assert (module.kind, module.exclusive, module.model) == ("module", None, None)
    assert module.shared.bands == whole.bands
    other = hub.export(load_model(tiny_run), tmp_path / "exclusive", "exclusive")
    assert load_explored_model(other).shared is None
    preset = load_explored_model(tiny_preset)
    assert (preset.kind, preset.name) == ("preset", "tiny_preset")


def test_explore_prints_the_address_and_serves(raster, call, tiny_run, tmp_path, monkeypatch):
    """The server ends at once."""
    served = []

    def serve(running, *, open_browser):
        served.append((running.address, open_browser))
        running.stop()

    monkeypatch.setattr(server, "serve", serve)
    cache = tmp_path / "cache"
    code, out, err = call(
        *("explore", raster("a.tif"), raster("b.tif"), "--model", tiny_run, "--open"),
        *("--port", server.find_free_port("127.0.0.1"), "--cache", cache),
    )
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"Rasters: 2, places: 1. Vectors are cached in {cache}."
    assert re.fullmatch(
        r"http://127.0.0.1:\d+/\?token=[-\w]{43}  \(Ctrl-C ends the server\)", lines[1]
    )
    assert served == [(lines[1].split()[0], True)]
    assert lines[2] == "Stopped."
