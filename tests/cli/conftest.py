"""Fixtures of the command line's tests."""

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sits_keras import cli
from sits_keras.cli import options


class Outcome(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command line in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def refuse(call: Callable[..., Outcome]) -> Callable[..., str]:
    """Runs a command line that must end with 2, and gives its message: a line, and nothing else."""

    def run(*arguments: object) -> str:
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
        return err.removeprefix("Error: ").rstrip("\n")

    return run


@pytest.fixture
def spawn() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m sits_keras`, in an environment that says nothing of TensorFlow."""

    def run(*arguments: object, program: tuple[str, ...] = (sys.executable, "-m", "sits_keras")):
        env = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        return subprocess.run(
            [*program, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=env
        )

    return run


@pytest.fixture(scope="session")
def loaded_encoder() -> Callable[..., Any]:
    return functools.cache(options.load_encoder)


@pytest.fixture
def load_once(
    loaded_encoder: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lets verbs load and compile encoders once, other than those that a test itself writes."""

    def load(path: Path, *encoder: str | None) -> Any:
        read = options.load_encoder if tmp_path in path.parents else loaded_encoder
        return read(path, *encoder)

    for verb in ("change", "embed", "retrieve", "segment"):
        monkeypatch.setattr(importlib.import_module(f"sits_keras.cli.{verb}"), "load_encoder", load)
