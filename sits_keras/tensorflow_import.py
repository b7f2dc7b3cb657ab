"""Import of TensorFlow, and settings of the user's environment that apply to other programs.

Modules that need TensorFlow write `from sits_keras.tensorflow_import import tf`, which explains a
missing installation in one line. Programs call `import_tensorflow` first, for speed and fewer
messages. The command line also calls `isolate_settings`.
"""

import atexit
import contextlib
import gc
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sits_keras.errors import ConfigError, MissingLibraryError

BACKENDS = ("tensorflow", "jax")
"""Backends of Keras that this package supports."""

_DEFAULTS = {
    "floatx": "float32",
    "epsilon": 1e-7,
    "image_data_format": "channels_last",
    "nnx_enabled": False,
}
_LIMITS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")


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
    # Some lines are written to the descriptor before TensorFlow has read its log level.
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        _load()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


@contextlib.contextmanager
def paused_collection() -> Iterator[None]:
    """Pause the collection of garbage while many objects are made that stay.

    Without a pause, a quarter of the import of TensorFlow is spent on searches of its own objects.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def isolate_settings() -> None:
    """Make the command line independent of settings that are meant for other programs.

    Matplotlib only writes files, whatever `MPLBACKEND` is. Keras has its default settings,
    whatever `keras.json` contains; a supported backend is kept, any other one is replaced by
    TensorFlow with a warning. Limits of epochs and steps for debugging are ignored with a warning.
    The call has to come before Keras and Matplotlib are imported, and does not import them.
    """
    os.environ["MPLBACKEND"] = "Agg"
    for name in _LIMITS:
        if (value := os.environ.pop(name, None)) is not None:
            warnings.warn(f"{name}={value} is ignored by sits-keras.", stacklevel=2)
    os.environ.pop("KERAS_NNX_ENABLED", None)
    if "keras" in sys.modules:
        return
    backend, setting = _backend_setting()
    if backend not in BACKENDS or (
        backend == "jax" and importlib.util.find_spec("jax") is None  # left from another project
    ):
        warnings.warn(
            f"The Keras backend {backend!r} ({setting}) is not available for sits-keras, which "
            "uses tensorflow instead. To avoid this warning, set KERAS_BACKEND=tensorflow.",
            stacklevel=2,
        )
        backend = "tensorflow"
    os.environ["KERAS_BACKEND"] = backend
    settings = _read_settings()
    if settings is None or any(settings.get(name, v) != v for name, v in _DEFAULTS.items()):
        folder = tempfile.mkdtemp(prefix="sits_keras-")  # without a keras.json
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["KERAS_HOME"] = folder


def check_settings() -> None:
    """Check, before Keras is imported, that its backend is one that this package supports.

    Raises:
        ConfigError: It is another one; the message names the setting and where it is.
    """
    if "keras" in sys.modules:
        return
    backend, setting = _backend_setting()
    if backend not in BACKENDS:
        raise ConfigError(unsupported_backend(backend, setting))


def unsupported_backend(backend: str, setting: str = "") -> str:
    """Return the error message for a backend of Keras that is not supported.

    Args:
        backend: Name of the backend.
        setting: Variable or file that sets it.

    Returns:
        What is wrong, what was expected and received, and what to do.
    """
    return (
        "sits_keras does not support this backend of Keras. Expected tensorflow or jax. "
        f"Received: {backend!r}{f' ({setting})' if setting else ''}. "
        "Set KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax before Python starts."
    )


def _settings_file() -> Path:
    """Return the path of keras.json, found as Keras finds it."""
    if "KERAS_HOME" in os.environ:
        return Path(os.environ["KERAS_HOME"]).expanduser() / "keras.json"
    home = Path("~").expanduser()
    return (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras" / "keras.json"


def _read_settings() -> dict[str, Any] | None:
    """Return the content of keras.json, or `None` if Keras could not read it."""
    file = _settings_file()
    try:
        if not file.exists():
            return {}
        settings = json.loads(file.read_bytes())
    except ValueError:  # not JSON, which Keras ignores
        return {}
    except OSError:
        return None
    return settings if isinstance(settings, dict) else None


def _backend_setting() -> tuple[str, str]:
    """Return the backend that Keras will use, and where it is set."""
    if name := os.environ.get("KERAS_BACKEND"):
        if name.lower() in BACKENDS:
            os.environ["KERAS_BACKEND"] = name = name.lower()
        return name, "set by the environment variable KERAS_BACKEND"
    name = (_read_settings() or {}).get("backend", "tensorflow")
    return str(name), f"set by backend in {_settings_file()}"


def _load() -> Any:
    try:
        with paused_collection():
            import tensorflow
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise MissingLibraryError(
            "TensorFlow is not installed. Records, hub modules, classifiers and the command line "
            "need it: pip install tensorflow. Without it, a model trains on JAX "
            "(KERAS_BACKEND=jax) from sits_keras.data.array_pairs."
        ) from error
    return tensorflow


def __getattr__(name: str) -> Any:
    if name == "tf":
        return _load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
