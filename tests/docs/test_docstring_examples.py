"""The examples of docstrings run, and give what they show."""

import doctest
import importlib

import pytest

MODULES = ("callbacks", "generation", "model", "saving", "training")


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module_give_shown_results(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"sits_keras.{name}")
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    done = doctest.testmod(module, optionflags=options, report=True)
    assert done.attempted
    assert not done.failed, "see the output above"
