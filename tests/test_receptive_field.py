import numpy as np
import pytest
import tensorflow as tf

from sits_keras.config import ModelConfig
from sits_keras.receptive_field import EXCLUSIVE_LOSSES, SHARED_LOSSES, centre, halo, reach

CONTEXT = ModelConfig(width=2, shared_channels=3, exclusive_dim=5, padding="context")


def test_reach_adds_up_what_convolutions_lose_at_their_strides():
    # Of pixels: 1 and 1; of pairs of pixels: 1 and 2, which are 2 and 4.
    assert reach([(2, (1, 1)), (1, (1, 2))]) == (3, 5)
    assert reach([]) == (0, 0)


def test_the_halo_is_the_most_that_either_encoder_sees():
    # 1 + 2 + 4 + 8, and at a stride of 16 one before and two after.
    assert reach(SHARED_LOSSES) == (15 + 16, 15 + 32)
    # The same, and one before at strides of 4 and 8, one after at a stride of 16.
    assert reach(EXCLUSIVE_LOSSES) == (15 + 4 + 8, 15 + 16)
    assert halo(CONTEXT) == (31, 47)


def test_zeros_have_no_halo():
    assert halo(ModelConfig()) == (0, 0)


def test_the_centre_is_the_image_that_surroundings_were_put_around():
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 4))
    surrounded = np.pad(images, ((0, 0), (31, 47), (31, 47), (0, 0)))
    np.testing.assert_array_equal(centre(surrounded, CONTEXT), images)
    assert centre(images, CONTEXT) is images
    assert centre(images, ModelConfig()) is images


def test_the_centre_is_the_same_where_sides_are_known_only_when_it_runs():
    spec = [tf.TensorSpec((None, None, None, 4), tf.float32)]
    later = tf.function(lambda images: centre(images, CONTEXT), input_signature=spec)
    images = np.random.default_rng(0).normal(size=(2, 142, 142, 4)).astype(np.float32)
    inside = images[:, 31:95, 31:95]
    for one in (images, inside):
        assert later.get_concrete_function().output_shapes == (None, 64, 64, 4)
        np.testing.assert_array_equal(later(one), inside)


@pytest.mark.parametrize("name", ["shared", "exclusive"])
def test_features_depend_on_all_of_the_halo_and_nothing_more(name):
    from sits_keras.networks import build_exclusive_encoder, build_shared_encoder

    build, losses = {
        "shared": (build_shared_encoder, SHARED_LOSSES),
        "exclusive": (build_exclusive_encoder, EXCLUSIVE_LOSSES),
    }[name]
    network = build(CONTEXT, 0)
    base = np.random.default_rng(0).uniform(-1, 1, (142, 142, 4)).astype(np.float32)
    before, after = (offered - seen for offered, seen in zip((31, 47), reach(losses), strict=True))
    seen = [before, 141 - after]
    unseen = [before - 1, 142 - after] if before else []
    images = np.stack([base] * (1 + len(seen + unseen)))
    for image, row in zip(images[1:], seen + unseen, strict=True):
        image[row, :] += 10
    output = network(images)
    features = np.asarray(output if name == "shared" else output[0])
    changed = [bool((one != features[0]).any()) for one in features[1:]]
    assert changed == [True, True] + [False] * len(unseen)
