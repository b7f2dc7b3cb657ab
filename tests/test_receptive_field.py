import numpy as np
import pytest
import tensorflow as tf

from sits_keras.config import ModelConfig
from sits_keras.receptive_field import (
    EXCLUSIVE_STEPS,
    SHARED_STEPS,
    ConvStep,
    context_margin,
    crop_context,
    receptive_margin,
)

CONTEXT = ModelConfig(width=2, shared_channels=3, exclusive_dim=5, padding="context")


def test_receptive_margin_adds_trims_at_their_strides():
    # Of pixels: 1 and 1; of pairs of pixels: 1 and 2, which are 2 and 4.
    assert receptive_margin([ConvStep(2, (1, 1)), ConvStep(1, (1, 2))]) == (3, 5)
    assert receptive_margin([]) == (0, 0)


def test_context_margin_is_largest_of_both_encoders():
    # 1 + 2 + 4 + 8, and at a stride of 16 one before and two after.
    assert receptive_margin(SHARED_STEPS) == (15 + 16, 15 + 32)
    # The same, and one before at strides of 4 and 8, one after at a stride of 16.
    assert receptive_margin(EXCLUSIVE_STEPS) == (15 + 4 + 8, 15 + 16)
    assert context_margin(CONTEXT) == (31, 47)


def test_context_margin_with_zeros_is_zero():
    assert context_margin(ModelConfig()) == (0, 0)


def test_crop_context_removes_margin():
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 4))
    in_context = np.pad(images, ((0, 0), (31, 47), (31, 47), (0, 0)))
    np.testing.assert_array_equal(crop_context(in_context, CONTEXT), images)
    assert crop_context(images, CONTEXT) is images
    assert crop_context(images, ModelConfig()) is images


def test_crop_context_with_dynamic_sides_gives_same_result():
    spec = [tf.TensorSpec((None, None, None, 4), tf.float32)]
    later = tf.function(lambda images: crop_context(images, CONTEXT), input_signature=spec)
    images = np.random.default_rng(0).normal(size=(2, 142, 142, 4)).astype(np.float32)
    inside = images[:, 31:95, 31:95]
    for one in (images, inside):
        assert later.get_concrete_function().output_shapes == (None, 64, 64, 4)
        np.testing.assert_array_equal(later(one), inside)


@pytest.mark.parametrize("name", ["shared", "exclusive"])
def test_features_depend_on_whole_context_and_nothing_more(name):
    from sits_keras.networks import build_exclusive_encoder, build_shared_encoder

    build, steps = {
        "shared": (build_shared_encoder, SHARED_STEPS),
        "exclusive": (build_exclusive_encoder, EXCLUSIVE_STEPS),
    }[name]
    network = build(CONTEXT, 0)
    base = np.random.default_rng(0).uniform(-1, 1, (142, 142, 4)).astype(np.float32)
    before, after = (
        available - used for available, used in zip((31, 47), receptive_margin(steps), strict=True)
    )
    seen = [before, 141 - after]
    unseen = [before - 1, 142 - after] if before else []
    images = np.stack([base] * (1 + len(seen + unseen)))
    for image, row in zip(images[1:], seen + unseen, strict=True):
        image[row, :] += 10
    output = network(images)
    features = np.asarray(output if name == "shared" else output[0])
    changed = [bool((one != features[0]).any()) for one in features[1:]]
    assert changed == [True, True] + [False] * len(unseen)
