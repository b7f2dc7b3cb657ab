import keras
import numpy as np
import pytest

from sits_keras import DisentangledSITS
from sits_keras.errors import ConfigError
from sits_keras.tasks.classification.finetuning import (
    BATCH_SIZE,
    MAX_DEVIATIONS,
    network_encoder,
    train_head,
    train_network,
)

pytestmark = pytest.mark.integration


def weights_of(network):
    return [np.array(weight) for weight in network.get_weights()]


def test_network_encoder_uses_inference_mode(rgb_model, labelled):
    images = labelled(count=1).reflectance(slice(None))
    encoder = network_encoder(rgb_model.shared_encoder, rgb_model.config.band_max)
    features = encoder(images)
    assert features.shape == (3, 32)
    # Statistics of a batch would make an image's features depend on the others.
    np.testing.assert_allclose(encoder(images[:1])[0], features[0], rtol=1e-4, atol=1e-6)


def test_train_head_separates_distinct_classes():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1, 2], 40)
    features = (np.eye(3)[labels] * 50 + rng.normal(size=(120, 3))).astype(np.float32)
    network, history = train_head(features, labels, 3, seed=0)
    assert (np.asarray(network(features)).argmax(axis=1) == labels).all()
    # 120 images are two batches an epoch: 250 epochs for 500 steps.
    assert len(history) == 250
    assert [row["epoch"] for row in history] == list(range(1, 251))
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["accuracy"] == 1.0


def test_train_head_zero_min_steps_trains_given_epochs():
    features, labels = np.ones((100, 2), np.float32), np.tile([0, 1], 50)
    for min_steps, epochs in ((0, 3), (9, 5)):  # two batches an epoch
        history = train_head(features, labels, 2, seed=0, epochs=3, min_steps=min_steps).history
        assert len(history) == epochs


def test_train_head_has_layers_of_the_paper(few_steps):
    network, history = train_head(np.ones((4, 7), np.float32), np.arange(4), 4, seed=0, epochs=3)
    dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [64, 4]
    assert len(history) == 3
    assert np.isfinite(np.asarray(network(np.ones((4, 7))))).all()  # constants do not divide by 0


def test_train_head_clips_features_far_out_of_the_training_range(few_steps):
    features = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    network, _ = train_head(features, np.tile([0, 1], 50), 2, seed=0, epochs=2)
    limit = features.mean(axis=0) + MAX_DEVIATIONS * features.std(axis=0)
    at_limit, beyond, within = (
        np.asarray(network(values[None])) for values in (limit, limit + 1000, features[0])
    )
    np.testing.assert_allclose(beyond, at_limit, rtol=1e-4)
    assert not np.allclose(within, at_limit)


def test_train_head_same_seed_gives_same_weights(few_steps):
    features = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    labels = np.tile([0, 1], 50)
    one, same, other = (
        weights_of(train_head(features, labels, 2, seed=seed, epochs=2).network)
        for seed in (1, 1, 2)
    )
    for a, b in zip(one, same, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert not np.allclose(one[-2], other[-2])


def test_train_head_sees_every_image_once_per_epoch(few_steps, monkeypatch):
    seen = []

    def note(network, features, labels, **kwargs):
        np.testing.assert_array_equal(features[:, 0], labels * 10)
        seen.append(labels.tolist())
        return {"loss": 0.0}

    monkeypatch.setattr(keras.Model, "train_on_batch", note)
    labels = np.arange(100)
    train_head(labels[:, None].astype(np.float32) * 10, labels, 100, seed=0, epochs=2)
    assert [len(batch) for batch in seen] == [BATCH_SIZE, 100 - BATCH_SIZE] * 2
    first, second = seen[0] + seen[1], seen[2] + seen[3]
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second


@pytest.mark.parametrize("padding", ["zeros", "context"])
def test_train_network_trains_copy_of_encoder(padding, rgb_model, labelled, few_steps):
    model = DisentangledSITS({**rgb_model.config.to_dict(), "padding": padding})
    encoder = model.shared_encoder
    before = weights_of(encoder)
    images = labelled(count=10)
    network, _ = train_network(encoder, model.config, images, np.arange(30), seed=0, epochs=2)
    for old, now in zip(before, weights_of(encoder), strict=True):
        np.testing.assert_array_equal(old, now)
    copy = network.get_layer("shared_encoder")
    # Every weight moves, the statistics of batch normalization among them.
    names = [weight.path for weight in copy.weights]
    assert any("moving_mean" in name for name in names)
    for name, old, now in zip(names, before, weights_of(copy), strict=True):
        assert not np.array_equal(old, now), name
    assert network.input_shape == (None, 64, 64, 3)
    assert network.output_shape == (None, 3)


def test_train_network_uses_given_indices_only(rgb_model, labelled, few_steps):
    images = labelled(count=10)
    spoilt = images.values.copy()
    spoilt[20:] = 255
    trained = [
        weights_of(
            train_network(
                rgb_model.shared_encoder,
                rgb_model.config,
                one,
                np.arange(20),
                seed=0,
                epochs=1,
            ).network
        )
        for one in (images, images._replace(values=spoilt))
    ]
    for a, b in zip(*trained, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_train_network_sees_images_in_every_orientation(
    rgb_model, labelled, few_steps, monkeypatch
):
    images = labelled(count=10)
    ramp = np.zeros_like(images.values)
    ramp[:, :32, :48] = 200  # no two of its orientations are alike
    ramp[:, 32:, :16] = 200
    seen = set()

    def train_on_batch(network, batch, labels, **options):
        seen.update(image.tobytes() for image in batch)
        return {"loss": 0.0}

    monkeypatch.setattr(keras.Model, "train_on_batch", train_on_batch)
    train_network(
        rgb_model.shared_encoder,
        rgb_model.config,
        images._replace(values=ramp),
        np.arange(30),
        seed=0,
        epochs=5,
    )
    assert len(seen) == 8


def test_train_network_other_bands_are_refused(rgb_model, labelled):
    images = labelled(count=2)
    with pytest.raises(ConfigError, match=r"Expected 3 bands\. Received 1: B02\."):
        train_network(
            rgb_model.shared_encoder,
            rgb_model.config,
            images._replace(values=images.values[..., :1], bands=("B02",)),
            np.arange(2),
            seed=0,
        )
    with pytest.raises(ConfigError, match=r"epochs must be at least 1\. Received: epochs=0"):
        train_head(np.ones((2, 2), np.float32), np.arange(2), 2, seed=0, epochs=0)
