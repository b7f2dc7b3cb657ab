"""What a model has been through before, and handing it on as a preset."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sits_keras.config import ObjectiveConfig


class Provenance:
    """The part of `DisentangledSITS` that has to do with presets."""

    compiled: bool
    optimizer: Any
    objective: ObjectiveConfig
    _steps_before: int = 0  # before the optimizers that it has now

    @property
    def steps(self) -> int:
        """Updates that the model has seen, with those before it was made a preset."""
        return self._steps_before + (int(self.optimizer.iterations) if self.compiled else 0)

    def resume_from(self, steps: int, objective: Mapping[str, Any]) -> None:
        """Says how many updates the weights have seen, and with which objective."""
        self._steps_before = steps
        self.objective = ObjectiveConfig.from_dict(objective)

    def save_to_preset(self, path: Path | str, **options: Any) -> Path:
        """Writes the model as a preset: `sits_keras.presets.loading.save_preset`,
        which has the options.

        Args:
            path: the preset's folder; its name is the preset's.
            options: `license_id`, `summary`, `training`, `overwrite`.
        Returns:
            The folder.
        """
        # By name: presets hold hub modules, which are made of the model that this is a part of.
        presets = importlib.import_module("sits_keras.presets.loading")
        return presets.save_preset(self, path, **options)
