"""Messages quoted in docs/howto/errors.md: each case is reproduced here."""

import http.server
import json
import os
import re
import socket
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
import rasterio
import scipy.io
import tensorflow as tf
import yaml
from conftest import BANDS, UTM
from fake_products import make_safe
from rasterio.control import GroundControlPoint

from sits_keras import ModelConfig, RunConfig, from_preset, hub
from sits_keras.callbacks import StopWhenNotFinite
from sits_keras.cli import run
from sits_keras.data.rasters.read import Grid, read_info, write_raster
from sits_keras.errors import SitsKerasError
from sits_keras.explore.engine.sources import find_places
from sits_keras.explore.server import check_address
from sits_keras.model import DisentangledSITS
from sits_keras.saving import restore_latest, save_model
from sits_keras.tasks.change.detection import open_pair
from sits_keras.tensorflow_import import check_settings
from sits_keras.training import train

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "errors.md"


def write(path: str, *, size: int = 64, bands=BANDS, corner: float = 0.0, values=None) -> None:
    """A raster in UTM whose upper left corner is `corner` pixels to the east."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = np.full((size, size, len(bands)), 1000, np.uint16)
    transform = (*UTM[:2], UTM[2] + 10 * corner, *UTM[3:])
    write_raster(Path(path), values, bands, Grid(size, size, "EPSG:32633", transform))


def prepare(*options: str) -> int:
    return run(["prepare", "series", "records", "-q", *options])


def not_a_date():
    write("series/lake/summer.tif")
    prepare()


def several_dates():
    write("series/lake/2023-06-01_2023-06-30.tif")
    prepare()


def part_of_an_image():
    write("series/lake/2023-06-01-0000000000-0000006912.tif")
    prepare()


def one_date_twice():
    write("series/lake/2023-06-01.tif")
    write("series/lake/2023-06-01_v2.tif")
    prepare()


def other_product():
    with zipfile.ZipFile("download.zip", "w") as archive:
        archive.writestr("S1A_IW_GRDH_1SDV.SAFE/manifest.safe", "")
    run(["prepare", "download.zip", "records", "-q"])


def not_a_raster():
    for month in (5, 6):
        write(f"series/lake/2023-0{month}-01.tif")
    Path("series/lake/2023-06-01.tif").write_text("version https://git-lfs.github.com/spec/v1")
    prepare()


class Refusing(http.server.BaseHTTPRequestHandler):
    """Server that refuses every request."""

    def do_GET(self):
        self.send_error(403)

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


def refused_url():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            read_info(f"/vsicurl/http://127.0.0.1:{server.server_port}/B02.tif?sig=secret")
        finally:
            server.shutdown()


def without_bands():
    with scipy.io.netcdf_file("cube.nc", "w") as cube:
        for name in ("y", "x"):
            cube.createDimension(name, 64)
        for band in ("B02", "B03"):
            cube.createVariable(band, "f4", ("y", "x"))[:] = 0.1
    run(["segment", "cube.nc", "classes.tif", "--model", "sits_rgbn_small"])


def time_steps():
    with scipy.io.netcdf_file("cube.nc", "w") as cube:
        for name, size in (("time", 4), ("y", 64), ("x", 64)):
            cube.createDimension(name, size)
            cube.createVariable(name, "f8", (name,))[:] = np.arange(size)
        cube.createVariable("B04", "f4", ("time", "y", "x"))[:] = 0.1
    run(["segment", "cube.nc", "classes.tif", "--model", "sits_rgbn_small"])


def control_points():
    points = [GroundControlPoint(y, x, 9 + x, 48 - y) for y in (0, 64) for x in (0, 64)]
    options = {"driver": "GTiff", "width": 64, "height": 64, "count": 4, "dtype": "uint16"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open("scene.tif", "w", **options) as target:
            target.gcps = points, rasterio.CRS.from_epsg(4326)
    run(["segment", "scene.tif", "classes.tif", "--model", "sits_rgbn_small"])


def no_series():
    Path("series").mkdir()
    Path("series/notes.txt").write_text("")
    prepare()


def without_names():
    write("series/lake/2023-06-01.tif", bands=[""] * 6)
    prepare()


def no_such_band():
    write("series/lake/2023-06-01.tif", bands=("B02", "B03", "B04"))
    prepare()


def eight_bits():
    for month in (5, 6):
        write(f"series/lake/2023-0{month}-01.tif", values=np.full((64, 64, 4), 100, np.uint8))
    prepare()


def floats_of_thousands():
    for month in (5, 6):
        values = np.full((64, 64, 4), 2500, np.float32)
        write(f"series/lake/2023-0{month}-01.tif", values=values)
    prepare()


def undeclared_fill():
    values = np.full((64, 64, 4), 0.1, np.float32)
    write("series/lake/2023-05-01.tif", values=values)
    values[:, 32:] = -9999
    write("series/lake/2023-06-01.tif", values=values)
    run(["inspect", "series", "-q"])


def dark_land(month: int, offset: int = 0) -> None:
    squares = np.random.default_rng(0).uniform(200, 1800, (8, 8, 4))
    values = np.rint(np.kron(squares, np.ones((8, 8, 1)))).astype(np.uint16) + np.uint16(offset)
    write(f"series/lake/2022-0{month}-01.tif", values=values)


def offset_twice():
    dark_land(1)
    with rasterio.open("series/lake/2022-01-01.tif", "r+") as raster:
        raster.scales, raster.offsets = (0.0001,) * 4, (-0.1,) * 4
    run(["inspect", "series", "-q"])


def wrapped_around():
    dark_land(1)
    write("series/lake/2023-06-01.tif", values=np.full((64, 64, 4), 65_436, np.uint16))
    run(["inspect", "series", "-q"])


def two_statements():
    find_items("inspect", "05.00", offset=0)


def offset_of_one_image():
    for month, offset in ((1, 0), (2, 1000)):
        dark_land(month, offset)
    Path("series/lake/2022-01-01.tif").rename("before.tif")
    Path("series/lake/2022-02-01.tif").rename("after.tif")
    with pytest.warns(UserWarning, match="samples of after") as caught:
        open_pair("before.tif", "after.tif")
    print(f"Warning: {caught[0].message}", file=sys.stderr)


def unread_mask():
    for month in (5, 6):
        write(f"series/lake/2023-0{month}-01.tif", bands=(*BANDS, "CLM"))
    run(["inspect", "series", "-q"])


def offset_of_2022():
    for month, offset in ((1, 0), (2, 1000), (3, 1000)):
        dark_land(month, offset)
    run(["inspect", "series", "-q"])


def empty_qa60():
    for month in (6, 7):
        values = np.full((64, 64, 5), 1000, np.uint16)
        values[..., 4] = 0
        write(f"series/lake/2022-0{month}-01.tif", bands=(*BANDS, "QA60"), values=values)
    run(["inspect", "series", "-q"])


def processed_twice():
    find_items("prepare", "02.14", "05.00")


def find_items(verb: str, *baselines: str, offset: float | None = None) -> None:
    """Give a verb the results of a search that found one acquisition in some baselines."""
    stated = {} if offset is None else {"raster:bands": [{"offset": offset}]}
    items = [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"S2A_31UFS_20200421_{baseline}",
            "geometry": None,
            "links": [],
            "properties": {
                "datetime": "2020-04-21T10:50:31Z",
                "s2:mgrs_tile": "31UFS",
                "s2:processing_baseline": baseline,
            },
            "assets": {"B04": {"href": "B04.tif", **stated}} if stated else {},
        }
        for baseline in baselines
    ]
    Path("search.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    run([verb, "search.json", *(["records"] if verb == "prepare" else []), "-q"])


def another_grid():
    write("series/lake/2023-05-01.tif")
    write("series/lake/2023-06-01.tif", corner=0.5)
    prepare()


def no_offset():
    make_safe(Path("downloads"), offset=None)
    run(["prepare", "downloads", "records", "-q"])


def nothing_left():
    for month in (5, 6):
        write(f"series/lake/2023-0{month}-01.tif")
    mask = np.ones((64, 64, 1), np.uint8)
    write("series/lake/2023-06-01_cloud.tif", bands=["cloud"], values=mask)
    prepare()


def other_settings():
    make_records()
    values = {**RunConfig().to_dict(), "records": {"folder": "", "content_sha256": ""}}
    Path("run").mkdir()
    Path("run/config.yaml").write_text(yaml.safe_dump(values))
    run(["train", "records", "run", "--width", "16", "--steps", "100"])


def not_finite():
    # Weights that diverge take a training; what looks at the terms is a callback.
    callback = StopWhenNotFinite()
    callback.first_step = 1200
    callback.on_train_batch_end(34, {"loss": float("nan"), "kl": float("inf")})


def no_checkpoint():
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/checkpoints/step-000000100.keras").write_text("")
    with pytest.warns(UserWarning, match="truncated"):
        restore_latest(small_model(), Path("run/checkpoints"))


def endless_pairs():
    images = np.zeros((1, 64, 64, 4), np.float32)
    small_model().fit(tf.data.Dataset.from_tensors((images, images)).repeat())


def another_backend():
    with mock.patch.dict(os.environ, KERAS_BACKEND="theano"), mock.patch.dict(sys.modules):
        del sys.modules["keras"]
        check_settings()


def limited_by_keras():
    keras.config.set_max_epochs(1)
    try:
        train("records", "run")
    finally:
        keras.config.set_max_epochs(None)


def no_model():
    write("a.tif")
    run(["segment", "a.tif", "classes.tif", "--model", "sits_rgbn_smal"])


def half_a_run():
    write("a.tif")
    Path("run").mkdir()
    values = {**RunConfig().to_dict(), "records": {"folder": "records"}}
    Path("run/config.yaml").write_text(yaml.safe_dump(values))
    run(["segment", "a.tif", "classes.tif", "--model", "run"])


def small_raster():
    write("a.tif", size=40)
    run(["embed", "a.tif", "vectors.tif", "--model", "sits_rgbn_small", "--stride", "32"])


def two_grids():
    write("a.tif")
    write("b.tif", corner=3)
    run(["change", "a.tif", "b.tif", "change.tif", "--model", "sits_rgbn_small"])


def one_encoder():
    write("a.tif")
    module = PAGE.parents[2] / "savedmodels" / "sits_rgbn_small" / "shared_encoder"
    Path("encoder").symlink_to(module)
    run(["translate", "a.tif", "a.tif", "out.tif", "--model", "encoder"])


def not_dense():
    write("a.tif")
    # The narrowest of the networks that pad with zeros: what is looked at is their padding.
    config = ModelConfig(width=1, shared_channels=1, exclusive_dim=1)
    save_model(DisentangledSITS(config), Path("model.keras"))
    run(["embed", "a.tif", "vectors.tif", "--model", "model.keras", "--mode", "dense"])


def there_already():
    write("a.tif")
    write("classes.tif")
    run(["segment", "a.tif", "classes.tif", "--model", "sits_rgbn_small"])


def newer_preset():
    Path("preset").mkdir()
    content = {"format": "sits_keras preset", "version": 2}
    Path("preset/preset.json").write_text(json.dumps(content))
    run(["info", "preset"])


def refused_preset():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            from_preset(f"http://127.0.0.1:{server.server_port}/preset.zip?sig=secret")
        finally:
            server.shutdown()


def web_page():
    Path("preset.zip").write_text("<html>Log in</html>")
    run(["info", Path("preset.zip").resolve().as_uri()])


def digital_numbers():
    small_encoder()(np.full((1, 64, 64, 4), 1200.0))


def integers():
    config = ModelConfig(width=1, shared_channels=1, exclusive_dim=1)
    module = hub.wrap(DisentangledSITS(config)).module  # what tf.saved_model.load gives
    module(tf.fill((1, 64, 64, 4), tf.constant(1200, tf.uint16)))


def another_shape():
    small_encoder()(np.zeros((1, 128, 128, 4)))


def port_in_use():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        check_address("127.0.0.1", server.getsockname()[1])


def several_crs():
    for name, crs in (("a.tif", "EPSG:32633"), ("b.tif", "EPSG:32632")):
        grid = Grid(64, 64, crs, UTM)
        write_raster(Path(name), np.full((64, 64, len(BANDS)), 1000, np.uint16), BANDS, grid)
    find_places([Path("a.tif"), Path("b.tif")], BANDS)


CASES: dict[str, Callable[[], object]] = {
    "File name without a date": not_a_date,
    "File name with several dates": several_dates,
    "Part of an image": part_of_an_image,
    "Two rasters of one date": one_date_twice,
    "Folder without series": no_series,
    "Other products": other_product,
    "File that is not a raster": not_a_raster,
    "URL refused by a server": refused_url,
    "Raster without bands": without_bands,
    "Time steps as bands": time_steps,
    "Raster with ground control points only": control_points,
    "Bands without names": without_names,
    "Missing band": no_such_band,
    "8-bit values": eight_bits,
    "Digital numbers as floats": floats_of_thousands,
    "Undeclared fill values": undeclared_fill,
    "Reflectance of 0 or below": offset_twice,
    "Integers that wrapped around": wrapped_around,
    "Two statements about an offset": two_statements,
    "Offset of 1,000 in some dates": offset_of_2022,
    "Offset of 1,000 in one of two images": offset_of_one_image,
    "Empty cloud mask": empty_qa60,
    "Bands that look like cloud masks": unread_mask,
    "Several granules of one date": processed_twice,
    "Dates on different grids": another_grid,
    "Product without an offset": no_offset,
    "No series passes screening": nothing_left,
    "A run has other settings": other_settings,
    "Loss term is not finite": not_finite,
    "Damaged checkpoints": no_checkpoint,
    "Pairs without an end": endless_pairs,
    "Unsupported backend of Keras": another_backend,
    "Limit of Keras for debugging": limited_by_keras,
    "Unknown model": no_model,
    "Unfinished run": half_a_run,
    "Raster too small": small_raster,
    "Rasters on different grids": two_grids,
    "Hub module instead of a whole model": one_encoder,
    "Encoder without dense mode": not_dense,
    "Existing output": there_already,
    "Preset of another version": newer_preset,
    "Preset URL refused by a server": refused_preset,
    "Web page instead of an archive": web_page,
    "Digital numbers as input of an encoder": digital_numbers,
    "Integers as input of an exported module": integers,
    "Wrong image shape": another_shape,
    "Port in use": port_in_use,
    "Files with different CRS": several_crs,
}


def make_records() -> None:
    from sits_keras.data import prepare

    for month in (5, 6):
        write(f"series/lake/2023-0{month}-01.tif")
    prepare("series", "records", progress=False)


def small_model() -> DisentangledSITS:
    model = DisentangledSITS(ModelConfig(width=1, shared_channels=1, exclusive_dim=1))
    model.compile()
    return model


def small_encoder() -> hub.HubEncoder:
    return hub.load(PAGE.parents[2] / "savedmodels" / "sits_rgbn_small" / "shared_encoder")


def quoted() -> dict[str, str]:
    """Return the message below each heading of the page, in one line."""
    sections = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {}
    for section in sections:
        message = re.search(r"```text\n(.*?)```", section, re.DOTALL)
        assert message, section[:80]
        found[section.split("\n")[0]] = " ".join(message[1].split())
    return found


def said(case: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error message of a case, in one line."""
    try:
        case()
    except (SitsKerasError, tf.errors.InvalidArgumentError) as error:
        # TensorFlow quotes what was asserted, and escapes it.
        return " ".join(f"Error: {error}".replace("\\'", "'").split())
    shown = capsys.readouterr().err
    start = shown.index("Error:" if "Error:" in shown else "Warning:")
    return " ".join(shown[start:].split())


def test_every_heading_of_the_page_is_tried():
    assert list(quoted()) == list(CASES)


@pytest.mark.parametrize("title", CASES)
def test_errors_page_quotes_actual_messages(title, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SITS_KERAS_HOME", str(tmp_path / "home"))
    pieces = re.sub("^(Error|Warning): ", "", quoted()[title]).split("...")
    pattern = ".*?".join(map(re.escape, pieces))
    message = said(CASES[title], capsys)
    assert re.search(pattern, message), message
