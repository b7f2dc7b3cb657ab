"""What the command line says where something is wrong: one line, and nothing glued to it."""

import errno
import sys
import traceback
import warnings
from typing import Any

import click

from sits_keras.errors import SitsKerasError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# As libraries say it whose errors carry no number: GDAL, HDF5, TensorFlow.
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "File too large")


class ShownWarnings(warnings.catch_warnings):
    """While it is entered, warnings are shown as a line each, without where they come from."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _show


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    from tqdm import tqdm

    tqdm.write(f"Warning: {message}", file=sys.stderr)  # above the bars


def say(error: BaseException | None, text: str) -> None:
    """Says a line on stderr.

    Args:
        error: what it is about. Progress bars that wait in its frames are closed first.
        text: the line.
    """
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    click.echo(" ".join(text.split("\n")), err=True)


def describe(error: Exception) -> str | None:
    """An error as a sentence; `None` where it is one of the program, not of what it was given."""
    if isinstance(error, SitsKerasError):
        return str(error)
    is_full = any(text in str(error) for text in _FULL_TEXTS)
    number = why = name = None
    if isinstance(error, OSError):
        number, why, name = error.errno, error.strerror, error.filename
        is_full = is_full or number in _FULL
    if is_full:
        where = f", writing {name}" if name else ""
        return (
            f"The disk is full, or a limit on what may be written is reached{where}. Free some "
            "space, or name another place, then call the same command again."
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{why}: {name or 'a file'}. Change its permissions, or name another place."
    if why and name:
        return f"{why}: {name}."
    return str(error) if isinstance(error, OSError) else None


def describe_usage(error: click.UsageError) -> str:
    """A wrong command line as a sentence, with where to look."""
    path = error.ctx.command_path if error.ctx else "sits-keras"
    text = error.format_message().rstrip(".")
    if isinstance(error, click.MissingParameter) and isinstance(error.param, click.Option):
        text += f": {error.param.help or ''}".rstrip(" .:")
    return f"{text}. See `{path} --help`."
