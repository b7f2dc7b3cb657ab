import json

import numpy as np
import pytest

from sits_keras import hub
from sits_keras.errors import ConfigError, DataError
from sits_keras.tasks.classification import finetuning
from sits_keras.tasks.classification.peers import has_imagenet_weights
from sits_keras.tasks.classification.table_3 import METHODS, QUICK_METHODS, fill_table

pytestmark = pytest.mark.integration

PROBES = ["linear", "nearest"]


def brightness(images):
    return images.mean(axis=(1, 2))


def constant(images):
    return np.ones((len(images), 3))


def accuracies(rows):
    return {row["method"]: row["accuracy"] for row in rows}


def test_fill_table_distinct_classes_have_accuracy_one(labelled):
    methods = ["frozen", *PROBES, "statistics_linear", "statistics_nearest"]
    rows = fill_table(brightness, labelled(), methods=methods, fractions=[1.0])
    assert accuracies(rows) == dict.fromkeys(methods, 1.0)
    for row in rows:
        assert row["confusion"] == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
        # Wilson for 12 of 12: 1 / (1 + 3.8415 / 12).
        assert (row["low"], row["high"]) == pytest.approx((0.7575, 1.0), abs=1e-4)


@pytest.mark.parametrize("split", ["stratified", "spatial"])
def test_fill_table_constant_features_give_chance(split, labelled):
    images = labelled(count=20, levels=(20, 70, 120, 170, 220))
    rows = fill_table(constant, images, methods=["frozen", *PROBES], fractions=[1.0], split=split)
    assert accuracies(rows) == pytest.approx(dict.fromkeys(["frozen", *PROBES], 0.2))


def test_fill_table_shuffled_labels_give_chance(labelled):
    images = labelled(count=100, levels=(20, 220))
    shuffled = images._replace(labels=np.random.default_rng(0).permutation(images.labels))
    rows = fill_table(
        brightness, shuffled, methods=["linear", "nearest"], fractions=[1.0], seeds=range(5)
    )
    for row in rows:
        assert row["accuracy"] == pytest.approx(0.5, abs=0.12)
        assert row["low"] < 0.5 < row["high"]


def test_fill_table_row_describes_measurement(labelled):
    images = labelled(count=50)
    seen = []
    rows = fill_table(
        brightness,
        images,
        methods=["linear", "statistics_nearest"],
        fractions=[1.0, 0.1],
        seeds=[3, 4],
        on_row=seen.append,
    )
    assert rows == seen
    assert [(row["fraction"], row["method"]) for row in rows] == [
        (1.0, "linear"),
        (1.0, "statistics_nearest"),
        (0.1, "linear"),
        (0.1, "statistics_nearest"),
    ]
    assert [row["num_train"] for row in rows] == [120, 120, 12, 12]
    first = rows[0]
    assert first["seeds"] == [3, 4]
    assert first["num_test"] == 30
    assert np.sum(first["confusion"]) == 60  # of both seeds
    assert first["classes"] == ["A", "B", "C"]
    assert first["epochs"] is None
    assert first["std"] == 0.0
    assert not first["is_baseline"]
    assert rows[1]["is_baseline"]
    json.dumps(rows)  # plain values


def test_fill_table_mean_and_deviation_are_over_seeds(labelled):
    images = labelled(count=40, levels=(118, 122), noise=100)  # hard to tell
    (row,) = fill_table(brightness, images, methods=["nearest"], fractions=[1.0], seeds=range(4))
    assert len(row["accuracies"]) == 4
    assert row["accuracy"] == pytest.approx(np.mean(row["accuracies"]))
    assert row["std"] == pytest.approx(np.std(row["accuracies"], ddof=1))
    alone = [
        fill_table(brightness, images, methods=["nearest"], fractions=[1.0], seeds=[seed])[0]
        for seed in range(4)
    ]
    assert [one["accuracy"] for one in alone] == row["accuracies"]
    assert alone[0]["std"] is None


def test_fill_table_whole_model_fills_every_row(rgb_model, labelled, few_steps):
    images = labelled(count=10)
    epochs = {"frozen": 2, "full": 1, "scratch": 3}
    rows = fill_table(rgb_model, images, fractions=[1.0], epochs=epochs)
    assert [row["method"] for row in rows] == [
        name for name in METHODS if METHODS[name].features != "imagenet" or has_imagenet_weights()
    ]
    by_method = {row["method"]: row for row in rows}
    assert {name: row["epochs"] for name, row in by_method.items() if row["epochs"]} == {
        "frozen": 2,
        "full": 1,
        "scratch": 3,
        "pooled_frozen": 2,
        "untrained_frozen": 2,
        "untrained_pooled_frozen": 2,
    }
    assert {name: row["paper"] for name, row in by_method.items() if row["paper"]} == {
        "frozen": 0.9238,
        "full": 0.9454,
        "scratch": 0.6213,
    }
    assert by_method["statistics_linear"]["accuracy"] == 1.0
    # The model itself is untrained, of the same seed: its rows are the baseline's.
    for probe in ("linear", "nearest", "pooled_linear", "pooled_nearest"):
        assert by_method[probe]["confusion"] == by_method[f"untrained_{probe}"]["confusion"]


def test_fill_table_trained_network_separates_classes(rgb_model, labelled, monkeypatch):
    # Long enough for the statistics of batch normalization, which forget a hundredth a step.
    monkeypatch.setattr(finetuning, "MIN_STEPS", 200)
    images = labelled(count=20, levels=(20, 220))
    rows = fill_table(rgb_model, images, methods=["full", "scratch"], fractions=[1.0])
    assert accuracies(rows) == {"full": 1.0, "scratch": 1.0}


def test_fill_table_encoder_fills_possible_rows(labelled, few_steps):
    possible = ["encoder", "statistics", "random", *["imagenet"] * has_imagenet_weights()]
    rows = fill_table(brightness, labelled(count=10), fractions=[1.0])
    assert [row["method"] for row in rows] == [
        name for name in METHODS if METHODS[name].features in possible
    ]
    without_red = labelled(count=10)._replace(bands=("B08", "B03", "B02"))
    rows = fill_table(brightness, without_red, fractions=[1.0], methods=["imagenet_linear"])
    assert rows == []


def test_fill_table_hub_module_equals_its_model(rgb_model, labelled, few_steps):
    images = labelled(count=10)
    probes = ["linear", "pooled_linear", "pooled_nearest", "untrained_pooled_linear"]
    whole, alone = (
        fill_table(one, images, methods=probes, fractions=[1.0])
        for one in (rgb_model, hub.wrap(rgb_model))
    )
    assert [row["method"] for row in alone] == probes[:3]
    assert accuracies(alone) == {name: accuracies(whole)[name] for name in probes[:3]}


def test_quick_methods_train_no_network():
    assert set(METHODS) - set(QUICK_METHODS) == {"full", "scratch"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["magic"]}, r"Expected methods of frozen, .*Received: methods=\['magic'\]"),
        ({"seeds": []}, r"at least one seed\. .*seeds=\[\]"),
        ({"split": "random"}, "'spatial' or 'longitude'. Received: 'random'"),
        (
            {"fractions": [0.01]},
            r"fraction=0\.01 of 24 images is less than one image for each of 3",
        ),
    ],
)
def test_fill_table_invalid_option_is_refused(options, message, labelled):
    with pytest.raises(ConfigError, match=message):
        fill_table(brightness, labelled(count=10), **options)


def test_fill_table_spatial_split_without_georeferencing_is_refused(labelled):
    with pytest.raises(DataError, match="have no georeferencing"):
        fill_table(brightness, labelled(count=10)._replace(cells=None), split="spatial")


def test_fill_table_other_bands_are_refused(rgb_model, labelled):
    swapped = labelled(count=5)._replace(bands=("B02", "B03", "B04"))
    with pytest.raises(
        ConfigError, match=r"takes the bands B04, B03, B02\. Received images of B02, B03, B04"
    ):
        fill_table(rgb_model, swapped)
