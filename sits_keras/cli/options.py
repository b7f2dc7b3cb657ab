"""Kinds of option values that several verbs take."""

from typing import Any

import click


class BandNames(click.ParamType):
    """Band names by commas, as a tuple."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        return tuple(band.strip() for band in value.split(","))
