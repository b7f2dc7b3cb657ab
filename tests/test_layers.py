import keras
import numpy as np
import pytest
import tensorflow as tf

from sits_keras.errors import ArgumentError
from sits_keras.layers import (
    BatchNormalization,
    ContextPadding,
    Modulation,
    RepeatOverGrid,
    conv_block,
    modulated_block,
    residual_block,
    seeded_initializer,
    transposed_conv_block,
)

NORMALISED = 1.001**-0.5  # what batch normalisation makes of 1 at first: moving variance 1 + 0.001


def block_model(block, size: int, **kwargs) -> keras.Model:
    """Return a model of one block on one channel whose kernels are all 1."""
    image = keras.Input((size, size, 1))
    model = keras.Model(image, block(image, 1, slope=0.25, seed=0, name="block", **kwargs))
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.assign(np.ones(layer.kernel.shape))
    return model


def run(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images[None, ..., None]))[0, ..., 0]


def test_conv_block_sums_a_4x4_neighbourhood():
    # Stride 2 and a padding of 1: windows begin at -1, 1, 3 and hold 3, 4, 3 pixels a side.
    output = run(block_model(conv_block, 6, strides=2), np.ones((6, 6)))
    expected = np.array([[9, 12, 9], [12, 16, 12], [9, 12, 9]]) * NORMALISED
    np.testing.assert_allclose(output, expected, rtol=1e-6)


def test_conv_block_has_negative_slope():
    output = run(block_model(conv_block, 6, strides=2), -np.ones((6, 6)))
    assert output[1, 1] == pytest.approx(-16 * NORMALISED * 0.25)


def test_conv_block_with_stride_1_keeps_sides():
    assert run(block_model(conv_block, 5, strides=1), np.ones((5, 5))).shape == (5, 5)


def test_conv_block_without_padding_trims_edges():
    for strides, size in ((1, 3), (2, 2)):
        output = run(block_model(conv_block, 6, strides=strides, padding="valid"), np.ones((6, 6)))
        np.testing.assert_allclose(output, np.full((size, size), 16 * NORMALISED), rtol=1e-6)


def test_transposed_conv_block_doubles_sides():
    # Each pixel is spread over 4x4, two apart: one, two or four of them meet.
    output = run(block_model(transposed_conv_block, 2), np.ones((2, 2)))
    expected = np.array([[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]) * NORMALISED
    np.testing.assert_allclose(output, expected, rtol=1e-6)


def test_transposed_conv_block_has_negative_slope():
    output = run(block_model(transposed_conv_block, 2), -np.ones((2, 2)))
    assert output[0, 0] == pytest.approx(-1 * NORMALISED * 0.25)


def test_residual_block_shortcut_averages_2x2_pixels():
    model = block_model(residual_block, 4)
    model.get_layer("block_b_norm").gamma.assign([0.0])  # only the shortcut remains
    corner = np.zeros((4, 4))
    corner[:2, 2:] = [[1.0, 2.0], [3.0, 6.0]]
    corner[2:, :2] = -4.0
    expected = np.array([[0.0, 3.0], [-4.0 * 0.25, 0.0]]) * NORMALISED
    np.testing.assert_allclose(run(model, corner), expected, rtol=1e-6)


def test_residual_block_adds_convolutions_to_shortcut():
    # The first, of stride 2, makes 9 of each 3x3 pixels inside the padding. The second, of stride
    # 1, sees all four of those from everywhere: 36. The shortcut is 1.
    output = run(block_model(residual_block, 4), np.ones((4, 4)))
    np.testing.assert_allclose(output, np.full((2, 2), 36 * NORMALISED**2 + NORMALISED), rtol=1e-5)


@pytest.mark.parametrize(("trim", "first"), [((1, 0), 3), ((0, 1), 1), ((0, 0), 1)])
def test_residual_block_without_padding_aligns_shortcut(trim, first):
    model = block_model(residual_block, 8, trim=trim)
    assert model.get_layer("block_b_conv").kernel_size == (1 + sum(trim),) * 2
    image = np.zeros((8, 8))
    image[first : first + 2, first : first + 2] = 1.0  # below the first cell of the output
    model.get_layer("block_b_norm").gamma.assign([0.0])
    shortcut = run(model, image)
    assert shortcut.shape == (3 - sum(trim),) * 2
    assert shortcut[0, 0] == pytest.approx(NORMALISED)
    assert shortcut.sum() == pytest.approx(NORMALISED)
    # The cell of the first convolution over those pixels, which sums all four, and through it the
    # second kernel, in the corner of which that cell lies.
    model.get_layer("block_b_norm").gamma.assign([1.0])
    kernel = np.zeros(model.get_layer("block_b_conv").kernel.shape)
    kernel[trim[0], trim[0]] = 1.0
    model.get_layer("block_b_conv").kernel.assign(kernel)
    output = run(model, image)
    assert output[0, 0] == pytest.approx(NORMALISED + 4 * NORMALISED**2)


def test_context_padding_without_context_reflects():
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    padded = np.asarray(ContextPadding(6, available=(3, 4), required=(2, 1))(images))
    pads = ((0, 0), (2, 1), (2, 1), (0, 0))
    np.testing.assert_array_equal(padded, np.pad(images, pads, mode="reflect"))


@pytest.mark.parametrize(("required", "kept"), [((2, 1), slice(1, 10)), ((3, 4), slice(0, 13))])
def test_context_padding_with_context_crops_to_required(required, kept):
    images = np.random.default_rng(0).normal(size=(2, 13, 13, 3)).astype(np.float32)
    padded = np.asarray(ContextPadding(6, available=(3, 4), required=required)(images))
    np.testing.assert_array_equal(padded, images[:, kept, kept])


def test_context_padding_with_dynamic_sides_gives_same_result():
    pad = ContextPadding(6, available=(3, 4), required=(2, 1))
    spec = [tf.TensorSpec((None, None, None, 3), tf.float32)]
    later = tf.function(pad, input_signature=spec, autograph=False)
    for side in (6, 13):
        images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
        np.testing.assert_array_equal(later(images), pad(images))
    for side in (7, 14):
        with pytest.raises(tf.errors.InvalidArgumentError):
            later(np.zeros((2, side, side, 3), np.float32))


@pytest.mark.parametrize("sides", [(7, 7), (6, 13)])
def test_context_padding_other_sizes_raise(sides):
    pad = ContextPadding(6, available=(3, 4), required=(2, 1))
    message = rf"6 x 6 px, or 13 x 13 px.*Received: {sides[0]} x {sides[1]} px\."
    with pytest.raises(ArgumentError, match=message):
        pad(np.zeros((1, *sides, 1), np.float32))


def test_context_padding_roundtrips_through_config():
    layer = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(ContextPadding(6, (3, 4), (2, 1), name="pad"))
    )
    assert (layer.size, layer.available, layer.required) == (6, (3, 4), (2, 1))


def test_modulation_scales_and_shifts_channels_of_each_image():
    maps = np.ones((2, 3, 3, 2))
    vectors = np.array([[0.0, 1.0, 5.0, 6.0], [-1.0, 0.0, 0.0, 0.5]])
    output = np.asarray(Modulation()([maps, vectors]))
    assert output.shape == (2, 3, 3, 2)
    assert (output[0] == [6, 8]).all()
    assert (output[1] == [0, 1.5]).all()


def test_modulation_roundtrips_through_config():
    layer = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(Modulation(name="modulated"))
    )
    assert isinstance(layer, Modulation)
    assert layer.name == "modulated"


def test_modulated_block_vector_sets_mean_and_deviation_of_each_channel():
    image, vector = keras.Input((8, 8, 1)), keras.Input((2,))
    block = modulated_block(image, vector, 1, slope=1.0, seed=0, name="block")
    model = keras.Model([image, vector], block)
    model.get_layer("block_modulation").kernel.assign(np.eye(2))
    images = np.random.default_rng(0).normal(0.5, 3, (2, 8, 8, 1))
    output = np.asarray(model([images, np.array([[0.0, 0.0], [1.0, 5.0]])]))
    np.testing.assert_allclose(output.mean(axis=(1, 2, 3)), [0, 5], atol=1e-5)
    np.testing.assert_allclose(output.std(axis=(1, 2, 3)), [1, 2], rtol=1e-2)


def test_modulated_block_convolves_a_3x3_neighbourhood():
    image, vector = keras.Input((5, 5, 1)), keras.Input((2,))
    block = modulated_block(image, vector, 1, slope=1.0, seed=0, name="block")
    model = keras.Model([image, vector], block)
    dot = np.zeros((1, 5, 5, 1))
    dot[0, 2, 2] = 1
    flat, changed = (np.asarray(model([one, np.ones((1, 2))]))[0, ..., 0] for one in (0 * dot, dot))
    different = np.abs(changed - flat) > np.abs(changed - flat)[0, 0] + 1e-6
    assert different[1:4, 1:4].all()
    assert not different[[0, -1]].any()


def test_repeat_over_grid_fills_every_cell():
    output = np.asarray(RepeatOverGrid(2)(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])))
    assert output.shape == (2, 2, 2, 3)
    assert (output[0] == [1, 2, 3]).all()
    assert (output[1] == [4, 5, 6]).all()


def test_repeat_over_grid_output_shape():
    assert RepeatOverGrid(4).compute_output_shape((None, 7)) == (None, 4, 4, 7)


def test_repeat_over_grid_roundtrips_through_config():
    layer = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(RepeatOverGrid(3, name="repeat"))
    )
    assert isinstance(layer, RepeatOverGrid)
    assert (layer.size, layer.name) == (3, "repeat")


def test_seeded_initializer_depends_on_seed_and_name_only():
    def draw(seed, name):
        return np.asarray(seeded_initializer(seed, name)((4, 4, 3, 8)))

    np.testing.assert_array_equal(draw(0, "a"), draw(0, "a"))
    assert (draw(0, "a") != draw(0, "b")).all()
    assert (draw(0, "a") != draw(1, "a")).all()


def test_seeded_initializer_is_glorot_uniform():
    draws = np.asarray(seeded_initializer(0, "a")((4, 4, 3, 8)))
    limit = (6 / (16 * 3 + 16 * 8)) ** 0.5
    assert 0.95 * limit < np.abs(draws).max() <= limit


def normalise(layer: keras.Layer, images: np.ndarray, **kwargs) -> list[np.ndarray]:
    """Output, gradients for the input, the scale and the offset, and the moving statistics."""
    x = tf.constant(images)
    layer.build(images.shape)
    layer.gamma.assign([0.5, 2.0])
    layer.beta.assign([1.0, -3.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = tf.cast(layer(x, **kwargs), "float32")
        score = tf.reduce_sum(outputs**3)
    gradients = tape.gradient(score, [x, layer.gamma.value, layer.beta.value])
    return [np.asarray(v) for v in (outputs, *gradients, *layer.non_trainable_variables)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_batch_normalization_equals_keras(training, trainable, dtype):
    # Few values, so that the variance of a sample would be another.
    images = np.random.default_rng(0).normal(3, 2, (2, 3, 1, 2)).astype(np.float32)
    one, other = (
        normalise(kind(dtype=dtype, trainable=trainable), images, training=training)
        for kind in (BatchNormalization, keras.layers.BatchNormalization)
    )
    for value, expected in zip(one, other, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


def test_batch_normalization_gives_known_values():
    layer = BatchNormalization(momentum=0.9, epsilon=0.0625)
    images = np.array([1.0, 2.0, 2.0, 3.0, 1.0, 3.0], np.float32).reshape(2, 3, 1, 1)
    outputs = np.asarray(layer(images, training=True)).ravel()
    # mean 2, variance 4 / 6
    np.testing.assert_allclose(outputs, (images.ravel() - 2) / (4 / 6 + 0.0625) ** 0.5, rtol=1e-5)
    assert float(layer.moving_mean[0]) == pytest.approx(0.2)
    assert float(layer.moving_variance[0]) == pytest.approx(0.9 + 0.1 * 4 / 6)


@pytest.mark.parametrize("kwargs", [{"renorm": True}, {"synchronized": True}])
def test_batch_normalization_with_other_arguments_is_left_to_keras(kwargs):
    images = np.random.default_rng(0).normal(3, 2, (2, 3, 1, 2)).astype(np.float32)
    one, other = (
        normalise(kind(**kwargs), images, training=True)
        for kind in (BatchNormalization, keras.layers.BatchNormalization)
    )
    for value, expected in zip(one, other, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_batch_normalization_weights_load_into_keras_and_back(tmp_path):
    def model(kind):
        image = keras.Input((4, 4, 2))
        return keras.Model(image, kind(name="norm")(image))

    ours, theirs = model(BatchNormalization), model(keras.layers.BatchNormalization)
    theirs(np.ones((1, 4, 4, 2)), training=True)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours.load_weights(tmp_path / "theirs.weights.h5")
    assert float(ours.get_layer("norm").moving_mean[0]) == pytest.approx(0.01)
    ours.save_weights(tmp_path / "ours.weights.h5")
    theirs.load_weights(tmp_path / "ours.weights.h5")
