"""The rows of Table 3: what tells classes apart, by which features (section 4.4)."""

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Method(NamedTuple):
    """A row of Table 3.

    Attributes:
        title: what the row is called.
        features: what the classes are told by: of the encoder, of an untrained one, each on its
            grid or pooled (`sits_keras.hub.pooling`); statistics of each band; or the weights' own
            (`network`).
        probe: what is trained.
        is_baseline: it is there to be beaten.
        paper: accuracy that the paper gives for it.
    """

    title: str
    features: Literal["encoder", "pooled", "untrained", "untrained pooled", "statistics", "network"]
    probe: Literal["linear", "nearest", "frozen", "full", "scratch"]
    is_baseline: bool
    paper: float | None


METHODS: Mapping[str, Method] = {
    "frozen": Method("Frozen, FC(64), FC(classes)", "encoder", "frozen", False, 0.9238),
    "full": Method("Pretrained, full training", "network", "full", False, 0.9454),
    "linear": Method("Frozen, linear", "encoder", "linear", False, None),
    "nearest": Method("Frozen, 5 nearest", "encoder", "nearest", False, None),
    "pooled_frozen": Method("Pooled, FC(64), FC(classes)", "pooled", "frozen", False, None),
    "pooled_linear": Method("Pooled, linear", "pooled", "linear", False, None),
    "pooled_nearest": Method("Pooled, 5 nearest", "pooled", "nearest", False, None),
    "scratch": Method("From scratch", "network", "scratch", True, 0.6213),
    "untrained_frozen": Method("Untrained, FC(64), FC(classes)", "untrained", "frozen", True, None),
    "untrained_linear": Method("Untrained, linear", "untrained", "linear", True, None),
    "untrained_nearest": Method("Untrained, 5 nearest", "untrained", "nearest", True, None),
    "untrained_pooled_frozen": Method(
        "Untrained, pooled, FC(64), FC(classes)", "untrained pooled", "frozen", True, None
    ),
    "untrained_pooled_linear": Method(
        "Untrained, pooled, linear", "untrained pooled", "linear", True, None
    ),
    "untrained_pooled_nearest": Method(
        "Untrained, pooled, 5 nearest", "untrained pooled", "nearest", True, None
    ),
    "statistics_linear": Method("Band statistics, linear", "statistics", "linear", True, None),
    "statistics_nearest": Method("Band statistics, 5 nearest", "statistics", "nearest", True, None),
}
"""The rows of Table 3, and what they should be held against."""

QUICK_METHODS = tuple(name for name, one in METHODS.items() if one.features != "network")
"""All but `full` and `scratch`, which take hours on a CPU for all of EuroSAT."""
