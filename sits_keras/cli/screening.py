"""The options of `prepare` and `inspect` that say which granules are fit to keep."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from sits_keras.cli.options import BandNames
from sits_keras.config import PrepareConfig

DEFAULT = PrepareConfig()


def check_sources(sources: Iterable[Path]) -> None:
    """Raises MissingError where a source is not there, before seconds go into loading anything."""
    from sits_keras.data.sources.series import check_there

    for source in sources:
        check_there(source)


def screening_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options."""
    for option in reversed(
        (
            click.option(
                "--bands",
                type=BandNames(),
                default=",".join(DEFAULT.bands),
                show_default=True,
                help="Bands to keep, in this order.",
            ),
            click.option(
                "--dates",
                default=DEFAULT.dates,
                show_default=True,
                help="Dates kept of a series, at most, spread over the period.",
            ),
            click.option(
                "--min-dates",
                default=DEFAULT.min_dates,
                show_default=True,
                help="Dates that a series must have left.",
            ),
            click.option(
                "--max-cloud",
                default=DEFAULT.max_cloud,
                show_default=True,
                help="Share of cloud and shadow, 0 to 1, that a granule, and each block, may have.",
            ),
            click.option(
                "--min-complete",
                default=DEFAULT.min_complete,
                show_default=True,
                help="Share of a granule's pixels, 0 to 1, and a block's, that must hold data.",
            ),
            click.option(
                "--align",
                is_flag=True,
                help="Resample dates that lie on another grid than the first of their series: "
                "bilinear, masks by the nearest pixel. Else they are an error.",
            ),
            click.option(
                "--workers",
                type=int,
                help="Processes, of about 1 GB each.  [default: one for each core where there is "
                "work for them]",
            ),
            click.option(
                "--scheduler",
                metavar="ADDRESS",
                help="A Dask scheduler to use in their place, such as tcp://host:8786.",
            ),
            click.option(
                "--include",
                multiple=True,
                help="Take these series only: a name or shell pattern; may be given several times.",
            ),
            click.option("--exclude", multiple=True, help="Leave these series out, likewise."),
            click.option("-q", "--quiet", is_flag=True, help="No progress bars."),
        )
    ):
        command = option(command)
    return command
