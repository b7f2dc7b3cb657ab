"""Handles of Hugging Face and Kaggle, with their own clients and a local stand-in of the hosts."""

import hashlib
import json
import random
import sys
from pathlib import Path

import fake_hosts
import pytest

from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.files import sha256_of
from sits_keras.presets import upload_preset
from sits_keras.presets.folders import find_preset, verify
from sits_keras.presets.handles import is_handle

# Both clients write 1 or 10 MiB at a time.
CUT, RESUMED = 11_000_000, 10 * 2**20
HANDLES = {"hf": f"hf://{fake_hosts.HF_NAME}", "kaggle": f"kaggle://{fake_hosts.KAGGLE_NAME}"}


@pytest.fixture
def preset(tmp_path):
    """A preset without a model that can be loaded: handles do not load it."""
    folder = tmp_path / "tiny"
    (folder / "shared_encoder").mkdir(parents=True)
    content = {
        "model.keras": random.Random(0).randbytes(12_000_000),
        "shared_encoder/saved_model.pb": b"graph",
        "shared_encoder/module.json": b"{}",
        "projection.npz": b"projection",
        "shared_layers.onnx": b"layers",
    }
    for name, values in content.items():
        (folder / name).write_bytes(values)
    files = {
        name: {"sha256": hashlib.sha256(values).hexdigest(), "bytes": len(values)}
        for name, values in content.items()
    }
    described = {"format": "sits_keras preset", "version": 1, "license": "MIT", "files": files}
    (folder / "preset.json").write_text(json.dumps(described))
    return folder


@pytest.fixture
def hosts(preset, tmp_path, monkeypatch):
    """Both hosts, which serve the preset, and the clients' settings for them."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra [hf]")
    pytest.importorskip("kagglehub", reason="needs the extra [kaggle]")
    kaggle_env = pytest.importorskip("kagglesdk.kaggle_env", reason="needs the extra [kaggle]")
    with fake_hosts.serve() as served:
        served.files = {
            file.relative_to(preset).as_posix(): file.read_bytes()
            for file in sorted(preset.rglob("*"))
            if file.is_file()
        }
        # What HF_ENDPOINT and HF_HOME set before the client is imported.
        template = served.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        local = kaggle_env.KaggleEnv.LOCAL
        monkeypatch.setitem(kaggle_env._env_to_endpoint, local, served.address)
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
        monkeypatch.setenv("KAGGLE_USERNAME", "maps")
        monkeypatch.setenv("KAGGLE_KEY", "test")
        yield served


def downloads(hosts):
    return [one for one in hosts.asked if one[0] == "GET" and one[1].endswith("model.keras")]


@pytest.mark.parametrize("kind", HANDLES)
def test_find_preset_by_handle_downloads_once_to_the_cache_of_the_client(kind, hosts, tmp_path):
    folder = find_preset(HANDLES[kind])
    assert folder.resolve().is_relative_to(tmp_path / kind)
    listed = verify(folder)["files"]
    assert len(listed) == 5
    assert [name for name in listed if not (folder / name).is_file()] == []
    assert len(downloads(hosts)) == 1
    assert find_preset(HANDLES[kind]) == folder
    assert len(downloads(hosts)) == 1


@pytest.mark.parametrize("kind", HANDLES)
def test_find_preset_after_an_interrupted_download_continues(kind, hosts):
    hosts.cut["model.keras"] = CUT
    with pytest.raises(DataError, match=r"cannot be transferred: .*Repeat the command"):
        find_preset(HANDLES[kind])
    hosts.cut.clear()
    hosts.asked.clear()
    verify(find_preset(HANDLES[kind]))
    ranges = [one[2] for one in downloads(hosts) if one[2]]
    # huggingface_hub keeps complete files alone between calls.
    assert ranges == ([f"bytes={RESUMED}-"] if kind == "kaggle" else [])
    others = [one for one in hosts.asked if one[1].endswith("saved_model.pb") and one[0] == "GET"]
    assert not others or kind == "kaggle"


def test_find_preset_whose_connection_is_cut_resumes_within_the_call(hosts):
    hosts.cut["model.keras"] = CUT
    hosts.recovers = True
    verify(find_preset(HANDLES["hf"]))
    assert [one[2] for one in downloads(hosts)] == [None, f"bytes={RESUMED}-"]


@pytest.mark.parametrize("kind", HANDLES)
def test_find_preset_with_altered_files_is_refused_and_nothing_kept(kind, hosts, tmp_path):
    good = hosts.files["model.keras"]
    hosts.files["model.keras"] = bytes([good[0] ^ 1]) + good[1:]
    with pytest.raises(DataError, match=r"is refused, and its files were removed: .*was altered"):
        find_preset(HANDLES[kind])
    kept = [file for file in (tmp_path / kind).rglob("*") if file.is_file()]
    assert not [file for file in kept if file.stat().st_size > 1000]
    hosts.files["model.keras"] = good
    verify(find_preset(HANDLES[kind]))


@pytest.mark.parametrize("kind", HANDLES)
def test_find_preset_with_the_checksum_of_the_description(kind, hosts, preset, tmp_path):
    checksum = sha256_of(preset / "preset.json")
    verify(find_preset(f"{HANDLES[kind]}#sha256={checksum}"))
    with pytest.raises(DataError, match=rf"differs from the handle.*{'0' * 64}.*{checksum}"):
        find_preset(f"{HANDLES[kind]}#sha256={'0' * 64}")
    assert not [file for file in (tmp_path / kind).rglob("model.keras") if file.exists()]


@pytest.mark.parametrize("kind", HANDLES)
def test_upload_preset_then_from_preset_gives_same_files(kind, hosts, preset):
    expected, hosts.files = hosts.files, {}
    pinned = upload_preset(preset, HANDLES[kind])
    assert pinned == f"{HANDLES[kind]}#sha256={sha256_of(preset / 'preset.json')}"
    assert hosts.files == expected
    verify(find_preset(pinned))
    (preset / "model.keras").write_bytes(b"damaged")
    with pytest.raises(DataError, match="damaged or was altered"):
        upload_preset(preset, HANDLES[kind])


@pytest.mark.parametrize("kind", HANDLES)
def test_find_preset_by_an_unknown_handle_says_to_check_it(kind, hosts):
    hosts.files.clear()
    hosts.is_created = False
    handle = HANDLES[kind].replace("maps", "nobody")
    if kind == "kaggle":
        pytest.skip("the stand-in has one model on Kaggle")
    with pytest.raises(MissingError, match=r"was not found, or needs a login \(404\).*Check the"):
        find_preset(handle)


@pytest.mark.parametrize(
    "handle",
    [
        "hf://name",
        "hf://a/b/c",
        "hf://a/b#sha256=1",
        "hf://a/b#",
        "kaggle://a/b",
        "kaggle://a/b/keras/c/latest",
    ],
)
def test_find_preset_malformed_handle_raises(handle):
    assert is_handle(handle)
    with pytest.raises(ConfigError, match=rf"Expected hf://owner/name.*Received: {handle}\."):
        find_preset(handle)


def test_upload_preset_to_a_version_raises(preset):
    for handle in ("hf://a/b@main", "kaggle://a/b/keras/c/1", f"hf://a/b#sha256={'0' * 64}"):
        with pytest.raises(ConfigError, match="without version and checksum"):
            upload_preset(preset, handle)


@pytest.mark.parametrize(("kind", "library"), [("hf", "huggingface_hub"), ("kaggle", "kagglehub")])
def test_find_preset_without_the_client_says_what_to_install(kind, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)  # importing it then fails
    with pytest.raises(MissingError, match=rf"needs {library}.*pip install 'sits_keras\[{kind}\]'"):
        find_preset(HANDLES[kind])


def test_names_and_paths_are_no_handles():
    assert not any(map(is_handle, ("sits_rgbn_small", "hf/a", str(Path("/hf:/a")), "https://a")))
