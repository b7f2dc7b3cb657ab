"""The registry of the presets that come with the package."""

import json
import shutil
from pathlib import Path

import pytest

import sits_keras
from sits_keras.errors import DataError
from sits_keras.files import sha256_of
from sits_keras.presets import folders
from sits_keras.presets.folders import read_registry, verify
from sits_keras.presets.registry import describe_version, find_version, make_headlines, register

SHIPPED = sorted(
    file.parent for file in (Path(__file__).parents[2] / "savedmodels").glob("*/preset.json")
)


def test_registry_is_that_of_the_presets_in_the_tree():
    message = "run `python docs/make/models.py`"
    assert register({}, SHIPPED, sits_keras.__version__).keys() == read_registry().keys(), message
    for folder in SHIPPED:
        versions = read_registry()[folder.name]
        assert list(versions)[-1] == sits_keras.__version__
        entry = versions[sits_keras.__version__]
        assert entry == describe_version(folder), message
        assert entry["license"]
        assert any(row["metric"] == "Recall@1" for row in entry["scores"])
        for name, facts in entry["files"].items():
            file = folder / name
            assert facts == {"sha256": sha256_of(file), "bytes": file.stat().st_size}, message


@pytest.fixture
def copy(tmp_path):
    """A shipped preset with its weights, without its modules."""
    folder = tmp_path / "packaged" / SHIPPED[0].name
    shutil.copytree(SHIPPED[0], folder, ignore=shutil.ignore_patterns("*_encoder"))
    return folder


def test_register_keeps_other_versions(copy):
    registry = register({"old": {"0.0.1": {"files": {}}}}, [copy], "0.1.0")
    assert list(registry) == sorted([copy.name, "old"])
    again = register(registry, [copy], "0.2.0")
    assert list(again[copy.name]) == ["0.1.0", "0.2.0"]
    assert again[copy.name]["0.1.0"] == again[copy.name]["0.2.0"]
    assert list(register(again, [copy], "0.2.0")[copy.name]) == ["0.1.0", "0.2.0"]


def test_find_version_is_none_of_other_weights_or_another_name(copy, tmp_path):
    version, entry = find_version(copy)
    assert (version, entry) == (sits_keras.__version__, describe_version(SHIPPED[0]))
    renamed = copy.rename(tmp_path / "lakes")
    assert find_version(renamed) == (None, describe_version(renamed))
    renamed = renamed.rename(copy)
    described = json.loads((copy / "preset.json").read_text())
    described["files"]["model.keras"]["sha256"] = "0" * 64
    (copy / "preset.json").write_text(json.dumps(described))
    assert find_version(copy)[0] is None


def test_verify_a_packaged_preset_compares_its_description_with_the_registry(copy, monkeypatch):
    monkeypatch.setattr(folders, "_PACKAGED", copy.parent)
    verify(copy)
    described = json.loads((copy / "preset.json").read_text())
    (copy / "model.keras").write_bytes(b"other weights")
    described["files"]["model.keras"] = folders.describe_file(copy / "model.keras")
    (copy / "preset.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match=r"preset\.json is damaged .*in registry\.json\. Received"):
        verify(copy)
    monkeypatch.undo()
    verify(copy)  # a preset of one's own may have the same name


def make_score(method, value, **others):
    score = dict.fromkeys(("spread", "note"))
    score |= {"task": "Classification", "metric": "accuracy", "data": "chips", "split": "all"}
    return {
        **score,
        "method": f"{method}, 100% of the labels",
        "value": value,
        "command": "",
        **others,
    }


def test_make_headlines_show_the_best_baseline_and_peer():
    scores = [
        make_score("Pooled, linear", 0.9, spread=0.01),
        make_score("Untrained, pooled, linear", 0.8),
        make_score("Band statistics, linear", 0.5),
        make_score("Band statistics, 5 nearest", 0.6),
        make_score("EfficientNet-Lite0 of ImageNet, linear", 0.92),
        make_score("Random convolutions, linear", 0.85),
        make_score("Pooled, linear", 0.7, split="other"),
    ]
    first, second = make_headlines(scores)
    assert first == {
        "task": "Classification",
        "data": "chips",
        "split": "all",
        "metric": "accuracy",
        "model": "0.9000 ± 0.0100",
        "untrained": "0.8000",
        "simple": "0.6000 (Band statistics, 5 nearest)",
        "peer": "0.9200 (EfficientNet-Lite0 of ImageNet, linear)",
        "chance": "",
    }
    assert (second["model"], second["peer"]) == ("0.7000", "")
