"""Every number of the method, in one place; the defaults are the paper's (section 3.2).

Where the paper leaves a number open, the comment beside it says so and `docs/paper_map.md` gives
the reason for the choice.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from sits_keras.bands import default_band_max
from sits_keras.errors import ConfigError


class Config:
    """Base of the frozen dataclasses of `sits_keras.config`."""

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {}  # of settings, as saved models have them

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain lists, numbers and strings (fit for JSON and YAML)."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that `to_dict` describes.

        Raises:
            ConfigError: a key is unknown, or a value is outside its range.
        """
        known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{cls.__name__} must be given as a mapping of {', '.join(known)}. "
                f"Received: {values!r}."
            )
        values = {cls.FORMER_NAMES.get(key, key): value for key, value in values.items()}
        unknown = sorted(str(key) for key in set(values) - set(known))
        if unknown:
            raise ConfigError(
                f"{cls.__name__} has no setting named {', '.join(unknown)}. "
                f"Expected some of: {', '.join(known)}."
            )
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def check(self, name: str, ok: bool, expected: str) -> None:
        """Raises a `ConfigError` about the setting `name` unless `ok`."""
        if not ok:
            raise ConfigError(
                f"{type(self).__name__}.{name} must be {expected}. "
                f"Received: {name}={getattr(self, name)!r}."
            )

    def check_integer(self, low: int, *names: str) -> None:
        """Raises a `ConfigError` about the first setting that is no whole number from `low` on."""
        for name in names:
            self.check(
                name, is_integer(getattr(self, name), low), f"a whole number of at least {low}"
            )

    def check_number(self, low: float, *names: str) -> None:
        """Raises a `ConfigError` about the first of some settings that is no number from `low`."""
        for name in names:
            expected = f"a finite number of at least {low:g}"
            self.check(name, is_number(getattr(self, name), low), expected)

    def check_choice(self, name: str, *choices: str) -> None:
        """Raises a `ConfigError` about the setting `name` unless it is one of some."""
        self.check(name, getattr(self, name) in choices, " or ".join(map(repr, choices)))


def describe_differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Names the settings that differ, with both values; empty where none does."""
    return ", ".join(
        f"{name} {there.get(name)!r} (here {here.get(name)!r})"
        for name in dict.fromkeys((*there, *here))
        if there.get(name) != here.get(name)
    )


def is_integer(value: object, low: int) -> bool:
    """Whether a value is an int, not a bool, of at least `low`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def is_number(value: object, low: float) -> bool:
    """Whether a value is a finite int or float, not a bool, of at least `low`."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and low <= value < float("inf")
    )


def are_band_names(value: object) -> bool:
    """Whether a value is a tuple of one or more different strings."""
    return (
        isinstance(value, tuple)
        and len(value) >= 1
        and all(isinstance(band, str) for band in value)
        and len(set(value)) == len(value)
    )


IMAGE_SIZE = 64
"""Side in pixels of what the networks take, and of a crop (section 3.2)."""

GRID_SIZE = 4
"""Side of the grid that the shared representation keeps: four halvings of `IMAGE_SIZE`."""


@dataclasses.dataclass(frozen=True)
class ModelConfig(Config):
    """Shape of the four networks, and of the images that they take (section 3.2).

    Attributes:
        bands: band names, in the order of the last axis.
        band_max: reflectance that the networks see as 1.0, one for each band; 0 is seen as -1.0.
            Empty means `bands.BAND_MAX` of each band.
        width: channels of each network's first convolution. The paper does not give it; 64 is
            what the networks it builds on use.
        shared_channels: channels C of the shared representation, which is (4, 4, C).
        exclusive_dim: length of the exclusive representation (the paper's "fully-connected
            layers of size 64").
        leaky_slope: slope of leaky ReLU below zero (not given in the paper).
        padding: what the encoders' convolutions see beyond a window's edges. `"zeros"`: zeros,
            layer by layer. `"context"`: the window's real surroundings, or where there are none
            its reflection; a window then has one representation, whether it is encoded alone or
            as part of a raster (not given in the paper).
        shared_norm: `"layer"` takes each cell of the shared representation to mean 0 and variance 1
            over its channels, so that eq. 1 cannot be met by shrinking it; `"none"`, the paper's,
            leaves it as it is.
    """

    bands: tuple[str, ...] = ("B02", "B03", "B04", "B08")
    band_max: tuple[float, ...] = ()
    width: int = 64
    shared_channels: int = 64
    exclusive_dim: int = 64
    leaky_slope: float = 0.2
    padding: Literal["zeros", "context"] = "zeros"
    shared_norm: Literal["none", "layer"] = "none"

    def __post_init__(self) -> None:
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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (height, width, bands) of one image."""
        return (IMAGE_SIZE, IMAGE_SIZE, len(self.bands))


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig(Config):
    """Terms and weights of equation 5, and the order of the updates of Algorithm 1.

    Attributes:
        lambda_l1: weight of the cross-domain reconstruction, eq. 2.
        lambda_shared: weight of the distance of the two shared representations, eq. 1.
        lambda_kl: weight of the divergence from the prior, eq. 3.
        lambda_info_nce: weight of the InfoNCE loss between grid cells (not in the paper).
        temperature: temperature of the InfoNCE loss; a lower one weights hard negatives more.
        adversarial: `"lsgan"`, the least-squares loss of Mao et al., or `"paper"`, eq. 4 as
            printed.
        update: `"alternating"` updates the discriminator, then the other three networks against
            the updated one; `"simultaneous"` takes all gradients at the same parameters, which is
            Algorithm 1 as printed.
    """

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"lambda_contrast": "lambda_info_nce"}

    lambda_l1: float = 10.0
    lambda_shared: float = 0.5
    lambda_kl: float = 0.01
    lambda_info_nce: float = 0.0
    temperature: float = 0.1
    adversarial: Literal["lsgan", "paper"] = "lsgan"
    update: Literal["alternating", "simultaneous"] = "alternating"

    def __post_init__(self) -> None:
        self.check_number(0, "lambda_l1", "lambda_shared", "lambda_kl", "lambda_info_nce")
        self.check_number(1e-3, "temperature")
        self.check_choice("adversarial", "lsgan", "paper")
        self.check_choice("update", "alternating", "simultaneous")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Config):
    """The Adam of each player and its staircase learning rate (section 3.2).

    Attributes:
        learning_rate: learning rate of the first steps.
        decay_steps: steps between two falls of the learning rate.
        decay_rate: factor of each fall (the paper says "decays", not by how much).
        beta_1: decay of Adam's first moment.
        clip_norm: a player's gradients are scaled down to this norm, all of them together, where
            they are beyond it; 0 for never (the paper does not).
    """

    learning_rate: float = 2e-4
    decay_steps: int = 50_000
    decay_rate: float = 0.5
    beta_1: float = 0.5
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
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
        self.check_number(0, "clip_norm")


@dataclasses.dataclass(frozen=True)
class TrainConfig(Config):
    """One training run (section 3.2 and Algorithm 1).

    Attributes:
        steps: updates of each player.
        batch_size: pairs in a batch.
        seed: seed of the weights, of the pairs and of the exclusive draws.
        pairs_per_record: pairs drawn from a record each time it is read; consecutive batches
            share their records, never within a batch.
        augment: turn and flip the crops, both of a pair alike (the paper does not).
        steps_per_epoch: steps between two checkpoints, validations and rows of the history.
        steps_per_execution: steps done in one call of the compiled function, which divide an epoch;
            more than one saves time where a step takes milliseconds. The outcome is the same.
        precision: dtype policy of the networks. Under `"mixed_bfloat16"` they compute in bfloat16;
            weights, losses and what the losses read stay float32.
    """

    steps: int = 150_000
    batch_size: int = 64
    seed: int = 0
    pairs_per_record: int = 4
    augment: bool = True
    steps_per_epoch: int = 1000
    steps_per_execution: int = 1
    precision: Literal["float32", "mixed_bfloat16"] = "float32"

    def __post_init__(self) -> None:
        self.check_integer(1, "steps", "batch_size", "pairs_per_record", "steps_per_epoch")
        self.check(
            "steps_per_execution",
            is_integer(self.steps_per_execution, 1)
            and self.steps_per_epoch % self.steps_per_execution == 0,
            f"a whole number that divides steps_per_epoch={self.steps_per_epoch}",
        )
        self.check_choice("precision", "float32", "mixed_bfloat16")
        self.check(
            "seed", is_integer(self.seed, 0) and self.seed < 2**31, "a whole number in [0, 2**31)"
        )
        self.check("augment", isinstance(self.augment, bool), "True or False")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides the outcome of a training run, but for its data.

    Attributes:
        model: shape of the networks.
        objective: terms and order of the updates.
        optimizer: of each player.
        train: length, batches and seed.
    """

    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()

    def to_dict(self) -> dict[str, Any]:
        """The configuration as nested plain dictionaries."""
        return {
            field.name: getattr(self, field.name).to_dict() for field in dataclasses.fields(self)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that `to_dict` describes; what is left out keeps its default.

        Raises:
            ConfigError: a section or key is unknown, or a value is outside its range.
        """
        sections: dict[str, Any] = {
            field.name: type(field.default) for field in dataclasses.fields(cls)
        }
        for name, section in values.items():
            if name not in sections or not isinstance(section, Mapping):
                raise ConfigError(
                    f"Expected the sections {', '.join(sections)}, each with its settings. "
                    f"Received: {name}: {section!r}."
                )
        return cls(**{name: sections[name].from_dict(values[name]) for name in values})


@dataclasses.dataclass(frozen=True)
class PrepareConfig(Config):
    """How source rasters become records (section 4.1).

    Attributes:
        bands: bands to keep, in the order in which they are stored.
        patch_size: largest side in pixels of a patch.
        block_size: largest side in pixels of a block, the part of a patch that one record holds.
        dates: dates kept of each series, at most; the ones kept are spread over the period.
        min_dates: dates that a series must have left to be kept.
        max_cloud: largest share of a granule's valid pixels under cloud or shadow.
        min_complete: smallest share of a granule's pixels that hold data.
        shard_bytes: size in bytes at which a shard is closed, before compression.
        compression: `"GZIP"` or `""`.
        central: keep the `central` x `central` patches in the middle of each raster, which must
            all be of `patch_size` (the paper: 5, 25 patches of 1024); 0 for all patches.
        align: resample dates that lie on another grid than the first date of their series.
    """

    bands: tuple[str, ...] = ("B02", "B03", "B04", "B08")
    patch_size: int = 1024
    block_size: int = 128
    dates: int = 12
    min_dates: int = 2
    max_cloud: float = 0.02
    min_complete: float = 0.85
    shard_bytes: int = 128 * 2**20
    compression: Literal["", "GZIP"] = ""
    central: int = 0
    align: bool = False

    def __post_init__(self) -> None:
        self.check("bands", are_band_names(self.bands), "a tuple of different band names")
        # A block of twice the crop can be cut evenly without a part smaller than a crop.
        self.check(
            "block_size",
            is_integer(self.block_size, 2 * IMAGE_SIZE),
            f"a whole number of at least {2 * IMAGE_SIZE}, twice the crop",
        )
        self.check(
            "patch_size",
            is_integer(self.patch_size, self.block_size),
            f"a whole number of at least block_size={self.block_size}",
        )
        self.check_integer(0, "central")
        self.check("align", isinstance(self.align, bool), "True or False")
        self.check_integer(2, "min_dates")
        self.check(
            "dates",
            is_integer(self.dates, self.min_dates),
            f"a whole number of at least min_dates={self.min_dates}",
        )
        for name in ("max_cloud", "min_complete"):
            value = getattr(self, name)
            self.check(name, is_number(value, 0) and value <= 1, "a share in [0, 1]")
        self.check_integer(1, "shard_bytes")
        self.check_choice("compression", "", "GZIP")
