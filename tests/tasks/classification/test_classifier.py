import csv
import json
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from sits_keras import hub
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.tasks.classification.classifier import (
    fit_classifier,
    load_classifier,
    save_classifier,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def images(labelled):
    return labelled(count=10)


@pytest.fixture(scope="module")
def trained(rgb_model, images):
    return fit_classifier(rgb_model, images, seed=1)


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    return save_classifier(trained, tmp_path_factory.mktemp("classifier") / "new" / "kept")


def test_fit_classifier_frozen_encoder_separates_brightness(trained, images):
    probabilities = trained(images.reflectance(slice(None)))
    assert probabilities.shape == (30, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities.argmax(axis=1) == images.labels).mean() == 1.0


def test_fit_classifier_scores_held_out_images(trained):
    scores = trained.description["scores"]
    assert (scores["num_train"], scores["num_test"]) == (24, 6)
    assert scores["accuracy"] == 1.0
    # Wilson for 6 of 6: 1 / (1 + 3.8415 / 6).
    assert scores["interval_95"] == pytest.approx([0.6097, 1.0], abs=1e-4)
    assert scores["confusion"] == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]


def test_load_classifier_gives_same_probabilities(trained, saved, images):
    loaded = load_classifier(saved)
    assert (loaded.classes, loaded.bands) == (("A", "B", "C"), ("B04", "B03", "B02"))
    assert loaded.description == trained.description
    batch = images.reflectance(slice(0, None, 7))
    np.testing.assert_allclose(loaded(batch), trained(batch), rtol=1e-4, atol=1e-6)


def test_save_classifier_describes_classifier(saved, images):
    text = (saved / "classifier.json").read_text()
    description = json.loads(text)
    assert description["classes"] == ["A", "B", "C"]
    assert description["bands"] == ["B04", "B03", "B02"]
    assert description["input"]["clipped_at"] == 0.275
    assert description["data"] == {"images": 30, "sha256": images.sha256}
    assert description["settings"] == {
        "mode": "pooled",
        "epochs": 500,
        "fraction": 1.0,
        "split": "stratified",
        "seed": 1,
    }
    with (saved / "history.csv").open(newline="") as source:
        rows = list(csv.DictReader(source))
    assert len(rows) == 500
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert matplotlib.image.imread(saved / "confusion.png").shape[0] > 200


def test_saved_classifier_runs_without_package(saved, tmp_path):
    program = (
        "import sys, numpy as np, tensorflow as tf;"
        f"module = tf.saved_model.load({str(saved)!r});"
        "x = np.full((2, 64, 64, 3), 0.1, np.float32);"
        "called = module(x).numpy();"
        "served = module.signatures['serving_default'](inputs=tf.constant(x))['probabilities'];"
        "np.testing.assert_array_equal(called, served);"
        "print(called.shape, 'sits_keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout == "(2, 3) False\n"


def test_classifier_clips_reflectance_like_training_images(trained):
    bright = np.full((1, 64, 64, 3), 0.275, np.float32)
    np.testing.assert_array_equal(trained(bright), trained(bright * 3))
    assert not np.array_equal(trained(bright), trained(bright / 3))


def test_fit_classifier_pooled_and_frozen_use_different_features(rgb_model, images, few_steps):
    pooled, frozen = (
        fit_classifier(rgb_model, images, mode=mode, epochs=1, seed=1)
        for mode in ("pooled", "frozen")
    )
    sizes = [one.module.head_variables[0].shape[0] for one in (pooled, frozen)]
    encoder = hub.wrap(rgb_model)
    assert sizes == [encoder.num_features, encoder.num_flattened]


@pytest.mark.parametrize("mode", ["frozen", "full", "scratch"])
def test_save_classifier_supports_every_mode(mode, rgb_model, images, few_steps, tmp_path):
    before = [np.array(one) for one in rgb_model.shared_encoder.get_weights()]
    trained = fit_classifier(rgb_model, images, mode=mode, epochs=2)
    for old, now in zip(before, rgb_model.shared_encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    assert trained.description["settings"]["epochs"] == 2
    assert (trained.description["encoder"]["sha256"] is None) == (mode == "scratch")
    loaded = load_classifier(save_classifier(trained, tmp_path / "kept"))
    batch = images.reflectance(slice(0, None, 7))
    np.testing.assert_allclose(loaded(batch), trained(batch), rtol=1e-4, atol=1e-6)
    bright = np.full((1, 64, 64, 3), 0.275, np.float32)
    np.testing.assert_array_equal(loaded(bright), loaded(bright * 3))


def test_fit_classifier_hub_module_stays_frozen(rgb_model, images, few_steps, tmp_path):
    module = hub.load(hub.export(rgb_model, tmp_path / "module"))
    trained = fit_classifier(module, images, epochs=1, seed=1)
    same = fit_classifier(rgb_model, images, epochs=1, seed=1)
    batch = images.reflectance(slice(0, None, 7))
    np.testing.assert_allclose(trained(batch), same(batch), rtol=1e-3, atol=1e-5)
    loaded = load_classifier(save_classifier(trained, tmp_path / "kept"))
    np.testing.assert_allclose(loaded(batch), trained(batch), rtol=1e-4, atol=1e-6)
    checksum = trained.description["encoder"]["sha256"]
    assert checksum == same.description["encoder"]["sha256"]
    assert len(checksum) == 64
    with pytest.raises(ConfigError, match="mode='full' trains the encoder, but a hub module"):
        fit_classifier(module, images, mode="full")


def test_fit_classifier_uses_fraction_and_spatial_split(rgb_model, images, few_steps):
    trained = fit_classifier(rgb_model, images, fraction=0.5, split="spatial", epochs=1, seed=2)
    scores = trained.description["scores"]
    assert (scores["num_train"], scores["num_test"]) == (12, 6)
    assert trained.description["settings"]["fraction"] == 0.5


def test_fit_classifier_invalid_option_is_refused(rgb_model, images):
    with pytest.raises(
        ConfigError, match=r"mode must be one of pooled, frozen, full, scratch\. Received"
    ):
        fit_classifier(rgb_model, images, mode="half")
    with pytest.raises(ConfigError, match="The model takes the bands B04, B03, B02"):
        fit_classifier(rgb_model, images._replace(bands=("B02", "B03", "B04")))


def test_classifier_other_image_shape_is_refused(trained):
    with pytest.raises(ConfigError, match=r"\(batch, 64, 64, 3\), bands B04, B03, B02\. Received"):
        trained(np.zeros((1, 64, 64, 4), np.float32))


def test_save_classifier_existing_folder_is_kept(trained, tmp_path):
    path = save_classifier(trained, tmp_path / "kept")
    with pytest.raises(ExistsError, match=r"or overwrite it \(--overwrite\)"):
        save_classifier(trained, path)
    save_classifier(trained, path, overwrite=True)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ExistsError, match=r"is not a classifier\. Choose another folder"):
        save_classifier(trained, tmp_path / "mine", overwrite=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["kept", "mine"]


def test_load_classifier_other_folder_is_refused(saved, tmp_path):
    with pytest.raises(MissingError, match=r"folder with classifier\.json\. Train one with"):
        load_classifier(tmp_path)
    file = tmp_path / "classifier.json"
    file.write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        load_classifier(tmp_path)
    file.write_text('{"format": "other", "version": 7}')
    with pytest.raises(
        DataError,
        match=r"is of format 'other', version 7\. Expected 'sits_keras classifier', version 1\.",
    ):
        load_classifier(tmp_path)
    file.write_text((saved / "classifier.json").read_text())
    with pytest.raises(DataError, match=r"cannot be loaded: .*Train the classifier again"):
        load_classifier(tmp_path)
