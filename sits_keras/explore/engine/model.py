"""The model that is explored: which of its parts there are, and how it is named."""

import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from sits_keras.errors import ConfigError
from sits_keras.hub import HubEncoder

if TYPE_CHECKING:
    from sits_keras.model import DisentangledSITS


class Subject(NamedTuple):
    """What a MODEL argument gave.

    Attributes:
        name: as it is named on a command line: a preset's name, or a path.
        kind: a preset, a hub module (one encoder), or a model as a file or a run's folder.
        shared, exclusive: the encoders, `None` where a module is of the other one.
        model: the whole model, `None` of a module.
    """

    name: str
    kind: Literal["preset", "module", "model"]
    shared: HubEncoder | None
    exclusive: HubEncoder | None
    model: "DisentangledSITS | None"

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands that it takes, in order."""
        return self.encoder("exclusive" if self.shared is None else "shared").bands

    def why_not(self, needed: Literal["shared", "exclusive", "model"]) -> str:
        """Why a part is not there, as a sentence; empty where it is."""
        if getattr(self, needed) is not None:
            return ""
        found = "shared" if self.exclusive is None else "exclusive"
        what = "the whole model" if needed == "model" else f"the {needed} encoder"
        return (
            f"This view needs {what}, and {self.name} is a hub module: the {found} encoder alone. "
            "Name the preset, .keras file or run that it was exported from."
        )

    def encoder(self, which: Literal["shared", "exclusive"]) -> HubEncoder:
        """An encoder; ConfigError, with the reason, where it is not there."""
        found: HubEncoder | None = getattr(self, which)
        if found is None:
            raise ConfigError(self.why_not(which))
        return found

    def whole(self) -> "DisentangledSITS":
        """The whole model; ConfigError, with the reason, where it is not there."""
        if self.model is None:
            raise ConfigError(self.why_not("model"))
        return self.model

    def python(self, encoder: Literal["shared", "exclusive"] | None = None) -> str:
        """The Python line that loads an encoder, or the whole model."""
        if self.kind == "preset":
            part = f", {encoder!r}" if encoder else ""
            loaded = f"sits_keras.from_preset({self.name!r}{part})"
        elif self.kind == "module":
            loaded = f"sits_keras.hub.load({self.name!r})"
        else:
            loaded = f"sits_keras.load_model({self.name!r})"
            if encoder:
                loaded = f"sits_keras.hub.wrap({loaded}, {encoder!r})"
        return f"{'encoder' if encoder else 'model'} = {loaded}"


def weights_sha256(encoder: HubEncoder) -> str:
    """Checksum of all that an encoder's features depend on: its weights, bands and geometry.

    It is of the encoder in memory, so that a preset and a module exported of it have the same one.
    """
    facts = {
        name: value
        for name, value in encoder.preset.items()
        if name in ("encoder", "bands", "input", "padding", "halo", "dense_strides", "num_features")
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for variable in encoder.module.variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


class StoppedError(Exception):
    """The server ends; work that is under way is given up."""


class Stoppable:
    """An encoder or a model that can be used until an event is set, and then raises StoppedError.

    Whatever goes through a raster uses them for each batch or tile.
    """

    def __init__(self, target: Any, event: threading.Event):
        self._target, self._event = target, event

    def __call__(self, *arguments: Any) -> Any:
        """Calls it."""
        self._check()
        return self._target(*arguments)

    def __getattr__(self, name: str) -> Any:
        self._check()
        return getattr(self._target, name)

    def _check(self) -> None:
        if self._event.is_set():
            raise StoppedError


def stoppable(subject: Subject, event: threading.Event) -> Subject:
    """A model whose parts are of use until an event is set."""
    parts = {name: getattr(subject, name) for name in ("shared", "exclusive", "model")}
    wrapped = {name: one and Stoppable(one, event) for name, one in parts.items()}
    return subject._replace(**cast(dict[str, Any], wrapped))
