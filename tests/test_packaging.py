"""The archives that are handed out: what is in them, and the wheel installed and used elsewhere."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pytest
import yaml

import sits_keras
from sits_keras import from_preset

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = {".keras", ".pb", ".index", ".data-00000-of-00001", ".h5", ".npz", ".onnx"}
DEFAULTS = ("sits_rgb_small", "sits_rgbn_small")
PRESET_FILES = (
    "README.md",
    "exclusive_layers.onnx",
    "metrics.json",
    "model.keras",
    "preset.json",
    "projection.npz",
    "shared_layers.onnx",
    "training.json",
)
MAX_WHEEL = 20 * 10**6
# Fails on a connection, then runs the command line or a program.
OFFLINE = """import socket, sys
def refuse(*arguments, **named): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
"""


def run(*command: object, cwd: Path, **options) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=600, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel that is built from it."""
    tree = tmp_path_factory.mktemp("packaging") / "tree"
    left_out = shutil.ignore_patterns(
        ".*venv*", ".git", ".*_cache", ".hypothesis", "__pycache__", "build", "dist", "demo", "site"
    )
    shutil.copytree(ROOT, tree, ignore=left_out)
    out = tree.with_name("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, cwd=tree)
    (source,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def source_files(archives: tuple[Path, Path]) -> set[str]:
    with tarfile.open(archives[0]) as archive:
        return {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}


@pytest.fixture(scope="module")
def wheel_files(archives: tuple[Path, Path]) -> set[str]:
    with zipfile.ZipFile(archives[1]) as archive:
        return set(archive.namelist())


def test_source_archive_contains_files_of_tests_and_pages(source_files):
    folders = {name.split("/")[0] for name in source_files}
    assert {"benchmarks", "docs", "examples", "sits_keras", "tests"} <= folders
    assert {"Makefile", "mkdocs.yml", "LICENSE", "savedmodels/README.md"} <= source_files
    assert {"CITATION.cff", ".ci/check_words.py"} <= source_files
    assert {"docs/make/hooks.py", "tests/docs/test_site.py", "pyproject.toml"} <= source_files


def test_the_wheel_holds_the_package_and_nothing_else(wheel_files):
    folders = {name.split("/")[0] for name in wheel_files}
    assert {one for one in folders if not one.endswith(".dist-info")} == {"sits_keras"}
    package = ROOT / "sits_keras"
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packaged = {
        f"sits_keras/presets/packaged/{name}/{file}" for name in DEFAULTS for file in PRESET_FILES
    }
    assert {name for name in wheel_files if name.startswith("sits_keras/")} == expected | packaged


def test_archives_contain_the_weights_of_the_default_presets_alone(archives, source_files):
    held = {name for name in source_files if name.startswith("savedmodels/") and "." in name}
    expected = {f"savedmodels/{name}/{file}" for name in DEFAULTS for file in PRESET_FILES}
    assert held == {"savedmodels/README.md", *expected}
    weights = {name for name in source_files if Path(name).suffix in WEIGHTS}
    files = ("model.keras", "projection.npz", "shared_layers.onnx", "exclusive_layers.onnx")
    assert weights == {f"savedmodels/{name}/{file}" for name in DEFAULTS for file in files}
    assert archives[1].stat().st_size <= MAX_WHEEL
    with zipfile.ZipFile(archives[1]) as wheel:
        for name in DEFAULTS:
            packaged = wheel.read(f"sits_keras/presets/packaged/{name}/model.keras")
            assert packaged == (ROOT / "savedmodels" / name / "model.keras").read_bytes()


def test_their_description_renders(archives):
    run(sys.executable, "-m", "twine", "check", "--strict", *archives, cwd=archives[0].parent)


def test_version_is_written_once(archives):
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == "attr: sits_keras.__version__"
    version = sits_keras.__version__
    assert all(version in archive.name for archive in archives)
    assert "project" not in tomllib.loads((ROOT / "pyproject.toml").read_text())
    naming = [
        path.name
        for path in (ROOT / "sits_keras").rglob("*.py")
        if f'"{version}"' in path.read_text(encoding="utf-8")
    ]
    assert naming == ["__init__.py"]
    # Citation tools read the file alone, so the version is repeated there.
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version


@pytest.fixture(scope="module")
def installed(archives: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "seen.pth").write_text("\n".join(seen))
    python = folder / "bin" / "python"
    command = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", archives[1])
    run(sys.executable, *command, cwd=folder)
    return python.parent


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert not any((tmp_path / name).exists() for name in ("sits_keras", "setup.cfg"))
    return tmp_path


def test_it_answers_from_anywhere(installed, elsewhere):
    assert "Commands:" in run(installed / "sits-keras", "--help", cwd=elsewhere)
    version = run(installed / "sits-keras", "--version", cwd=elsewhere)
    assert version.strip().endswith(sits_keras.__version__)
    program = (
        "import importlib.resources, sits_keras; print(sits_keras.__file__);"
        "print(*(p.name for p in importlib.resources.files('sits_keras.tasks.evaluation')"
        ".joinpath('templates').iterdir()))"
    )
    where, templates = run(installed / "python", "-c", program, cwd=elsewhere).splitlines()
    assert Path(where).is_relative_to(installed.parent)
    assert templates == "report.html"


def test_it_prepares_records_from_anywhere(installed, elsewhere, tiny_series):
    command = (installed / "sits-keras", "prepare", tiny_series, "records", "--quiet")
    printed = run(*command, cwd=elsewhere, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert printed.startswith("records: 2 records of 2 series")
    assert (elsewhere / "records" / "manifest.json").is_file()


@pytest.fixture
def offline(installed, elsewhere):
    """Runs a program with the wheel alone, in an empty folder, without a network."""

    def call(program: str, *arguments: object) -> str:
        settings = {"SITS_KERAS_HOME": str(elsewhere / "home"), "TF_CPP_MIN_LOG_LEVEL": "3"}
        return run(
            *(installed / "python", "-c", OFFLINE + program, *arguments),
            cwd=elsewhere,
            env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", **settings},
        )

    return call


def test_the_wheel_alone_makes_maps_by_name(offline, elsewhere, tiny_series):
    before, after = sorted((tiny_series / "a").glob("*.tif"))[:2]
    model = ("--model", "sits_rgbn_small", "-q")
    commands = [
        ["segment", str(before), "classes.tif", *model, "--clusters", "2", "--stride", "32"],
        ["change", str(before), str(after), "change.tif", *model],
    ]
    offline(
        "import json\n"
        "from sits_keras.cli import run\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    assert run(command) == 0, command\n",
        json.dumps(commands),
    )
    assert {file.name for file in elsewhere.glob("*.tif")} == {"classes.tif", "change.tif"}


def test_presets_of_the_wheel_have_the_features_of_the_tree(offline, elsewhere):
    values = np.random.default_rng(0).uniform(0, 0.5, (3, 64, 64, 4)).astype(np.float32)
    np.save(elsewhere / "images.npy", values)
    offline(
        "import numpy as np, sits_keras\n"
        "images = np.load('images.npy')\n"
        "for name in sys.argv[1:]:\n"
        "    for part in ('shared', 'exclusive'):\n"
        "        encoder = sits_keras.from_preset(name, part)\n"
        "        assert encoder.metadata['name'] == f'{name}-{part}'\n"
        "        features = encoder(images[..., : len(encoder.bands)])\n"
        "        np.save(f'{name}-{part}.npy', features)\n"
        "    model = sits_keras.from_preset(name)\n"
        "    assert model.steps > 0 and model.count_params() > 1e6, model\n",
        *DEFAULTS,
    )
    for name in DEFAULTS:
        for part in ("shared", "exclusive"):
            encoder = from_preset(ROOT / "savedmodels" / name, part)
            expected = np.asarray(encoder(values[..., : len(encoder.bands)]))
            assert expected.std() > 0
            features = np.load(elsewhere / f"{name}-{part}.npy")
            np.testing.assert_allclose(features, expected, atol=1e-5)
