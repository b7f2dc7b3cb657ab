"""Starting a process that uses TensorFlow: for the command line and the examples."""

import importlib
import os


def import_tensorflow() -> None:
    """Imports TensorFlow, with oneDNN on, and quietly.

    oneDNN makes a step 1.4 to 2 times faster; TensorFlow leaves it off on some processors, and
    reads the setting when it is imported. Both settings are made only where the environment does
    not have them: `TF_ENABLE_ONEDNN_OPTS=1`, `TF_CPP_MIN_LOG_LEVEL=3`. To call this late, when
    TensorFlow is imported already, does no harm and no good.

    Raises:
        MissingLibraryError: TensorFlow is not installed.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        importlib.import_module("sits_keras.needs_tensorflow")
        return
    # Some lines are written before TensorFlow has read its log level, straight to the descriptor.
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        importlib.import_module("sits_keras.needs_tensorflow")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
