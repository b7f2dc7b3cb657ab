import json
import shutil
from pathlib import Path

import pytest

from sits_keras import DisentangledSITS


@pytest.fixture
def describe(call):
    """The facts of a path as JSON, and as text by name."""

    def run(path, *flags):
        code, out, err = call("info", path, *flags, "--json")
        assert (code, err) == (0, "")
        text = call("info", path, *flags).out
        # Two columns.
        width = max(map(len, json.loads(out))) + 2
        rows = {line[:width].rstrip(): line[width:] for line in text.splitlines()}
        return json.loads(out), rows

    return run


def test_info_of_records_describes_them(tiny_records, describe):
    facts, rows = describe(tiny_records)
    assert facts == {
        "kind": "records",
        "bands": ["B02", "B03", "B04", "B08"],
        "records": 2,
        "shards": 1,
        "bytes": sum(path.stat().st_size for path in tiny_records.glob("*.tfrecord")),
        "compression": "none",
        "series": {"a": {"dates": 3}, "b": {"dates": 3}},
        "period": ["2020-01-01", "2020-03-01"],
        "skipped": {},
    }
    assert rows["bands"] == "B02, B03, B04, B08"
    assert rows["records"] == "2"
    assert rows["series"] == "a dates 3, b dates 3"
    assert rows["period"] == "2020-01-01, 2020-03-01"
    assert rows["skipped"] == "none"
    assert list(rows) == list(facts)


def test_info_verify_altered_records_raises(tiny_records, describe, refuse, tmp_path):
    copy = Path(shutil.copytree(tiny_records, tmp_path / "records"))
    assert describe(copy, "--verify")[0]["kind"] == "records (checksums verified)"
    (shard,) = copy.glob("*.tfrecord")
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    assert describe(copy)[0]["kind"] == "records"
    assert refuse("info", copy, "--verify").startswith(f"{shard} has changed since")


def test_info_of_unfinished_records_says_how_to_resume(tiny_records, refuse, tmp_path):
    shutil.copy(tiny_records / "plan.json", tmp_path)
    assert "Its preparation is not finished: run the same" in refuse("info", tmp_path)


def test_info_of_a_run_lists_its_settings(tiny_run, tiny_config, tiny_records, describe):
    facts, rows = describe(tiny_run)
    assert facts["kind"] == "run, finished"
    assert facts["checkpoints"] == ["step-000000004.keras", "step-000000006.keras"]
    assert facts["model"] == tiny_config.model.to_dict()
    assert facts["objective"] == tiny_config.objective.to_dict()
    assert facts["optimizer"] == tiny_config.optimizer.to_dict()
    assert facts["train"] == tiny_config.train.to_dict()
    assert facts["records"] == str(tiny_records)
    assert set(facts["versions"]) == {"sits_keras", "keras", "tensorflow", "numpy"}
    assert rows["train"].startswith("steps 6, batch_size 2, seed 0, ")
    assert rows["model"].startswith("bands B02, B03, B04, B08, band_max 0.3, 0.3, 0.4, 0.6, ")


def test_info_of_an_unfinished_run(tiny_run, describe, tmp_path):
    shutil.copy(tiny_run / "config.yaml", tmp_path)
    facts, rows = describe(tmp_path)
    assert facts["kind"] == "run, not finished: rerun the same `sits-keras train` to resume it"
    assert facts["checkpoints"] == []
    assert rows["checkpoints"] == "none"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "is not YAML: while parsing"),
        ("nothing", "does not contain a YAML mapping. Expected the settings of a run."),
        ("theme: dark", "is not that of a run: it has no section model, objective, "),
        (
            "{model: 1, objective: 1, optimizer: 1, train: 1, records: none}",
            "is damaged: TypeError(",
        ),
    ],
)
def test_info_of_settings_of_another_program_raises(content, message, refuse, tmp_path):
    (tmp_path / "config.yaml").write_text(content)
    assert f"{tmp_path / 'config.yaml'} {message}" in refuse("info", tmp_path)


def test_info_of_a_model_file(tiny_run, tiny_config, describe):
    facts, rows = describe(tiny_run / "model.keras")
    assert facts["kind"] == "model"
    assert facts["steps"] == 6
    assert facts["width"] == 1
    assert facts["bands"] == ["B02", "B03", "B04", "B08"]
    assert facts["objective"] == tiny_config.objective.to_dict()
    assert rows["parameters"] == str(facts["parameters"])


def test_info_of_an_uncompiled_model(tiny_config, describe, tmp_path):
    model = DisentangledSITS(tiny_config.model)
    model.save(tmp_path / "model.keras")
    facts, _ = describe(tmp_path / "model.keras")
    assert facts["steps"] == 0
    assert facts["parameters"] == sum(int(weight.size) for weight in model.get_weights())


def test_info_of_a_hub_module(tiny_module, describe):
    facts, rows = describe(tiny_module)
    assert facts["kind"] == "hub module of the shared encoder"
    assert facts["input"] == "(batch, 64, 64, 4) reflectance"
    assert facts["features"] == 46
    assert facts["steps"] == 6
    assert rows["made_with"].startswith("sits_keras ")


def test_info_of_a_damaged_hub_module_raises(refuse, tmp_path):
    (tmp_path / "module.json").write_text("{")
    message = refuse("info", tmp_path)
    assert message.startswith(f"{tmp_path / 'module.json'} is damaged: ")
    assert message.endswith("Export the module again.")


def test_info_of_another_path_lists_what_is_supported(refuse, tmp_path):
    expected = (
        "is none of: records folder (manifest.json), run (config.yaml), hub module "
        "(module.json), preset (preset.json), classifier (classifier.json), model file (.keras). "
        "For rasters and products, use `sits-keras inspect`."
    )
    assert refuse("info", tmp_path) == f"{tmp_path} {expected}"
    other = tmp_path / "notes.txt"
    other.write_text("x")
    assert refuse("info", other) == f"{other} {expected}"
    folder = tmp_path / "folder.keras"
    folder.mkdir()
    assert refuse("info", folder) == f"{folder} {expected}"


def test_info_of_a_missing_path_raises(refuse, tmp_path):
    assert refuse("info", tmp_path / "missing") == f"Nothing at {tmp_path / 'missing'}."
