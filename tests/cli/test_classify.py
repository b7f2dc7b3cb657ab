import contextlib
import csv
import io
import json

import numpy as np
import PIL.Image
import pytest
import rasterio

from sits_keras import DisentangledSITS, ModelConfig
from sits_keras.data.rasters.read import Grid, write_raster

pytestmark = pytest.mark.integration

COLOURS = {"Dark": (30, 30, 30), "Bright": (200, 200, 200)}
RGB = ("B04", "B03", "B02")


@pytest.fixture
def few_steps(monkeypatch):
    """Lets an epoch be as short as its images."""
    from sits_keras.tasks.classification import finetuning

    monkeypatch.setattr(finetuning, "MIN_STEPS", 1)


@pytest.fixture(scope="module")
def chips(write_chips, tmp_path_factory):
    return write_chips(tmp_path_factory.mktemp("chips") / "set.zip", COLOURS, count=15, noise=20)


@pytest.fixture(scope="module")
def rgb_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "model.keras"
    model = DisentangledSITS(ModelConfig(bands=RGB, width=1, shared_channels=2, exclusive_dim=3))
    model.compile()
    model.save(file)
    return file


@pytest.fixture(scope="module")
def trained(chips, rgb_file, tmp_path_factory):
    """The folder of a classifier, with the exit code and the output of its command."""
    from sits_keras import cli

    out = tmp_path_factory.mktemp("classifier") / "kept"
    command = ["classify", "train", str(chips), str(out), "--model", str(rgb_file), "--quiet"]
    said, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        code = cli.run(command)
    return out, (code, said.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def classifier(trained):
    return trained[0]


def test_train_prints_accuracy_and_writes_folder(chips, rgb_file, trained):
    out, (code, text, err) = trained
    assert (code, err) == (0, "")
    # Wilson for 6 of 6.
    assert text == (
        f"{out}: 2 classes, accuracy 100.0% (61.0% to 100.0%) on 6 images that it was not trained "
        "on; trained on 24\n"
    )
    description = json.loads((out / "classifier.json").read_text())
    assert description["data"]["path"] == str(chips)
    assert description["model"] == str(rgb_file)
    assert sorted(one.name for one in out.iterdir() if one.suffix in (".json", ".png", ".csv")) == [
        "classifier.json",
        "confusion.png",
        "history.csv",
    ]


def test_train_passes_every_option(write_chips, tiny_run, few_steps, call, tmp_path):
    path = write_chips(tmp_path / "set", COLOURS, count=10, kind="tif")
    options = ["--mode", "full", "--epochs", 7, "--fraction", 0.5, "--split", "spatial"]
    code, text, err = call(
        *("classify", "train", path, tmp_path / "kept", "--model", tiny_run, *options),
        *("--seed", 3, "--json"),
    )
    assert code == 0
    assert "read" in err
    description = json.loads(text)
    assert description == json.loads((tmp_path / "kept" / "classifier.json").read_text())
    assert description["settings"] == {
        "mode": "full",
        "epochs": 7,
        "fraction": 0.5,
        "split": "spatial",
        "seed": 3,
    }
    assert description["bands"] == ["B02", "B03", "B04", "B08"]
    assert description["scores"]["num_train"] == 8
    assert description["scores"]["num_test"] == 4


def test_train_hub_module_is_accepted_if_frozen(
    write_chips, tiny_module, few_steps, call, refuse, tmp_path
):
    path = write_chips(tmp_path / "set.zip", COLOURS, count=5, kind="tif")
    code, *_ = call("classify", "train", path, tmp_path / "kept", "--model", tiny_module, "-q")
    assert code == 0
    message = refuse(
        *("classify", "train", path, tmp_path / "other", "--model", tiny_module),
        *("-q", "--mode", "scratch"),
    )
    assert "is a hub module, which has one encoder and no decoder" in message


def test_predict_chips_writes_csv(classifier, chips, call, tmp_path):
    out = tmp_path / "new" / "a.csv"
    code, text, err = call("classify", "predict", chips, out, "--model", classifier, "-q")
    assert (code, err) == (0, "")
    assert text == f"{out}: 30 chips; Bright 50.0%, Dark 50.0%\n"
    with out.open(newline="") as source:
        rows = list(csv.DictReader(source))
    assert [row["class"] for row in rows] == ["Bright"] * 15 + ["Dark"] * 15
    assert rows[0]["file"] == "2750/Bright/Bright_1.jpg"
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)


def test_predict_raster_writes_map(classifier, call, tmp_path):
    # Values of a colour c are a reflectance of 0.275 c / 255.
    # Chips like those of the labelled set: the features describe texture, which JPEG smooths.
    rng = np.random.default_rng(1)
    chips = []
    for colour in (30, 30, 200, 200):
        content = io.BytesIO()
        pixels = colour + rng.integers(-20, 21, (64, 64, 3))
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(content, "JPEG", quality=98)
        chips.append(np.asarray(PIL.Image.open(content)))
    values = (np.concatenate(chips, axis=1) * 2750.0 / 255).astype(np.uint16)
    grid = Grid(64, 256, "EPSG:32632", (10.0, 0.0, 6e5, 0.0, -10.0, 5e6))
    write_raster(tmp_path / "scene.tif", values, RGB, grid)
    out = tmp_path / "map.tif"
    code, text, err = call(
        *("classify", "predict", tmp_path / "scene.tif", out, "--model", classifier),
        *("--stride", 64, "--json", "--picture", tmp_path / "map.png"),
    )
    assert code == 0
    assert "classify" in err
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    with rasterio.open(out) as source:
        assert source.crs.to_epsg() == 32632
        classes = source.read(1)
    # The windows between them see the edge, which no chip has.
    assert (classes[:, :64] == 2).all()
    assert (classes[:, 192:] == 1).all()
    fractions = {"Bright": float((classes == 1).mean()), "Dark": float((classes == 2).mean())}
    assert json.loads(text) == {"out": str(out), "fractions": fractions}


def test_predict_series_writes_map_of_its_clear_dates(classifier, call, refuse, tmp_path):
    grid = Grid(64, 128, "EPSG:32632", (10.0, 0.0, 6e5, 0.0, -10.0, 5e6))
    rng = np.random.default_rng(1)
    for month, colours in ((1, (30, 200)), (2, (200, 30)), (3, (30, 200))):
        colour = np.repeat(colours, 64)[:, None]
        values = (colour + rng.integers(-20, 21, (64, 128, 3))) * 2750.0 / 255
        path = tmp_path / "lake" / f"2020-0{month}-01.tif"
        path.parent.mkdir(exist_ok=True)
        write_raster(path, values.astype(np.uint16), RGB, grid)
        mask = np.full((64, 128, 1), month == 2, np.uint8)
        write_raster(path.with_name(f"{path.stem}_cloud.tif"), mask, ["cloud"], grid)
    out = tmp_path / "map.tif"
    command = ("classify", "predict", tmp_path / "lake", out, "--model", classifier)
    code, text, err = call(*command, "--stride", 64, "-q")
    assert (code, err) == (0, "")
    assert text == f"{out}: pixels with data; Bright 50.0%, Dark 50.0%\n"
    with rasterio.open(out) as source:
        classes = source.read(1)
    assert (classes[:, :64] == 2).all()
    assert (classes[:, 64:] == 1).all()
    options = ("--model", classifier, "-q", "--from", "2020-03-01")
    rasters = sorted((tmp_path / "lake").glob("*-01.tif"))
    assert call("classify", "predict", *rasters, tmp_path / "b.tif", *options).code == 0
    assert "no date from 2020-04-01" in refuse(
        *("classify", "predict", tmp_path / "lake", tmp_path / "c.tif", *options[:2]),
        *("--from", "2020-04-01"),
    )
    assert "Received a set of chips" in refuse(
        "classify", "predict", tmp_path / "lake", tmp_path / "c.csv", *options
    )


def test_info_describes_classifier(classifier, call, refuse, tmp_path):
    code, text, _ = call("info", classifier)
    assert code == 0
    facts = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert facts["kind"] == "classifier"
    assert facts["classes"] == "Bright, Dark"
    assert facts["bands"] == "B04, B03, B02"
    assert facts["accuracy"] == "1.0"
    assert facts["mode"] == "pooled"
    assert facts["images"] == "trained on 24, tested on 6"
    (tmp_path / "classifier.json").write_text("{}")
    message = refuse("info", tmp_path)
    assert "classifier.json is of format None" in message
    assert "Expected 'sits_keras classifier', version 1. Train the classifier again." in message
    content = {"format": "sits_keras classifier", "version": 1}
    (tmp_path / "classifier.json").write_text(json.dumps(content))
    assert "classifier.json is damaged: KeyError('scores')" in refuse("info", tmp_path)


def test_classify_existing_output_is_kept(classifier, chips, rgb_file, call, refuse, tmp_path):
    message = refuse("classify", "train", chips, classifier, "--model", rgb_file, "-q")
    assert "already exists. Choose another folder, or overwrite it (--overwrite)" in message
    out = tmp_path / "a.csv"
    out.write_text("mine")
    arguments = ("classify", "predict", chips, out, "--model", classifier, "-q")
    assert "already exists" in refuse(*arguments)
    assert out.read_text() == "mine"
    picture = ("--overwrite", "--picture", tmp_path / "a.png")
    assert "Received a set of chips" in refuse(*arguments, *picture)
    assert call(*arguments, "--overwrite").code == 0
    assert out.read_text().startswith("file,class,probability")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fraction", 0.01], "is less than one image for each of 2 classes"),
        (["--split", "spatial"], "have no georeferencing"),
        (["--epochs", 0], "0 is not in the range x>=1"),
    ],
)
def test_train_invalid_option_is_refused(options, message, chips, rgb_file, call, tmp_path):
    arguments = ("classify", "train", chips, tmp_path / "kept", "--model", rgb_file, "-q")
    code, out, err = call(*arguments, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "kept").exists()


def test_classify_invalid_input_is_refused(
    classifier, chips, rgb_file, tiny_run, refuse, write_chips, tmp_path
):
    def predict(source, model=classifier):
        out = tmp_path / ("out.tif" if source.suffix == ".tif" else "out.csv")
        return refuse("classify", "predict", source, out, "--model", model, "-q")

    assert "No file at" in predict(tmp_path / "missing.tif")
    assert "does not contain chips" in predict(tmp_path)
    message = refuse("classify", "predict", chips, tmp_path / "out.tif", "--model", classifier)
    assert "is not a Sentinel-2 product. If it holds labelled chips" in message
    assert "Expected a folder with classifier.json" in predict(chips, tiny_run)
    named = Grid(64, 64, None, None)
    write_raster(tmp_path / "a.tif", np.ones((64, 64, 2), np.uint16), ("B02", "B08"), named)
    assert "has no band B04, B03. It has: B02, B08" in predict(tmp_path / "a.tif")
    assert not list(tmp_path.glob("out*"))

    def train(data, model=rgb_file):
        return refuse("classify", "train", data, tmp_path / "kept", "--model", model, "-q")

    assert "show B04, B03, B02. Received: B08" in train(chips, tiny_run)
    one = write_chips(tmp_path / "one.zip", {"Dark": (1, 1, 1)})
    assert "has one class only, Dark" in train(one)
    (tmp_path / "cut.zip").write_bytes(chips.read_bytes()[:1000])
    assert "is not a zip archive, or is truncated" in train(tmp_path / "cut.zip")
    assert not (tmp_path / "kept").exists()
