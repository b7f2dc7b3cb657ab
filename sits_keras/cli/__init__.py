"""The command line, `sits-keras`: a verb a module, each imported when it is called."""

import importlib
import os
import sys
from typing import Any

import click

from sits_keras.cli.messages import ShownWarnings, describe, describe_usage, say
from sits_keras.errors import suggest

VERBS = {
    "inspect": "Say which granules are fit to keep, and why the others are not.",
    "prepare": "Turn Sentinel-2 products and dated rasters into records.",
    "train": "Train a model on records, or go on with a run.",
    "export": "Write an encoder as a TF-Hub module.",
    "presets": "List the pretrained models that can be named.",
    "info": "Say what a folder or file is.",
    "embed": "Write the features of a raster's windows.",
    "translate": "Show the place of one raster at the date of another.",
    "retrieve": "Find windows of one raster in another.",
    "segment": "Map a raster by clusters of its windows' features.",
    "change": "Map what changed between two dates of a place.",
    "explore": "See in a browser what a model knows of your rasters.",
    "classify": "Train a classifier on labelled chips, or apply one.",
    "evaluate": "Fill the paper's tables for a model, and write a report.",
    "card": "Render a preset's card, with the scores of evaluations.",
}

_NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())  # click 8.2 and later
_RESUMING = ("prepare", "train", "evaluate")
"""Verbs that keep what is done when they are stopped."""


class _Interrupted(click.Abort):
    def __init__(self, verb: str | None):
        super().__init__()
        self.verb = verb


class _Verbs(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort) as error:
            raise _Interrupted(ctx.invoked_subcommand) from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(
                f"No such command {args[0]!r}. {suggest(args[0], VERBS)}"
                f"There are: {', '.join(VERBS)}."
            )
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return getattr(importlib.import_module(f"sits_keras.cli.{cmd_name}"), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Show what the libraries below say, too.")
@click.version_option(package_name="sits_keras")
def sits_keras(verbose: bool) -> None:
    """Learn shared and exclusive representations of satellite image time series.

    From Sentinel-2 products to an encoder that others can load:

    \b
      sits-keras prepare SERIES RECORDS
      sits-keras train RECORDS RUN
      sits-keras export RUN MODULE

    Or at once, with a model that is there already (`sits-keras presets` lists them):

    \b
      sits-keras segment scene.tif classes.tif --model sits_rgbn_small

    Each command says more: sits-keras COMMAND --help.
    """
    if verbose:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 2 bad input, 130 interrupted."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: in place of those of the process.
    Returns:
        The exit code.
    """
    with ShownWarnings():
        try:
            result: Any = sits_keras.main(arguments, prog_name="sits-keras", standalone_mode=False)
        except _NO_ARGUMENTS as error:
            error.show()
            return 2
        except click.UsageError as error:
            say(error, f"Error: {describe_usage(error)}")
            return 2
        except (click.exceptions.Abort, KeyboardInterrupt) as error:
            goes_on = getattr(error, "verb", None) in _RESUMING
            how = "goes on from here" if goes_on else "begins again; nothing half-written is left"
            say(error, f"Interrupted. The same command {how}.")
            return 130
        except Exception as error:
            text = describe(error)
            if text is None:
                raise
            say(error, f"Error: {text}")
            return 2
    # Click returns the code of --help and the like; the verbs return nothing.
    return result if isinstance(result, int) else 0
