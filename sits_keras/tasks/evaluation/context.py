"""What an evaluation is of, and how much it measures."""

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

from sits_keras.errors import ConfigError
from sits_keras.model import DisentangledSITS
from sits_keras.tasks.evaluation.inventory import Inventory, Place, read_places


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How much is measured.

    Attributes:
        num_seeds: measurements, each with its own draws; the spread over them is told.
        num_crops: crops of each set of places for Table 1 (the paper: 9,600).
        num_queries: windows of each date that are looked up for Table 2.
        stride: pixels from a searched window to the next, Table 2.
        fractions: shares of the labels that classifiers learn from, Table 3.
        train_encoder: on which labelled sets the whole encoder is trained, too: on `"small"` ones
            of 2,000 images at most, on `"all"`, for hours on a CPU, or on `"none"`.
        segment_stride: pixels from a window that votes to the next.
        change_stride: pixels from a window to the next.
        mode: how the model's encoders encode windows, "exact" or "dense"; by default dense where
            they are fit for it. Baselines are encoded as they can be.
    """

    num_seeds: int = 3
    num_crops: int = 640
    num_queries: int = 64
    stride: int = 4
    fractions: tuple[float, ...] = (1.0, 0.1, 0.01)
    train_encoder: Literal["small", "all", "none"] = "small"
    segment_stride: int = 8
    change_stride: int = 32
    mode: Literal["exact", "dense"] | None = None

    def __post_init__(self) -> None:
        for name in ("num_seeds", "num_crops", "num_queries", "stride"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1. Received: {name}={getattr(self, name)}."
                )


QUICK = EvaluationConfig(
    num_seeds=1,
    num_crops=64,
    num_queries=16,
    stride=16,
    fractions=(0.1,),
    train_encoder="none",
    segment_stride=32,
)
"""A look in minutes rather than a measurement."""


class Subject(NamedTuple):
    """What is evaluated.

    Attributes:
        model: the whole model.
        name: for the report.
        sha256: of its file.
    """

    model: DisentangledSITS
    name: str
    sha256: str


class Context(NamedTuple):
    """What a section works with.

    Attributes:
        subject, stock, config: what is evaluated, on what, how much.
        out: the evaluation's folder.
        progress: show progress bars.
    """

    subject: Subject
    stock: Inventory
    config: EvaluationConfig
    out: Path
    progress: bool

    def read_places(self, which: Literal["held_out", "trained_on"]) -> list[Place]:
        """The places of one set, at their clear dates."""
        return read_places(
            self.stock,
            getattr(self.stock, which),
            self.subject.model.config.bands,
            self.out / "records" / which,
            self.progress,
        )
