"""The object that a hub module is saved from: an encoder that takes reflectance."""

from typing import Any, Literal

import keras
import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import MAX_REFLECTANCE
from sits_keras.errors import ConfigError, DataError
from sits_keras.hub.dense import encode_densely
from sits_keras.hub.pooling import build_pooled_encoder
from sits_keras.model import DisentangledSITS
from sits_keras.tensorflow_import import tf
from sits_keras.trainers import BACKEND

DENSE_STRIDES = (4, 8, 16, 32)
"""Strides in pixels at which a module of `padding="context"` encodes whole rasters."""

# How the complaint of a module begins where it is given something else, those of old too.
_EXPECTED = "Expected finite reflectance, about 0 to 1"

Tensor = Any


class EncoderModule(tf.train.Checkpoint):
    """What is saved: an encoder that scales its input, with the members that TF-Hub asks for.

    Args:
        model: whose encoder it is.
        encoder: `"shared"` or `"exclusive"`.
    Raises:
        ConfigError: Keras runs on another backend.
    """

    def __init__(self, model: DisentangledSITS, encoder: Literal["shared", "exclusive"]):
        super().__init__()
        if BACKEND != "tensorflow":
            raise ConfigError(
                "An encoder becomes a hub module under Keras' TensorFlow backend. Received: "
                f"backend {BACKEND!r}. Save the model (model.save), and load and export it under "
                "KERAS_BACKEND=tensorflow."
            )
        network = model.shared_encoder if encoder == "shared" else model.exclusive_encoder
        sides = IMAGE_SIZE + sum(model.halo)
        bands = len(model.config.bands)
        # In a closure, so that the variables are saved, and Keras' own objects are not.
        self._run_network = lambda images, training: network(images, training=training)
        if encoder == "shared":
            pooled = build_pooled_encoder(network, model.config)
            self._run_pooled = lambda images, training: pooled(images, training=training)
        self._gain = 2.0 / np.array(model.config.band_max, np.float32)
        self.variables = [variable.value for variable in network.variables]
        self.trainable_variables = [variable.value for variable in network.trainable_variables]
        self.regularization_losses: list[Any] = []
        spec = tf.TensorSpec((None, *model.config.image_shape), tf.float32, name="inputs")
        whole = tf.TensorSpec((None, sides, sides, bands), tf.float32, name="inputs")
        for training in (False, True):
            self.__call__.get_concrete_function(spec, training=training)
            if encoder == "shared":
                self.spatial.get_concrete_function(spec, training=training)
                self.pooled.get_concrete_function(spec, training=training)
            if model.config.padding == "context":
                self.with_context.get_concrete_function(whole, training=training)
        if model.config.padding == "zeros":
            return
        raster = tf.TensorSpec((None, None, None, bands), tf.float32, name="inputs")
        for stride in DENSE_STRIDES:
            setattr(self, f"dense_{stride}", self._dense(network, stride, raster))

    @tf.function(autograph=False)
    def __call__(self, inputs: Tensor, training: bool = False) -> Tensor:
        """`(batch, num_features)`: the flattened grid, or the mean of the exclusive posterior."""
        output = self._encode(inputs, training)
        if isinstance(output, list | tuple):
            return output[0]
        return tf.reshape(output, (tf.shape(output)[0], output.shape[1:].num_elements()))

    @tf.function(autograph=False)
    def spatial(self, inputs: Tensor, training: bool = False) -> Tensor:
        """`(batch, 4, 4, channels)`: the shared representation on its grid."""
        return self._encode(inputs, training)

    @tf.function(autograph=False)
    def pooled(self, inputs: Tensor, training: bool = False) -> Tensor:
        """`(batch, num_pooled)`: means and deviations of every layer (`sits_keras.hub.pooling`)."""
        return self._run_pooled(self._scale(inputs), training)

    @tf.function(autograph=False)
    def with_context(self, inputs: Tensor, training: bool = False) -> Tensor:
        """`__call__` of windows with their surroundings, `(batch, 64 + halo, 64 + halo, bands)`."""
        return self.__call__(inputs, training=training)

    def _dense(self, network: keras.Model, stride: int, spec: tf.TensorSpec) -> Any:
        """`encode_densely` of reflectance, `(batch, height, width, bands)`, at a stride."""

        def dense(inputs: Tensor) -> Tensor:
            return encode_densely(network, self._scale(inputs), stride)

        return tf.function(dense, input_signature=[spec], autograph=False)

    def _encode(self, inputs: Tensor, training: bool) -> Tensor:
        output = self._run_network(self._scale(inputs), training)
        # Under a mixed dtype policy the networks compute in another one.
        return tf.nest.map_structure(lambda one: tf.cast(one, tf.float32), output)

    def _scale(self, inputs: Tensor) -> Tensor:
        check = tf.debugging.assert_less_equal(
            tf.reduce_max(inputs),
            MAX_REFLECTANCE,
            f"{_EXPECTED}. Received NaN or larger values: divide digital numbers by 10000 "
            "(after adding the product's offset).",
        )
        # A row of pixels at once: four bands are too few to multiply fast.
        shape = tf.shape(inputs)
        with tf.control_dependencies([check]):
            rows = tf.reshape(inputs, (-1, shape[2] * shape[3]))
        scaled = tf.clip_by_value(rows * tf.tile(self._gain, shape[2:3]) - 1.0, -1.0, 1.0)
        return tf.ensure_shape(tf.reshape(scaled, shape), inputs.shape)


def apply(function: Any, images: Tensor) -> Tensor:
    """What a function of a module makes of images; the module's own check of them in a line.

    Raises:
        DataError: a value is above 10, or NaN.
    """
    try:
        return function(images)
    except tf.errors.InvalidArgumentError as error:
        if _EXPECTED not in error.message:
            raise
        highest = float(tf.reduce_max(images))
        received = "NaN" if highest != highest else f"values up to {highest:g}"
    raise DataError(
        f"{_EXPECTED}. Received: {received}. Divide digital numbers by 10,000, after adding the "
        "product's offset; pixels without data are 0. A picture's 0 to 255 are no reflectance."
    )
