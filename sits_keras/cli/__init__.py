"""Command line `sits-keras`: one verb (command) a module, imported when it is called.

Each verb parses its options and calls one function of the package. This module finds the verbs,
and prints every warning and every expected error as one line.
"""

import errno
import importlib
import importlib.util
import io
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import click

from sits_keras.errors import SitsKerasError, suggest
from sits_keras.tensorflow_import import isolate_settings

VERBS = {
    "inspect": "List the dates of image series, and which would be left out.",
    "prepare": "Convert products and dated rasters to training records.",
    "train": "Train a model on records, or resume a run.",
    "export": "Export an encoder as a TF-Hub module.",
    "presets": "List the pretrained models.",
    "info": "Show what a folder or file contains.",
    "embed": "Write an embedding raster: numbers that describe each pixel.",
    "convert": "Write an embedding raster as a Zarr store.",
    "translate": "Generate the place of one raster at the date of another.",
    "retrieve": "Find windows of one raster or series in another.",
    "query": "Find places in an embedding raster that are similar to examples.",
    "webmap": "Write rasters as a web map that opens without a server.",
    "segment": "Map a raster or series by clusters of its pixels.",
    "change": "Map change between two dates of a place, or breaks in a series.",
    "explore": "Explore rasters with a model in the browser.",
    "classify": "Train a classifier on labelled chips, or apply one.",
    "evaluate": "Compute the paper's tables for a model, and write a report.",
    "card": "Render a preset's card with the scores of evaluations.",
}

RESUMABLE = "sits_keras.resumable"
"""Key of a context's `meta` by which a verb states that the same command resumes it."""

_NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())  # click 8.2 and later
_RESUMABLE = ("prepare", "train", "evaluate")
"""Verbs that keep finished work when they are interrupted."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Texts of libraries whose errors carry no number: GDAL, HDF5, TensorFlow.
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "File too large")


class _Interrupted(click.Abort):
    def __init__(self, is_resumable: bool):
        super().__init__()
        self.is_resumable = is_resumable


class _Verbs(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort) as error:
            is_resumable = ctx.invoked_subcommand in _RESUMABLE or RESUMABLE in ctx.meta
            raise _Interrupted(is_resumable) from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(
                f"No such command {args[0]!r}. {suggest(args[0], VERBS)}"
                f"Commands: {', '.join(VERBS)}."
            )
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"sits_keras.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Show the log output of libraries.")
@click.version_option(package_name="sits_keras")
def sits_keras(verbose: bool) -> None:
    """Learn shared and exclusive representations of satellite image time series.

    From Sentinel-2 products to an encoder that any TensorFlow program can load:

    \b
      sits-keras prepare SERIES RECORDS
      sits-keras train RECORDS RUN
      sits-keras export RUN MODULE

    With a pretrained model, without training (`sits-keras presets` lists the models):

    \b
      sits-keras segment scene.tif classes.tif --model sits_rgbn_small

    Help on a command: sits-keras COMMAND --help.
    """
    isolate_settings()
    if verbose:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line as the process, and exit.

    The exit code is 0 for success, 2 for bad input and 130 for an interrupt. Two settings of the
    user's environment are overridden for this process and its workers: warnings as errors
    (`PYTHONWARNINGS=error`), which would stop at a library's warning, and an encoding of the
    console that cannot show a file's name.
    """
    if any(option.startswith("error") for option in sys.warnoptions):
        sys.warnoptions.clear()  # workers take them from here
        os.environ.pop("PYTHONWARNINGS", None)
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(arguments))


def _unset_foreign_data() -> None:
    """Unset variables that make rasterio read the data of another installation.

    Databases and conda set PROJ_LIB for programs of their own. With the data of another version,
    rasterio does not know any CRS code. Without data of its own, it needs the variables.
    """
    spec = importlib.util.find_spec("rasterio")
    if spec and spec.origin and (Path(spec.origin).parent / "proj_data").is_dir():
        for name in ("PROJ_LIB", "PROJ_DATA", "GDAL_DATA"):
            os.environ.pop(name, None)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: Arguments to use instead of those of the process.
    """
    _unset_foreign_data()
    with ShownWarnings():
        try:
            result: Any = sits_keras.main(arguments, prog_name="sits-keras", standalone_mode=False)
        except _NO_ARGUMENTS as error:
            error.show()
            return 2
        except click.UsageError as error:
            echo_error(error, f"Error: {describe_usage(error)}")
            return 2
        except (click.Abort, KeyboardInterrupt) as error:
            is_resumable = getattr(error, "is_resumable", False)
            remedy = "to resume" if is_resumable else "to start over; partial output was removed"
            echo_error(error, f"Interrupted. Rerun the same command {remedy}.")
            return 130
        except Exception as error:
            text = describe_error(error)
            if text is None:
                raise
            echo_error(error, f"Error: {text}")
            return 2
    # Click returns the code of --help and the like; the verbs return nothing.
    return result if isinstance(result, int) else 0


class ShownWarnings(warnings.catch_warnings):
    """Context that prints each warning as one line, without its source location."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    from tqdm import tqdm

    tqdm.write(f"Warning: {message}", file=sys.stderr)  # above the progress bars


def echo_error(error: BaseException | None, text: str) -> None:
    """Print a line on stderr.

    Args:
        error: Error that the line is about. Progress bars in its frames are closed first.
        text: Line to print.
    """
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    click.echo(" ".join(text.split("\n")), err=True)


def describe_error(error: Exception) -> str | None:
    """Return an expected error as a sentence, or `None` for an error of the program."""
    if isinstance(error, SitsKerasError):
        return str(error)
    is_full = any(text in str(error) for text in _FULL_TEXTS)
    number = reason = name = None
    if isinstance(error, OSError):
        number, reason, name = error.errno, error.strerror, error.filename
        is_full = is_full or number in _FULL
    if is_full:
        target = f" {name}" if name else ""
        return (
            f"Cannot write{target}: the disk is full, or a limit on its use is reached. Free some "
            "space or choose another output, then rerun the same command."
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{reason}: {name or 'a file'}. Change its permissions or choose another path."
    if reason and name:
        return f"{reason}: {name}."
    return str(error) if isinstance(error, OSError) else None


def describe_usage(error: click.UsageError) -> str:
    """Return a usage error as a sentence that names the help to read."""
    path = error.ctx.command_path if error.ctx else "sits-keras"
    text = error.format_message().rstrip(".")
    if isinstance(error, click.MissingParameter) and isinstance(error.param, click.Option):
        text += f": {error.param.help or ''}".rstrip(" .:")
    return f"{text}. See `{path} --help`."
