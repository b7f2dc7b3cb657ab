import json
import re
import shutil
import zipfile

import numpy as np
import pytest

from sits_keras.data.rasters.read import Grid, write_raster

pytestmark = pytest.mark.integration

BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_series):
    """A folder with something of every kind."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copytree(tiny_series, folder / "series")
    dates = sorted((tiny_series / "a").iterdir())
    (folder / "scenes").mkdir()
    shutil.copy(dates[0], folder / "scenes/scene.tif")
    pair = folder / "change/fire-1"
    pair.mkdir(parents=True)
    for name, path in zip(("before", "after"), dates, strict=False):
        shutil.copy(path, pair / f"{name}.tif")
    mask = np.zeros((128, 128, 1), np.uint8)
    mask[:60] = 1
    write_raster(pair / "mask.tif", mask, ["changed"], Grid(128, 128, None, None))
    (folder / "eurosat").mkdir()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "eurosat/EuroSATallBands.zip", "w") as archive:
        for index, name in enumerate(("Forest", "River")):
            for number in range(1, 11):
                values = rng.integers(1, 2000 * (index + 1), (64, 64, 4)).astype(np.uint16)
                chip = folder / "chip.tif"
                write_raster(chip, values, BANDS, Grid(64, 64, None, None))
                archive.write(chip, f"sets/{name}/{name}_{number}.tif")
        chip.unlink()
    with zipfile.ZipFile(folder / "eurosat/EuroSAT.zip", "w") as archive:
        archive.writestr("2750/River/River_1.jpg", b"is not read: it has no B08")
    return folder


@pytest.fixture(scope="module")
def done(data, tiny_run, tmp_path_factory):
    """An evaluation of everything, and what the command line said."""
    import contextlib
    import io

    from sits_keras import cli
    from sits_keras.tasks.classification import finetuning

    out = tmp_path_factory.mktemp("evaluation") / "out"
    command = ["evaluate", out, "--model", tiny_run, "--data", data, "--test", "b", "--quick"]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(finetuning, "MIN_STEPS", 1)
        assert cli.run([*map(str, command), "--crops", "8", "--queries", "3", "-q"]) == 0
    return out, said.getvalue()


def test_evaluate_writes_every_section(done):
    out, said = done
    names = ["translation", "retrieval", "classification", "segmentation", "change"]
    assert said.endswith(f"\n{out / 'report.html'}: {', '.join(names)}\n")
    assert sorted(path.stem for path in (out / "sections").iterdir()) == sorted(names)
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["sections"]) == names
    assert metrics["skipped"] == {}
    assert metrics["settings"]["num_crops"] == 8


def test_evaluate_tables_have_baselines_and_chance(done):
    metrics = json.loads((done[0] / "metrics.json").read_text())
    tables = {k: v for one in metrics["sections"].values() for k, v in one["tables"].items()}
    table_1 = tables["table_1"]["Image translation"]
    assert 0 < table_1["held out: mean"] < 2
    assert 0 < table_1["trained on: mean"] < 2
    assert table_1["held out: spread over seeds"] is None  # of one seed there is none
    assert tables["table_1"]["One date taken for the other"]["held out: mean"] > 0
    assert list(tables["table_1_places"]) == ["b"]
    assert list(tables["table_2"]) == [
        *("Shared features", "Shared features, grid", "Raw pixels", "Normalised pixels"),
        *("Image statistics", "Untrained encoder", "Untrained encoder, grid", "Chance"),
    ]
    places = tables["table_2_places"]
    assert list(places) == list(tables["table_2"])[:-1]
    assert all(row == {"b": tables["table_2"][name]["Recall@1"]} for name, row in places.items())
    # Windows of stride 16 in 128 px: 5 x 5.
    assert tables["table_2"]["Chance"]["Recall@1"] == pytest.approx(1 / 25)
    assert all(0 <= row["Recall@1"] <= row["Recall@5"] <= 1 for row in tables["table_2"].values())
    (table_3,) = [v for k, v in tables.items() if k.startswith("table_3")]
    assert table_3["Chance"]["accuracy"] == 0.5
    assert not [title for title in table_3 if "full training" in title]  # not in a quick one
    shares = [v for k, v in tables["segmentation"]["scene.tif"].items() if "cluster" in k]
    assert sum(shares) == pytest.approx(1)
    assert tables["change_fire"]["Chance"]["average precision"] == pytest.approx(60 / 128)


def test_evaluate_prints_the_accuracy_of_baselines_peers_and_publications(done):
    out, said = done
    lines = said.splitlines()
    (name,) = [line for line in lines if line.endswith("accuracy, %")]
    assert name.endswith("_stratified, accuracy, %")
    section = json.loads((out / "metrics.json").read_text())["sections"]["classification"]
    (table,) = [v for k, v in section["tables"].items() if k.startswith("table_3")]
    for title in ("Pooled, linear", "Untrained, linear", "Random convolutions, 5 nearest"):
        accuracy = table[f"{title}, 100% of the labels"]["accuracy"]
        assert f"| {title} | {100 * accuracy:.1f} |" in lines
    paper = (
        "| Shared features, FC(64), FC(10) | 92.4 | stratified, 80:20, B02 B03 B04 B08 | Sanchez"
    )
    assert [line for line in lines if line.startswith(paper)]


def test_evaluate_skipped_archive_is_noted(done):
    out, _ = done
    notes = json.loads((out / "metrics.json").read_text())["sections"]["classification"]["notes"]
    assert any("EuroSAT.zip is skipped: its pictures have B04, B03, B02" in one for one in notes)
    assert any("EuroSATallBands.zip is not split by longitude: A split" in one for one in notes)


def test_evaluate_report_has_all_figures_and_numbers(done):
    out, _ = done
    text = (out / "report.html").read_text()
    assert text.count("data:image/png;base64,") == len(list((out / "figures").iterdir())) >= 7
    shown = set(map(float, re.findall(r'<data value="([^"]+)">', text)))

    def numbers(values):
        if isinstance(values, dict | list):
            parts = values.values() if isinstance(values, dict) else values
            return {number for one in parts for number in numbers(one)}
        return {float(values)} if type(values) in (int, float) else set()

    assert numbers(json.loads((out / "metrics.json").read_text())) <= shown


def test_evaluate_same_command_reuses_sections(done, data, tiny_run, call):
    out, _ = done
    before = (out / "report.html").read_bytes()
    again = call(
        *("evaluate", out, "--model", tiny_run, "--data", data, "--test", "b", "--quick"),
        *("--crops", 8, "--queries", 3, "--json"),
    )
    assert again.code == 0
    assert again.err.splitlines() == [
        f"{name}: already measured"
        for name in ("translation", "retrieval", "classification", "segmentation", "change")
    ]
    assert json.loads(again.out) == json.loads((out / "metrics.json").read_text())
    assert (out / "report.html").read_bytes() == before


def test_evaluate_unknown_held_out_series_are_refused(data, tiny_run, refuse, tmp_path):
    common = ("evaluate", tmp_path / "out", "--data", data, "--quick", "-q", "--model")
    message = refuse(*common, tiny_run)
    assert "was trained on every series of the data. List the held-out series" in message
    message = refuse(*common, tiny_run / "model.keras")
    assert "does not record the series it was trained on. List the held-out series" in message
    assert "matches 'c'" in refuse(*common, tiny_run, "--test", "c")


def test_evaluate_new_series_of_run_are_held_out(data, tiny_run, call, tmp_path):
    more = tmp_path / "data"
    shutil.copytree(data / "series", more / "series")
    shutil.copytree(data / "series/a", more / "series/new[1]")
    done = call(
        *("evaluate", tmp_path / "out", "--data", more, "--model", tiny_run, "--quick", "-q"),
        *("--only", "retrieval", "--queries", 2, "--json"),
    )
    metrics = json.loads(done.out)
    assert metrics["data"]["held_out"] == ["new[1]"]
    assert metrics["data"]["trained_on"] == ["a", "b"]
    assert metrics["skipped"]["translation"] == "not selected"


def test_evaluate_invalid_input_is_refused(data, tiny_run, tiny_module, refuse, tmp_path):
    common = ("evaluate", tmp_path / "out", "--quick", "-q")
    assert "No folder at" in refuse(*common, "--model", tiny_run, "--data", tmp_path / "none")
    message = refuse(*common, "--model", tiny_module, "--data", data)
    assert "Expected a whole model" in message
    message = refuse(*common, "--model", tiny_run, "--data", data, "--only", "maps", "--test", "b")
    assert "Expected sections of translation, retrieval" in message
    assert not (tmp_path / "out").exists()
