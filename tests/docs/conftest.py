"""Small inputs in the working folder of code blocks."""

import contextlib
import functools
import os
import shutil
import unittest.mock
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_products
import numpy as np
import pytest
from blocks import ROOT, find_blocks, read_page, run_page

from sits_keras.config import ModelConfig, RunConfig, TrainConfig
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.synthetic import make_series, write_series

BANDS = ("B02", "B03", "B04", "B08")
PLACES = ("lake", "pond", "wood")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.docs)


@pytest.fixture(scope="session")
def inputs(
    tmp_path_factory: pytest.TempPathFactory,
    training_eagerly: Callable[[], contextlib.AbstractContextManager[None]],
) -> Path:
    """A folder with every input of code blocks. Do not modify."""
    from sits_keras import hub, load_model, train
    from sits_keras.data import prepare

    folder = tmp_path_factory.mktemp("inputs")
    fake_products.make_series(folder / "downloads", 2)
    fake_products.zip_product(sorted((folder / "downloads").iterdir())[-1])
    for seed, place in enumerate(PLACES):
        series = make_series(seed, height=128, width=128, num_dates=3, num_cloudy=1)
        origin = (600_000.0 + 100_000 * seed, 5_000_000.0)
        write_series(series, folder / "series" / place, origin=origin)
    scene = make_series(9, height=160, width=192, num_dates=2, num_cloudy=0)
    first, second = sorted(write_series(scene, folder / "scene").glob("????-??-??.tif"))
    shutil.copy(first, folder / "scene.tif")
    shutil.copy(first, folder / "a.tif")
    shutil.copy(second, folder / "b.tif")
    shutil.rmtree(folder / "scene")
    _write_chips(folder / "chips")
    _write_data(folder)
    kept = prepare(folder / "series", folder / "records", exclude=["wood"], progress=False)
    config = RunConfig(
        model=ModelConfig(width=2, shared_channels=4, exclusive_dim=4),
        train=TrainConfig(steps=2, batch_size=2, steps_per_epoch=1),
    )
    with training_eagerly():
        train(kept.folder, folder / "run", config, progress=False)
    model = load_model(folder / "run")
    hub.export(model, folder / "encoder")
    model.save(folder / "model.keras")
    return folder


@pytest.fixture(scope="session")
def load_once() -> Callable[..., Any]:
    """Load each hub module of the presets in the source tree once, and any other one each time.

    The commands of the pages load the same presets, which takes longer than what they do next.
    """
    from sits_keras import hub

    load, presets = hub.load, ROOT / "savedmodels"
    loaded = functools.cache(load)

    def load_module(path: Path | str) -> hub.HubEncoder:
        path = Path(path).absolute()
        return (loaded if presets in path.parents else load)(path)

    return load_module


@pytest.fixture
def run_blocks(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    load_once: Callable[..., Any],
    eager_training: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], None]:
    """Run the blocks of a page in a separate folder."""
    monkeypatch.setattr("sits_keras.hub.load", load_once)
    monkeypatch.setattr("sits_keras.tasks.classification.finetuning.MIN_STEPS", 1)

    def run(page: str) -> None:
        blocks = list(find_blocks(page, read_page(page)))
        if any("../shared/data" in block.code for block in blocks if block.is_run):
            real = request.getfixturevalue("real_data")  # or the page is skipped
            (tmp_path / "shared").symlink_to(real.parent)
        if any(block.is_run for block in blocks):
            with unittest.mock.patch.dict(os.environ):  # of which blocks may change anything
                os.environ |= {"SITS_KERAS_HOME": str(tmp_path / "home"), "MPLBACKEND": "Agg"}
                monkeypatch.chdir(tmp_path)
                run_page(blocks, request.getfixturevalue("inputs"), tmp_path)

    return run


def _write_chips(folder: Path) -> None:
    """A labelled set: two classes of different brightness, in ten squares of 100 km."""
    rng = np.random.default_rng(0)
    for index, name in enumerate(("field", "forest")):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            values = rng.integers(200, 1200 * (index + 1), (64, 64, 4)).astype(np.uint16)
            corner = (10.0, 0.0, 1e5 * number, 0.0, -10.0, 5.05e6)
            grid = Grid(64, 64, "EPSG:32631", corner)
            write_raster(folder / name / f"{name}_{number}.tif", values, BANDS, grid)


def _write_data(folder: Path) -> None:
    """`data/`, in the layout of `sits-keras evaluate --data`."""
    data = folder / "data"
    shutil.copytree(folder / "series", data / "series")
    (data / "scenes").mkdir()
    shutil.copy(folder / "scene.tif", data / "scenes")
    pair = data / "change" / "fire-1"
    pair.mkdir(parents=True)
    shutil.copy(folder / "a.tif", pair / "before.tif")
    shutil.copy(folder / "b.tif", pair / "after.tif")
    mask = np.zeros((160, 192, 1), np.uint8)
    mask[:70] = 1
    write_raster(pair / "mask.tif", mask, ["changed"], Grid(160, 192, None, None))
    (data / "eurosat").mkdir()
    with zipfile.ZipFile(data / "eurosat" / "EuroSATallBands.zip", "w") as archive:
        for file in sorted((folder / "chips").rglob("*.tif")):
            archive.write(file, f"sets/{file.relative_to(folder / 'chips')}")
