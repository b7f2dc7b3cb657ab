import json
import shutil
import subprocess
import sys

import pytest
import yaml

import sits_keras
from sits_keras import formats, identify
from sits_keras.config import RunConfig
from sits_keras.errors import DataError, MissingError

FORMATS = (
    formats.PRESET,
    formats.HUB_MODULE,
    formats.CONVERTED,
    formats.CLASSIFIER,
    formats.RECORDS,
)


def write(folder, one, **changes):
    folder.mkdir(exist_ok=True)
    content = {"format": one.name, "version": one.version, **changes}
    (folder / one.file).write_text(json.dumps(content))
    return content


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.kind)
def test_identify_folder_returns_its_kind_and_content(one, tmp_path):
    content = write(tmp_path, one, more=[1])
    found = identify(str(tmp_path))
    assert (found.kind, found.path, found.content) == (one.kind, tmp_path, content)


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.kind)
def test_identify_newer_version_asks_for_an_update(one, tmp_path):
    write(tmp_path, one, version=one.version + 1)
    with pytest.raises(DataError, match=r"newer sits_keras wrote.*Update the package: pip") as told:
        identify(tmp_path)
    assert str(tmp_path / one.file) in str(told.value)


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.kind)
@pytest.mark.parametrize("changes", [{"version": 0}, {"version": "1"}, {"format": "sits_keras x"}])
def test_identify_older_version_has_the_remedy_of_its_own_kind(changes, one, tmp_path):
    write(tmp_path, one, **changes)
    with pytest.raises(DataError) as told:
        identify(tmp_path)
    assert str(told.value).endswith(one.remedy)
    others = {other.remedy for other in FORMATS} - {one.remedy}
    assert not any(remedy in str(told.value) for remedy in others)


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.kind)
def test_identify_damaged_file_has_the_remedy_of_its_own_kind(one, tmp_path):
    (tmp_path / one.file).write_text("{")
    with pytest.raises(DataError, match="is damaged: ") as told:
        identify(tmp_path)
    assert str(told.value).endswith(one.remedy)


def test_identify_hub_module_described_by_preset_json_says_to_export_it_again(tmp_path):
    # The file name of hub modules before presets had one of their own.
    (tmp_path / "preset.json").write_text('{"format": "sits_keras hub module", "version": 1}')
    with pytest.raises(
        DataError,
        match=r"preset\.json describes a hub module\. Expected a preset there; a hub module is "
        r"described by module\.json\. Export the module again\.$",
    ):
        identify(tmp_path)


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.kind)
def test_identify_file_of_another_program_is_passed_over(one, tmp_path):
    write(tmp_path, one, format="curves")
    with pytest.raises(formats.UnknownFormatError, match="is none of: records folder"):
        identify(tmp_path)
    (tmp_path / "model.keras").touch()
    assert identify(tmp_path).kind == "model"


def test_identify_records_in_preparation_returns_records(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    assert identify(tmp_path) == formats.Identity("records", tmp_path, {})


def test_identify_run_returns_its_settings(tmp_path):
    settings = {**RunConfig().to_dict(), "records": {"folder": "records"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    found = identify(tmp_path)
    assert found.kind == "run"
    assert found.content["model"]["width"] == settings["model"]["width"]


def test_identify_settings_of_another_program_are_not_a_run(tmp_path):
    (tmp_path / "config.yaml").write_text("theme: dark")
    with pytest.raises(DataError, match="is not that of a run: it has no section model, objective"):
        identify(tmp_path)
    (tmp_path / "model.keras").touch()
    assert identify(tmp_path).kind == "model"


def test_identify_model_file_is_not_read(tmp_path):
    file = tmp_path / "step-000000004.keras"
    file.touch()
    assert identify(file) == formats.Identity("model", file, {})


def test_identify_other_file_or_missing_path_raises(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(formats.UnknownFormatError, match=r"use `sits-keras inspect`\.$"):
            identify(path)
    with pytest.raises(MissingError, match=r"^Nothing at .*none"):
        identify(tmp_path / "none")


def test_identify_reads_the_describing_file_once(tmp_path, monkeypatch):
    write(tmp_path, formats.HUB_MODULE)
    read = []
    monkeypatch.setattr(
        formats, "read_json", lambda path, remedy: read.append(path) or json.loads(path.read_text())
    )
    identify(tmp_path)
    assert read == [tmp_path / "module.json"]


def test_identify_written_path_returns_its_kind(tiny_records, tiny_run, tiny_module, tiny_preset):
    kinds = {
        tiny_records: "records",
        tiny_run: "run",
        tiny_run / "model.keras": "model",
        tiny_module: "hub module",
        tiny_preset: "preset",
        tiny_preset / "shared_encoder": "hub module",
    }
    assert {path: identify(path).kind for path in kinds} == kinds


def test_is_kind_of_a_preset_that_is_too_new_is_false(tiny_preset, tmp_path):
    copy = shutil.copytree(tiny_preset, tmp_path / "copy")
    assert formats.is_kind(copy, "preset", "run")
    assert not formats.is_kind(copy, "run")
    content = json.loads((copy / "preset.json").read_text())
    (copy / "preset.json").write_text(json.dumps({**content, "version": 2}))
    assert not formats.is_kind(copy, "preset")


def test_identify_loads_neither_tensorflow_nor_keras(tmp_path):
    write(tmp_path, formats.PRESET)
    program = (
        "import sys, sits_keras\n"
        f"print(sits_keras.identify({str(tmp_path)!r}).kind)\n"
        "assert not {'tensorflow', 'keras', 'rasterio'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "preset\n"), done.stderr
    assert "identify" in sits_keras.__all__
