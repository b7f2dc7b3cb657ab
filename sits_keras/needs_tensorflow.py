"""TensorFlow, for the modules that cannot do without it.

They import it from here, so that where it is missing one line says what to do.
"""

from sits_keras.errors import MissingLibraryError

try:
    import tensorflow as tf
except ModuleNotFoundError as error:
    if error.name != "tensorflow":
        raise
    raise MissingLibraryError(
        "Records, hub modules, classifiers and the command line need TensorFlow, which is not "
        "installed: pip install tensorflow. Without it, a model trains on JAX (KERAS_BACKEND=jax) "
        "from sits_keras.data.array_pairs."
    ) from error

__all__ = ["tf"]
