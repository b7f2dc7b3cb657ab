"""The archives that are handed out: what is in them, and the wheel installed and used elsewhere."""

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

import pytest
import yaml

import sits_keras

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = {".keras", ".pb", ".index", ".data-00000-of-00001", ".h5", ".npz"}


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


def test_the_source_archive_holds_what_its_tests_and_pages_need(source_files):
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
    assert {name for name in wheel_files if name.startswith("sits_keras/")} == expected


def test_neither_holds_weights(source_files, wheel_files):
    held = {name for name in source_files | wheel_files if Path(name).suffix in WEIGHTS}
    held |= {name for name in source_files if name.startswith("savedmodels/")}
    assert held == {"savedmodels/README.md"}


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
