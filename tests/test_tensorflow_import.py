import gc
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from sits_keras import tensorflow_import
from sits_keras.errors import ConfigError
from sits_keras.tensorflow_import import (
    check_settings,
    import_tensorflow,
    isolate_settings,
    paused_collection,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def noisy_import(monkeypatch):
    """In place of an import: writes to the descriptor of stderr, as TensorFlow's libraries do."""
    imported = []

    def load():
        imported.append("tensorflow")
        os.write(2, b"I0000 cudart_stub.cc\n")

    monkeypatch.setattr(tensorflow_import, "_load", load)
    for name in ("TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    return imported


def test_import_tensorflow_is_quiet_and_enables_onednn(noisy_import, capfd):
    import_tensorflow()
    os.write(2, b"after")
    assert noisy_import == ["tensorflow"]
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert capfd.readouterr().err == "after"


def test_import_tensorflow_keeps_settings_of_environment(noisy_import, monkeypatch, capfd):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    import_tensorflow()
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert capfd.readouterr().err == "I0000 cudart_stub.cc\n"


def test_import_tensorflow_that_fails_restores_stderr(monkeypatch, capfd):
    def fail():
        raise ImportError("broken")

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setattr(tensorflow_import, "_load", fail)
    with pytest.raises(ImportError):
        import_tensorflow()
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_paused_collection_nested_and_failing_restores_collection():
    def fail():
        with paused_collection():
            assert not gc.isenabled()
            with paused_collection():
                pass
            assert not gc.isenabled()
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()


HEAVY = {"jax", "keras", "matplotlib", "numpy", "rasterio", "scipy", "sklearn", "tensorflow"}


def loaded_by(program):
    """Heavy libraries that a program has loaded when it ends."""
    program += f"\nimport sys; print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.split()


def test_package_and_help_of_verbs_load_no_heavy_library():
    assert loaded_by("import sits_keras.data.tiling") == ["numpy"]
    ask = "from sits_keras import cli\nfor verb in cli.VERBS: cli.run([verb, '--help'])"
    assert loaded_by(ask) == []


# Settings that are meant for other programs


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """A folder for keras.json, and an environment in which Keras is not imported yet."""
    monkeypatch.setattr(os, "environ", {**os.environ, "KERAS_HOME": str(tmp_path)})
    for name in [name for name in os.environ if name.startswith("KERAS_") and name != "KERAS_HOME"]:
        del os.environ[name]
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    return tmp_path / "keras.json"


def keras_home():
    return Path(os.environ["KERAS_HOME"])


@pytest.mark.parametrize(
    "content",
    [
        {"floatx": "float64"},
        {"floatx": "float16"},
        {"floatx": "bfloat16"},
        {"epsilon": 1},
        {"epsilon": 1e-3},
        {"image_data_format": "channels_first"},
        {"image_data_format": "NCHW"},
        {"nnx_enabled": True},
        ["theano"],
    ],
    ids=str,
)
def test_isolate_settings_ignores_keras_json(content, settings):
    settings.write_text(json.dumps(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        isolate_settings()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    assert keras_home() != settings.parent
    assert not list(keras_home().iterdir())


@pytest.mark.parametrize(
    "content", [None, "", "{not JSON", '{"backend": "tensorflow", "floatx": "float32"}']
)
def test_isolate_settings_without_other_settings_keeps_keras_home(content, settings):
    if content is not None:
        settings.write_text(content)
    isolate_settings()
    assert keras_home() == settings.parent


def test_isolate_settings_with_unreadable_keras_json_uses_another_folder(settings):
    settings.mkdir()  # reading it is an OSError for every user
    isolate_settings()
    assert keras_home() != settings.parent


@pytest.mark.parametrize("backend", ["theano", "torch", "numpy", "openvino"])
def test_isolate_settings_with_other_backend_warns_of_its_place(backend, settings):
    settings.write_text(json.dumps({"backend": backend}))
    with pytest.warns(UserWarning, match=rf"'{backend}' \(set by backend in {settings}\)"):
        isolate_settings()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    os.environ["KERAS_BACKEND"] = backend
    with pytest.warns(UserWarning, match=rf"'{backend}' \(set by the environment variable KERAS_"):
        isolate_settings()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


@pytest.mark.parametrize(("backend", "kept"), [("TensorFlow", "tensorflow"), ("JAX", "jax")])
def test_isolate_settings_keeps_supported_backend(backend, kept, settings):
    os.environ["KERAS_BACKEND"] = backend
    isolate_settings()
    assert os.environ["KERAS_BACKEND"] == kept


def test_isolate_settings_without_jax_uses_tensorflow(settings, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    os.environ["KERAS_BACKEND"] = "jax"
    with pytest.warns(UserWarning, match="'jax' .* is not available"):
        isolate_settings()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


@pytest.mark.parametrize("name", ["KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"])
def test_isolate_settings_ignores_limits_with_warning(name, settings):
    os.environ[name] = "1"
    with pytest.warns(UserWarning, match=f"{name}=1 is ignored"):
        isolate_settings()
    assert name not in os.environ


def test_check_settings_names_place_of_other_backend(settings):
    check_settings()
    settings.write_text('{"backend": "theano"}')
    with pytest.raises(ConfigError, match=rf"Received: 'theano' \(set by backend in {settings}\)"):
        check_settings()


def run_with(folder, program, **environment):
    """The output of a program whose keras.json is in a folder."""
    environment = {**os.environ, "KERAS_HOME": str(folder), **environment}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


HOSTILE = {
    "backend": "theano",
    "floatx": "float16",
    "epsilon": 1,
    "image_data_format": "channels_first",
}


def test_command_line_trains_whatever_keras_json_and_variables_are(
    tmp_path, tiny_records, tiny_config
):
    (tmp_path / "keras.json").write_text(json.dumps(HOSTILE))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_config.to_dict()))
    program = (
        "from sits_keras import cli\n"
        f"records = {str(tiny_records)!r}\n"
        "code = cli.run(['train', records, 'run', '--config', 'config.yaml', '-q'])\n"
        "import keras, matplotlib\n"
        "print(code, keras.config.floatx(), matplotlib.get_backend().lower())"
    )
    done = run_with(
        tmp_path,
        f"import os; os.chdir({str(tmp_path)!r})\n" + program,
        MPLBACKEND="module://matplotlib_of_a_notebook",
        KERAS_MAX_EPOCHS="1",
        KERAS_MAX_STEPS_PER_EPOCH="1",
    )
    assert done.stdout.splitlines() == ["run/model.keras: 6 steps", "0 float32 agg"], done.stderr
    warned = [line for line in done.stderr.splitlines() if line.startswith("Warning: ")]
    assert len(warned) == 3
    for name in ("KERAS_MAX_EPOCHS=1", "KERAS_MAX_STEPS_PER_EPOCH=1", "'theano'"):
        assert any(name in line for line in warned)
    assert "Traceback" not in done.stderr


def test_package_with_other_backend_raises_one_line(tmp_path):
    program = (
        "import sits_keras\n"
        "sits_keras.PrepareConfig\n"
        "try: sits_keras.DisentangledSITS\n"
        "except sits_keras.SitsKerasError as error: print(error)"
    )
    done = run_with(tmp_path, program, KERAS_BACKEND="torch")
    (line,) = done.stdout.splitlines()
    assert "Received: 'torch' (set by the environment variable KERAS_BACKEND)" in line
