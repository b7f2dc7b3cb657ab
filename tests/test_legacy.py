"""Hub modules in TensorFlow 2.15 with tensorflow-addons, in a virtual environment of its own.

It is made in SITS_KERAS_LEGACY_VENV, or in .venv-legacy beside the sources, once.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sits_keras import DisentangledSITS, ModelConfig, hub

pytestmark = pytest.mark.legacy

ROOT = Path(__file__).resolve().parents[1]
LEGACY = ROOT / "examples" / "legacy"
MINUTES = 5  # to install; with uv's cache it takes seconds


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of the old environment; it is made where there is none yet."""
    venv = Path(os.environ.get("SITS_KERAS_LEGACY_VENV", ROOT / ".venv-legacy"))
    python, stamp = venv / "bin" / "python", venv / "installed.txt"
    requirements = (LEGACY / "requirements.txt").read_text()
    if stamp.is_file() and stamp.read_text() == requirements:
        return python
    base = shutil.which("python3.11")
    if base is None:
        pytest.skip("needs Python 3.11, which TensorFlow 2.15 runs on, and there is no python3.11")
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--clear", "--python", base, venv], check=True)
    try:
        subprocess.run(
            [*uv, "pip", "install", "--python", python, "-r", LEGACY / "requirements.txt"],
            check=True,
            capture_output=True,
            text=True,
            timeout=60 * MINUTES,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"TensorFlow 2.15 could not be installed within {MINUTES} minutes")
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"TensorFlow 2.15 cannot be installed, no registry may be reachable: {last}")
    stamp.write_text(requirements)
    return python


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A module of three bands, with dense functions and pooled features."""
    config = ModelConfig(
        bands=("B04", "B03", "B02"), band_max=(0.275,) * 3, width=2, shared_channels=4,
        exclusive_dim=4, padding="context",
    )  # fmt: skip
    return hub.export(DisentangledSITS(config), tmp_path_factory.mktemp("legacy") / "module")


SAME = """
import sys
import numpy as np
import tensorflow as tf
import tensorflow_hub as hub
sys.modules["sits_keras"] = None  # importing it fails
module = hub.load(sys.argv[1])
images = np.load(sys.argv[2])
np.savez(sys.argv[3], plain=module(images), flattened=module.flattened(images),
         dense=module.dense_8(tf.pad(images, [[0, 0], [31, 47], [31, 47], [0, 0]], "REFLECT")))
print(tf.__version__)
"""


def test_a_module_gives_the_same_in_tensorflow_2_15(python, module, tmp_path):
    images = np.random.default_rng(0).uniform(0, 0.3, (3, 64, 64, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [python, "-c", SAME, module, tmp_path / "images.npy", tmp_path / "out.npz"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "2.15.1"
    encoder = hub.load(module)
    expected = np.asarray(encoder(images))
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["plain"], expected, atol=1e-5)
        flattened = encoder.flattened(images)
        np.testing.assert_allclose(out["flattened"], flattened, atol=1e-5)
        np.testing.assert_allclose(out["dense"][:, 0, 0], flattened, atol=1e-4)


def test_transfer_with_tensorflow_addons_prints_scores(python, module, write_chips, tmp_path):
    colours = {"Forest": (30, 60, 20), "River": (20, 80, 160), "Field": (160, 140, 60)}
    data = write_chips(tmp_path / "set.zip", colours, count=60)
    done = subprocess.run(
        [python, LEGACY / "transfer_with_addons.py", module, data, "--epochs", "3"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "144 images to learn from, 36 to test on, 3 classes" in done.stdout
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if "|" in line][2:]
    assert [row[0] for row in rows] == ["frozen", "full"]
    for _, accuracy, kappa, loss in rows:
        assert 0 <= float(accuracy) <= 1
        assert -1 <= float(kappa) <= 1
        first, last = map(float, loss.split(" to "))
        assert last < first


def test_bands_that_pictures_do_not_show_are_refused(python, tiny_module, tmp_path):
    done = subprocess.run(
        [python, LEGACY / "transfer_with_addons.py", tiny_module, tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Error: pictures show ['B04', 'B03', 'B02']" in done.stderr
