"""Work that is given up when the server ends, in whatever function of `tasks` it is."""

import threading
from typing import Any, cast

from sits_keras.explore.engine.model import Subject


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
