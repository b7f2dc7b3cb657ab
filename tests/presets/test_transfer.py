"""Shipped encoders, used and fine-tuned as the README describes."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub
import tf_keras

from sits_keras.data import synthetic
from sits_keras.data.radiometry import QUANTIFICATION
from sits_keras.presets.folders import read_preset

PRESETS = sorted(
    file.parent for file in (Path(__file__).parents[2] / "savedmodels").glob("*/preset.json")
)
COVER = {"forest": ("forest",), "town": ("town", "road"), "water": ("water",)}
NUM_CHIPS = 8  # of each class
STEPS = 12

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not PRESETS, reason="no preset in savedmodels/"),
]


class Chips(NamedTuple):
    images: np.ndarray  # (chips, 64, 64, bands) float32 reflectance
    labels: np.ndarray


@pytest.fixture(scope="module")
def chips_of():
    """Return chips of synthetic places in the bands of a preset, labelled by their main cover."""
    all_bands = ("B02", "B03", "B04", "B08")
    images, labels, counts = [], [], Counter()
    for seed in range(4):
        series = synthetic.make_series(seed, num_dates=2, num_cloudy=0, bands=all_bands)
        for row in range(0, 193, 32):
            for col in range(0, 193, 32):
                part = np.s_[row : row + 64, col : col + 64]
                shares = [
                    np.isin(series.states[1][part], [synthetic.STATES.index(n) for n in names])
                    for names in COVER.values()
                ]
                label = int(np.argmax([share.mean() for share in shares]))
                if shares[label].mean() > 0.2 and counts[label] < NUM_CHIPS:
                    counts[label] += 1
                    images.append(series.images[1][part] / np.float32(QUANTIFICATION))
                    labels.append(label)
    assert set(counts.values()) == {NUM_CHIPS}
    assert len(counts) == len(COVER)

    def select(preset: Path) -> Chips:
        columns = [all_bands.index(band) for band in read_preset(preset)["bands"]]
        return Chips(np.stack(images)[..., columns], np.array(labels))

    return select


class Tuned(NamedTuple):
    """Return a classifier trained for `STEPS` steps on all chips at once."""

    library: Any  # tf_keras or keras
    classifier: Any
    layer: Any  # the encoder in it
    before: list[np.ndarray]  # the encoder's weights at first
    losses: list[float]
    chips: Chips


def tune(library: Any, preset: Path, chips: Chips, trainable: bool) -> Tuned:
    folder = str(preset / "shared_encoder")
    library.utils.set_random_seed(0)
    if library is tf_keras:
        layer = tensorflow_hub.KerasLayer(folder, trainable=trainable)
    else:
        layer = keras.layers.TFSMLayer(folder, call_endpoint="__call__", trainable=trainable)
    classifier = library.Sequential(
        [
            library.layers.InputLayer(chips.images.shape[1:]),
            layer,
            library.layers.Dense(len(COVER)),
        ]
    )
    classifier.compile(
        library.optimizers.Adam(1e-3),
        library.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    if library is keras:
        classifier.optimizer.build(classifier.trainable_variables)  # as the README says
    before = [np.array(weight) for weight in layer.weights]
    count = len(chips.labels)
    history = classifier.fit(*chips, batch_size=count, epochs=STEPS, verbose=0).history
    return Tuned(library, classifier, layer, before, history["loss"], chips)


@pytest.fixture(
    scope="module",
    params=[(library, preset) for preset in PRESETS for library in (tf_keras, keras)],
    ids=lambda param: f"{param[1].name}-{param[0].__name__}",
)
def tuned(request, chips_of):
    library, preset = request.param
    return tune(library, preset, chips_of(preset), trainable=True)


# As they are


WITHOUT_THIS_PACKAGE = """
import sys
sys.modules["sits_keras"] = sys.modules["keras"] = None  # importing them fails
import numpy as np
import tensorflow as tf
images, out, *folders = sys.argv[1:]
images = np.load(images)
features = {}
for folder in folders:
    module = tf.saved_model.load(folder)
    bands = module.signatures["serving_default"].structured_input_signature[1]["inputs"].shape[-1]
    features[folder] = module(images[..., :bands])
np.savez(out, **features)
"""


def test_shipped_encoder_without_this_package_gives_the_same_features(tmp_path):
    folders = [preset / "shared_encoder" for preset in PRESETS]
    images = np.random.default_rng(0).uniform(0, 0.4, (3, 64, 64, 4)).astype(np.float32)
    files = [tmp_path / "images.npy", tmp_path / "out.npz"]
    np.save(files[0], images)
    command = [sys.executable, "-c", WITHOUT_THIS_PACKAGE, *files, *folders]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    without = np.load(files[1])
    for folder in folders:
        features = without[str(folder)]
        assert np.ptp(features, axis=0).max() > 0.1
        bands = read_preset(folder.parent)["bands"]
        expected = tensorflow_hub.load(str(folder))(images[..., : len(bands)])
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-4)


# Fine-tuned


def test_fine_tuning_lowers_the_loss(tuned):
    assert np.isfinite(tuned.losses).all()
    assert tuned.losses[-1] < 0.3 * tuned.losses[0]


def test_fine_tuning_changes_every_trainable_weight(tuned):
    trainable = {id(weight) for weight in tuned.layer.trainable_weights}
    assert len(trainable) == 15  # five kernels, and gamma and beta of five normalisations
    for weight, before in zip(tuned.layer.weights, tuned.before, strict=True):
        moved = not np.array_equal(weight, before)
        # Statistics of batches: TFSMLayer does not tell the module that it is being trained.
        assert moved == (id(weight) in trainable or tuned.library is tf_keras), weight.name


def test_fine_tuning_optimizer_has_slots_for_every_trainable_variable(tuned):
    variables = tuned.classifier.trainable_variables
    assert len(variables) == 15 + 2  # and the head's kernel and bias
    slots = [np.array(variable) for variable in tuned.classifier.optimizer.variables]
    slots = [slot for slot in slots if slot.ndim]  # not the step, nor the learning rate
    shapes = Counter(slot.shape for slot in slots)
    assert shapes == Counter([tuple(v.shape) for v in variables for _ in ("m", "v")])
    assert all(slot.any() for slot in slots)  # each was written


def test_fine_tuning_gradients_reach_every_trainable_variable(tuned):
    images, labels = tuned.chips
    with tf.GradientTape() as tape:
        logits = tuned.classifier(images[::5], training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels[::5], logits))
    variables = tuned.classifier.trainable_variables
    if tuned.library is keras:
        variables = [variable.value for variable in variables]
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert gradient is not None
        assert np.asarray(gradient).any(), variable.name


@pytest.mark.parametrize("library", [tf_keras, keras], ids=lambda library: library.__name__)
def test_frozen_encoder_keeps_its_weights(library, chips_of):
    one = tune(library, PRESETS[0], chips_of(PRESETS[0]), trainable=False)
    assert one.losses[-1] < 0.7 * one.losses[0]
    for weight, before in zip(one.layer.weights, one.before, strict=True):
        np.testing.assert_array_equal(weight, before)
    slots = [v for v in one.classifier.optimizer.variables if len(v.shape)]
    assert len(slots) == 2 * len(one.classifier.trainable_variables) == 4  # of the head alone


# Kept


def logits_of(one: Tuned) -> np.ndarray:
    return np.asarray(one.classifier(one.chips.images))


def test_fine_tuned_classifier_saved_as_saved_model_is_complete(tuned, tmp_path):
    """The SavedModel contains the encoder, and needs neither this package nor the preset."""
    folder = str(tmp_path / "classifier")
    if tuned.library is tf_keras:
        tuned.classifier.save(folder)
        loaded = again = tf_keras.models.load_model(folder)
    else:
        tuned.classifier.export(folder, verbose=False)
        loaded = tf.saved_model.load(folder)
        again = loaded.serve
    np.testing.assert_allclose(again(tuned.chips.images), logits_of(tuned), rtol=0, atol=1e-5)
    del loaded


def test_fine_tuned_classifier_saved_as_keras_file_needs_the_module(chips_of, tmp_path):
    preset = Path(shutil.copytree(PRESETS[0], tmp_path / "preset"))
    one = tune(keras, preset, chips_of(preset), trainable=True)
    file = tmp_path / "classifier.keras"
    one.classifier.save(file)
    with pytest.raises(ValueError, match="safe_mode=False"):  # a SavedModel is a program
        keras.models.load_model(file)
    again = keras.models.load_model(file, safe_mode=False)
    np.testing.assert_allclose(again(one.chips.images), logits_of(one), rtol=0, atol=1e-5)
    preset.rename(tmp_path / "moved")
    with pytest.raises(OSError, match=str(preset)):
        keras.models.load_model(file, safe_mode=False)
