"""Fixtures of the tasks' tests."""

from collections.abc import Callable

import numpy as np
import pytest

from sits_keras.config import ModelConfig
from sits_keras.data.eurosat import LabelledImages
from sits_keras.model import DisentangledSITS
from sits_keras.tasks.classification import finetuning

RGB = ("B04", "B03", "B02")


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets an epoch be as short as its images: for tests that look at anything but accuracy."""
    monkeypatch.setattr(finetuning, "MIN_STEPS", 1)


@pytest.fixture(scope="session")
def rgb_model() -> DisentangledSITS:
    """An untrained model of three bands, as small as they come. Not to change."""
    return DisentangledSITS(ModelConfig(bands=RGB, width=1, shared_channels=2, exclusive_dim=3))


@pytest.fixture(scope="session")
def labelled() -> Callable[..., LabelledImages]:
    """Makes pictures of known class: each class has a brightness of its own."""

    def make(
        count: int = 20, levels: tuple[int, ...] = (20, 120, 220), noise: int = 10, seed: int = 0
    ) -> LabelledImages:
        labels = np.repeat(np.arange(len(levels)), count)
        rng = np.random.default_rng(seed)
        spread = rng.integers(-noise, noise + 1, (len(labels), 64, 64, 3))
        values = np.array(levels)[labels][:, None, None, None] + spread
        return LabelledImages(
            values=np.clip(values, 0, 255).astype(np.uint8),
            labels=labels,
            classes=tuple("ABCDEFGHIJ"[: len(levels)]),
            files=tuple(f"{n}.png" for n in range(len(labels))),
            bands=RGB,
            unit=0.275 / 255,
            clipped_at=0.275,
            cells=tuple(f"cell {n % 10}" for n in range(len(labels))),
            sha256="0" * 64,
        )

    return make
