"""Fixtures of the command line's tests."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from sits_keras import cli


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
