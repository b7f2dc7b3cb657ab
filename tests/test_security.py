"""What SECURITY.md says of files of unknown origin, where no other test says it."""

import keras
import pytest

import sits_keras
from sits_keras.errors import DataError


def test_python_code_in_a_keras_file_is_refused(tmp_path):
    file = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)]).save(file)
    with pytest.raises(DataError, match="arbitrary code execution"):
        sits_keras.load_model(file)
