"""Fixtures of the page's tests: a preset, procedural dates of a place, and a running server."""

import asyncio
import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
from fake_embeddings import write_embeddings

from sits_keras.cli.explore import load_explored_model
from sits_keras.data import synthetic
from sits_keras.data.rasters.read import Grid, read_info, write_raster
from sits_keras.explore.engine.cache import Cache
from sits_keras.explore.engine.calls import ExploredModel
from sits_keras.explore.engine.explorer import Explorer
from sits_keras.explore.engine.sources import find_places
from sits_keras.explore.server import RunningServer, start
from sits_keras.presets.folders import find_preset

MODEL = "sits_rgbn_small"


@pytest.fixture(scope="session")
def model() -> ExploredModel:
    """Small preset of the source tree. Do not change it."""
    return load_explored_model(find_preset(MODEL))


@pytest.fixture(scope="session")
def make_meadow() -> Callable[..., Path]:
    """Return a function that writes dates of a procedural place, in UTM."""

    def make(folder: Path, height: int, width: int | None = None, num_dates: int = 4) -> Path:
        series = synthetic.make_series(
            3, height=height, width=width or height, num_dates=num_dates, num_cloudy=0
        )
        return synthetic.write_series(series, folder)

    return make


@pytest.fixture(scope="session")
def make_felled() -> Callable[..., Path]:
    """Return a function that writes before.tif, after.tif and the true mask.tif."""

    def make(folder: Path, side: int) -> Path:
        series = synthetic.make_series(4, height=side, width=side, num_dates=4, num_cloudy=0)
        dates = sorted(synthetic.write_series(series, folder).glob("*-??.tif"))
        grid = read_info(dates[0]).grid
        changed = series.changed(0, len(dates) - 1)
        assert 0 < changed.sum() < changed.size
        write_raster(folder / "mask.tif", changed[..., None].astype(np.uint8), ["changed"], grid)
        dates[0].rename(folder / "before.tif")
        dates[-1].rename(folder / "after.tif")
        return folder

    return make


@pytest.fixture(scope="session")
def meadow(tmp_path_factory: pytest.TempPathFactory, make_meadow: Callable[..., Path]) -> Path:
    """Four dates of a place, 112 x 144 px. Do not change them."""
    return make_meadow(tmp_path_factory.mktemp("series") / "meadow", 112, 144)


@pytest.fixture(scope="session")
def felled(tmp_path_factory: pytest.TempPathFactory, make_felled: Callable[..., Path]) -> Path:
    """Two dates of a place, 112 x 112 px, and a mask. Do not change them."""
    return make_felled(tmp_path_factory.mktemp("change") / "felled", 112)


@pytest.fixture(scope="session")
def similar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of 60 x 80 cells in int8. Do not change them."""
    coarse = np.random.default_rng(0).integers(-90, 91, (4, 6, 8))
    values = coarse.repeat(10, axis=1).repeat(10, axis=2)
    values += np.random.default_rng(1).integers(-20, 21, values.shape)
    values[:, :5, :5] = -128
    folder = tmp_path_factory.mktemp("embeddings")
    return write_embeddings(folder / "similar.tif", values.astype(np.int8), scales=0.05)


@pytest.fixture
def write() -> Callable[..., Path]:
    """Return a function that writes a small raster of random pixels."""

    def make(
        path: Path,
        size: tuple[int, int] = (64, 64),
        crs: str | None = "EPSG:32631",
        bands: tuple[str, ...] = ("B02", "B03", "B04", "B08"),
        seed: int = 0,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(1, 3000, (*size, len(bands)))
        transform = (10.0, 0.0, 6e5, 0.0, -10.0, 5e6) if crs else None
        write_raster(path, pixels.astype(np.uint16), bands, Grid(*size, crs, transform))
        return path

    return make


@pytest.fixture
def explore(model: ExploredModel, tmp_path: Path) -> Callable[..., Explorer]:
    """Return a function that makes an explorer of rasters, with a cache of its own."""

    def make(*paths: Path, of: ExploredModel = model, **options: object) -> Explorer:
        places = find_places(paths, of.bands)
        return Explorer(of, places, Cache(tmp_path / "cache"), **options)

    return make


class Answer(NamedTuple):
    """Answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(scope="session")
def ask() -> Callable[..., Answer]:
    """Return a function that sends one request, without adding a token or cookies."""

    def send(address: str, path: str = "/", **headers: str) -> Answer:
        parts = urlsplit(address)
        connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=30)
        connection.request("GET", path, headers={"Host": parts.netloc, **headers})
        answer = connection.getresponse()
        found = Answer(answer.status, dict(answer.getheaders()), answer.read())
        connection.close()
        return found

    return send


@pytest.fixture(scope="session")
def log_in(ask: Callable[..., Answer]) -> Callable[[str], str]:
    """Return a function that exchanges the token of a printed address for the cookie."""

    def enter(address: str) -> str:
        answer = ask(address, f"/?{urlsplit(address).query}")
        assert (answer.status, answer.headers["Location"]) == (302, "/")
        return answer.headers["Set-Cookie"].split("; ")[0]

    return enter


@pytest.fixture(scope="session")
def fetch(ask: Callable[..., Answer], log_in: Callable[[str], str]) -> Callable[..., Answer]:
    """Return a function that gets a page by the printed address, as a browser does."""

    def get(address: str, path: str = "") -> Answer:
        answer = ask(address, f"/{path}", Cookie=log_in(address))
        assert answer.status == 200
        return answer

    return get


@pytest.fixture
def served() -> Callable[..., contextlib.AbstractContextManager[RunningServer]]:
    """Return a context manager that serves an explorer in a thread."""

    @contextlib.contextmanager
    def serve(explorer: Explorer, **options: object) -> Iterator[RunningServer]:
        started: list[RunningServer] = []
        is_up = threading.Event()

        def run() -> None:
            asyncio.set_event_loop(asyncio.new_event_loop())
            started.append(start(explorer, port=0, **{"host": "127.0.0.1", **options}))
            started[0].loop.add_callback(is_up.set)
            started[0].loop.start()

        thread = threading.Thread(target=run)
        thread.start()
        assert is_up.wait(30)
        try:
            yield started[0]
        finally:
            started[0].loop.add_callback(started[0].stop)
            thread.join(30)
            assert not thread.is_alive()

    return serve
