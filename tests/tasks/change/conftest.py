import numpy as np
import pytest

from sits_keras import hub
from sits_keras.config import ModelConfig
from sits_keras.model import DisentangledSITS


@pytest.fixture(scope="session")
def small_model() -> DisentangledSITS:
    """Small model with context padding. Do not change it."""
    config = ModelConfig(width=2, shared_channels=3, exclusive_dim=5, padding="context")
    return DisentangledSITS(config)


@pytest.fixture(scope="session")
def layered(small_model) -> list[hub.HubEncoder]:
    """Shared and exclusive encoder of a small model."""
    return [hub.wrap(small_model, name) for name in ("shared", "exclusive")]


@pytest.fixture(scope="session")
def burnt() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two dates, a season that brightens all, a burn that darkens a part; and the part's mask."""
    rng = np.random.default_rng(0)
    fields = np.kron(rng.uniform(0.8, 1.3, (12, 14, 1)), np.ones((10, 10, 1)))
    before = np.array([600, 800, 700, 2600]) * fields
    after = before * np.array([1.3, 1.3, 1.4, 0.8])
    mask = np.zeros(before.shape[:2], bool)
    mask[30:62, 40:85] = True
    after[mask] *= np.array([0.9, 0.85, 1.1, 0.5])
    before, after = (
        (image + rng.normal(0, 25, image.shape)).clip(1, 9000).astype(np.uint16)
        for image in (before, after)
    )
    return before, after, mask
