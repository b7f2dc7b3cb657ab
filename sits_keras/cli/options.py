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


class BandNames(click.ParamType):
    """Band names by commas, as a tuple."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        return tuple(band.strip() for band in value.split(","))
