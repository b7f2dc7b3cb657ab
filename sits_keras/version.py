"""Version of the package."""

import configparser
import importlib.metadata
from pathlib import Path


def _find_version() -> str:
    try:
        return importlib.metadata.version("sits_keras")
    except importlib.metadata.PackageNotFoundError:
        # The package is imported from a source tree without an installation.
        config = configparser.ConfigParser()
        config.read(Path(__file__).resolve().parents[1] / "setup.cfg", encoding="utf-8")
        return config["metadata"]["version"]


__version__ = _find_version()
