"""Fixtures that several test modules share: small fake series, and the real data where it is."""

import contextlib
import datetime
import functools
import gc
import importlib.util
import io
import os
import tempfile
import unittest.mock
import zipfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import hypothesis
import numpy as np
import PIL.Image
import pytest

from sits_keras.config import ModelConfig, RunConfig, TrainConfig
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.tensorflow_import import paused_collection

# The environments of `make test-lowest` and `make test-newest` lack the libraries for these tests.
_LIBRARIES = {"docs": "griffe", "test_notebook.py": "nbformat"}
collect_ignore = [
    path for path, library in _LIBRARIES.items() if importlib.util.find_spec(library) is None
]


# Files that take half a minute or more.
_LONGEST = (
    "docs/test_blocks_howto.py",
    "docs/test_blocks.py",
    "test_model.py",
    "test_training.py",
    "test_examples.py",
    "cli/test_maps.py",
    "test_notebook.py",
    "test_jax.py",
    "test_legacy.py",
    "cli/test_train.py",
    "explore/test_browser.py",
    "hub/test_conversion.py",
    "cli/test_classify.py",
    "cli/test_evaluate.py",
    "presets/test_transfer.py",
    "presets/test_presets.py",
    "tasks/test_segmentation.py",
    "test_trainers.py",
    "hub/test_module.py",
    "hub/test_hub.py",
)
_ORDER = {Path(__file__).parent / name: place for place, name in enumerate(_LONGEST)}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude what test modules import from garbage collection.

    It stays until the end, and each collection would search it: more than half a million objects.
    """
    with paused_collection():
        result = yield
    gc.collect()
    gc.freeze()
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest files, so that the workers of `make test-all` end together.

    Most of the others are in the folders at the end of the alphabet.
    """
    items.sort(key=lambda item: item.path, reverse=True)
    items.sort(key=lambda item: _ORDER.get(item.path, len(_ORDER)))


# Tests must pass on a busy machine.
hypothesis.settings.register_profile("sits_keras", deadline=None)
hypothesis.settings.load_profile("sits_keras")

BANDS = ("B02", "B03", "B04", "B08")
UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real Sentinel-2 series, next to the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real Sentinel-2 series, and there are none at {folder}")
    return folder


@pytest.fixture
def coded_series() -> Callable[..., Path]:
    """Writes a series whose pixel values say which place and date they are.

    Value of band b, date t, row r, column c: `1 + b * 10000 + t * 1000 + (r % 30) * 30 + c % 30`.
    """

    def write(
        folder: Path,
        *,
        dates: int = 3,
        size: tuple[int, int] = (64, 64),
        bands: tuple[str, ...] = BANDS,
        crs: str | None = "EPSG:32631",
        cloudy: tuple[int, ...] = (),
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        grid = Grid(*size, crs, UTM if crs else None)
        for index in range(dates):
            day = datetime.date(2020, 1, 1) + datetime.timedelta(30 * index)
            write_raster(folder / f"{day}.tif", coded_image(size, index, len(bands)), bands, grid)
            if cloudy:
                mask = np.full((*size, 1), index in cloudy, np.uint8)
                write_raster(folder / f"{day}_cloud.tif", mask, ["cloud"], grid)
        return folder

    return write


def coded_image(size: tuple[int, int], date: int, num_bands: int = 4) -> np.ndarray:
    """One date of `coded_series`, `(height, width, bands)` uint16."""
    rows, cols = np.indices(size)
    place = (rows % 30) * 30 + cols % 30
    return np.stack(
        [1 + band * 10_000 + date * 1000 + place for band in range(num_bands)], axis=-1
    ).astype(np.uint16)


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    return encode_picture


@pytest.fixture(scope="session")
def geotiff() -> Callable[..., bytes]:
    return coded_chip


@pytest.fixture(scope="session")
def write_chips() -> Callable[..., Path]:
    """Writes a labelled set as EuroSAT's archives hold it: a folder, or a zip by its suffix.

    Pictures of a class are of one colour, `colours[class]`, with a little noise. GeoTIFFs have 13
    bands without names; band i (from 1) of chip n is `100 * i + n`, in UTM, a cell for each n.
    """

    def write(
        path: Path,
        colours: dict[str, tuple[int, int, int]] | None = None,
        *,
        count: int = 4,
        kind: str = "jpg",
        prefix: str = "2750/",
        noise: int = 3,
    ) -> Path:
        colours = colours or {"Forest": (30, 60, 20), "River": (20, 80, 160)}
        rng = np.random.default_rng(0)
        files = {}
        for name, colour in colours.items():
            for n in range(count):
                file = f"{prefix}{name}/{name}_{n + 1}.{kind}"
                if kind == "tif":
                    files[file] = coded_chip(n)
                else:
                    pixels = np.array(colour) + rng.integers(-noise, noise + 1, (64, 64, 3))
                    files[file] = encode_picture(np.clip(pixels, 0, 255), kind)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                for file, content in files.items():
                    archive.writestr(file, content)
        else:
            for file, content in files.items():
                (path / file).parent.mkdir(parents=True, exist_ok=True)
                (path / file).write_bytes(content)
        return path

    return write


def encode_picture(pixels: np.ndarray, kind: str = "jpg") -> bytes:
    """The bytes of a picture of `(height, width, 3)` values to 255."""
    content = io.BytesIO()
    picture = PIL.Image.fromarray(pixels.astype(np.uint8))
    picture.save(content, "JPEG" if kind == "jpg" else "PNG", quality=98)
    return content.getvalue()


def coded_chip(n: int, size: int = 64, bands: tuple[str, ...] = (), count: int = 13) -> bytes:
    """The bytes of a GeoTIFF whose band i holds `100 * i + n`, in the nth square of 100 km."""
    values = np.broadcast_to(100 * np.arange(1, count + 1) + n, (size, size, count))
    grid = Grid(size, size, "EPSG:32632", (10.0, 0.0, 1e5 * n + 5000, 0.0, -10.0, 5.05e6))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chip.tif"
        write_raster(path, values.astype(np.uint16), bands, grid)
        return path.read_bytes()


@contextlib.contextmanager
def train_eagerly() -> Iterator[None]:
    """Let models train without a graph, whose construction takes as long as twenty steps."""
    from sits_keras import DisentangledSITS

    eager = functools.partialmethod(DisentangledSITS.compile, run_eagerly=True)
    with unittest.mock.patch.object(DisentangledSITS, "compile", eager):
        yield


@pytest.fixture(scope="session")
def training_eagerly() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Makes a context in which models train eagerly, for fixtures of other scopes."""
    return train_eagerly


@pytest.fixture
def eager_training() -> Iterator[None]:
    """Models train eagerly: for tests of what surrounds the steps. Graphs have their own tests."""
    with train_eagerly():
        yield


@pytest.fixture(scope="session")
def tiny_config() -> RunConfig:
    """Settings of the smallest run that has three epochs, and batches across two records."""
    return RunConfig(
        model=ModelConfig(width=1, shared_channels=2, exclusive_dim=3),
        train=TrainConfig(steps=6, batch_size=2, pairs_per_record=2, steps_per_epoch=2),
    )


@pytest.fixture(scope="session")
def tiny_series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two series, `a` and `b`, of three dates and 128 x 128 pixels. Not to change."""
    folder = tmp_path_factory.mktemp("tiny") / "series"
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for month in (1, 2, 3):
            values = rng.integers(1, 5000, (128, 128, len(BANDS))).astype(np.uint16)
            write_raster(
                folder / name / f"2020-0{month}-01.tif", values, BANDS, Grid(128, 128, None, None)
            )
    return folder


@pytest.fixture(scope="session")
def tiny_records(tiny_series: Path) -> Path:
    """The records of `tiny_series`, one for each series. Not to change."""
    from sits_keras.data import prepare

    return prepare(tiny_series, tiny_series.with_name("records"), progress=False).folder


@pytest.fixture(scope="session")
def tiny_run(tiny_records: Path, tiny_config: RunConfig) -> Path:
    """The run of `tiny_config` on `tiny_records`, finished. Not to change."""
    from sits_keras import train

    folder = tiny_records.with_name("run")
    train(tiny_records, folder, tiny_config, progress=False)
    return folder


@pytest.fixture(scope="session")
def tiny_module(tiny_run: Path) -> Path:
    """The shared encoder of `tiny_run` as a hub module. Not to change."""
    from sits_keras import hub, load_model

    return hub.export(load_model(tiny_run), tiny_run.with_name("module"))


@pytest.fixture(scope="session")
def saved_preset(tiny_run: Path) -> Path:
    """`tiny_run` as a preset, `tiny_preset`, alone in its folder. Not to change."""
    from sits_keras import load_model

    folder = tiny_run.with_name("presets") / "tiny_preset"
    return load_model(tiny_run).save_to_preset(folder, license_id="CC-BY-4.0", summary="Tiny.")


@pytest.fixture
def tiny_preset(saved_preset: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, and its folder is `SITS_KERAS_HOME`, so that it can be named. Not to change."""
    monkeypatch.setenv("SITS_KERAS_HOME", str(saved_preset.parent))
    return saved_preset
