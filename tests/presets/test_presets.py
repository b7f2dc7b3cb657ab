import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest
import yaml
from pystac.extensions.mlm import MLMExtension

import sits_keras
from sits_keras import from_preset, hub, load_model
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.hub.pooling import fit_whitening
from sits_keras.presets import folders
from sits_keras.presets.card import (
    TRAINING_FIELDS,
    check_training,
    make_item,
    render_preset_card,
    write_card,
)
from sits_keras.presets.folders import find_preset, list_presets, read_preset, verify
from sits_keras.presets.loading import export_again, save_preset, store_whitening
from sits_keras.presets.registry import SCORE_FIELDS

pytestmark = pytest.mark.integration

SHIPPED = sorted(
    file.parent for file in (Path(__file__).parents[2] / "savedmodels").glob("*/preset.json")
)
MAX_TOTAL, MAX_FILE = 135 * 10**6, 40 * 10**6


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 0.5, (3, 64, 64, 4)).astype(np.float32)


@pytest.fixture
def copy(tiny_preset, tmp_path):
    return Path(shutil.copytree(tiny_preset, tmp_path / "copy" / "tiny_preset"))


def test_from_preset_by_name_path_archive_or_url_gives_the_same_features(
    tiny_preset, images, tmp_path
):
    expected = np.asarray(from_preset("tiny_preset", "shared")(images))
    assert expected.std() > 0
    archive = shutil.make_archive(
        str(tmp_path / "archive"), "zip", tiny_preset.parent, tiny_preset.name
    )
    for given in (tiny_preset, str(tiny_preset), archive, Path(archive).as_uri()):
        encoder = from_preset(given, "shared")
        assert isinstance(encoder, hub.HubEncoder)
        np.testing.assert_array_equal(np.asarray(encoder(images)), expected)


def test_from_preset_parts_have_the_same_weights(tiny_preset, tiny_run, images):
    model, before = from_preset("tiny_preset"), load_model(tiny_run)
    assert all(map(np.array_equal, model.get_weights(), before.get_weights()))
    assert int(model.seed_generator.state[0]) == int(before.seed_generator.state[0])
    assert model.objective == before.objective
    assert not model.compiled
    assert model.steps == before.steps == 6
    for part in ("shared", "exclusive"):
        module = from_preset("tiny_preset", part)
        assert module.metadata["name"] == f"tiny_preset-{part}"
        np.testing.assert_allclose(
            module(images), hub.wrap(model, part)(images), rtol=1e-5, atol=1e-6
        )


def test_from_preset_trained_further_adds_to_the_steps(tiny_preset, tmp_path):
    model = from_preset("tiny_preset")
    weights = model.get_weights()
    model.compile(run_eagerly=True)
    pairs = np.random.default_rng(0).uniform(-1, 1, (2, 2, 64, 64, 4)).astype(np.float32)
    model.fit(pairs[0], pairs[1], batch_size=2, epochs=2, verbose=0)
    assert not all(map(np.array_equal, model.get_weights(), weights))
    again = model.save_to_preset(tmp_path / "on")
    assert read_preset(again)["steps"] == model.steps == 8
    assert from_preset(again).steps == 8


def test_save_preset_leaves_out_optimizers(tiny_preset, tiny_run):
    size = (tiny_preset / "model.keras").stat().st_size
    assert size < 0.7 * (tiny_run / "model.keras").stat().st_size


# Names


def test_from_preset_unknown_name_lists_known_names(tiny_preset):
    with pytest.raises(MissingError, match=r"No preset 'tiny_prest'. Did you mean 'tiny_preset'\?"):
        from_preset("tiny_prest")
    with pytest.raises(MissingError, match=r"Available: .*tiny_preset") as caught:
        from_preset("of another world")
    assert "Did you mean" not in str(caught.value)


def test_from_preset_without_presets_says_how_to_install_one(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_SOURCE_TREE", tmp_path / "none")
    monkeypatch.setattr(folders, "_PACKAGED", tmp_path / "none")
    monkeypatch.setenv("SITS_KERAS_HOME", str(tmp_path / "home"))
    assert list_presets() == {}
    with pytest.raises(
        MissingError, match=r"No presets are installed. Put folders of presets into .*home"
    ):
        from_preset("sits_rgbn_small")


def test_from_preset_that_a_wheel_leaves_out_says_where_it_is(tiny_preset, monkeypatch, tmp_path):
    monkeypatch.setattr(folders, "_SOURCE_TREE", tmp_path / "none")
    monkeypatch.setattr(folders, "_PACKAGED", tmp_path / "none")
    with pytest.raises(
        MissingError, match=r"not in its wheel.* Pass the path of savedmodels/sits_rgb_"
    ):
        from_preset("sits_rgb_small")


def test_from_preset_without_modules_makes_the_encoders_of_the_model(copy, images):
    for part in ("shared", "exclusive"):
        expected = from_preset(copy, part)
        shutil.rmtree(copy / f"{part}_encoder")
        encoder = pickle.loads(pickle.dumps(from_preset(copy, part)))
        np.testing.assert_allclose(encoder(images), expected(images), atol=1e-6)
        assert {**encoder.metadata, "made_with": 0} == {**expected.metadata, "made_with": 0}
    verify(copy)
    write_card(copy)
    kept = [copy / "model.keras", *copy.glob("*.onnx")]
    assert folders.count_bytes(copy, read_preset(copy)) == sum(one.stat().st_size for one in kept)
    alter(copy / "model.keras")
    with pytest.raises(DataError, match=r"model\.keras is damaged or was altered"):
        from_preset(copy, "shared")


def test_list_presets_home_takes_precedence(tiny_preset, tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    shutil.copytree(tiny_preset, tree / "tiny_preset")
    shutil.copytree(tiny_preset, tree / "other")
    monkeypatch.setattr(folders, "_SOURCE_TREE", tree)
    assert list_presets() == {"other": tree / "other", "tiny_preset": tiny_preset}
    assert find_preset("other") == tree / "other"


def test_find_preset_of_another_folder_raises(tiny_module, tmp_path):
    with pytest.raises(
        DataError, match=r"is a hub module, not a preset. Expected a folder with preset.json"
    ):
        find_preset(tiny_module)
    archive = shutil.make_archive(str(tmp_path / "module"), "zip", tmp_path)
    with pytest.raises(DataError, match=r"does not contain a preset\. Expected preset\.json"):
        find_preset(archive)


def test_from_preset_unknown_part_raises(tiny_preset):
    with pytest.raises(ConfigError, match=r"'model', 'shared' or 'exclusive'. Received: 'decoder'"):
        from_preset(tiny_preset, "decoder")


def test_list_presets_loads_no_heavy_library(tiny_preset):
    program = (
        "import socket, sys\n"
        "def refuse(*arguments, **named): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from sits_keras.presets import folders\n"
        "print(*folders.list_presets())\n"
        "assert not {'tensorflow', 'keras', 'requests'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tiny_preset" in done.stdout.split()


# Checksums


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("model.keras", "model"),
        ("shared_encoder/saved_model.pb", "shared"),
        ("shared_encoder/variables/variables.data-00000-of-00001", "shared"),
        ("shared_encoder/module.json", "shared"),
        ("exclusive_encoder/saved_model.pb", "exclusive"),
    ],
)
def test_from_preset_altered_or_missing_file_raises_before_loading(file, part, copy, monkeypatch):
    expected = read_preset(copy)["files"][file]["sha256"]
    for name in ("load", "wrap"):
        monkeypatch.setattr(hub, name, None)  # a call would fail
    monkeypatch.setattr("sits_keras.saving.load_file", None)
    alter(copy / file)
    received = folders.sha256_of(copy / file)
    with pytest.raises(DataError) as caught:
        from_preset(copy, part)
    assert str(caught.value) == (
        f"{copy / file} is damaged or was altered. Expected: sha256 {expected}. Received: "
        f"{received}. Fetch the preset again."
    )
    (copy / file).unlink()
    with pytest.raises(DataError, match=f"{file} is missing. Expected a file of sha256 {expected}"):
        from_preset(copy, part)


def test_from_preset_unlisted_file_raises(copy):
    (copy / "shared_encoder/assets").mkdir(exist_ok=True)
    (copy / "shared_encoder/assets/more.bin").write_bytes(b"x")
    from_preset(copy, "exclusive")
    with pytest.raises(DataError, match=r"more.bin is not among the files that preset.json lists"):
        from_preset(copy, "shared")


def test_verify_passes_over_hidden_files(copy):
    (copy / "shared_encoder/.DS_Store").write_bytes(b"x")
    (copy / "shared_encoder/variables/._variables.index").write_bytes(b"x")
    verify(copy)


def test_find_preset_archive_of_macos_is_found(copy, tmp_path):
    (copy.parent / "__MACOSX").mkdir()
    (copy.parent / "__MACOSX/._tiny_preset").write_bytes(b"x")
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", copy.parent)
    assert read_preset(find_preset(archive))["name"] == "tiny_preset"


def test_from_preset_list_without_part_raises(copy):
    preset = read_preset(copy)
    preset["files"] = {"model.keras": preset["files"]["model.keras"]}
    (copy / "preset.json").write_text(json.dumps(preset))
    shutil.rmtree(copy / "shared_encoder")
    (copy / "shared_encoder").mkdir()
    with pytest.raises(DataError, match=r"lists no file of shared_encoder"):
        from_preset(copy, "shared")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "x"}'])
def test_from_preset_damaged_preset_json_raises(text, copy):
    (copy / "preset.json").write_text(text)
    with pytest.raises(
        DataError,
        match=r"preset\.json (is damaged|is of format|does not contain).*Fetch the preset",
    ):
        from_preset(copy)


def test_from_preset_of_a_newer_version_asks_for_an_update(copy):
    preset = json.loads((copy / "preset.json").read_text())
    (copy / "preset.json").write_text(json.dumps({**preset, "version": 2}))
    for part in ("model", "shared"):
        with pytest.raises(DataError, match=r"version 2, which a newer sits_keras.*Update the pac"):
            from_preset(copy, part)


def test_find_preset_by_name_of_a_newer_version_asks_for_an_update(copy, tmp_path, monkeypatch):
    preset = json.loads((copy / "preset.json").read_text())
    (copy / "preset.json").write_text(json.dumps({**preset, "version": 2}))
    monkeypatch.setenv("SITS_KERAS_HOME", str(copy.parent))
    assert "tiny_preset" not in list_presets()
    with pytest.raises(DataError, match="version 2, which a newer sits_keras"):
        find_preset("tiny_preset")


# Writing


def test_save_preset_existing_folder_raises(tiny_preset, tmp_path):
    model = from_preset(tiny_preset)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ExistsError, match=r"already exists. Name another folder, or pass overw"):
        save_preset(model, tmp_path / "mine")
    with pytest.raises(ExistsError, match=r"it is not a preset"):
        save_preset(model, tmp_path / "mine", overwrite=True)


def test_save_preset_that_fails_leaves_nothing(tiny_preset, tmp_path):
    with pytest.raises(ConfigError, match=r"training has no field place. Expected some of: places"):
        save_preset(from_preset(tiny_preset), tmp_path / "p", training={"place": []})
    assert not list(tmp_path.iterdir())


def test_export_again_writes_the_same_modules(copy, images):
    before = read_preset(copy)
    expected = np.asarray(from_preset(copy, "shared")(images))
    (copy / "metrics.json").write_text('{"scores": []}')
    alter(copy / "shared_encoder/saved_model.pb")
    assert export_again(copy) == copy
    after = verify(copy)
    assert {**after, "files": None} == {**before, "files": None}
    assert list(after["files"]) == list(before["files"])
    assert after["files"]["model.keras"] == before["files"]["model.keras"]
    np.testing.assert_allclose(from_preset(copy, "shared")(images), expected, atol=1e-6)
    assert (copy / "training.json").is_file()
    assert not list(copy.parent.glob(".partial*"))


def test_store_whitening_is_part_of_the_model_and_its_module(copy, images):
    model = from_preset(copy)
    whitening = fit_whitening(model, [np.random.default_rng(1).uniform(0, 0.5, (40, 64, 64, 4))])
    assert store_whitening(copy, whitening) == copy
    facts = verify(copy)
    assert facts["encoders"]["shared"]["is_whitened"]
    assert not facts["encoders"]["exclusive"]["is_whitened"]
    features = np.asarray(from_preset(copy, "shared")(images))
    np.testing.assert_allclose(np.square(features).mean(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(hub.wrap(from_preset(copy))(images), features, atol=1e-4)
    assert not list(copy.parent.glob(".partial*"))


# The card and the item


def score(**values):
    return {**dict.fromkeys(SCORE_FIELDS), "task": "Retrieval", "metric": "Recall@1", **values}


def test_write_card_shows_all_scores_with_commands(copy):
    common = {"data": "series b", "split": "held out", "command": "sits-keras evaluate x"}
    scores = [
        score(method="Shared features", value=0.71234, spread=0.01, note="A note.", **common),
        score(method="Raw pixels", value=0.75, **common),
        score(method="Image statistics", value=0.5, **common),
        score(method="Chance", value=0.01, **common),
        score(method="Shared features", metric="Recall@5", value=0.9, **common),
    ]
    (copy / "metrics.json").write_text(json.dumps({"scores": scores}))
    card = write_card(copy).read_text()
    assert "### Retrieval: series b\n\nSplit: held out.\n" in card
    assert "| method | Recall@1 | Recall@5 |" in card
    assert "| Shared features | 0.7123 ± 0.0100 | 0.9000 |\n| Raw pixels | 0.7500 |  |" in card
    assert "A note.\n\n```\nsits-keras evaluate x\n```" in card
    # One row of the first table: this model, the untrained encoder, the best baseline and peer.
    shown = "**0.7123 ± 0.0100** |  | 0.7500 (Raw pixels) |  | 0.0100 |"
    assert f"| Retrieval | series b | held out | Recall@1 | {shown}" in card
    assert card.index("## Scores") < card.index(shown) < card.index("<details>")
    del scores[1]["command"]
    (copy / "metrics.json").write_text(json.dumps({"scores": scores}))
    with pytest.raises(DataError, match=r"fields missing or unknown: command. Expected task, metr"):
        write_card(copy)


def test_render_preset_card_shows_training(copy):
    place = {"id": "lake", "dates": 3, "period": ["2020-01", "2020-03"], "licence": "CC|BY"}
    told = {"places": [place], "hours": 1.5, "batch_size": 32, "known_failures": ["Snow."]}
    (copy / "training.json").write_text(json.dumps(told))
    card = render_preset_card(copy)
    assert "| lake |  | 3 | 2020-01 to 2020-03 |  | CC\\|BY |" in card
    summary = "<summary>Training data: 1 places. Licences: CC|BY (1)</summary>"
    assert card.index("<details>") < card.index(summary) < card.index("| lake |")
    assert "- 6 steps of 32 pairs" in card
    assert "## Limits\n\n- Snow.\n" in card
    assert "## Intended use\n\n- Not stated.\n" in card
    assert "```bibtex\n@inproceedings{sanchez2019learning," in card
    assert set(check_training(told)) == set(TRAINING_FIELDS) - set(told)


def test_item_is_read_by_pystac(tiny_preset):
    item = pystac.Item.from_file(str(tiny_preset / "item.json"))
    mlm = MLMExtension.ext(item)
    assert mlm.mlm_name == item.id == "tiny_preset"
    assert item.properties["mlm:input"][0]["bands"] == ["B02", "B03", "B04", "B08"]
    assert item.properties["mlm:pretrained"] is True
    models = [one for one in item.assets.values() if "mlm:model" in one.roles]
    assert len(models) == 3
    for asset in item.assets.values():
        assert (tiny_preset / asset.href).is_file()
    for asset in models:
        file = tiny_preset / asset.href
        assert asset.extra_fields["file:checksum"] == "1220" + folders.sha256_of(file)
        assert asset.extra_fields["file:size"] == file.stat().st_size


def test_card_begins_with_front_matter_that_is_yaml(copy):
    places = [{"id": "a", "source": "Fields: of the World"}, {"id": "b", "source": "none"}]
    (copy / "training.json").write_text(json.dumps({"places": places}))
    empty, text, body = render_preset_card(copy).split("---\n", 2)
    values = yaml.safe_load(text)
    assert (empty, body[:14]) == ("", "\n# tiny_preset")
    assert values["license"] == "cc-by-4.0"
    assert values["library_name"] == "keras"
    assert values["pipeline_tag"] == "image-feature-extraction"
    assert "sentinel-2" in values["tags"]
    assert values["datasets"] == ["Fields: of the World", "none"]


def test_write_card_updates_the_checksums_of_the_modules_cards(copy):
    module = copy / "shared_encoder"
    for name in ("README.md", "item.json"):
        (module / name).write_text("{}")
    with pytest.raises(DataError, match="is damaged or was altered"):
        verify(copy)
    write_card(copy)
    verify(copy)
    assert "# tiny_preset-shared" in (module / "README.md").read_text()


# What ships


def check_shipped(folder):
    verify(folder)
    assert (folder / "README.md").read_text() == render_preset_card(folder)
    assert json.loads((folder / "item.json").read_text()) == make_item(read_preset(folder))
    assert read_preset(folder)["name"] == folder.name
    assert max(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= MAX_FILE


def test_check_shipped_altered_card_fails(tiny_preset, copy):
    check_shipped(tiny_preset)
    card = copy / "README.md"
    card.write_text(card.read_text().replace("6 steps", "7 steps"))
    with pytest.raises(AssertionError):
        check_shipped(copy)


@pytest.mark.skipif(not SHIPPED, reason="no preset in savedmodels/")
def test_shipped_presets_are_complete_with_current_cards():
    for folder in SHIPPED:
        check_shipped(folder)
        assert check_training(folders.read_training(folder)) in ([], ["tried"])
        assert folders.read_scores(folder)
        assert read_preset(folder)["license"]
    files = [file for folder in SHIPPED for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= MAX_TOTAL


def test_from_preset_is_exported_by_the_package():
    assert "from_preset" in sits_keras.__all__
