"""Pooled features: statistics of the layers of the shared encoder over a window.

Classes of land cover often differ in colour and texture. The first layers represent both; the last
layer is trained to distinguish places on its grid and loses some of them.

Many of the statistics are strongly correlated, so what they have in common dominates a distance.
`fit_whitening` learns from unlabelled windows how to weight them.
"""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from sits_keras.config import IMAGE_SIZE, ModelConfig
from sits_keras.data.radiometry import reflectance_to_network
from sits_keras.errors import DataError
from sits_keras.model import DisentangledSITS, Whitening
from sits_keras.receptive_field import SHARED_STEPS, receptive_margin

Tensor = Any

NUM_TEXTURE_LAYERS = 3
"""Layers of which the texture is pooled. The fourth has cells of 16 px, 4x4 of them."""

TEXTURE_DISTANCES = (1, 2)
"""Distances in cells between the values whose differences measure the texture."""

_EPSILON = 1e-6  # keeps the gradient of a standard deviation of 0 finite

_SMOOTHING = 0.01  # added to the variances of principal components, whose sum is their number

_SMALL = 0.01  # contrast below which a texture is noise; images have a range of 2


def num_pooled(config: ModelConfig) -> int:
    """Return the length of the pooled vector."""
    # Each layer has twice as many channels as the one before it.
    num_channels = len(config.bands) + config.width * ((1 << NUM_TEXTURE_LAYERS) - 1)
    return 4 * num_channels + config.shared_channels


def build_pooled_encoder(
    network: keras.Model, config: ModelConfig, whitening: Whitening | None = None
) -> keras.Model:
    """Build a network that shares the weights of a shared encoder and returns a pooled vector.

    Args:
        network: Shared encoder.
        config: Configuration of its model.
        whitening: Whitening of the vector; None for the statistics as they are.

    Returns:
        A model from the input of `network` to `(batch, num_pooled(config))` float32, statistics
        over the window without its context. For the image and for each of the first three layers,
        four numbers of each channel: the mean; the logarithm of the standard deviation; and the
        mean absolute difference between cells that are one cell apart, in rows and in columns,
        divided by the standard deviation, then divided by the difference between cells that are
        two apart. 0.01 is added to what is divided by or has its logarithm taken. Last, the mean
        of each channel of the fifth layer. With a whitening, a linear map of these statistics,
        divided by the root of its mean square.
    """
    image = network.input
    if config.padding == "context":
        image = network.get_layer("shared_context").output
    parts = []
    for index in range(NUM_TEXTURE_LAYERS + 1):
        values = image if index == 0 else network.get_layer(f"shared_{index}_activation").output
        parts += _texture(_inside(values, index, config))
    last = len(SHARED_STEPS)
    values = network.get_layer(f"shared_{last}_activation").output
    parts.append(_mean(_inside(values, last, config)))
    vector = ops.concatenate(parts, axis=-1)
    if whitening is not None:
        vector = _Whiten(whitening)(vector)
    return keras.Model(network.input, vector)


class _Whiten(keras.layers.Layer):
    """Linear map of pooled statistics, divided by the root of its mean square.

    Its weights are variables, because a constant is stored again in each function of a SavedModel.
    """

    def __init__(self, whitening: Whitening):
        super().__init__(trainable=False, dtype="float32", name="whitening")
        self._whitening = whitening

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.offset, self.matrix = (
            self.add_weight(
                shape=values.shape,
                initializer=lambda shape, dtype, values=values: ops.convert_to_tensor(
                    values, dtype
                ),
                trainable=False,
                name=name,
            )
            for name, values in self._whitening._asdict().items()
        )

    def call(self, statistics: Tensor) -> Tensor:
        vector = ops.matmul(statistics - self.offset, self.matrix)
        square = ops.mean(ops.square(vector), axis=-1, keepdims=True)
        return vector / (ops.sqrt(square) + _EPSILON)


def fit_whitening(
    model: DisentangledSITS, batches: Iterable[npt.NDArray[np.floating[Any]]]
) -> Whitening:
    """Fit the whitening of a model's pooled features, in bounded memory.

    With standardised statistics of correlation C, it multiplies by (C + 0.01) ** -1/4: halfway to
    a full whitening, which would give the noise of the smallest components the same weight.

    Args:
        model: Model with the weights of the shared encoder that the whitening is for.
        batches: Windows of many places and dates, `(batch, 64, 64, bands)` reflectance. Labels are
            not needed. A few thousand windows are enough.

    Returns:
        The whitening. Set it as the model's (`model.whitening`) to save and export it.

    Raises:
        DataError: There are fewer than two windows.

    Examples:
        >>> import numpy as np
        >>> import sits_keras
        >>> model = sits_keras.DisentangledSITS(sits_keras.ModelConfig(width=2), seed=0)
        >>> windows = np.random.default_rng(0).uniform(0, 0.4, (16, 64, 64, 4))
        >>> model.whitening = fit_whitening(model, [windows])
        >>> features = sits_keras.hub.wrap(model)(windows)
        >>> np.sqrt(np.square(features).mean(axis=1)).round(3).min()
        np.float32(1.0)
    """
    encoder = build_pooled_encoder(model.shared_encoder, model.config)
    size = num_pooled(model.config)
    count = 0
    total, products = np.zeros(size), np.zeros((size, size))
    for batch in batches:
        scaled = reflectance_to_network(batch, model.config.band_max)
        vectors = np.asarray(encoder(scaled, training=False), np.float64)
        count += len(vectors)
        total += vectors.sum(axis=0)
        products += vectors.T @ vectors
    if count < 2:
        raise DataError(f"A whitening is fitted on at least two windows. Received: {count}.")
    offset = total / count
    covariance = products / count - np.outer(offset, offset)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0)) + _EPSILON
    variances, axes = np.linalg.eigh(covariance / np.outer(deviation, deviation))
    weights = (np.maximum(variances, 0) + _SMOOTHING) ** -0.25
    matrix = (axes * weights) @ axes.T / deviation[:, None]
    return Whitening(offset.astype(np.float32), matrix.astype(np.float32))


def _inside(values: Tensor, index: int, config: ModelConfig) -> Tensor:
    """Crop the activations of layer `index` to the cells of the window itself."""
    if config.padding == "zeros":
        return values
    before, _ = receptive_margin(SHARED_STEPS[index:])
    side = IMAGE_SIZE // 2 ** min(index, 4)
    return values[:, before : before + side, before : before + side]


def _mean(values: Tensor) -> Tensor:
    return ops.mean(ops.cast(values, "float32"), axis=(1, 2))


def _texture(values: Tensor) -> list[Tensor]:
    """Return the mean, the logarithm of the deviation, and two ratios that measure the texture."""
    values = ops.cast(values, "float32")
    mean = _mean(values)
    variance = _mean(ops.square(values - mean[:, None, None]))
    deviation = ops.sqrt(variance + _EPSILON)
    near, far = (
        (
            _mean(ops.abs(values[:, distance:] - values[:, :-distance]))
            + _mean(ops.abs(values[:, :, distance:] - values[:, :, :-distance]))
        )
        / 2
        for distance in TEXTURE_DISTANCES
    )
    # Relative to the contrast, textures of dark and of bright land are similar.
    return [mean, ops.log(deviation + _SMALL), near / (deviation + _SMALL), near / (far + _SMALL)]
