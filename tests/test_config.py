import dataclasses
import json
import re

import pytest

from sits_keras.bands import BAND_MAX
from sits_keras.config import (
    Config,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PrepareConfig,
    RunConfig,
    TrainConfig,
    help_of,
)
from sits_keras.errors import ConfigError

OTHER_THAN_DEFAULT = [
    ModelConfig(
        bands=("B04", "B10"),
        band_max=(0.25, 0.1),
        width=8,
        shared_channels=3,
        exclusive_dim=5,
        leaky_slope=0.1,
        padding="context",
        shared_norm="layer",
        decoder_skips=True,
    ),
    ObjectiveConfig(
        *(1.0, 2.0, 0.0, 3.0, 0.2),
        adversarial="paper",
        update="simultaneous",
        lambda_global_info_nce=1.0,
        lambda_adversarial=0.5,
        global_first_layer=2,
        view_gain=0.1,
        view_band_gain=0.2,
        view_offset=0.3,
        view_window=32,
        freeze_shared=True,
    ),
    OptimizerConfig(
        learning_rate=1e-3,
        decay_steps=10,
        decay_rate=1.0,
        beta_1=0.9,
        clip_norm=1.0,
        schedule="cosine",
        warmup_steps=2,
        weight_decay=0.1,
        discriminator_rate=0.5,
    ),
    TrainConfig(
        *(1, 2, 3, 5, False, 6),
        steps_per_execution=2,
        precision="mixed_bfloat16",
        crop_size=128,
        balance="dates",
    ),
    PrepareConfig(("B02",), 512, 256, 6, 3, 0.5, 0.5, 1000, "GZIP", central=4, align=True),
]


def test_config_defaults_are_the_papers():
    assert ModelConfig().image_shape == (64, 64, 4)
    assert ModelConfig().exclusive_dim == 64
    assert ObjectiveConfig().lambda_l1 == 10
    assert ObjectiveConfig().lambda_shared == 0.5
    assert ObjectiveConfig().lambda_kl == 0.01
    assert ObjectiveConfig().lambda_info_nce == 0
    assert ModelConfig().shared_norm == "none"
    assert not ModelConfig().decoder_skips
    assert OptimizerConfig().learning_rate == 0.0002
    assert OptimizerConfig().decay_steps == 50_000
    assert OptimizerConfig().beta_1 == 0.5
    assert TrainConfig().steps == 150_000
    assert TrainConfig().batch_size == 64


def test_prepare_config_defaults_are_the_papers_screening():
    config = PrepareConfig()
    assert config.max_cloud == 0.02
    assert config.min_complete == 0.85
    assert config.dates == 12
    assert config.patch_size == 1024


def test_image_shape_has_number_of_bands():
    assert ModelConfig(bands=("B04", "B03", "B02")).image_shape == (64, 64, 3)


@pytest.mark.parametrize("config", OTHER_THAN_DEFAULT, ids=lambda config: type(config).__name__)
def test_config_roundtrips_through_json(config):
    for value, default in zip(vars(config).values(), vars(type(config)()).values(), strict=True):
        assert value != default  # so that a missing value is found
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_run_config_roundtrips_through_json():
    model, objective, optimizer, train, _ = OTHER_THAN_DEFAULT
    config = RunConfig(model, objective, optimizer, train)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_run_config_from_part_has_defaults():
    config = RunConfig.from_dict({"train": {"steps": 7}})
    assert config == RunConfig(train=TrainConfig(steps=7))


@pytest.mark.parametrize(
    ("values", "received"),
    [
        ({"network": {"width": 8}}, "network: {'width': 8}"),
        ({"model": 8}, "model: 8"),
    ],
)
def test_run_config_unknown_section_raises(values, received):
    with pytest.raises(ConfigError, match="sections model, objective, optimizer, train") as error:
        RunConfig.from_dict(values)
    assert f"Received: {received}." in str(error.value)


def test_config_unknown_setting_raises_with_known_ones():
    with pytest.raises(ConfigError) as error:
        OptimizerConfig.from_dict({"beta_1": 0.5, "momentum": 0.9, 3: None})
    assert str(error.value) == (
        "OptimizerConfig has no setting named 3, momentum. "
        "Expected some of: learning_rate, decay_steps, decay_rate, beta_1, clip_norm, schedule, "
        "warmup_steps, weight_decay, discriminator_rate."
    )


def test_config_unknown_setting_suggests_the_closest():
    with pytest.raises(ConfigError, match=r"named lambda_kll\. Did you mean 'lambda_kl'\?"):
        ObjectiveConfig.from_dict({"lambda_kll": 1.0})


def test_config_from_former_names_is_converted():
    assert ObjectiveConfig.from_dict({"lambda_contrast": 3.0}).lambda_info_nce == 3
    assert "lambda_contrast" not in ObjectiveConfig().to_dict()


@pytest.mark.parametrize("kind", [*Config.__subclasses__(), RunConfig])
def test_config_docstring_lists_help_of_every_setting(kind):
    assert "Attributes:" in kind.__doc__
    for field in dataclasses.fields(kind):
        text = help_of(kind, field.name)
        assert text[0].isupper()
        assert text.endswith(".")
        assert f"    {field.name}: {text}" in kind.__doc__


@pytest.mark.parametrize("values", ["run/config.yaml", None, [("width", 8)]])
def test_config_from_other_than_mapping_raises(values):
    with pytest.raises(
        ConfigError, match=r"ModelConfig has the wrong type. Expected a mapping of bands, .*"
    ):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize("config", [*OTHER_THAN_DEFAULT, RunConfig()])
def test_config_is_frozen(config):
    field = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, field, getattr(config, field))


def test_band_max_default_follows_order_of_bands():
    assert ModelConfig(bands=("B08", "B02")).band_max == (0.6, 0.3)


def test_band_max_given_is_kept():
    assert ModelConfig(bands=("B10",), band_max=(0.05,)).band_max == (0.05,)


def test_band_max_of_unknown_band_raises():
    with pytest.raises(ConfigError, match="band_max is known for B10, red: give band_max") as error:
        ModelConfig(bands=("B02", "B10", "red"))
    assert ", ".join(BAND_MAX) in str(error.value)


BAND_NAMES = "a tuple of different band names"
FOUR_MAXIMA = "a tuple of 4 reflectances of at least 0.001, one for each of B02, B03, B04, B08"
AT_LEAST_1 = "an integer of at least 1"
WEIGHT = "a finite number of at least 0"
FREEZE = "True or False, and False if only the shared encoder is trained"
FRACTION = "a fraction in [0, 1]"
DIVISOR = "an integer that divides steps_per_epoch=1000"
PRECISION = "'float32' or 'mixed_bfloat16'"
NAN, INFINITY = float("nan"), float("inf")

BAD_VALUES = [
    (ModelConfig, "bands", BAND_NAMES, [(), ("B02", "B02"), ("B02", 3), "B02", ["B02"], None]),
    (ModelConfig, "band_max", FOUR_MAXIMA, [(0.3,), (0.3, 0.3, 0.3, 0), (1, 1, 1, NAN), 0.3, None]),
    (ModelConfig, "band_max", FOUR_MAXIMA, [("1", "1", "1", "1"), [0.3, 0.3, 0.3, 0.3]]),
    (ModelConfig, "width", AT_LEAST_1, [0, -1, 8.0, "8", True]),
    (ModelConfig, "shared_channels", AT_LEAST_1, [0, 1.5]),
    (ModelConfig, "exclusive_dim", AT_LEAST_1, [0, None]),
    (ModelConfig, "leaky_slope", "in [0, 1)", [-0.1, 1, "0.2", NAN, True]),
    (ModelConfig, "padding", "'zeros' or 'context'", ["reflect", "same", None, True]),
    (ModelConfig, "shared_norm", "'none' or 'layer'", ["batch", "", None, True]),
    (ModelConfig, "decoder_skips", "True or False", [1, "yes", None]),
    (ObjectiveConfig, "lambda_l1", WEIGHT, [-1, NAN, INFINITY, "10", False]),
    (ObjectiveConfig, "lambda_shared", WEIGHT, [-0.5, None]),
    (ObjectiveConfig, "lambda_kl", WEIGHT, [-0.01, [0.01]]),
    (ObjectiveConfig, "lambda_info_nce", WEIGHT, [-1, INFINITY, "1"]),
    (ObjectiveConfig, "temperature", "a finite number of at least 0.001", [0, -1, NAN, None]),
    (ObjectiveConfig, "lambda_global_info_nce", WEIGHT, [-1, NAN]),
    (ObjectiveConfig, "lambda_adversarial", WEIGHT, [-1, "1"]),
    (ObjectiveConfig, "global_first_layer", "an integer in [0, 5]", [-1, 6, 4.0]),
    (ObjectiveConfig, "view_gain", WEIGHT, [-0.1, None]),
    (ObjectiveConfig, "view_band_gain", WEIGHT, [-0.1, INFINITY]),
    (ObjectiveConfig, "view_offset", WEIGHT, [-0.1, NAN]),
    (ObjectiveConfig, "view_window", "16, 32, 48 or 64", [0, 8, 40, 80, 48.0]),
    (ObjectiveConfig, "freeze_shared", FREEZE, [1, "yes", None]),
    (ObjectiveConfig, "adversarial", "'lsgan' or 'paper'", ["wgan", "", None]),
    (ObjectiveConfig, "update", "'alternating' or 'simultaneous'", ["both", None]),
    (OptimizerConfig, "learning_rate", "a finite number above 0", [0, -1e-4, INFINITY, "2e-4"]),
    (OptimizerConfig, "decay_steps", AT_LEAST_1, [0, 5e4]),
    (OptimizerConfig, "decay_rate", "in (0, 1]", [0, 1.1, -0.5, NAN]),
    (OptimizerConfig, "beta_1", "in [0, 1)", [1, -0.1, None]),
    (OptimizerConfig, "clip_norm", WEIGHT, [-1, NAN, INFINITY, None]),
    (OptimizerConfig, "schedule", "'staircase' or 'cosine'", ["linear", None]),
    (OptimizerConfig, "warmup_steps", "an integer of at least 0", [-1, 1.5]),
    (OptimizerConfig, "weight_decay", WEIGHT, [-0.1, None]),
    (OptimizerConfig, "discriminator_rate", WEIGHT, [-0.1, "1"]),
    (TrainConfig, "crop_size", "a multiple of 64", [0, 32, 100, 128.0]),
    (TrainConfig, "balance", "'records' or 'dates'", ["area", None]),
    (TrainConfig, "steps", AT_LEAST_1, [0, 1.5e5]),
    (TrainConfig, "batch_size", AT_LEAST_1, [0, "64"]),
    (TrainConfig, "seed", "an integer in [0, 2**31)", [-1, 2**31, 0.0]),
    (TrainConfig, "pairs_per_record", AT_LEAST_1, [0]),
    (TrainConfig, "augment", "True or False", [1, "yes", None]),
    (TrainConfig, "steps_per_epoch", AT_LEAST_1, [0]),
    (TrainConfig, "steps_per_execution", DIVISOR, [0, 3, 1.0, None]),
    (TrainConfig, "precision", PRECISION, ["mixed_float16", "bfloat16", None]),
    (PrepareConfig, "bands", BAND_NAMES, [(), ("B02", "B02"), "B02", (2, 3), ["B02"]]),
    (PrepareConfig, "block_size", "an integer of at least 128, twice the crop", [127, 128.0]),
    (PrepareConfig, "patch_size", "an integer of at least block_size=128", [127, 200.0]),
    (PrepareConfig, "dates", "an integer of at least min_dates=2", [1, 12.0]),
    (PrepareConfig, "min_dates", "an integer of at least 2", [1, 2.0]),
    (PrepareConfig, "max_cloud", FRACTION, [-0.01, 1.01, "2%", NAN]),
    (PrepareConfig, "min_complete", FRACTION, [-0.01, 85]),
    (PrepareConfig, "shard_bytes", AT_LEAST_1, [0, 1e8]),
    (PrepareConfig, "compression", "'' or 'GZIP'", ["gzip", "ZLIB", None]),
    (PrepareConfig, "central", "an integer of at least 0", [-1, 5.0, None]),
    (PrepareConfig, "align", "True or False", [1, "yes", None]),
]


@pytest.mark.parametrize(
    ("kind", "name", "expected", "value"),
    [(kind, name, expected, value) for kind, name, expected, bad in BAD_VALUES for value in bad],
)
def test_config_value_out_of_range_raises(kind, name, expected, value):
    message = f"{kind.__name__}.{name} must be {expected}. Received: {name}={value!r}."
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        kind(**{name: value})


def test_every_setting_has_values_out_of_range():
    tried = {(kind, name) for kind, name, _, _ in BAD_VALUES}
    settings = {
        (type(config), field.name)
        for config in OTHER_THAN_DEFAULT
        for field in dataclasses.fields(config)
    }
    assert tried == settings


@pytest.mark.parametrize(
    "config",
    [
        {"leaky_slope": 0},
        {"lambda_kl": 0},
        {"decay_rate": 1},
        {"beta_1": 0},
        {"seed": 2**31 - 1},
        {"max_cloud": 1, "min_complete": 0},
        {"block_size": 128, "patch_size": 128},
        {"dates": 2, "min_dates": 2},
    ],
)
def test_config_ends_of_ranges_are_accepted(config):
    (kind,) = (type(c) for c in OTHER_THAN_DEFAULT if set(config) <= set(c.to_dict()))
    assert config.items() <= kind(**config).to_dict().items()
