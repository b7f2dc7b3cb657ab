"""Exceptions that callers can catch.

Each class is also the builtin exception that it resembles, so `except ValueError` keeps working. A
message states what is wrong, what was expected and received (file, band, value), and what to do.
"""

import contextlib
import difflib
from collections import abc
from typing import Any


class SitsKerasError(Exception):
    """Base class of every error that this package raises on purpose."""


class ArgumentError(SitsKerasError, ValueError):
    """An argument of a function, such as a tensor's shape or range, is not supported."""


class ConfigError(SitsKerasError, ValueError):
    """A setting, option or combination of settings is not supported."""


class DataError(SitsKerasError, ValueError):
    """A raster, series, record or model file is damaged or has unexpected content."""


class MissingError(SitsKerasError, FileNotFoundError):
    """An input file or folder does not exist."""


class ExistsError(SitsKerasError, FileExistsError):
    """The output exists and overwriting it was not requested."""


class OutputError(SitsKerasError, OSError):
    """The output cannot be written."""


class MissingLibraryError(SitsKerasError, ImportError):
    """An optional library that a function needs is not installed."""


class DivergedError(SitsKerasError, ArithmeticError):
    """A term of the objective or a weight is no longer finite."""


class KeptErrors:
    """Callable that keeps the package error that a function raises, and lets it pass.

    TensorFlow replaces an exception in a Python callback with an error of its own that has only
    the text. `original_errors` raises the kept exception instead.

    Args:
        function: Function to call.
    """

    def __init__(self, function: abc.Callable[..., Any]):
        self.function = function
        self.error: SitsKerasError | None = None

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        try:
            return self.function(*args)
        except SitsKerasError as error:
            self.error = error
            raise


@contextlib.contextmanager
def original_errors(*datasets: Any) -> abc.Iterator[None]:
    """Raise the package error behind an error of TensorFlow while datasets are read.

    Args:
        *datasets: Datasets whose attribute `kept_errors` is a `KeptErrors`; others are ignored.

    Yields:
        Nothing.
    """
    try:
        yield
    except SitsKerasError:
        raise
    except Exception as error:
        for dataset in datasets:
            kept = getattr(getattr(dataset, "kept_errors", None), "error", None)
            if kept is not None:
                raise kept from error
        raise


def suggest(name: str, known: abc.Iterable[str]) -> str:
    """Return "Did you mean ...? " with the closest known name, or an empty string."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}? " if near else ""
