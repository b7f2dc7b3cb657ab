import os
import subprocess
import sys

import pytest

from sits_keras import tensorflow_import
from sits_keras.tensorflow_import import import_tensorflow

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


def test_tensorflow_is_imported_quietly_and_with_onednn(noisy_import, capfd):
    import_tensorflow()
    os.write(2, b"after")
    assert noisy_import == ["tensorflow"]
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert capfd.readouterr().err == "after"


def test_what_the_environment_says_is_kept(noisy_import, monkeypatch, capfd):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    import_tensorflow()
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert capfd.readouterr().err == "I0000 cudart_stub.cc\n"


def test_stderr_is_back_when_the_import_fails(monkeypatch, capfd):
    def fail():
        raise ImportError("broken")

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setattr(tensorflow_import, "_load", fail)
    with pytest.raises(ImportError):
        import_tensorflow()
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


HEAVY = {"jax", "keras", "matplotlib", "numpy", "rasterio", "scipy", "sklearn", "tensorflow"}


def loaded_by(program):
    """Heavy libraries that a program has loaded when it ends."""
    program += f"\nimport sys; print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.split()


def test_neither_the_package_nor_the_help_of_a_verb_loads_anything_heavy():
    assert loaded_by("import sits_keras.data.tiling") == ["numpy"]
    ask = "from sits_keras import cli\nfor verb in cli.VERBS: cli.run([verb, '--help'])"
    assert loaded_by(ask) == []
