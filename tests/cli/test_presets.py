import json
import shutil
from pathlib import Path

import pytest

import sits_keras
from sits_keras.presets.folders import read_preset
from sits_keras.tasks.evaluation.cards import command_of


def test_presets_lists_presets(tiny_preset, call):
    done = call("presets", "--json")
    (one,) = [one for one in json.loads(done.out) if one["name"] == "tiny_preset"]
    assert one["steps"] == 6
    assert one["license"] == "CC-BY-4.0"
    assert one["bytes"] == sum(
        file.stat().st_size
        for part in ("model.keras", "*_layers.onnx", "*_encoder", "*_encoder/**/*")
        for file in tiny_preset.glob(part)
        if file.is_file()
    )
    assert one["version"] is None
    shipped = [one for one in json.loads(done.out) if one["name"] == "sits_rgb_small"]
    assert [one["version"] for one in shipped] == [sits_keras.__version__]
    scores = {(row["task"], row["metric"]): row["model"] for row in shipped[0]["scores"]}
    lines = call("presets").out.splitlines()
    assert any(line.split()[:5] == ["tiny_preset", "B02", "B03", "B04", "B08"] for line in lines)
    (line,) = [line for line in lines if line.startswith("sits_rgb_small")]
    assert line.split()[1] == sits_keras.__version__
    assert scores["Retrieval", "Recall@1"] in line


def test_info_of_a_preset_by_name(tiny_preset, call, refuse):
    facts = json.loads(call("info", "tiny_preset", "--json").out)
    assert facts["kind"] == "preset"
    assert facts["features"] == {"shared": 46, "exclusive": 3}
    assert facts["folder"] == str(tiny_preset)
    assert json.loads(call("info", tiny_preset, "--verify", "--json").out)["kind"].endswith(
        "(checksums verified)"
    )
    message = refuse("info", "tiny_prset")
    assert message.startswith(
        "Nothing at tiny_prset, and no preset of that name. Did you mean 'tiny_"
    )


def test_model_option_accepts_preset_names(tiny_preset, tiny_series, call, refuse, tmp_path):
    before, after = sorted((tiny_series / "a").glob("*.tif"))[:2]
    model = ("--model", "tiny_preset", "-q")
    assert call("embed", before, tmp_path / "a.tif", *model, "--stride", 32).code == 0
    assert call("change", before, after, tmp_path / "c.tif", *model).code == 0
    assert call("translate", before, after, tmp_path / "t.tif", *model).code == 0
    assert call("export", "tiny_preset", tmp_path / "module").code == 0
    assert json.loads((tmp_path / "module/module.json").read_text())["steps"] == 6
    message = refuse("embed", before, tmp_path / "b.tif", "--model", "tiny_prset", "-q")
    assert "Expected a preset, a hub module" in message
    assert "Did you mean 'tiny_preset'?" in message


@pytest.fixture
def copy(tiny_preset, tmp_path):
    return Path(shutil.copytree(tiny_preset, tmp_path / "copy" / "tiny_preset"))


@pytest.fixture
def evaluation(copy, tiny_series, call, tmp_path):
    (tmp_path / "data").mkdir()
    shutil.copytree(tiny_series, tmp_path / "data" / "series")
    training = {"places": [{"id": "a"}]}
    (copy / "training.json").write_text(json.dumps(training))
    done = call(
        *("evaluate", tmp_path / "out", "--model", copy, "--data", tmp_path / "data", "--quick"),
        *("--only", "retrieval", "--queries", 2, "-q"),
    )
    assert done.code == 0, done.err
    return tmp_path / "out"


def test_card_copies_scores_of_an_evaluation(copy, evaluation, call, refuse):
    metrics = json.loads((evaluation / "metrics.json").read_text())
    assert metrics["data"]["held_out"] == ["b"]  # for training.json names a
    assert call("card", copy, "--scores", evaluation).code == 0
    assert call("card", copy, "--scores", evaluation).code == 0  # which replaces them
    scores = json.loads((copy / "metrics.json").read_text())["scores"]
    table = metrics["sections"]["retrieval"]["tables"]["table_2"]
    assert {(one["method"], one["metric"]): one["value"] for one in scores} == {
        (method, metric): row[metric]
        for method, row in table.items()
        for metric in ("Recall@1", "Recall@5")
    }
    command = (
        "sits-keras evaluate tiny_preset-scores --model tiny_preset --data data "
        "--only retrieval --test b --quick --queries 2"
    )
    assert {one["command"] for one in scores} == {command}
    card = (copy / "README.md").read_text()
    assert command in card
    assert f"{table['Shared features']['Recall@1']:.4f}" in card
    # Of other weights
    metrics["model"]["sha256"] = "0" * 64
    (evaluation / "metrics.json").write_text(json.dumps(metrics))
    expected = read_preset(copy)["files"]["model.keras"]["sha256"]
    message = refuse("card", copy, "--scores", evaluation)
    assert f"is of another model. Expected sha256 {expected}" in message
    (evaluation / "metrics.json").write_text("{}")
    assert "was not written by `sits-keras evaluate`" in refuse(
        "card", copy, "--scores", evaluation
    )


def test_command_of_lists_options_other_than_defaults():
    settings = {
        "num_seeds": 5, "num_crops": 640, "num_queries": 64, "stride": 4,
        "train_encoder": "none", "mode": "exact",
    }  # fmt: skip
    metrics = {"settings": settings, "data": {"folder": "my data", "held_out": ["a", "b"]}}
    assert command_of(metrics, "x", "classification") == (
        "sits-keras evaluate x-scores --model x --data 'my data' --only classification "
        "--seeds 5 --train-encoder none --mode exact"
    )
    assert "--test a,b" in command_of(metrics, "x", "translation")


def test_card_without_scores_raises(copy, refuse, tmp_path):
    assert f"No metrics.json at {tmp_path / 'none'}" in refuse(
        "card", copy, "--scores", tmp_path / "none"
    )
