import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from sits_keras.tasks.classification import probes
from sits_keras.tasks.classification.probes import (
    encode_images,
    image_statistics,
    predict_linear,
    predict_nearest,
)


def test_image_statistics_match_hand_values():
    images = np.zeros((2, 64, 64, 2))
    images[1, ..., 0] = 3.0
    images[1, :32, :, 1] = 8.0  # half of the pixels
    features = image_statistics(images)
    assert features.shape == (2, 14)
    np.testing.assert_array_equal(features[0], 0)
    mean, std, quantiles = features[1, :2], features[1, 2:4], features[1, 4:].reshape(5, 2)
    assert mean.tolist() == [3, 4]
    assert std.tolist() == [0, 4]
    assert quantiles[:, 0].tolist() == [3] * 5
    assert quantiles[:, 1].tolist() == [0, 0, 4, 8, 8]


def test_encode_images_keeps_order_for_any_batch_size(labelled):
    images = labelled(count=3)

    def encoder(batch):
        assert len(batch) <= 4
        assert batch.dtype == np.float32
        return batch.mean(axis=(1, 2))

    features = encode_images(encoder, images, batch_size=4)
    expected = images.values.mean(axis=(1, 2)) * 0.275 / 255
    np.testing.assert_allclose(features, expected, rtol=1e-4)
    assert features.dtype == np.float32


def blobs(seed, scale=(1.0, 1.0)):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 300)
    centres = np.array([[0, 0], [4, 0], [0, 4]])
    return (centres[labels] + rng.normal(size=(300, 2))) * scale, labels


@pytest.mark.parametrize("predict", [predict_linear, predict_nearest])
def test_probes_separate_distinct_classes(predict):
    (train, labels), (test, truth) = blobs(0), blobs(1)
    predicted = predict(train, labels, test)
    assert (predicted == truth).mean() > 0.9
    # One feature in other units changes nothing.
    (wide, _), (wide_test, _) = blobs(0, (1e4, 1.0)), blobs(1, (1e4, 1.0))
    np.testing.assert_array_equal(predict(wide, labels, wide_test), predicted)


@pytest.mark.parametrize("predict", [predict_linear, predict_nearest])
def test_probes_constant_features_give_largest_class(predict):
    labels = np.array([0] * 10 + [1] * 30)
    predicted = predict(np.ones((40, 3)), labels, np.ones((7, 3)))
    assert len(set(predicted)) == 1
    if predict is predict_linear:
        assert predicted[0] == 1


def test_probes_equal_scikit_learn():
    (train, labels), (test, _) = blobs(0), blobs(1)
    mean, std = train.mean(axis=0), train.std(axis=0)
    train_scaled, test_scaled = (train - mean) / std, (test - mean) / std
    nearest = KNeighborsClassifier(5).fit(train_scaled, labels).predict(test_scaled)
    np.testing.assert_array_equal(predict_nearest(train, labels, test), nearest)
    linear = [
        LogisticRegression(C=c).fit(train_scaled, labels).predict(test_scaled)
        for c in (0.01, 0.1, 1.0, 10.0)
    ]
    assert any((predict_linear(train, labels, test) == one).all() for one in linear)


def test_predict_linear_chooses_penalty_on_training_images():
    # Few images, many features of noise: a strong penalty does better, and is found to.
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 60)
    features = rng.normal(size=(120, 200))
    features[:, 0] += 2.5 * labels
    train, test = slice(0, 60), slice(60, 120)
    mean, std = features[train].mean(axis=0), features[train].std(axis=0)
    scaled = (features - mean) / std
    weak = (
        LogisticRegression(C=10.0)
        .fit(scaled[train], labels[train])
        .score(scaled[test], labels[test])
    )
    ours = (predict_linear(features[train], labels[train], features[test]) == labels[test]).mean()
    assert ours >= weak


def test_predict_linear_many_images_are_sampled_for_penalty(monkeypatch):
    monkeypatch.setattr(probes, "_CHOICE_IMAGES", 30)
    fits = []
    fit = probes._fit_linear
    monkeypatch.setattr(
        probes, "_fit_linear", lambda *args: fits.append(len(args[1])) or fit(*args)
    )
    (train, labels), (test, truth) = blobs(0), blobs(1)
    assert (predict_linear(train, labels, test) == truth).mean() > 0.9
    assert fits == [24] * 4 + [300]  # a fifth of the 30 is held out


def test_probes_accept_few_images():
    train, labels = np.array([[0.0], [1.0]]), np.array([0, 1])
    assert predict_linear(train, labels, np.array([[-1.0], [2.0]])).tolist() == [0, 1]
    assert predict_nearest(train, labels, np.array([[0.1]])).shape == (1,)
