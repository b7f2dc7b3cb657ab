"""Terms of the objective, one function for each equation of section 3.1.

All functions are pure `keras.ops`. They convert inputs of any float dtype to float32, so that the
terms stay exact with mixed precision. Every result is a scalar.
"""

from typing import Any, Literal

from keras import ops

from sits_keras.config import ObjectiveConfig

Tensor = Any
"""A tensor of the active Keras backend, or an array that it converts."""


def _float32(value: Tensor) -> Tensor:
    return ops.cast(value, "float32")


def shared_l1(shared_x: Tensor, shared_y: Tensor) -> Tensor:
    """Return the distance of the shared representations of two dates, eq. 1.

    Args:
        shared_x: Shared representation of `x`, `(batch, ...)` float.
        shared_y: Shared representation of `y`, same shape.

    Returns:
        Mean absolute difference over all entries. The paper's norm could also be a sum; the mean
        keeps `lambda_shared` independent of the size of the representation.
    """
    return ops.mean(ops.abs(_float32(shared_x) - _float32(shared_y)))


def info_nce(shared_x: Tensor, shared_y: Tensor, temperature: float) -> Tensor:
    """Return the InfoNCE loss between the grid cells of two dates (not in the paper).

    Each cell is the query, the same cell at the other date its positive, and all other cells of
    the batch its negatives, compared by cosine similarity (van den Oord et al., 2018). Negatives
    include cells of the same image, so that cells must encode their position within it. With
    several devices, negatives are those of one device.

    Args:
        shared_x: Shared representation of `x`, `(batch, rows, cols, channels)` float.
        shared_y: Shared representation of `y`, same shape.
        temperature: Divisor of the cosine similarities.

    Returns:
        Mean cross-entropy over both directions and all cells, in nats. Random guessing gives the
        log of the number of cells.
    """
    channels = shared_x.shape[-1]
    x, y = (ops.reshape(one, (-1, channels)) for one in (shared_x, shared_y))
    return weighted_info_nce(x, y, temperature)


_ABSENT = -1e4  # similarity of a vector that is left out


def weighted_info_nce(
    x: Tensor, y: Tensor, temperature: float, weights: Tensor = None, group_size: int = 1
) -> Tensor:
    """Return the InfoNCE loss between two sets of vectors, some of which may be left out.

    Args:
        x: Vectors, `(n, channels)` float.
        y: Vectors of the same shape; vector i belongs to vector i of `x`.
        temperature: Divisor of the cosine similarities.
        weights: `(n,)` in [0, 1]. A vector of weight 0 is neither searched for nor a candidate.
            By default all are 1.
        group_size: Number of consecutive vectors of one group. The other vectors of its own group
            are no candidates for a vector.

    Returns:
        Weighted mean over both directions, in nats; 0 if all weights are 0.
    """
    x, y = (_float32(one) for one in (x, y))
    x, y = (one / ops.sqrt(ops.sum(one * one, -1, keepdims=True) + 1e-6) for one in (x, y))
    cosines = ops.matmul(x, ops.transpose(y)) / temperature
    positives = ops.diagonal(cosines)
    if group_size > 1:
        index = ops.arange(ops.shape(cosines)[0])
        group = index // group_size
        own = ops.logical_and(group == group[:, None], index != index[:, None])
        cosines = ops.where(own, _ABSENT, cosines)
    if weights is None:
        both = ops.logsumexp(cosines, axis=0) + ops.logsumexp(cosines, axis=1)
        return ops.mean(both - 2 * positives) / 2
    absent = ops.where(weights > 0, 0.0, _ABSENT)
    both = ops.logsumexp(cosines + absent[:, None], axis=0)
    both = both + ops.logsumexp(cosines + absent, axis=1)
    total = ops.maximum(ops.sum(weights), 1e-6)
    return ops.sum(weights * (both - 2 * positives)) / (2 * total)


def image_l1(image: Tensor, generated: Tensor) -> Tensor:
    """Return the cross-domain reconstruction error of an image, eq. 2.

    Args:
        image: Real image, `(batch, height, width, bands)` float in [-1, 1].
        generated: Image generated from the shared representation of the other date and the
            exclusive representation of `image`, same shape.

    Returns:
        Mean absolute difference over all pixels and bands, the measure of Table 1.
    """
    return ops.mean(ops.abs(_float32(image) - _float32(generated)))


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """Return the KL divergence of the exclusive posterior from N(0, I), eq. 3.

    Args:
        mean: Mean of the posterior, `(batch, exclusive_dim)` float.
        log_var: Log variance of the posterior, same shape.

    Returns:
        Divergence in nats, summed over `exclusive_dim` and averaged over `batch`.
    """
    mean, log_var = _float32(mean), _float32(log_var)
    per_image = -0.5 * ops.sum(1.0 + log_var - ops.square(mean) - ops.exp(log_var), axis=-1)
    return ops.mean(per_image)


def adversarial_generator(d_fake: Tensor) -> Tensor:
    """Return the adversarial loss of the encoders and the decoder, (1 - D(fake))^2 of eq. 4.

    It is the same in the printed form and in the LSGAN of Mao et al.

    Args:
        d_fake: Discriminator output on generated images, `(batch, 1)` float in [0, 1].

    Returns:
        Mean over `batch`.
    """
    return ops.mean(ops.square(1.0 - _float32(d_fake)))


def adversarial_discriminator(
    d_real: Tensor, d_fake: Tensor, form: Literal["lsgan", "paper"]
) -> Tensor:
    """Return the loss of the discriminator, eq. 4.

    Args:
        d_real: Discriminator output on real images, `(batch, 1)` float in [0, 1].
        d_fake: Discriminator output on generated images, same shape and range.
        form: `"lsgan"` for (1 - D(real))^2 + D(fake)^2, after Mao et al. without their factor of
            one half; `"paper"` for the negative of eq. 4 as printed,
            -(D(real)^2 + (1 - D(fake))^2).

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
    info_nce: Tensor,
    config: ObjectiveConfig,
) -> Tensor:
    """Return eq. 5 as the encoders and the decoder minimise it.

    Args:
        adversarial: Sum of L_GAN of x and y.
        l1: Sum of L_1 of x from y and of y from x.
        shared: L_1 of the shared representations.
        kl: Sum of L_KL of x and y.
        info_nce: InfoNCE loss of the shared representations, ignored if its weight is 0 (the
            default).
        config: Weights of the terms.

    Returns:
        Weighted sum.
    """
    total = (
        config.lambda_adversarial * adversarial
        + config.lambda_l1 * l1
        + config.lambda_shared * shared
        + config.lambda_kl * kl
    )
    if config.lambda_info_nce:
        total += config.lambda_info_nce * info_nce
    return total
