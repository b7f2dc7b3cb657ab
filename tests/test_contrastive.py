import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from sits_keras import contrastive, from_preset, losses, train
from sits_keras.config import (
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from sits_keras.contrastive import cell_statistics, crop, pooled_vectors, whole_windows
from sits_keras.errors import ArgumentError, ConfigError
from sits_keras.hub.pooling import build_pooled_encoder
from sits_keras.model import DisentangledSITS
from sits_keras.receptive_field import context_margin

CONFIG = ModelConfig(
    bands=("B04", "B03", "B02"), width=2, shared_channels=3, exclusive_dim=5, padding="context"
)
ENCODER_ONLY = ObjectiveConfig(
    lambda_l1=0.0,
    lambda_shared=0.0,
    lambda_kl=0.0,
    lambda_adversarial=0.0,
    lambda_info_nce=1.0,
    lambda_global_info_nce=1.0,
)
BEFORE, AFTER = context_margin(CONFIG)


def make_crops(seed: int, num: int = 2, size: int = 128) -> np.ndarray:
    shape = (num, size + BEFORE + AFTER, size + BEFORE + AFTER, 3)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def make_model(objective: ObjectiveConfig = ENCODER_ONLY, **kwargs) -> DisentangledSITS:
    model = DisentangledSITS(CONFIG, seed=3)
    model.compile(keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01), objective, **kwargs)
    return model


class TestPooledVectors:
    def test_pooled_vectors_of_windows_equal_pooled_encoder(self):
        model = make_model()
        crops = make_crops(1)
        images = model._with_context(crops)
        maps = model._encoder_layers()(images)
        # The pooled encoder has the logarithm of the deviation, and two more numbers of each layer.
        statistics = cell_statistics([images, *maps[:3]], 128)
        vectors = pooled_vectors(statistics, contrastive.window_weights(2, 128))
        side = 64 + BEFORE + AFTER
        windows = [
            crops[i, row : row + side, col : col + side]
            for i in (0, 1)
            for row in (0, 64)
            for col in (0, 64)
        ]
        pooled = np.asarray(build_pooled_encoder(model.shared_encoder, CONFIG)(np.stack(windows)))
        starts = np.cumsum([0, 4 * 3, 4 * 2, 4 * 4])
        expected = []
        for start, channels in zip(starts, (3, 2, 4, 8), strict=True):
            mean, log = np.split(pooled[:, start : start + 2 * channels], 2, axis=1)
            expected += [mean, np.exp(log) - 0.01]
        np.testing.assert_allclose(vectors, np.concatenate(expected, axis=-1), atol=2e-3)

    def test_pooled_vectors_two_cells_have_hand_values(self):
        mean = np.zeros((1, 4, 4, 1), np.float32)
        square = np.zeros((1, 4, 4, 1), np.float32)
        mean[0, 0, :2, 0] = 1, 3
        square[0, 0, :2, 0] = 2, 12
        weights = np.zeros((1, 1, 4, 4), np.float32)
        weights[0, 0, 0, :2] = 0.5
        # Mean (1 + 3) / 2 = 2, mean square (2 + 12) / 2 = 7, variance 7 - 4 = 3.
        vector = pooled_vectors([(mean, square)], weights)
        np.testing.assert_allclose(vector, [[2, math.sqrt(3)]], rtol=1e-5)


class TestWindows:
    def test_window_weights_tile_crop(self):
        weights = np.asarray(contrastive.window_weights(1, 128))
        np.testing.assert_allclose(weights.sum(axis=(2, 3)), 1)
        np.testing.assert_allclose(weights[0, 1, :4, 4:], 1 / 16)

    def test_random_window_weights_are_rectangles_in_windows(self):
        rng = np.random.default_rng(0)

        def uniform(shape):
            return rng.random(shape).astype(np.float32)

        weights = np.asarray(contrastive.random_window_weights(50, 128, 32, uniform))
        np.testing.assert_allclose(weights.sum(axis=(2, 3)), 1, rtol=1e-5)
        assert not weights[:, 3, :4].any()
        assert not weights[:, 3, :, :4].any()
        num_cells = (weights > 0).sum(axis=(2, 3))
        assert set(np.unique(num_cells)) == {4, 6, 8, 9, 12, 16}

    def test_whole_windows_return_minimum_of_cells(self):
        cells = np.ones((1, 8, 8), np.float32)
        cells[0, 5, 6] = 0.25
        np.testing.assert_array_equal(whole_windows(cells), [1, 1, 1, 0.25])


def test_crop_gradient_equals_slice():
    values = tf.constant(np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1))
    with tf.GradientTape() as tape:
        tape.watch(values)
        inside = crop(values, 1, 3)
        loss = tf.reduce_sum(inside * inside)
    np.testing.assert_array_equal(inside, values[:, 1:4, 1:4])
    expected = np.zeros((1, 5, 5, 1), np.float32)
    expected[:, 1:4, 1:4] = 2 * inside
    np.testing.assert_array_equal(tape.gradient(loss, values), expected)


def test_jitter_zero_deviation_keeps_images():
    objective = ObjectiveConfig(view_gain=0.0, view_band_gain=0.0, view_offset=0.0)
    images = make_crops(2, size=64)
    np.testing.assert_allclose(
        contrastive.jitter(images, keras.random.normal, objective), images, atol=1e-6
    )


def test_jitter_known_draw_has_hand_values():
    objective = ObjectiveConfig(view_gain=0.5, view_band_gain=0.0, view_offset=0.1)
    images = np.full((1, 2, 2, 3), -0.5, np.float32)  # 0.25 in [0, 1]
    jittered = contrastive.jitter(images, lambda shape: np.ones(shape, np.float32), objective)
    np.testing.assert_allclose(jittered, 2 * (0.25 * math.exp(0.5) + 0.1) - 1, rtol=1e-5)


class TestObjective:
    def test_weighted_info_nce_two_pairs_have_hand_value(self):
        x = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
        # The third vector is left out: two orthogonal pairs at temperature 1.
        weights = np.array([1, 1, 0], np.float32)
        expected = math.log(math.e + 1) - 1
        assert float(losses.weighted_info_nce(x, x, 1.0, weights)) == pytest.approx(
            expected, rel=1e-4
        )

    def test_weighted_info_nce_group_has_no_negatives_within(self):
        x = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
        # One candidate is the vector itself, the two of the other group are orthogonal to it.
        expected = math.log(math.e + 2) - 1
        loss = losses.weighted_info_nce(x, x, 1.0, np.ones(4, np.float32), group_size=2)
        assert float(loss) == pytest.approx(expected, rel=1e-4)

    def test_weighted_info_nce_zero_weights_is_zero(self):
        x = np.ones((3, 2), np.float32)
        assert float(losses.weighted_info_nce(x, x, 1.0, np.zeros(3, np.float32))) == 0

    def test_weighted_info_nce_equal_weights_equals_info_nce(self):
        x, y = (np.random.default_rng(i).normal(size=(2, 4, 4, 3)).astype("f4") for i in (0, 1))
        flat = [one.reshape(-1, 3) for one in (x, y)]
        weights = np.ones(32, np.float32)
        assert float(losses.weighted_info_nce(*flat, 0.1, weights)) == pytest.approx(
            float(losses.info_nce(x, y, 0.1)), rel=1e-5
        )

    def test_encoder_terms_loss_is_weighted_sum(self):
        objective = ObjectiveConfig(
            lambda_l1=0.0,
            lambda_kl=0.0,
            lambda_adversarial=0.0,
            lambda_shared=2.0,
            lambda_info_nce=3.0,
            lambda_global_info_nce=5.0,
        )
        terms = make_model(objective).encoder_terms(make_crops(1), make_crops(2), training=False)
        expected = 2 * terms["shared_l1"] + 3 * terms["info_nce"] + 5 * terms["global_info_nce"]
        assert float(terms["loss"]) == pytest.approx(float(expected), rel=1e-5)

    def test_update_encoder_only_changes_shared_encoder_and_projector(self):
        model = make_model(run_eagerly=True)
        before = {variable.path: np.array(variable) for variable in model.weights}
        model.update(make_crops(1), make_crops(2))
        changed = {
            variable.path.split("_")[0]
            for variable in model.weights
            if (np.asarray(variable) != before[variable.path]).any()
        }
        assert changed == {"shared", "projector"}

    def test_encoder_terms_cells_of_weight_zero_are_ignored(self):
        model = make_model()
        x, y = make_crops(1), make_crops(2)
        weights = np.ones((2, 8, 8), np.float32)
        weights[1] = 0
        changed = y.copy()
        changed[1] = 0.5
        losses_of = [
            float(model.encoder_terms(x, one, weights, training=False)["loss"])
            for one in (y, changed)
        ]
        assert losses_of[0] == pytest.approx(losses_of[1], rel=1e-5)

    def test_encoder_terms_same_seed_are_equal(self):
        x, y = make_crops(1), make_crops(2)
        first, again = (
            float(make_model().encoder_terms(x, y, training=True)["loss"]) for _ in range(2)
        )
        assert first == again

    def test_fit_encoder_only_reports_its_terms(self):
        model = make_model()
        weights = np.ones((2, 8, 8), np.float32)
        data = tf.data.Dataset.from_tensors((make_crops(1), make_crops(2), weights))
        history = model.fit(data, verbose=0).history
        assert set(history) == {"loss", "shared_l1", "info_nce", "global_info_nce"}
        assert set(model.evaluate(data, verbose=0, return_dict=True)) == set(history)

    def test_encoder_terms_crop_of_64_px_without_context_is_finite(self):
        crops = make_crops(1, size=64)
        inside = slice(BEFORE, BEFORE + 64)
        terms = make_model().encoder_terms(
            crops[:, inside, inside], crops[:, inside, inside], training=False
        )
        assert np.isfinite(float(terms["loss"]))


class TestErrors:
    def test_compile_encoder_only_with_zero_padding_raises(self):
        model = DisentangledSITS(ModelConfig(width=2), seed=0)
        with pytest.raises(ConfigError, match="padding='zeros'"):
            model.compile(objective=ENCODER_ONLY)

    def test_compile_global_info_nce_beside_other_terms_raises(self):
        with pytest.raises(ConfigError, match=r"lambda_global_info_nce.*lambda_l1=10\.0"):
            make_model(ObjectiveConfig(lambda_global_info_nce=1.0))

    def test_update_all_networks_with_weights_raises(self):
        model = make_model(ObjectiveConfig(), run_eagerly=True)
        crops = make_crops(1, size=64)
        with pytest.raises(ArgumentError, match="sample weights"):
            model.update(crops, crops, np.ones((2, 4, 4)))


def test_compile_without_global_info_nce_keeps_projector_as_it_is():
    model = make_model()
    objective = dataclasses.replace(ENCODER_ONLY, lambda_global_info_nce=0.0)
    model.compile(objective=objective, run_eagerly=True)
    before = model.projector.get_weights()
    model.update(make_crops(1), make_crops(2))
    assert all(map(np.array_equal, model.projector.get_weights(), before))


def test_compile_with_other_first_layer_raises():
    model = make_model()
    with pytest.raises(ConfigError, match=r"another global_first_layer\. Expected 72 features"):
        model.compile(objective=dataclasses.replace(ENCODER_ONLY, global_first_layer=0))


def test_load_model_restores_projector_only_when_compiled(tmp_path):
    model = make_model()
    model.update(make_crops(1), make_crops(2))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one, other in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.projector is not None
    bare = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert bare.projector is None
    image = make_crops(4, size=64)
    np.testing.assert_array_equal(bare.shared_encoder(image), model.shared_encoder(image))


def test_update_frozen_shared_encoder_changes_other_networks():
    model = make_model(ObjectiveConfig(freeze_shared=True), run_eagerly=True)
    before = {variable.path: np.array(variable) for variable in model.weights}
    model.update(make_crops(1, size=64), make_crops(2, size=64))
    changed = {
        variable.path.split("_")[0]
        for variable in model.weights
        if (np.asarray(variable) != before[variable.path]).any()
    }
    assert changed == {"exclusive", "decoder", "discriminator"}


@pytest.mark.parametrize("frozen", [False, True])
def test_update_frozen_shared_encoder_sees_images_of_changed_brightness(frozen, monkeypatch):
    objective = ObjectiveConfig(freeze_shared=frozen, view_gain=0.3, view_band_gain=0.0)
    model = make_model(dataclasses.replace(objective, view_offset=0.0), run_eagerly=True)
    image = np.full((2, 64, 64, 3), -0.5, np.float32)  # a quarter of the range
    seen = []
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda x, y, **rest: seen.extend([x, y]) or generate(x, y, **rest)
    )
    model.update(image, image)
    values = np.concatenate(seen).reshape(4, -1)
    np.testing.assert_allclose(values, values[:, :1].repeat(values.shape[1], 1), atol=1e-6)
    gains = (values[:, 0] + 1) / 0.5
    if frozen:
        assert len(set(gains.round(4))) == 4  # of each date of each place
        assert (gains > 0.3).all()
        assert (gains < 3).all()
    else:
        np.testing.assert_array_equal(gains, 1)


def encoder_run(steps: int) -> RunConfig:
    return RunConfig(
        model=ModelConfig(width=1, shared_channels=2, exclusive_dim=3, padding="context"),
        objective=ENCODER_ONLY,
        optimizer=OptimizerConfig(
            schedule="cosine", decay_steps=6, warmup_steps=2, weight_decay=0.01
        ),
        train=TrainConfig(
            steps=steps, batch_size=2, crop_size=128, balance="dates", steps_per_epoch=2
        ),
    )


@pytest.mark.integration
@pytest.mark.usefixtures("eager_training")
def test_train_encoder_only_resumed_equals_uninterrupted(tiny_records, tmp_path):
    whole = train(tiny_records, tmp_path / "whole", encoder_run(4), progress=False)
    train(tiny_records, tmp_path / "resumed", encoder_run(2), progress=False)
    resumed = train(tiny_records, tmp_path / "resumed", encoder_run(4), progress=False)
    for one, other in zip(
        [*resumed.variables, *resumed.optimizer.variables, resumed.seed_generator.state],
        [*whole.variables, *whole.optimizer.variables, whole.seed_generator.state],
        strict=True,
    ):
        np.testing.assert_array_equal(one.value, other.value, err_msg=other.path)
    history = (tmp_path / "resumed" / "history.csv").read_text()
    assert history == (tmp_path / "whole" / "history.csv").read_text()
    assert history.splitlines()[0] == "step,global_info_nce,info_nce,loss,shared_l1"


@pytest.mark.parametrize(
    ("objective", "padding", "message"),
    [
        (ObjectiveConfig(), "context", r"larger than 64 px\. Expected .*Received: crop_size=128"),
        (ENCODER_ONLY, "zeros", r"Expected padding='context'\. Received: padding='zeros'"),
    ],
)
def test_train_unsuitable_crops_raises_before_writing(
    objective, padding, message, tiny_records, tmp_path
):
    config = RunConfig(
        model=ModelConfig(width=1, padding=padding),
        objective=objective,
        train=TrainConfig(crop_size=128),
    )
    with pytest.raises(ConfigError, match=message):
        train(tiny_records, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


@pytest.mark.integration
def test_save_to_preset_encoder_run_has_no_projector(tmp_path):
    model = make_model()
    folder = model.save_to_preset(tmp_path / "preset")
    assert from_preset(folder).projector is None


@pytest.mark.integration
@pytest.mark.usefixtures("eager_training")
def test_train_encoder_only_initial_projector_is_kept(tiny_records, tmp_path):
    first = train(tiny_records, tmp_path / "first", encoder_run(2), progress=False)
    config = dataclasses.replace(encoder_run(1), optimizer=OptimizerConfig(learning_rate=1e-12))
    second = train(tiny_records, tmp_path / "second", config, initial=first, progress=False)
    for one, other in zip(
        second.projector.trainable_variables, first.projector.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-9, err_msg=other.path)
