"""What the configuration classes share: checks, and a plain-dictionary form."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from sits_keras.errors import ConfigError


class Config:
    """Base of the frozen dataclasses of `sits_keras.config`."""

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

    def check_whole(self, low: int, *names: str) -> None:
        """Raises a `ConfigError` about the first setting that is no whole number from `low` on."""
        for name in names:
            self.check(
                name, is_whole(getattr(self, name), low), f"a whole number of at least {low}"
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


def is_whole(value: object, low: int) -> bool:
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
