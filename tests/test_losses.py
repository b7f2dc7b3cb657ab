"""Every term of the objective against a number worked out by hand."""

import keras
import numpy as np
import pytest

from sits_keras import losses
from sits_keras.config import ObjectiveConfig

D_REAL = np.array([[0.9], [0.5]], np.float32)
D_FAKE = np.array([[0.2], [0.4]], np.float32)
TINY = 2.0**-7  # its square and its distance from 1 are exact in float32; 1 - 2^-7 squared is not
# in bfloat16

FORMS = pytest.mark.parametrize("form", ["lsgan", "paper"])


def test_shared_l1_is_the_mean_absolute_difference():
    # |1 - 3|, |-2 - 2|, |0.5 - 0.5|, |0 - -1| = 2, 4, 0, 1
    value = losses.shared_l1([[1.0, -2.0], [0.5, 0.0]], [[3.0, 2.0], [0.5, -1.0]])
    assert float(value) == pytest.approx(1.75)


def test_image_l1_is_the_mean_over_images_pixels_and_bands():
    image = np.zeros((2, 1, 2, 2), np.float32)
    generated = np.zeros_like(image)
    image[0, 0, 1] = [0.5, -0.5]
    generated[0, 0, 1] = [-0.5, 0.5]
    generated[1, 0, 0, 0] = 0.4
    # differences of 1, 1 and 0.4 among eight entries
    assert float(losses.image_l1(image, generated)) == pytest.approx(0.3)


def test_kl_is_zero_at_the_prior():
    assert float(losses.kl_to_standard_normal(np.zeros((3, 4)), np.zeros((3, 4)))) == 0


def test_kl_is_summed_over_the_vector_and_averaged_over_the_batch():
    # (1^2 + 1 - 1 - 0) / 2 = 0.5 and (2^2 + 4 - 1 - ln 4) / 2 = 2.8068528; the second image 0
    mean = [[1.0, 2.0], [0.0, 0.0]]
    log_var = [[0.0, 1.3862944], [0.0, 0.0]]
    assert float(losses.kl_to_standard_normal(mean, log_var)) == pytest.approx(3.3068528 / 2)


def test_kl_of_a_narrow_posterior():
    # variance e^-2: (0.1353353 - 1 + 2) / 2
    assert float(losses.kl_to_standard_normal([[0.0]], [[-2.0]])) == pytest.approx(0.5676676)


def test_adversarial_generator_known_probabilities_gives_mean_square():
    # (0.8^2 + 0.6^2) / 2
    assert float(losses.adversarial_generator(D_FAKE)) == pytest.approx(0.5)


def test_adversarial_discriminator_of_mao_et_al():
    # (0.1^2 + 0.5^2) / 2 + (0.2^2 + 0.4^2) / 2
    value = losses.adversarial_discriminator(D_REAL, D_FAKE, "lsgan")
    assert float(value) == pytest.approx(0.23)


def test_adversarial_discriminator_as_printed_is_negated():
    # -(0.9^2 + 0.5^2) / 2 - (0.8^2 + 0.6^2) / 2
    value = losses.adversarial_discriminator(D_REAL, D_FAKE, "paper")
    assert float(value) == pytest.approx(-1.03)


@FORMS
def test_discriminator_loss_falls_with_d_real(form):
    before = losses.adversarial_discriminator(D_REAL, D_FAKE, form)
    assert losses.adversarial_discriminator(D_REAL + 0.05, D_FAKE, form) < before


@FORMS
def test_discriminator_loss_rises_with_d_fake(form):
    before = losses.adversarial_discriminator(D_REAL, D_FAKE, form)
    assert losses.adversarial_discriminator(D_REAL, D_FAKE - 0.05, form) < before


@FORMS
def test_generator_and_discriminator_losses_oppose_on_generated_images(form):
    better = D_FAKE + 0.05
    assert losses.adversarial_generator(better) < losses.adversarial_generator(D_FAKE)
    assert losses.adversarial_discriminator(
        D_REAL, better, form
    ) > losses.adversarial_discriminator(D_REAL, D_FAKE, form)


@pytest.mark.parametrize(("form", "best"), [("lsgan", 0.0), ("paper", -2.0)])
def test_discriminator_loss_of_perfect_discriminator(form, best):
    assert float(losses.adversarial_discriminator([[1.0]], [[0.0]], form)) == best


def test_weighted_sum_with_the_papers_weights():
    # 1 + 10 * 2 + 0.5 * 3 + 0.01 * 4
    value = losses.weighted_sum(1.0, 2.0, 3.0, 4.0, float("nan"), ObjectiveConfig())
    assert float(value) == pytest.approx(22.54)


def test_weighted_sum_gives_each_term_its_own_weight():
    config = ObjectiveConfig(lambda_l1=2.0, lambda_shared=3.0, lambda_kl=5.0, lambda_info_nce=7.0)
    # 1000 + 2 * 100 + 3 * 10 + 5 * 1 + 7 * 0.1
    value = losses.weighted_sum(1000.0, 100.0, 10.0, 1.0, 0.1, config)
    assert float(value) == pytest.approx(1235.7)


def cells(*vectors):
    """A shared representation of a place of one row for each two vectors."""
    return np.array(vectors, np.float32).reshape(-1, 1, 2, len(vectors[0]))


def test_info_nce_of_distinct_cells_is_small():
    # Of each of four, the cosines are 1 once and 0 three times: log(e^2 + 3) - 2.
    places = cells(*np.eye(4))
    assert float(losses.info_nce(places, 5 * places, 0.5)) == pytest.approx(
        np.log(np.exp(2) + 3) - 2, rel=1e-4
    )


def test_info_nce_of_equal_cells_is_log_of_their_number():
    places = cells(*np.ones((6, 3)))
    assert float(losses.info_nce(places, places, 0.1)) == pytest.approx(np.log(6), rel=1e-4)


def test_info_nce_with_swapped_cells_is_larger():
    one, other = cells(*np.eye(4)), cells(*np.eye(4)[[1, 0, 2, 3]])
    assert float(losses.info_nce(one, other, 0.5)) > float(losses.info_nce(one, one, 0.5)) + 0.5


def test_info_nce_is_symmetric():
    x, y = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 5)).astype(np.float32)
    assert float(losses.info_nce(x, y, 0.1)) == pytest.approx(float(losses.info_nce(y, x, 0.1)))


def test_info_nce_of_zeros_is_finite():
    nothing = np.zeros((2, 4, 4, 3), np.float32)
    assert float(losses.info_nce(nothing, nothing, 0.1)) == pytest.approx(np.log(32), rel=1e-4)


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        # In bfloat16, which has 8 bits, 257 would be 256.
        (losses.shared_l1, ([[256.0, 1.0]], [[0.0, 0.0]]), 128.5),
        (losses.image_l1, ([[256.0, 1.0]], [[0.0, 0.0]]), 128.5),
        (losses.kl_to_standard_normal, ([[16.0, 1.0]], [[0.0, 0.0]]), 128.5),
        (losses.adversarial_generator, ([[TINY]],), 0.9844360),
        (lambda x: losses.info_nce(x, x, 1.0), (np.eye(3).reshape(3, 1, 1, 3),), 0.5514447),
    ],
)
def test_losses_of_bfloat16_compute_in_float32(function, arguments, expected):
    value = function(*(keras.ops.cast(argument, "bfloat16") for argument in arguments))
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert float(value) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("form", "expected"), [("lsgan", 0.9844360 + 0.0000610), ("paper", -0.9844360 - 0.0000610)]
)
def test_discriminator_loss_of_bfloat16_computes_in_float32(form, expected):
    d = keras.ops.cast([[TINY]], "bfloat16")
    value = losses.adversarial_discriminator(d, d, form)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert float(value) == pytest.approx(expected, rel=1e-6)
