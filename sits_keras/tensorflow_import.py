"""The one place that imports TensorFlow.

Modules that need it write `from sits_keras.tensorflow_import import tf`: where TensorFlow is not
installed, one line says what to do. Programs call `import_tensorflow` first, for speed and quiet.
"""

import os
from typing import Any

from sits_keras.errors import MissingLibraryError


def import_tensorflow() -> None:
    """Import TensorFlow with oneDNN enabled and without its start-up messages.

    oneDNN makes a training step 1.4 to 2 times faster. TensorFlow disables it on some processors
    and reads the setting at import. `TF_ENABLE_ONEDNN_OPTS=1` and `TF_CPP_MIN_LOG_LEVEL=3` are set
    only where the environment does not define them. If TensorFlow is already imported, the call
    has no effect.

    Raises:
        MissingLibraryError: TensorFlow is not installed.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        _load()
        return
    # Some lines are written before TensorFlow has read its log level, straight to the descriptor.
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        _load()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


def _load() -> Any:
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise MissingLibraryError(
            "Records, hub modules, classifiers and the command line need TensorFlow, which is not "
            "installed: pip install tensorflow. Without it, a model trains on JAX "
            "(KERAS_BACKEND=jax) from sits_keras.data.array_pairs."
        ) from error
    return tensorflow


def __getattr__(name: str) -> Any:
    if name == "tf":
        return _load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
