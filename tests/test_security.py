"""Claims of SECURITY.md about files of unknown origin that no other test covers."""

import keras
import pytest

import sits_keras
from sits_keras.errors import DataError


def test_load_model_with_python_code_raises(tmp_path):
    file = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)]).save(file)
    with pytest.raises(DataError, match="arbitrary code execution"):
        sits_keras.load_model(file)
