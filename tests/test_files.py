import json

import pytest

from sits_keras.errors import DataError, ExistsError
from sits_keras.files import read_json, refuse_existing, write_json, written_aside


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_and_fail(path, write, error):
    with written_aside(path) as aside:
        write(aside)
        assert aside.exists()
        raise error


def test_written_aside_replaces_file_at_end(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with written_aside(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["notes.txt"]


def test_written_aside_path_is_beside_and_keeps_suffix(tmp_path):
    with written_aside(tmp_path / "model.keras") as aside:
        assert (aside.parent, aside.suffix) == (tmp_path, ".keras")
        assert not aside.exists()
        aside.touch()


def test_written_aside_with_error_keeps_old_file_only(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(path, lambda aside: aside.write_text("half"), KeyboardInterrupt())
    assert path.read_text() == "old"
    assert names(tmp_path) == ["notes.txt"]


def test_written_aside_replaces_folder(tmp_path):
    path = tmp_path / "module"
    path.mkdir()
    (path / "old").touch()
    with written_aside(path) as aside:
        aside.mkdir()
        (aside / "new").touch()
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["module"]


def test_written_aside_with_error_keeps_old_folder_only(tmp_path):
    path = tmp_path / "module"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(OSError, match="disk full"):
        write_and_fail(
            path, lambda aside: (aside / "new").mkdir(parents=True), OSError("disk full")
        )
    assert names(path) == ["old"]
    assert names(tmp_path) == ["module"]


def test_written_aside_replaces_leftover_of_killed_process(tmp_path):
    left = tmp_path / ".partial-module"
    left.mkdir()
    (left / "half").touch()
    with written_aside(tmp_path / "module") as aside:
        assert not aside.exists()
        aside.write_text("whole")
    assert names(tmp_path) == ["module"]


def test_written_aside_file_never_replaces_folder(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    (path / "mine").touch()
    with pytest.raises(IsADirectoryError), written_aside(path) as aside:
        aside.write_text("a picture")
    assert names(path) == ["mine"]
    assert names(tmp_path) == ["pictures"]


def test_written_aside_without_output_keeps_folder(tmp_path):
    path = tmp_path / "module"
    path.mkdir()
    with pytest.raises(FileNotFoundError), written_aside(path):
        pass
    assert path.is_dir()


def test_written_aside_replaces_current_folder(tmp_path, monkeypatch):
    path = tmp_path / "module"
    path.mkdir()
    monkeypatch.chdir(path)
    with written_aside(path.relative_to(path)) as aside:  # "."
        aside.mkdir()
        (aside / "new").touch()
    assert names(path) == ["new"]


def test_written_aside_replaces_target_of_link(tmp_path):
    target = tmp_path / "disk" / "module"
    target.mkdir(parents=True)
    (target / "old").touch()
    link = tmp_path / "module"
    link.symlink_to(target)
    with written_aside(link) as aside:
        aside.mkdir()
        (aside / "new").touch()
    assert link.is_symlink()
    assert names(target) == ["new"]
    assert names(target.parent) == ["module"]


def test_json_roundtrips_and_is_readable(tmp_path):
    values = {"place": "Forêt", "dates": [1, 2], "none": None}
    write_json(tmp_path / "a.json", values)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.startswith('{\n "place": "Forêt",')
    assert text.endswith("}\n")
    assert read_json(tmp_path / "a.json", "") == values


def test_write_json_of_other_values_keeps_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b'{"a": 1', "Expecting"),
        (b"", "Expecting value"),
        (b"\xff\xff", "codec can't decode"),
        (b"[1, 2]", "does not contain a JSON object"),
    ],
    ids=["cut off", "empty", "not UTF-8", "no object"],
)
def test_read_json_of_damaged_file_raises_with_cause_and_remedy(tmp_path, content, cause):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_json(path, "Make it again.")
    message = str(caught.value)
    assert message.startswith(f"{path} ")
    assert cause in message
    assert message.endswith(" Make it again.")


def test_read_json_of_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json", "")


def test_refuse_existing_accepts_existing_file_with_overwrite_only(tmp_path):
    refuse_existing(tmp_path / "new.tif", overwrite=False)
    (tmp_path / "old.tif").write_text("mine")
    refuse_existing(tmp_path / "old.tif", overwrite=True)
    with pytest.raises(ExistsError, match=r"old\.tif already exists.*--overwrite"):
        refuse_existing(tmp_path / "old.tif", overwrite=False)
    for overwrite in (False, True):
        with pytest.raises(ExistsError, match=r"is a folder\. Expected the name of a file"):
            refuse_existing(tmp_path, overwrite)
