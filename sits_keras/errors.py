"""Exceptions that callers can catch.

Each class is also the builtin exception that it resembles, so `except ValueError` keeps working. A
message states what is wrong, what was expected and received (file, band, value), and what to do.
"""

import difflib
from collections import abc


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


def suggest(name: str, known: abc.Iterable[str]) -> str:
    """Return "Did you mean ...? " with the closest known name, or an empty string."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}? " if near else ""
