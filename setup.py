"""Copy the default presets into the wheel. Everything else is in setup.cfg.

Their only source is savedmodels/. A wheel contains the whole model, the layers for ONNX Runtime and
the descriptions of each, not the hub modules, which the package makes from the model.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PRESETS = ("sits_rgbn_small", "sits_rgb_small")
FILES = (
    "preset.json",
    "model.keras",
    "projection.npz",
    "shared_layers.onnx",
    "exclusive_layers.onnx",
    "training.json",
    "metrics.json",
    "README.md",
)
SOURCE = Path("savedmodels")
PACKAGED = Path("sits_keras", "presets", "packaged")


class BuildWithPresets(build_py):
    """Build of the package's files, with those of the default presets."""

    def run(self) -> None:
        """Build the package, then copy the presets into it."""
        super().run()
        if self.editable_mode:  # which finds them in savedmodels/
            return
        for source, target in zip(_sources(), self._targets(), strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def get_source_files(self) -> list[str]:
        """Return the files that belong in the source archive."""
        return [*super().get_source_files(), *map(str, _sources())]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return the files of the wheel."""
        targets = [] if self.editable_mode else map(str, self._targets())
        return [*super().get_outputs(include_bytecode), *targets]

    def _targets(self) -> list[Path]:
        folder = Path(self.build_lib) / PACKAGED
        return [folder / one.relative_to(SOURCE) for one in _sources()]


def _sources() -> list[Path]:
    return [SOURCE / name / file for name in PRESETS for file in FILES]


setup(cmdclass={"build_py": BuildWithPresets})
