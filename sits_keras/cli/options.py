"""Options, checks and messages that several verbs share."""

import datetime
import json
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sits_keras.bands import band_name
from sits_keras.config import PrepareConfig, help_of
from sits_keras.errors import ConfigError, DataError, MissingError
from sits_keras.files import check_suffix, refuse_existing
from sits_keras.formats import MODEL_NAME, Identity, UnknownFormatError, identify
from sits_keras.presets.download import is_url
from sits_keras.presets.folders import (
    could_be_name,
    describe_known,
    find_named,
    find_preset,
)
from sits_keras.presets.handles import is_handle
from sits_keras.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from sits_keras.hub import HubEncoder
    from sits_keras.model import DisentangledSITS

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


class NumberOrAuto(ParamType):
    """A number, or the word `auto`."""

    name = "number|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        """Return a float or "auto"."""
        if value == "auto":
            return "auto"
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'auto'.", param, ctx)


class Names(ParamType):
    """Comma-separated names, as a tuple."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names without surrounding spaces."""
        return tuple(name.strip() for name in value.split(","))


class BandNames(Names):
    """Comma-separated band names, as a tuple of the package's names."""

    name = "bands"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the band names."""
        return tuple(map(band_name, super().convert(value, param, ctx)))


class Numbers(ParamType):
    """Comma-separated numbers, as a tuple."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return floats."""
        try:
            return tuple(float(number) for number in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers, such as 0.3,0.6.", param, ctx)


class PixelAt(ParamType):
    """A pixel, ROW,COL."""

    name = "row,col"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return (row, column)."""
        if isinstance(value, tuple):
            return value
        try:
            row, col = map(int, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not ROW,COL, such as 120,64.", param, ctx)
        return row, col


class PlaceAt(ParamType):
    """A place, LON,LAT."""

    name = "lon,lat"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Return (longitude, latitude)."""
        if isinstance(value, tuple):
            return value
        try:
            lon, lat = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not LON,LAT, such as 11.35,46.49.", param, ctx)
        return lon, lat


class Date(click.DateTime):
    """A date, YYYY-MM-DD."""

    name = "date"

    def __init__(self) -> None:
        super().__init__(["%Y-%m-%d"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a date without a time."""
        found = super().convert(value, param, ctx)
        return found.date() if isinstance(found, datetime.datetime) else found


class OutPath(click.Path):
    """An output path with one of several suffixes.

    Args:
        name: Name of the argument, for the error.
        *suffixes: Accepted suffixes, in lower case.
    """

    def __init__(self, name: str, *suffixes: str) -> None:
        super().__init__(path_type=Path)
        self._name, self._suffixes = name, suffixes

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Return the path; raise ConfigError if it has another suffix."""
        path: Any = super().convert(value, param, ctx)
        check_suffix(path, self._name, *self._suffixes)
        return path


def raster_argument(name: str, metavar: str | None = None) -> Decorator:
    """Return a decorator that adds an argument for the path of a raster."""
    return click.argument(name, metavar=metavar, type=click.Path(path_type=Path))


def sources_argument(metavar: str) -> Decorator:
    """Return a decorator that adds an argument for the paths of a raster or a series."""
    return click.argument(
        "sources", metavar=metavar, nargs=-1, required=True, type=click.Path(path_type=Path)
    )


def out_argument(*suffixes: str) -> Decorator:
    """Return a decorator that adds the argument OUT with one of some suffixes."""
    return click.argument("out", type=OutPath("OUT", *suffixes))


def check_paths(
    rasters: Iterable[Path], outs: Iterable[Path | None], overwrite: bool = False
) -> None:
    """Check the inputs and outputs of a verb, before its model is loaded.

    Args:
        rasters: Rasters to read.
        outs: Files to write, None for an option that was not given.
        overwrite: Whether existing files may be replaced.

    Raises:
        ExistsError: If an output exists and `overwrite` is false, or is one of the rasters.
        OutputError: If an output cannot be written.
        MissingError: If a raster does not exist.
        DataError: If a raster cannot be read.
    """
    from sits_keras.data.rasters.read import read_info

    rasters = list(rasters)
    for out in outs:
        if out is not None:
            refuse_existing(out, overwrite, rasters)
    for raster in rasters:
        read_info(raster)


def check_series_paths(
    sources: Iterable[Path], outs: Iterable[Path | None], overwrite: bool = False
) -> None:
    """Check the inputs and outputs of a verb that takes rasters and series.

    Args:
        sources: Rasters, folders, products and files of STAC items.
        outs: As in `check_paths`.
        overwrite: As in `check_paths`.

    Raises:
        MissingError: If a source does not exist.
        ConfigError: If a source is a folder of another kind, such as a run.
        DataError: If a folder does not contain a series.
    """
    from sits_keras.data.sources.series import holds_series

    sources = list(sources)
    outs = list(outs)
    for out in outs:
        if out is not None:
            refuse_existing(out, overwrite, sources)
    for source in sources:
        if source.is_dir():
            _check_folder(source)
    rasters = [one for one in sources if not holds_series(one)]
    check_sources([one for one in sources if one not in rasters])
    check_paths(rasters, outs, overwrite)


def _check_folder(folder: Path) -> None:
    """Raise if a folder is one that this package writes, or does not contain a series."""
    from sits_keras.data.sources.series import find_series

    try:
        kind = identify(folder).kind
    except (UnknownFormatError, DataError):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the verb warns when it reads the series
            find_series([folder], allow_conflicts=True)
        return
    raise ConfigError(
        f"{folder} is a folder of another kind: {kind}. Expected a raster, a folder of dated "
        "rasters, Sentinel-2 products or STAC items."
    )


def echo_result(text: str, values: Any = None) -> None:
    """Print what was written: a line of text, or values as JSON.

    Args:
        text: Paths and a summary.
        values: JSON values to print instead, None for the text.
    """
    click.echo(text if values is None else json.dumps(values, indent=1))


def stride_option(default: int, help_text: str, most: int | None = None) -> Decorator:
    """Return a decorator that adds the option `--stride`, of 1 to `most` px."""
    return click.option(
        "--stride",
        type=click.IntRange(1, most),
        metavar="PX",
        default=default,
        show_default=True,
        help=help_text,
    )


def window_options(command: Command) -> Command:
    """Add the options `--mode`, `--workers` and `--scheduler` of verbs that encode windows."""
    for option in (
        scheduler_option,
        click.option(
            "--workers",
            default=1,
            show_default=True,
            help="Processes that encode windows, of about 1 GB each. One uses all cores.",
        ),
        mode_option,
    ):
        command = option(command)
    return command


def period_options(command: Command) -> Command:
    """Add `--from`, `--to` and `--newest`, as the parameters `first`, `last` and `newest`."""
    for option in (
        click.option(
            "--newest",
            is_flag=True,
            help="Use the newest of several products of one tile and date. Otherwise they are an "
            "error.",
        ),
        click.option(
            "--to",
            "last",
            type=Date(),
            metavar="YYYY-MM-DD",
            help="Last acquisition date of a series to use.",
        ),
        click.option(
            "--from",
            "first",
            type=Date(),
            metavar="YYYY-MM-DD",
            help="First acquisition date of a series to use.",
        ),
    ):
        command = option(command)
    return command


scheduler_option = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler to use instead of processes, such as tcp://host:8786.",
)

quiet_option = click.option(
    "-q",
    "--quiet",
    "progress",
    is_flag=True,
    callback=lambda ctx, param, value: not value,
    help="Show no progress bars.",
)


def mode_option(command: Command) -> Command:
    """Add the option `--mode`."""
    return click.option(
        "--mode",
        type=click.Choice(["exact", "dense"]),
        help="Encode each window separately, or the raster as a whole: the same features, much "
        "faster, from models that were trained for it.  [default: dense where the model and the "
        "stride allow it]",
    )(command)


def json_option(help_text: str) -> Decorator:
    """Return a decorator that adds the option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help=help_text)


def picture_option(help_text: str) -> Decorator:
    """Return a decorator that adds the option `--picture`, of verbs that write rasters."""
    return click.option(
        "--picture", type=OutPath("--picture", ".png"), metavar="PNG", help=help_text
    )


def output_options(command: Command) -> Command:
    """Add the options `--overwrite` and `--quiet`; the latter as the parameter `progress`."""
    for option in (
        quiet_option,
        click.option("--overwrite", is_flag=True, help="Overwrite existing output files."),
    ):
        command = option(command)
    return command


DEFAULT = PrepareConfig()


def check_sources(sources: Iterable[Path]) -> None:
    """Check that sources exist, before TensorFlow is imported.

    Args:
        sources: Files and folders.

    Raises:
        MissingError: If a source does not exist.
    """
    from sits_keras.data.sources.series import check_there

    for source in sources:
        check_there(source)


def screening_options(command: Command) -> Command:
    """Add the options of verbs that screen series for clouds and missing data."""
    for option in reversed(
        (
            click.option(
                "--bands",
                type=BandNames(),
                default=",".join(DEFAULT.bands),
                show_default=True,
                help=help_of(PrepareConfig, "bands"),
            ),
            click.option(
                "--dates",
                default=DEFAULT.dates,
                show_default=True,
                help=help_of(PrepareConfig, "dates"),
            ),
            click.option(
                "--min-dates",
                default=DEFAULT.min_dates,
                show_default=True,
                help=help_of(PrepareConfig, "min_dates"),
            ),
            click.option(
                "--max-cloud",
                default=DEFAULT.max_cloud,
                show_default=True,
                help=help_of(PrepareConfig, "max_cloud"),
            ),
            click.option(
                "--min-complete",
                default=DEFAULT.min_complete,
                show_default=True,
                help=help_of(PrepareConfig, "min_complete"),
            ),
            click.option(
                "--align",
                is_flag=True,
                help=help_of(PrepareConfig, "align"),
            ),
            click.option(
                "--newest",
                is_flag=True,
                help="Use the newest of several products of one tile and date, by processing "
                "baseline. Otherwise they are an error.",
            ),
            click.option(
                "--workers",
                type=int,
                help="Processes, of about 0.3 GB each.  [default: one for each core, if there is "
                "enough work]",
            ),
            scheduler_option,
            click.option(
                "--include",
                multiple=True,
                help="Use these series only: a name or shell pattern. Repeat it for several.",
            ),
            click.option(
                "--exclude",
                multiple=True,
                help="Skip these series: a name or shell pattern. Repeat it for several.",
            ),
            quiet_option,
        )
    ):
        command = option(command)
    return command


_KINDS = "a preset, a hub module, a .keras file, or the folder of a finished run"


class ModelPath(click.Path):
    """Path of a model, or a preset's name, the URL of its zip archive, or its handle.

    Args:
        missing: Function that returns the error if nothing has that name.
    """

    name = "model"

    def __init__(self, missing: Callable[[Path], MissingError] | None = None) -> None:
        super().__init__(path_type=Path)
        self._missing = missing or no_model

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path; that of the preset's folder for a name, a URL or a handle."""
        text = str(value)
        if not Path(text).exists():
            if is_url(text) or is_handle(text):
                return find_preset(text)
            if (named := find_named(text)) is not None:
                return named
            raise self._missing(Path(text))
        return super().convert(value, param, ctx)


def no_model(path: Path) -> MissingError:
    """Return the error for a MODEL that does not exist; for a name it lists the known presets.

    Args:
        path: The path or name.
    """
    if not could_be_name(path):
        return MissingError(f"No model at {path}. Expected {_KINDS}.")
    return MissingError(
        f"No model at {path}, and no preset of that name. {describe_known(str(path))} Expected "
        f"{_KINDS}."
    )


def model_option(help_text: str = f"{_KINDS[0].upper()}{_KINDS[1:]}.") -> Decorator:
    """Return a decorator that adds the required option `--model`.

    Args:
        help_text: Help of the option.
    """
    return click.option("--model", required=True, type=ModelPath(), metavar="MODEL", help=help_text)


def load_encoder(path: Path, encoder: Literal["shared", "exclusive"] | None = None) -> "HubEncoder":
    """Load the encoder of a MODEL. That of a preset imports TensorFlow when it needs it.

    Args:
        path: A preset's folder, a hub module of that encoder, a `.keras` file, or the folder of a
            finished run.
        encoder: Encoder to load. By default a module's own, and a model's shared one.

    Returns:
        The encoder.

    Raises:
        MissingError: If the path does not exist, or the run is not finished.
        DataError: If it is damaged or not a model.
        ConfigError: If it is a module of the other encoder.
    """
    from sits_keras import hub

    found = identify_model(path)
    if found.kind == "preset":
        from sits_keras.presets.loading import from_preset

        return from_preset(path, encoder or "shared")
    its_encoder = found.content.get("encoder")
    if found.kind == "hub module" and encoder not in (None, its_encoder):
        raise ConfigError(
            f"{path} is a hub module of another encoder. Expected the {encoder} encoder. Received: "
            f"the {its_encoder} encoder. Export the {encoder} encoder with `sits-keras export "
            f"MODEL OUT --encoder {encoder}`, or use the .keras file."
        )
    import_tensorflow()
    if found.kind == "hub module":
        return hub.load(path)
    return hub.wrap(_load_model(found), encoder or "shared")


def load_whole_model(path: Path) -> "DisentangledSITS":
    """Load the whole model of a MODEL, and import TensorFlow.

    Args:
        path: A preset's folder, a `.keras` file, or the folder of a finished run.

    Returns:
        The model.

    Raises:
        MissingError: If the path does not exist, or the run is not finished.
        DataError: If it is damaged or not a model.
        ConfigError: If it is a hub module, which has one encoder and no decoder.
    """
    found = identify_model(path)
    if found.kind == "hub module":
        raise ConfigError(
            f"{path} is a hub module, which has one encoder and no decoder. Expected a whole "
            "model: use the preset, .keras file or run that it was exported from."
        )
    import_tensorflow()
    if found.kind == "preset":
        from sits_keras.presets.loading import from_preset

        return from_preset(path)
    return _load_model(found)


def identify_model(path: Path) -> Identity:
    """Identify what a MODEL argument names: the path of a preset, hub module, run or model.

    Raises:
        MissingError: Nothing is there.
        DataError: It is damaged, of a version that is not supported, or something else.
    """
    if not path.exists():
        raise no_model(path)
    try:
        found = identify(path)
    except UnknownFormatError as error:
        raise DataError(f"{path} is not a model. Expected {_KINDS}.") from error
    if found.kind == "records":
        raise DataError(
            f"{path} is a folder of records, not a model. Expected {_KINDS}. Train a model with "
            f"`sits-keras train {path} RUN`, then use RUN."
        )
    if found.kind in ("classifier", "converted encoder"):
        raise DataError(f"{path} is a {found.kind}, not a model. Expected {_KINDS}.")
    return found


def _load_model(found: Identity) -> "DisentangledSITS":
    from sits_keras.saving import list_checkpoints, load_model
    from sits_keras.training import CHECKPOINTS_NAME

    path = found.path
    if found.kind == "run" and not (path / MODEL_NAME).is_file():
        checkpoints = list_checkpoints(path / CHECKPOINTS_NAME)
        also = f", or use a checkpoint, such as {checkpoints[-1]}" if checkpoints else ""
        raise MissingError(f"{path} is an unfinished run. Resume it with `sits-keras train`{also}.")
    return load_model(path)
