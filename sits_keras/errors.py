"""What can go wrong, as classes that a caller can catch.

Each class is also the builtin that it resembles, so `except ValueError` keeps working. A message
names what was expected, what was received (file, band, value) and what to do about it.
"""

import difflib
from collections import abc


class SitsKerasError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(SitsKerasError, ValueError):
    """An argument, option or configuration value is outside what is supported."""


class DataError(SitsKerasError, ValueError):
    """A raster, series or record does not hold what it should."""


class MissingError(SitsKerasError, FileNotFoundError):
    """A file or folder that was named is not there."""


class ExistsError(SitsKerasError, FileExistsError):
    """The output is there already and would be overwritten."""


class OutputError(SitsKerasError, OSError):
    """The output cannot be written where it was asked for."""


class MissingLibraryError(SitsKerasError, ImportError):
    """A library that only a part of this package needs is not installed."""


class DivergedError(SitsKerasError, ArithmeticError):
    """A term of the objective is no longer finite."""


def suggest(name: str, known: abc.Iterable[str]) -> str:
    """The nearest of some names, as the beginning of a sentence or nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}? " if near else ""
