"""Settings of models, training runs and preparation; the defaults are the paper's (section 3.2).

`docs/paper_map.md` gives the reasons for choices that the paper leaves open.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, dataclass_transform

from sits_keras.bands import default_band_max
from sits_keras.errors import ConfigError, suggest


def setting(*, default: Any, help: str) -> Any:
    """Return a field of a configuration.

    Args:
        default: Default value.
        help: Description, shown in the class docstring, in the help of the command line and in
            the documentation. A noun phrase or an imperative, one sentence or more.

    Returns:
        A `dataclasses.field`.
    """
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass_transform(frozen_default=True, field_specifiers=(setting,))
def configuration(cls: type[Any]) -> Any:
    """Make a class a frozen dataclass, and list its settings in its docstring.

    Args:
        cls: Class whose fields are defined by `setting`.

    Returns:
        The class.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    settings = [f"    {one.name}: {one.metadata['help']}" for one in dataclasses.fields(cls)]
    cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Attributes:", *settings])
    return cls


def help_of(cls: type[Any], name: str) -> str:
    """Return the description of a setting.

    Args:
        cls: Configuration class.
        name: Name of the setting.

    Returns:
        One sentence or more.
    """
    (field,) = (one for one in dataclasses.fields(cls) if one.name == name)
    return str(field.metadata["help"])


class Config:
    """Base class of the configurations."""

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {}  # of settings, in files of older models

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain lists, numbers and strings, as in JSON and YAML."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration that `to_dict` describes.

        Args:
            values: Settings by name; a missing one has its default.

        Returns:
            The configuration.

        Raises:
            ConfigError: A name is unknown or a value is out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{cls.__name__} has the wrong type. Expected a mapping of {', '.join(known)}. "
                f"Received: {values!r}."
            )
        values = {cls.FORMER_NAMES.get(key, key): value for key, value in values.items()}
        unknown = sorted(str(key) for key in set(values) - set(known))
        if unknown:
            raise ConfigError(
                f"{cls.__name__} has no setting named {', '.join(unknown)}. "
                f"{suggest(unknown[0], known)}Expected some of: {', '.join(known)}."
            )
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def check(self, name: str, ok: bool, expected: str) -> None:
        """Raise a `ConfigError` about the setting `name` unless `ok`."""
        if not ok:
            raise ConfigError(
                f"{type(self).__name__}.{name} must be {expected}. "
                f"Received: {name}={getattr(self, name)!r}."
            )

    def check_integer(self, low: int, *names: str) -> None:
        """Raise a `ConfigError` about the first setting that is not an integer from `low`."""
        for name in names:
            self.check(name, is_integer(getattr(self, name), low), f"an integer of at least {low}")

    def check_number(self, low: float, *names: str) -> None:
        """Raise a `ConfigError` about the first setting that is not a finite number from `low`."""
        for name in names:
            expected = f"a finite number of at least {low:g}"
            self.check(name, is_number(getattr(self, name), low), expected)

    def check_choice(self, name: str, *choices: str) -> None:
        """Raise a `ConfigError` about the setting `name` unless it is one of `choices`."""
        self.check(name, getattr(self, name) in choices, " or ".join(map(repr, choices)))


def describe_differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return the names of settings that differ, with both values, or an empty string.

    Args:
        there: Settings of a saved model or run.
        here: Settings to compare with.

    Returns:
        A list such as "width 16 (here 64), padding 'zeros' (here 'context')".
    """
    return ", ".join(
        f"{name} {there.get(name)!r} (here {here.get(name)!r})"
        for name in dict.fromkeys((*there, *here))
        if there.get(name) != here.get(name)
    )


def check_crop_size(crop_size: int) -> None:
    """Raise a `ConfigError` unless a crop of this side holds whole windows."""
    if not is_integer(crop_size, IMAGE_SIZE) or crop_size % IMAGE_SIZE:
        raise ConfigError(
            f"crop_size must be a multiple of {IMAGE_SIZE}. Received: crop_size={crop_size}."
        )


def is_integer(value: object, low: int) -> bool:
    """Return whether a value is an int of at least `low`, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def is_number(value: object, low: float) -> bool:
    """Return whether a value is a finite int or float of at least `low`, and not a bool."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and low <= value < float("inf")
    )


def are_band_names(value: object) -> bool:
    """Return whether a value is a tuple of one or more different strings."""
    return (
        isinstance(value, tuple)
        and len(value) >= 1
        and all(isinstance(band, str) for band in value)
        and len(set(value)) == len(value)
    )


IMAGE_SIZE = 64
"""Side in pixels of a crop and of the images of the networks (section 3.2)."""

GRID_SIZE = 4
"""Side in cells of the grid of the shared representation: `IMAGE_SIZE` halved four times."""

CELL_SIZE = IMAGE_SIZE // GRID_SIZE
"""Side in pixels of a cell of that grid."""


@configuration
class ModelConfig(Config):
    """Shape of the four networks and of their images (section 3.2)."""

    bands: tuple[str, ...] = setting(
        default=("B02", "B03", "B04", "B08"),
        help="Bands of the images, in the order of the last axis.",
    )
    band_max: tuple[float, ...] = setting(
        default=(),
        help="Reflectance of each band that the networks see as 1.0; 0 is seen as -1.0. "
        "By default, the maximum of the band in `sits_keras.bands.BAND_MAX`.",
    )
    width: int = setting(
        default=64,
        help="Channels of the first convolution of each network. Not given in the paper.",
    )
    shared_channels: int = setting(
        default=64, help="Channels C of the shared representation, (4, 4, C)."
    )
    exclusive_dim: int = setting(default=64, help="Length of the exclusive representation.")
    leaky_slope: float = setting(
        default=0.2, help="Negative slope of the leaky ReLU. Not given in the paper."
    )
    padding: Literal["zeros", "context"] = setting(
        default="zeros",
        help="Padding of the encoders' convolutions. `zeros` pads each layer with zeros. `context` "
        "uses the real pixels around a window, or their reflection, so that a window has the same "
        "representation alone and within a raster, as dense maps require. Not in the paper.",
    )
    shared_norm: Literal["none", "layer"] = setting(
        default="none",
        help="Normalisation of the shared representation. `layer` gives each cell mean 0 and "
        "variance 1 over its channels, so that eq. 1 cannot be met by shrinking it. `none` is the "
        "paper's.",
    )
    decoder_skips: bool = setting(
        default=False,
        help="Give the decoder also the first three layers of the shared encoder, and let the "
        "exclusive representation scale and shift its channels. Translations then show roads and "
        "fields, for which a 4x4 grid is too coarse. Not in the paper.",
    )

    def __post_init__(self) -> None:
        """Check the settings, and fill in the default of `band_max`."""
        self.check("bands", are_band_names(self.bands), "a tuple of different band names")
        if self.band_max == ():
            object.__setattr__(self, "band_max", default_band_max(self.bands))
        self.check(
            "band_max",
            isinstance(self.band_max, tuple)
            and len(self.band_max) == len(self.bands)
            and all(is_number(value, 1e-3) for value in self.band_max),
            f"a tuple of {len(self.bands)} reflectances of at least 0.001, one for each of "
            f"{', '.join(self.bands)}",
        )
        self.check_integer(1, "width", "shared_channels", "exclusive_dim")
        self.check(
            "leaky_slope", is_number(self.leaky_slope, 0) and self.leaky_slope < 1, "in [0, 1)"
        )
        self.check_choice("padding", "zeros", "context")
        self.check_choice("shared_norm", "none", "layer")
        self.check("decoder_skips", isinstance(self.decoder_skips, bool), "True or False")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (height, width, bands) of one image."""
        return (IMAGE_SIZE, IMAGE_SIZE, len(self.bands))


@configuration
class ObjectiveConfig(Config):
    """Terms and weights of equation 5, and the order of the updates of Algorithm 1."""

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"lambda_contrast": "lambda_info_nce"}

    lambda_l1: float = setting(
        default=10.0, help="Weight of the cross-domain reconstruction, eq. 2."
    )
    lambda_shared: float = setting(
        default=0.5, help="Weight of the distance of the two shared representations, eq. 1."
    )
    lambda_kl: float = setting(
        default=0.01, help="Weight of the KL divergence from the prior, eq. 3."
    )
    lambda_info_nce: float = setting(
        default=0.0, help="Weight of the InfoNCE loss between grid cells. 0 in the paper."
    )
    temperature: float = setting(
        default=0.1,
        help="Temperature of the InfoNCE losses. A lower value gives hard negatives more weight.",
    )
    adversarial: Literal["lsgan", "paper"] = setting(
        default="lsgan",
        help="Form of eq. 4: `lsgan`, the least-squares loss of Mao et al., or `paper`, as "
        "printed.",
    )
    update: Literal["alternating", "simultaneous"] = setting(
        default="alternating",
        help="Order of the updates of Algorithm 1. `alternating` updates the discriminator, then "
        "the other networks against the updated one. `simultaneous` takes all gradients at the "
        "same parameters, as printed.",
    )
    lambda_global_info_nce: float = setting(
        default=0.0,
        help="Weight of the InfoNCE loss between whole windows. Only with a training of the shared "
        "encoder alone. 0 in the paper.",
    )
    lambda_adversarial: float = setting(
        default=1.0,
        help="Weight of the adversarial loss, eq. 4. 1 in the paper. If it, lambda_l1 and "
        "lambda_kl are 0, only the shared encoder is trained.",
    )
    global_first_layer: int = setting(
        default=4,
        help="First of the five layers whose pooled activations enter the InfoNCE loss between "
        "whole windows; 0 for the image and all layers.",
    )
    view_gain: float = setting(
        default=0.06,
        help="Standard deviation of the logarithm of the random gain of each image, if only the "
        "shared encoder is trained or with freeze_shared.",
    )
    view_band_gain: float = setting(
        default=0.03,
        help="Standard deviation of the logarithm of the random gain of each band; see view_gain.",
    )
    view_offset: float = setting(
        default=0.01,
        help="Standard deviation of the random offset of each band as a fraction of the full "
        "range; see view_gain.",
    )
    view_window: int = setting(
        default=48,
        help="Minimum side in pixels of the random rectangle of each window that the InfoNCE loss "
        "between whole windows compares: 16, 32, 48, or 64 for whole windows.",
    )
    freeze_shared: bool = setting(
        default=False,
        help="Keep the shared encoder as it is, and train the other networks. The brightness of "
        "each image is then changed at random (view_gain, view_band_gain, view_offset), so that "
        "translations also fit places that are brighter or darker than the trained ones.",
    )

    def __post_init__(self) -> None:
        """Check the settings."""
        self.check_number(0, "lambda_l1", "lambda_shared", "lambda_kl", "lambda_info_nce")
        self.check_number(0, "lambda_global_info_nce", "lambda_adversarial")
        self.check(
            "global_first_layer",
            is_integer(self.global_first_layer, 0) and self.global_first_layer <= 5,
            "an integer in [0, 5]",
        )
        self.check_number(0, "view_gain", "view_band_gain", "view_offset")
        self.check(
            "view_window",
            is_integer(self.view_window, 16)
            and self.view_window <= IMAGE_SIZE
            and self.view_window % 16 == 0,
            "16, 32, 48 or 64",
        )
        self.check(
            "freeze_shared",
            isinstance(self.freeze_shared, bool) and not (self.freeze_shared and self.encoder_only),
            "True or False, and False if only the shared encoder is trained",
        )
        self.check_number(1e-3, "temperature")
        self.check_choice("adversarial", "lsgan", "paper")
        self.check_choice("update", "alternating", "simultaneous")

    @property
    def encoder_only(self) -> bool:
        """True if only the shared encoder is trained: eq. 2, 3 and 4 have no weight."""
        return not (self.lambda_adversarial or self.lambda_l1 or self.lambda_kl)


@configuration
class OptimizerConfig(Config):
    """Adam of both optimizers, with the staircase learning rate of section 3.2 by default."""

    learning_rate: float = setting(default=2e-4, help="Initial learning rate.")
    decay_steps: int = setting(
        default=50_000, help="Steps between two decays of the learning rate."
    )
    decay_rate: float = setting(
        default=0.5, help="Factor of each decay of the learning rate. Not given in the paper."
    )
    beta_1: float = setting(default=0.5, help="Decay rate of Adam's first moment.")
    clip_norm: float = setting(
        default=0.0,
        help="Maximum global norm of the gradients of an optimizer; 0 for no clipping, as in the "
        "paper.",
    )
    schedule: Literal["staircase", "cosine"] = setting(
        default="staircase",
        help="Schedule of the learning rate: `staircase`, as in the paper, or `cosine`, which "
        "rises over warmup_steps and then decays to 0 at decay_steps.",
    )
    warmup_steps: int = setting(
        default=100, help="Steps of the linear rise of the cosine schedule."
    )
    weight_decay: float = setting(
        default=0.0, help="Decoupled weight decay (AdamW); 0 for Adam, as in the paper."
    )
    discriminator_rate: float = setting(
        default=1.0,
        help="Learning rate of the discriminator as a multiple of that of the other networks. "
        "Lower it if the outputs d_real and d_fake go to 1 and 0. 1 in the paper.",
    )

    def __post_init__(self) -> None:
        """Check the settings."""
        self.check(
            "learning_rate",
            is_number(self.learning_rate, 0) and self.learning_rate > 0,
            "a finite number above 0",
        )
        self.check_integer(1, "decay_steps")
        self.check(
            "decay_rate", is_number(self.decay_rate, 0) and 0 < self.decay_rate <= 1, "in (0, 1]"
        )
        self.check("beta_1", is_number(self.beta_1, 0) and self.beta_1 < 1, "in [0, 1)")
        self.check_number(0, "clip_norm", "weight_decay", "discriminator_rate")
        self.check_choice("schedule", "staircase", "cosine")
        self.check_integer(0, "warmup_steps")
        self.check(
            "decay_steps",
            self.schedule == "staircase" or self.decay_steps > self.warmup_steps,
            f"more than warmup_steps={self.warmup_steps}",
        )


@configuration
class TrainConfig(Config):
    """Length, batches and seed of one training run (section 3.2 and Algorithm 1)."""

    steps: int = setting(default=150_000, help="Updates of each network.")
    batch_size: int = setting(default=64, help="Pairs in a batch.")
    seed: int = setting(
        default=0, help="Seed of the weights, of the pairs and of the exclusive samples."
    )
    pairs_per_record: int = setting(
        default=4,
        help="Pairs sampled each time a record is read. Consecutive batches share their records; "
        "the pairs of a batch come from different reads.",
    )
    augment: bool = setting(
        default=True, help="Rotate and flip the crops, both of a pair alike. Not in the paper."
    )
    steps_per_epoch: int = setting(
        default=1000, help="Steps between two checkpoints, validations and rows of the history."
    )
    steps_per_execution: int = setting(
        default=1,
        help="Steps in one call of the compiled function, a divisor of steps_per_epoch. More than "
        "one saves time if a step takes milliseconds; the result is the same.",
    )
    precision: Literal["float32", "mixed_bfloat16"] = setting(
        default="float32",
        help="Dtype policy of the networks. With `mixed_bfloat16` they compute in bfloat16; "
        "weights and losses stay float32.",
    )
    crop_size: int = setting(
        default=IMAGE_SIZE,
        help="Side in pixels of a crop without its context, a multiple of 64. A larger crop holds "
        "several windows, on which only the shared encoder can be trained.",
    )
    balance: Literal["records", "dates"] = setting(
        default="records",
        help="Visits of a record in an epoch: `records`, one; `dates`, sqrt(n / 2) of a record of "
        "n dates, rounded.",
    )

    def __post_init__(self) -> None:
        """Check the settings."""
        self.check_integer(1, "steps", "batch_size", "pairs_per_record", "steps_per_epoch")
        self.check(
            "steps_per_execution",
            is_integer(self.steps_per_execution, 1)
            and self.steps_per_epoch % self.steps_per_execution == 0,
            f"an integer that divides steps_per_epoch={self.steps_per_epoch}",
        )
        self.check_choice("precision", "float32", "mixed_bfloat16")
        self.check(
            "seed", is_integer(self.seed, 0) and self.seed < 2**31, "an integer in [0, 2**31)"
        )
        self.check("augment", isinstance(self.augment, bool), "True or False")
        self.check(
            "crop_size",
            is_integer(self.crop_size, IMAGE_SIZE) and self.crop_size % IMAGE_SIZE == 0,
            f"a multiple of {IMAGE_SIZE}",
        )
        self.check_choice("balance", "records", "dates")


@configuration
class RunConfig:
    """All settings that determine the result of a training run, apart from its data."""

    model: ModelConfig = setting(default=ModelConfig(), help="Shape of the networks.")
    objective: ObjectiveConfig = setting(
        default=ObjectiveConfig(), help="Terms of the objective and order of the updates."
    )
    optimizer: OptimizerConfig = setting(
        default=OptimizerConfig(), help="Settings of both optimizers."
    )
    train: TrainConfig = setting(default=TrainConfig(), help="Length, batches and seed.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as nested dictionaries."""
        return {
            field.name: getattr(self, field.name).to_dict() for field in dataclasses.fields(self)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration that `to_dict` describes.

        Args:
            values: Sections by name, each with its settings; a missing one has its default.

        Returns:
            The configuration.

        Raises:
            ConfigError: A section or setting is unknown, or a value is out of range.
        """
        sections: dict[str, Any] = {
            field.name: type(field.default) for field in dataclasses.fields(cls)
        }
        for name, section in values.items():
            if name not in sections or not isinstance(section, Mapping):
                raise ConfigError(
                    f"{name!r} is not a section of settings. Expected the sections "
                    f"{', '.join(sections)}, each with its settings. "
                    f"Received: {name}: {section!r}."
                )
        return cls(**{name: sections[name].from_dict(values[name]) for name in values})


@configuration
class PrepareConfig(Config):
    """Conversion of source rasters to records (section 4.1)."""

    bands: tuple[str, ...] = setting(
        default=("B02", "B03", "B04", "B08"),
        help="Bands to keep, in the order in which they are stored.",
    )
    patch_size: int = setting(default=1024, help="Maximum side of a patch in pixels.")
    block_size: int = setting(
        default=128,
        help="Maximum side in pixels of a block, the part of a patch that one record contains.",
    )
    dates: int = setting(
        default=12, help="Maximum number of dates of each series, spread over the period."
    )
    min_dates: int = setting(
        default=2, help="Minimum number of dates that a series must have left."
    )
    max_cloud: float = setting(
        default=0.02,
        help="Maximum fraction (0 to 1) of cloud and shadow among the valid pixels of a granule, "
        "and of each block.",
    )
    min_complete: float = setting(
        default=0.85,
        help="Minimum fraction (0 to 1) of valid pixels of a granule, and of each block.",
    )
    shard_bytes: int = setting(
        default=128 * 2**20, help="Size in bytes at which a shard is closed, before compression."
    )
    compression: Literal["", "GZIP"] = setting(
        default="", help="Compression of the shards: `GZIP` or empty."
    )
    central: int = setting(
        default=0,
        help="Keep the N x N central patches of each raster, which must all be of patch_size; 0 "
        "for all patches. The paper uses 5, 25 patches of 1024 px.",
    )
    align: bool = setting(
        default=False,
        help="Resample dates whose grid differs from the first date of their series: bilinear, "
        "masks by nearest neighbour. Otherwise a different grid is an error.",
    )

    def __post_init__(self) -> None:
        """Check the settings."""
        self.check("bands", are_band_names(self.bands), "a tuple of different band names")
        # A block of twice the crop can be divided evenly without a part smaller than a crop.
        self.check(
            "block_size",
            is_integer(self.block_size, 2 * IMAGE_SIZE),
            f"an integer of at least {2 * IMAGE_SIZE}, twice the crop",
        )
        self.check(
            "patch_size",
            is_integer(self.patch_size, self.block_size),
            f"an integer of at least block_size={self.block_size}",
        )
        self.check_integer(0, "central")
        self.check("align", isinstance(self.align, bool), "True or False")
        self.check_integer(2, "min_dates")
        self.check(
            "dates",
            is_integer(self.dates, self.min_dates),
            f"an integer of at least min_dates={self.min_dates}",
        )
        for name in ("max_cloud", "min_complete"):
            value = getattr(self, name)
            self.check(name, is_number(value, 0) and value <= 1, "a fraction in [0, 1]")
        self.check_integer(1, "shard_bytes")
        self.check_choice("compression", "", "GZIP")
