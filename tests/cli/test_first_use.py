"""Likely mistakes of a first use, and what is answered: one line, early, and nothing is lost."""

import importlib
import os
import re
import shutil

import numpy as np
import pytest

from sits_keras import cli
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.rasters.write import MapWriter
from sits_keras.errors import OutputError
from sits_keras.files import check_creatable, check_folder, check_space

pytestmark = pytest.mark.integration

BANDS = ("B02", "B03", "B04", "B08")
GRID = Grid(128, 96, "EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0))
# Verb, rasters that it reads, and what its output ends in.
WRITERS = {
    "embed": (1, ".tif"),
    "segment": (1, ".tif"),
    "change": (2, ".tif"),
    "translate": (2, ".tif"),
    "retrieve": (2, ".geojson"),
    "classify predict": (1, ".tif"),
}
TAKE_SERIES = ("embed", "segment", "retrieve", "classify predict")
each_writer = pytest.mark.parametrize("verb", WRITERS)


def values(dtype=np.uint16, scale=1.0, count=4, shape=(128, 96)):
    numbers = np.random.default_rng(0).uniform(300, 3000, (*shape, count))
    return (numbers * scale).astype(dtype)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with rasters a.tif and b.tif, a plain file, and a folder `model`."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.tif", "b.tif"):
        write_raster(tmp_path / name, values(), BANDS, GRID)
    (tmp_path / "plain").write_text("mine")
    (tmp_path / "model").mkdir()
    return tmp_path


@pytest.fixture
def without_tensorflow(monkeypatch):
    """No verb may get as far as to import TensorFlow."""

    def import_tensorflow():
        raise AssertionError("this could have been told before")

    for name in ("options", *cli.VERBS):
        module = importlib.import_module(f"sits_keras.cli.{name}")
        if hasattr(module, "import_tensorflow"):
            monkeypatch.setattr(module, "import_tensorflow", import_tensorflow)


def command(verb, out, model="model", rasters=("a.tif", "b.tif")):
    return [*verb.split(), *rasters[: WRITERS[verb][0]], out, "--model", model]


# Where the output goes


@each_writer
def test_output_that_is_an_input_is_refused(verb, here, refuse, without_tensorflow):
    content = (here / "a.tif").read_bytes()
    out = "a.tif" if WRITERS[verb][1] == ".tif" else "a.json"
    rasters = ("a.tif", "b.tif")
    if out == "a.json":
        shutil.copy("a.tif", out)
        rasters = (out, "b.tif")
    assert "is also an input. Name another" in refuse(
        *command(verb, out, rasters=rasters), "--overwrite"
    )
    assert (here / "a.tif").read_bytes() == content


@each_writer
def test_unwritable_output_is_refused_first(verb, here, refuse, without_tensorflow, monkeypatch):
    inside = f"plain/deep/out{WRITERS[verb][1]}"
    message = refuse(*command(verb, inside))
    assert f"{inside} cannot be written: " in message
    assert f"{here / 'plain'} is a file. Expected a folder." in message
    out = f"new/out{WRITERS[verb][1]}"
    monkeypatch.setattr(os, "access", lambda path, mode: path != here)
    message = refuse(*command(verb, out))
    assert f"{out} cannot be written: the folder {here} is not writable" in message
    assert not (here / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare", "series", "plain/out"),
        ("train", "records", "plain/out"),
        ("export", "model", "plain/out"),
        ("evaluate", "plain/out", "--model", "model", "--data", "series"),
        ("classify", "train", "series", "plain/out", "--model", "model"),
    ],
)
def test_unwritable_output_folder_is_refused_first(arguments, here, refuse, without_tensorflow):
    (here / "series").mkdir()
    assert "plain/out cannot be written: " in refuse(*arguments)


@each_writer
def test_output_with_other_suffix_is_refused(verb, here, refuse, without_tensorflow):
    assert " must end in ." in refuse(*command(verb, "out.doc"))


@pytest.mark.parametrize("verb", ["segment", "change"])
def test_existing_picture_is_refused_with_the_map(verb, here, refuse, without_tensorflow):
    arguments = (*command(verb, "out.tif"), "--picture")
    assert "--picture must end in .png. Received: out.jpg." in refuse(*arguments, "out.jpg")
    assert "cannot be written" in refuse(*arguments, "plain/out.png")


def test_full_disk_is_refused_first(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_creatable(tmp_path / "new" / "folder")
    check_folder(tmp_path)
    with pytest.raises(
        OutputError, match=r"out cannot be written: up to [\d,.]+ MB are needed, and"
    ):
        check_space(tmp_path / "out", tmp_path, 2 * free + 1)


# What is read


@each_writer
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.tif", "No file at none.tif. Expected a raster."),
        ("model", "model is a folder. Expected a raster: name a file."),
        ("empty.tif", "empty.tif cannot be read: it is empty."),
        ("text.tif", "text.tif cannot be read: "),
    ],
)
def test_input_that_is_not_a_raster_is_refused_first(
    verb, name, message, here, refuse, without_tensorflow
):
    (here / "empty.tif").touch()
    (here / "text.tif").write_text("B02,B03\n")
    if verb in TAKE_SERIES and name == "model":
        message = "No image series found in model. Expected "
    out = f"out{WRITERS[verb][1]}"
    assert message in refuse(*command(verb, out, rasters=(name, "b.tif")))


@pytest.mark.parametrize("verb", TAKE_SERIES)
def test_folder_of_another_kind_is_refused_first(verb, here, refuse, without_tensorflow):
    (here / "records").mkdir()
    (here / "records" / "plan.json").write_text("{}")
    message = refuse(*command(verb, f"out{WRITERS[verb][1]}", rasters=("records", "b.tif")))
    assert "records is a folder of another kind: records. Expected a raster, a folder" in message


@pytest.mark.parametrize(
    ("content", "bands", "message"),
    [
        (values(np.uint8, 0.08), BANDS, "8-bit values, which are display values, not reflectance"),
        (values(np.uint8, 0.08, 3), (None,) * 3, "8-bit values, which are display values"),
        (values(np.float32), BANDS, r"Expected about 0 to 1. Keep digital numbers as integers"),
        (values(np.complex64), BANDS, "values of type complex64. Expected uint16 digital numbers"),
        (values(count=13), (None,) * 13, "has 13 bands without names, expected 4"),
        (values(shape=(40, 40)), BANDS, "is 40 x 40 px, smaller than a window of 64 x 64 px"),
        (np.zeros((128, 96, 4), np.uint16), BANDS, "has no data: every pixel is nodata"),
        (np.full((128, 96, 4), np.nan, np.float32), BANDS, "has no data: every pixel is nodata"),
    ],
)
def test_raster_with_invalid_values_is_refused(content, bands, message, here, tiny_module, refuse):
    grid = Grid(*content.shape[:2], None, None)
    write_raster(here / "in.tif", content, [band or "" for band in bands], grid)
    assert message in refuse(
        "embed", "in.tif", "out.tif", "--model", tiny_module, "--stride", 32, "-q"
    )
    assert not (here / "out.tif").exists()


@pytest.mark.parametrize(
    ("content", "bands"),
    [
        (values(), ("B2", "B3", "B4", "B8")),
        (values(), ("blue", "green", "red", "nir")),
        (values(np.float32, 1e-4), BANDS),
        (values(np.int16) - 400, BANDS),
        (values(), ("", "", "", "")),
    ],
)
def test_raster_with_valid_values_is_read(content, bands, here, tiny_module, call):
    write_raster(here / "in.tif", content, bands, Grid(128, 96, None, None))
    code, _, err = call("embed", "in.tif", "out.tif", "--model", tiny_module, "--stride", 32, "-q")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("verb", ["embed", "prepare"])
def test_raster_of_bytes_in_16_bits_is_warned_about(verb, here, tiny_module, call):
    (here / "series").mkdir()
    for day in ("2020-01-01", "2020-02-01"):
        write_raster(here / f"series/{day}.tif", values(scale=0.08), BANDS, GRID)
    options = ("--model", tiny_module, "--stride", 32)
    arguments = ("embed", "series/2020-01-01.tif", "out.tif", *options)
    code, _, err = call(*(arguments if verb == "embed" else ("prepare", "series", "out")), "-q")
    assert code == 0
    assert err.startswith("Warning: ")
    assert "2020-01-01.tif is very dark" in err
    assert err.count("\n") == 1


# Names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_prest", "and no preset of that name. Did you mean 'tiny_preset'? Available: "),
        ("runs/tiny_preset", "No model at runs/tiny_preset. Expected a preset, a hub module"),
        ("a.tif", "a.tif is not a model. Expected a preset"),
    ],
)
def test_path_that_is_not_a_model_is_refused(name, message, here, tiny_preset, refuse):
    assert message in refuse("embed", "a.tif", "out.tif", "--model", name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_prest", "No preset 'tiny_prest'. Did you mean 'tiny_preset'?"),
        ("presets/tiny", "No preset at presets/tiny. Expected its folder, or its zip archive."),
        (
            "model",
            "model does not contain a preset. Expected a folder with preset.json, or its zip ",
        ),
    ],
)
def test_unknown_preset_is_refused(name, message, here, tiny_preset, refuse):
    assert refuse("card", name).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segmnt"], "No such command 'segmnt'. Did you mean 'segment'? Commands: inspect, "),
        (["embed", "a.tif", "o.tif"], "Missing option '--model': A preset, a hub module, a .keras"),
        (["prepare", "series"], "Expected SOURCES and then OUT. Received one path: series."),
        (["change", "a", "b", "c.tif", "--model", ".", "--stride", "0"], "not in the range 1<=x<="),
    ],
)
def test_invalid_command_line_is_one_line(arguments, message, here, refuse):
    assert message in refuse(*arguments)


def test_band_names_have_aliases(here, call):
    (here / "series").mkdir()
    for day in ("2020-01-01", "2020-02-01"):
        write_raster(here / f"series/{day}.tif", values(), BANDS, GRID)
    assert call("prepare", "series", "out", "--bands", "b4,B3,blue", "-q").code == 0
    assert '"B04",\n  "B03",\n  "B02"' in (here / "out/manifest.json").read_text()


# Ctrl-C, and a disk that runs full in the middle


@pytest.mark.parametrize("verb", ["embed", "segment", "change"])
def test_interrupt_leaves_no_output_and_prints_own_line(verb, here, tiny_run, call, monkeypatch):
    def write(self, row, rows):
        raise KeyboardInterrupt

    monkeypatch.setattr(MapWriter, "write", write)
    before = sorted(here.iterdir())
    arguments = (*command(verb, "out.tif", tiny_run), "--stride", 32)
    code, out, err = call(*arguments, *(("--clusters", 2) if verb == "segment" else ()))
    assert (code, out) == (130, "")
    assert err.endswith(
        "\nInterrupted. Rerun the same command to start over; partial output was removed.\n"
    )
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("out", ["out.parquet", "module"])
def test_disk_that_fills_up_is_reported(out, here, tiny_run, refuse):
    resource = pytest.importorskip("resource")
    pytest.importorskip("pyarrow", reason="needs the extra [parquet]")
    before = sorted(here.iterdir())
    verb = ("embed", "a.tif", out, "--model", tiny_run, "-q")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        message = refuse(*(verb if out.endswith("parquet") else ("export", tiny_run, out)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert re.match(r"Cannot write( \S+)?: the disk is full, or a limit on its use is", message)
    assert sorted(here.iterdir()) == before
