"""Kinds of option values that several verbs take."""

from typing import Any

import click


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


BandNames = Names


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
