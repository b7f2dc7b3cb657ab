"""Kinds of option values that several verbs take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sits_keras.data.band_order import band_name
from sits_keras.errors import ConfigError


class NumberOrAuto(click.ParamType):
    """A number, or the word `auto`."""

    name = "number|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        if value == "auto":
            return "auto"
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'auto'.", param, ctx)


class Names(click.ParamType):
    """Names by commas, as a tuple."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        return tuple(name.strip() for name in value.split(","))


class BandNames(Names):
    """Names of bands by commas, as a tuple of those that are used here."""

    name = "bands"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        return tuple(map(band_name, super().convert(value, param, ctx)))


class Numbers(click.ParamType):
    """Numbers by commas, as a tuple."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        try:
            return tuple(float(number) for number in value.split(","))
        except ValueError:
            self.fail(f"{value!r} are no numbers by commas, such as 0.3,0.6.", param, ctx)


class PixelAt(click.ParamType):
    """A pixel, ROW,COL."""

    name = "row,col"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        try:
            row, col = map(int, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no ROW,COL, such as 120,64.", param, ctx)
        return row, col


def check_suffix(path: Path, what: str, *suffixes: str) -> None:
    """Raises ConfigError where a file that is to be written has none of some suffixes."""
    if path.suffix.lower() not in suffixes:
        shown = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}" if suffixes[1:] else suffixes[0]
        raise ConfigError(f"{what} must end in {shown}. Received: {path}.")


def check_rasters(*paths: Path) -> None:
    """Sees that rasters can be opened, before seconds go into loading anything.

    Raises:
        MissingError, DataError: as `data.raster.read_info`.
    """
    from sits_keras.data.rasters.read import read_info

    for path in paths:
        read_info(path)


def stride_option(default: int, help_text: str, most: int | None = None) -> Callable[..., Any]:
    """The option `--stride`, of at least 1 px."""
    return click.option(
        "--stride",
        type=click.IntRange(1, most),
        metavar="PX",
        default=default,
        show_default=True,
        help=help_text,
    )


def mode_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the option `--mode`."""
    return click.option(
        "--mode",
        type=click.Choice(["exact", "dense"]),
        help="Encode each window alone, or the raster as a whole: the same features, much faster, "
        "from models that were trained for it.  [default: dense where the model and the stride "
        "allow it]",
    )(command)


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options `--workers` and `--scheduler` of verbs that encode windows."""
    for option in (
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="A Dask scheduler to use in their place, such as tcp://host:8786.",
        ),
        click.option(
            "--workers",
            default=1,
            show_default=True,
            help="Processes that encode windows, of about 1 GB each; one uses all cores.",
        ),
    ):
        command = option(command)
    return command
