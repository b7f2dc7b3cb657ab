"""The terms of the objective, one function for each equation of section 3.1.

All are pure `keras.ops`. Inputs of any float dtype are computed in float32, so that the terms stay
exact under mixed precision; every result is a scalar.
"""

from typing import Any, Literal

from keras import ops

from sits_keras.config import ObjectiveConfig

Tensor = Any
"""A tensor of the active Keras backend, or what it converts."""


def _float32(value: Tensor) -> Tensor:
    return ops.cast(value, "float32")


def shared_l1(shared_x: Tensor, shared_y: Tensor) -> Tensor:
    """Distance of the shared representations of two dates of one place, eq. 1.

    Args:
        shared_x: `(batch, ...)` float, the shared representation of `x`.
        shared_y: same shape, that of `y`.
    Returns:
        Mean absolute difference over all entries. The paper's norm could also be a sum; the mean
        keeps `lambda_shared` independent of the representation's size.
    """
    return ops.mean(ops.abs(_float32(shared_x) - _float32(shared_y)))


def contrast(shared_x: Tensor, shared_y: Tensor, temperature: float) -> Tensor:
    """How well the cells of two dates are told to be of one place (not in the paper).

    The cross-entropy of finding, among the cells of all places of the batch, the one that a cell
    of the other date is of, by the cosine of their vectors (InfoNCE, van den Oord et al., 2018).
    Cells of the same image are among the others, so that a representation has to say where within
    an image it is. Under several devices, the others are those of one device.

    Args:
        shared_x: `(batch, rows, cols, channels)` float, the shared representation of `x`.
        shared_y: same shape, that of `y`.
        temperature: what cosines are divided by.
    Returns:
        Mean over both directions and all cells, in nats; of guessing, the log of their number.
    """
    channels = shared_x.shape[-1]
    x, y = (ops.reshape(_float32(one), (-1, channels)) for one in (shared_x, shared_y))
    x, y = (one / ops.sqrt(ops.sum(one * one, -1, keepdims=True) + 1e-6) for one in (x, y))
    cosines = ops.matmul(x, ops.transpose(y)) / temperature
    same = ops.diagonal(cosines)
    found = ops.logsumexp(cosines, axis=0) + ops.logsumexp(cosines, axis=1) - 2 * same
    return ops.mean(found) / 2


def image_l1(image: Tensor, generated: Tensor) -> Tensor:
    """Cross-domain reconstruction of an image, eq. 2.

    Args:
        image: `(batch, height, width, bands)` float in [-1, 1].
        generated: same shape, generated from the other date's shared representation and this
            image's exclusive one.
    Returns:
        Mean absolute difference over all pixels and bands, the measure of Table 1.
    """
    return ops.mean(ops.abs(_float32(image) - _float32(generated)))


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL divergence of the exclusive posterior from N(0, I), eq. 3.

    Args:
        mean: `(batch, exclusive_dim)` float.
        log_var: same shape, log of sigma squared.
    Returns:
        Scalar in nats, summed over `exclusive_dim`, averaged over `batch`.
    """
    mean, log_var = _float32(mean), _float32(log_var)
    per_image = -0.5 * ops.sum(1.0 + log_var - ops.square(mean) - ops.exp(log_var), axis=-1)
    return ops.mean(per_image)


def adversarial_generator(d_fake: Tensor) -> Tensor:
    """What the generator side minimises of eq. 4: (1 - D(fake))^2.

    It is the same in the printed form and in Mao et al.'s LSGAN.

    Args:
        d_fake: `(batch, 1)` float in [0, 1], the discriminator on generated images.
    Returns:
        Mean over `batch`.
    """
    return ops.mean(ops.square(1.0 - _float32(d_fake)))


def adversarial_discriminator(
    d_real: Tensor, d_fake: Tensor, form: Literal["lsgan", "paper"]
) -> Tensor:
    """What the discriminator minimises.

    `"lsgan"` is (1 - D(real))^2 + D(fake)^2, after Mao et al. without their factor of one half.
    `"paper"` is the negative of eq. 4 as printed: -(D(real)^2 + (1 - D(fake))^2).

    Args:
        d_real: `(batch, 1)` float in [0, 1], the discriminator on real images.
        d_fake: `(batch, 1)` float in [0, 1], the discriminator on generated images.
        form: which of the two.
    Returns:
        Mean over `batch`.
    """
    d_real, d_fake = _float32(d_real), _float32(d_fake)
    if form == "paper":
        return -(ops.mean(ops.square(d_real)) + ops.mean(ops.square(1.0 - d_fake)))
    return ops.mean(ops.square(1.0 - d_real)) + ops.mean(ops.square(d_fake))


def weighted_sum(
    adversarial: Tensor,
    l1: Tensor,
    shared: Tensor,
    kl: Tensor,
    contrasted: Tensor,
    config: ObjectiveConfig,
) -> Tensor:
    """Eq. 5 as the encoders and the decoder see it.

    Args:
        adversarial: L_GAN of x plus that of y.
        l1: L_1 of x from y plus that of y from x.
        shared: L_1 of the shared representations.
        kl: L_KL of x plus that of y.
        contrasted: `contrast` of the two; not looked at where its weight is 0, as in the paper.
        config: the weights.
    Returns:
        Scalar.
    """
    total = (
        adversarial + config.lambda_l1 * l1 + config.lambda_shared * shared + config.lambda_kl * kl
    )
    if config.lambda_contrast:
        total += config.lambda_contrast * contrasted
    return total
